//! What the threads of one storage share. Each part has its own small lock; none is held over
//! another's.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    config::Config,
    files::real::DirLock,
    index::{Store, StoreError},
    limits::{ERASING_MAX, OPEN_FILES_MAX, SYNC_WINDOW},
    log::file::{FileId, Header, HeaderRead, LogFile},
    record::ContentAt,
    report::Health,
    savepoint,
};

/// Between two looks at whether waiting for erasures still makes sense.
const ERASING_WAIT: Duration = Duration::from_millis(100);

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) log_dir: PathBuf,
    pub(crate) incarnation: [u8; 16],
    pub(crate) store: Box<dyn Store>,
    pub(crate) files: LogFiles,
    pub(crate) erasing: Erasing,
    pub(crate) figures: Figures,
    health: Mutex<Health>,
    index_damaged: AtomicBool,
    /// Newest durable record.
    pub(crate) durable: AtomicU64,
    /// Newest record whose rows can be read.
    pub(crate) applied: AtomicU64,
    pub(crate) savepoint: AtomicU64,
    /// Dropped last: until then nobody else may open the directory.
    _lock: Arc<DirLock>,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        lock: Arc<DirLock>,
        incarnation: [u8; 16],
        store: Box<dyn Store>,
        files: LogFiles,
    ) -> Self {
        Self {
            log_dir: log_dir(&config),
            config,
            incarnation,
            store,
            files,
            erasing: Erasing::default(),
            figures: Figures::default(),
            health: Mutex::default(),
            index_damaged: AtomicBool::new(false),
            durable: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            savepoint: AtomicU64::new(0),
            _lock: lock,
        }
    }

    pub(crate) fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// Turns read-only; the first reason stays.
    pub(crate) fn turn_read_only(&self, reason: &str) -> Arc<str> {
        let mut health = lock(&self.health);
        if let Health::ReadOnly(first) = &*health {
            return Arc::clone(first);
        }
        tracing::error!(reason, dir = %self.config.dir.display(), "storage is read-only until restart");
        let reason: Arc<str> = reason.into();
        *health = Health::ReadOnly(Arc::clone(&reason));
        reason
    }

    /// Tells whether the disk is full; said once at each change, however often it is met.
    pub(crate) fn set_full(&self, full: bool) {
        let mut health = lock(&self.health);
        match (&*health, full) {
            (Health::Ok, true) => {
                tracing::warn!(dir = %self.config.dir.display(), "disk is full, submissions are refused");
                *health = Health::Full;
            }
            (Health::Full, false) => {
                tracing::info!(dir = %self.config.dir.display(), "disk has room again");
                *health = Health::Ok;
            }
            _ => {}
        }
    }

    /// Notes that the index gave a wrong or no answer. Without its savepoint it is rebuilt at the
    /// next open.
    pub(crate) fn note_index_failure(&self, error: &StoreError) {
        if !matches!(error, StoreError::Damaged(_))
            || self.index_damaged.swap(true, Ordering::SeqCst)
        {
            return;
        }
        tracing::error!(%error, "the index is damaged and will be rebuilt at the next start");
        if let Err(error) = savepoint::remove(&self.config) {
            tracing::error!(%error, "cannot remove the savepoint");
        }
    }

    pub(crate) fn index_is_damaged(&self) -> bool {
        self.index_damaged.load(Ordering::SeqCst)
    }
}

pub(crate) fn log_dir(config: &Config) -> PathBuf {
    config.dir.join("log")
}

pub(crate) fn index_dir(config: &Config) -> PathBuf {
    config.dir.join("index")
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log's files and their open handles.
#[derive(Default)]
pub(crate) struct LogFiles {
    state: Mutex<FilesState>,
}

#[derive(Default)]
struct FilesState {
    known: BTreeMap<u32, Usage>,
    open: BTreeMap<FileId, (u64, LogFile)>,
    clock: u64,
}

/// One log file as the accounts see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) id: FileId,
    /// Bytes it takes on the disk.
    pub(crate) bytes: u64,
    /// Of these, bytes known to be dead.
    pub(crate) dead: u64,
    /// Whether nothing is appended to it any more.
    pub(crate) full: bool,
}

impl LogFiles {
    pub(crate) fn set(&self, usage: Usage) {
        lock(&self.state).known.insert(usage.id.file, usage);
    }

    pub(crate) fn update(&self, file: u32, change: impl FnOnce(&mut Usage)) -> Option<Usage> {
        let mut state = lock(&self.state);
        let usage = state.known.get_mut(&file)?;
        change(usage);
        Some(*usage)
    }

    /// All files, oldest first.
    pub(crate) fn all(&self) -> Vec<Usage> {
        lock(&self.state).known.values().copied().collect()
    }

    pub(crate) fn remember(&self, file: LogFile) {
        let mut state = lock(&self.state);
        state.clock += 1;
        let clock = state.clock;
        state.open.insert(file.header.id, (clock, file));
        if state.open.len() > OPEN_FILES_MAX {
            let oldest = state
                .open
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                state.open.remove(&oldest);
            }
        }
    }

    pub(crate) fn forget(&self, id: FileId) {
        lock(&self.state).open.remove(&id);
    }

    /// An open file, opening it if need be.
    pub(crate) fn open(&self, shared: &Shared, id: FileId) -> io::Result<LogFile> {
        {
            let mut state = lock(&self.state);
            state.clock += 1;
            let clock = state.clock;
            if let Some((used, file)) = state.open.get_mut(&id) {
                *used = clock;
                return Ok(file.clone());
            }
        }
        let handle = shared.config.files.0.open(&id.path(&shared.log_dir))?;
        let HeaderRead::Known { header, .. } = Header::read(&*handle)? else {
            return Err(io::Error::other("a log file without a header"));
        };
        let file = LogFile {
            header,
            len: handle.len()?,
            handle,
        };
        self.remember(file.clone());
        Ok(file)
    }
}

/// Contents whose erasure is decided and not on the disk yet.
#[derive(Default)]
pub(crate) struct Erasing {
    count: AtomicUsize,
    /// Each with whether the rows that decide it are written: before, a content of the same batch
    /// has no place yet at which it could be overwritten.
    places: Mutex<BTreeMap<ContentAt, bool>>,
    fewer: Condvar,
}

impl Erasing {
    /// They are decided: nobody reads them any more.
    pub(crate) fn add(&self, places: impl IntoIterator<Item = ContentAt>) {
        let mut all = lock(&self.places);
        all.extend(places.into_iter().map(|place| (place, false)));
        self.count.store(all.len(), Ordering::SeqCst);
    }

    /// The rows that decide them are written: they may be carried out.
    pub(crate) fn written(&self, places: impl IntoIterator<Item = ContentAt>) {
        let mut all = lock(&self.places);
        all.extend(places.into_iter().map(|place| (place, true)));
        self.count.store(all.len(), Ordering::SeqCst);
    }

    /// They are carried out. One that was decided once more meanwhile stays.
    pub(crate) fn remove(&self, places: &[ContentAt]) {
        let mut all = lock(&self.places);
        for place in places {
            if all.get(place) == Some(&true) {
                all.remove(place);
            }
        }
        self.count.store(all.len(), Ordering::SeqCst);
        self.fewer.notify_all();
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits a little for the set to shrink; returns whether it is within its bound.
    pub(crate) fn wait(&self) -> bool {
        if self.len() <= ERASING_MAX {
            return true;
        }
        let places = lock(&self.places);
        let waited = self.fewer.wait_timeout(places, ERASING_WAIT);
        drop(waited);
        self.len() <= ERASING_MAX
    }

    pub(crate) fn contains(&self, place: ContentAt) -> bool {
        self.len() > 0 && lock(&self.places).contains_key(&place)
    }

    /// The first ones that may be carried out.
    pub(crate) fn first(&self, limit: usize) -> Vec<ContentAt> {
        let all = lock(&self.places);
        let written = all.iter().filter(|(_, written)| **written);
        written.map(|(place, _)| *place).take(limit).collect()
    }
}

/// Figures for [`Stats`](crate::Stats).
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) groups: AtomicU64,
    pub(crate) group_records: AtomicU64,
    pub(crate) last_group: AtomicU64,
    pub(crate) compacted: AtomicU64,
    syncs: Mutex<SyncWindow>,
}

#[derive(Default)]
struct SyncWindow {
    us: Vec<u64>,
    next: usize,
}

impl Figures {
    pub(crate) fn group(&self, records: u64, sync_us: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.group_records.fetch_add(records, Ordering::Relaxed);
        self.last_group.store(records, Ordering::Relaxed);
        let mut window = lock(&self.syncs);
        if window.us.len() < SYNC_WINDOW {
            window.us.push(sync_us);
        } else {
            let next = window.next;
            window.us[next] = sync_us;
            window.next = (next + 1) % SYNC_WINDOW;
        }
    }

    /// Median and 99th percentile, in microseconds.
    pub(crate) fn sync_percentiles(&self) -> (u64, u64) {
        let mut us = lock(&self.syncs).us.clone();
        us.sort_unstable();
        let at = |percent: usize| {
            us.get((us.len() * percent / 100).min(us.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0)
        };
        (at(50), at(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_is_carried_out_once_its_rows_are_written_and_again_if_it_is_decided_again() {
        let at = |record| ContentAt { record, index: 0 };
        let erasing = Erasing::default();
        erasing.add([at(1), at(2)]);
        assert!(erasing.contains(at(1)), "nobody reads it any more");
        assert_eq!(erasing.first(10), [], "its record may have no place yet");
        erasing.written([at(1)]);
        assert_eq!(erasing.first(10), [at(1)]);
        // Decided once more while it is carried out: the rows of that are not written yet.
        erasing.add([at(1)]);
        erasing.remove(&[at(1)]);
        assert!(erasing.contains(at(1)));
        assert_eq!(erasing.first(10), []);
        erasing.written([at(1), at(2)]);
        let all = erasing.first(10);
        assert_eq!(all, [at(1), at(2)]);
        erasing.remove(&all);
        assert_eq!(erasing.len(), 0);
    }
}
