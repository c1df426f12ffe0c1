//! Files that lose everything unsynced when the process dies, and fail when told to.
//!
//! Bytes reach the real file only by `sync`, names only by `sync_dir`: a new file lives under a
//! hidden name until then. Reserving space is passed on at once.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{FileHandle, FileSystem, real::RealFiles};

/// Prefix of files whose name is not durable yet.
pub(crate) const HIDDEN: &str = ".unsynced-";
/// A disk writes this much at once or not at all.
const SECTOR: usize = 512;

/// What a simulated power cut leaves of unsynced bytes.
#[derive(Clone, Copy, Debug)]
pub enum Survive {
    /// Nothing.
    None,
    /// Each unsynced sector with probability one half, chosen by this seed.
    SomeSectors(u64),
}

/// Handle on the faults of [`Files::lossy`](super::Files::lossy).
#[derive(Clone)]
pub struct FaultControl(Arc<Faults>);

impl std::fmt::Debug for FaultControl {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("FaultControl")
    }
}

impl FaultControl {
    /// Turns syncs into no-ops that report success: the deliberate break a checker must find.
    pub fn disable_syncs(&self, disabled: bool) {
        self.0.syncs_disabled.store(disabled, Ordering::SeqCst);
    }

    /// Makes every sync of a file take so much longer: a slow disk, or a log that waits before it
    /// syncs.
    pub fn slow_syncs(&self, by: Duration) {
        let us = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.0.sync_delay_us.store(us, Ordering::SeqCst);
    }

    /// Lets `after` more syncs succeed; those that follow fail with EIO, until called with `None`.
    pub fn fail_syncs(&self, after: Option<u64>) {
        self.0.sync_failure.arm(after);
    }

    /// Lets `after` more writes succeed; those that follow fail with EIO, until called with
    /// `None`.
    pub fn fail_writes(&self, after: Option<u64>) {
        self.0.write_failure.arm(after);
    }

    /// Lets `after` more reservations of space succeed; those that follow fail with ENOSPC, until
    /// called with `None`.
    pub fn fill_disk(&self, after: Option<u64>) {
        self.0.space_failure.arm(after);
    }

    /// Syncs that succeeded so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::SeqCst)
    }

    /// Cuts the power: unsynced names and bytes are lost, and every later call on these files
    /// fails. Open the directory again with other [`Files`](super::Files).
    ///
    /// # Errors
    ///
    /// The operating system's, for the sectors that survive.
    pub fn cut_power(&self, survive: Survive) -> io::Result<()> {
        let mut state = self.0.lock();
        self.0.dead.store(true, Ordering::SeqCst);
        if let Survive::SomeSectors(seed) = survive {
            let mut random = seed | 1;
            for data in state.contents.values() {
                data.write_some(&mut random)?;
            }
        }
        state.contents.clear();
        for hidden in state.names.values().flatten() {
            match std::fs::remove_file(hidden) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        state.names.clear();
        Ok(())
    }
}

#[derive(Default)]
struct Failure {
    armed: AtomicBool,
    left: AtomicU64,
}

impl Failure {
    fn arm(&self, after: Option<u64>) {
        self.left.store(after.unwrap_or(0), Ordering::SeqCst);
        self.armed.store(after.is_some(), Ordering::SeqCst);
    }

    fn strikes(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        self.armed.load(Ordering::SeqCst)
            && self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                .is_err()
    }
}

#[derive(Default)]
struct Faults {
    dead: AtomicBool,
    syncs_disabled: AtomicBool,
    sync_delay_us: AtomicU64,
    syncs: AtomicU64,
    sync_failure: Failure,
    write_failure: Failure,
    space_failure: Failure,
    state: Mutex<State>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("the power is cut"));
        }
        Ok(())
    }
}

#[derive(Default)]
struct State {
    /// Names changed since the last sync of their directory, and what is behind them: a file
    /// under its hidden or former name, or nothing.
    names: BTreeMap<PathBuf, Option<PathBuf>>,
    /// Open files by real path.
    contents: BTreeMap<PathBuf, Arc<Data>>,
    next_hidden: u64,
}

impl State {
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        match self.names.get(path) {
            None => Ok(path.to_owned()),
            Some(Some(real)) => Ok(real.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

pub(super) struct LossyFiles(Arc<Faults>);

impl LossyFiles {
    pub(super) fn new() -> (Self, FaultControl) {
        let faults = Arc::new(Faults::default());
        (Self(Arc::clone(&faults)), FaultControl(faults))
    }

    fn handle(&self, state: &mut State, real: PathBuf, create: bool) -> io::Result<LossyFile> {
        if let Some(data) = state.contents.get(&real) {
            return Ok(LossyFile {
                data: Arc::clone(data),
                faults: Arc::clone(&self.0),
            });
        }
        let file = if create {
            RealFiles.create(&real)?
        } else {
            RealFiles.open(&real)?
        };
        let data = Arc::new(Data {
            len: AtomicU64::new(file.len()?),
            file,
            unsynced: Mutex::default(),
        });
        state.contents.insert(real, Arc::clone(&data));
        Ok(LossyFile {
            data,
            faults: Arc::clone(&self.0),
        })
    }
}

impl FileSystem for LossyFiles {
    fn name(&self) -> &'static str {
        "Files::lossy"
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let mut state = self.0.lock();
        self.0.alive()?;
        let real = state.resolve(path)?;
        Ok(Arc::new(self.handle(&mut state, real, false)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn FileHandle>> {
        let mut state = self.0.lock();
        self.0.alive()?;
        state.next_hidden += 1;
        let hidden = path.with_file_name(format!(
            "{HIDDEN}{}-{}",
            std::process::id(),
            state.next_hidden
        ));
        let file = self.handle(&mut state, hidden.clone(), true)?;
        state.names.insert(path.to_owned(), Some(hidden));
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        self.0.alive()?;
        let real = state.resolve(from)?;
        state.names.insert(from.to_owned(), None);
        state.names.insert(to.to_owned(), Some(real));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        self.0.alive()?;
        state.resolve(path)?;
        state.names.insert(path.to_owned(), None);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        self.0.alive()?;
        let mut names = RealFiles.list(dir)?;
        names
            .retain(|name| !name.starts_with(HIDDEN) && !state.names.contains_key(&dir.join(name)));
        for (path, real) in &state.names {
            if real.is_some()
                && path.parent() == Some(dir)
                && let Some(name) = path.file_name().and_then(|name| name.to_str())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        self.0.alive()?;
        if self.0.sync_failure.strikes() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if self.0.syncs_disabled.load(Ordering::SeqCst) {
            return Ok(());
        }
        let here: Vec<_> = state
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .cloned()
            .collect();
        let mut gone = Vec::new();
        for path in here {
            match state.names.remove(&path).flatten() {
                Some(real) if real != path => {
                    RealFiles.rename(&real, &path)?;
                    if let Some(data) = state.contents.remove(&real) {
                        state.contents.insert(path, data);
                    }
                }
                Some(_) => {}
                None => gone.push(path),
            }
        }
        // Last, because a name that is gone may be the file behind one that was just moved.
        for path in gone {
            match RealFiles.remove(&path) {
                Ok(()) => drop(state.contents.remove(&path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        RealFiles.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.alive()?;
        RealFiles.free_bytes(dir)
    }
}

struct Data {
    file: Arc<dyn FileHandle>,
    len: AtomicU64,
    /// In the order written.
    unsynced: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Data {
    fn unsynced(&self) -> MutexGuard<'_, Vec<(u64, Vec<u8>)>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_some(&self, random: &mut u64) -> io::Result<()> {
        for (offset, bytes) in self.unsynced().drain(..) {
            let mut done = 0;
            while done < bytes.len() {
                let at = offset + done as u64;
                // Up to the next sector boundary of the file.
                let in_sector = usize::try_from(at % SECTOR as u64).unwrap_or(0);
                let count = (SECTOR - in_sector).min(bytes.len() - done);
                if next_random(random) & 1 == 0 {
                    self.file.write_at(&bytes[done..done + count], at)?;
                }
                done += count;
            }
        }
        Ok(())
    }
}

/// Xorshift: good enough to choose sectors.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 32
}

struct LossyFile {
    data: Arc<Data>,
    faults: Arc<Faults>,
}

impl FileHandle for LossyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.alive()?;
        // Held over both steps: a sync in between would move bytes from one side to the other.
        let unsynced = self.data.unsynced();
        let end = self.data.len.load(Ordering::SeqCst);
        let count = usize::try_from(end.saturating_sub(offset))
            .map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let buffer = &mut buffer[..count];
        let real = self.data.file.read_at(buffer, offset)?;
        buffer[real..].fill(0);
        for (at, bytes) in unsynced.iter() {
            let from = offset.max(*at);
            let to = (offset + count as u64).min(at + bytes.len() as u64);
            if from < to {
                let place = |base: u64| usize::try_from(from - base).unwrap_or(usize::MAX);
                let len = usize::try_from(to - from).unwrap_or(0);
                let (target, source) = (place(offset), place(*at));
                buffer[target..target + len].copy_from_slice(&bytes[source..source + len]);
            }
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.alive()?;
        if self.faults.write_failure.strikes() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let mut unsynced = self.data.unsynced();
        unsynced.push((offset, bytes.to_vec()));
        self.data
            .len
            .fetch_max(offset + bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let delay_us = self.faults.sync_delay_us.load(Ordering::SeqCst);
        if delay_us > 0 {
            std::thread::sleep(Duration::from_micros(delay_us));
        }
        // Held throughout, so that a power cut falls before or after a sync.
        let _whole = self.faults.lock();
        self.faults.alive()?;
        if self.faults.sync_failure.strikes() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if self.faults.syncs_disabled.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut unsynced = self.data.unsynced();
        for (offset, bytes) in unsynced.drain(..) {
            self.data.file.write_at(&bytes, offset)?;
        }
        self.data.file.sync()?;
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.faults.alive()?;
        if self.faults.space_failure.strikes() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.data.file.preallocate(len)?;
        self.data.len.fetch_max(len, Ordering::SeqCst);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.faults.alive()?;
        Ok(self.data.len.load(Ordering::SeqCst))
    }
}
