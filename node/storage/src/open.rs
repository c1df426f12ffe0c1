//! Opening: look without touching, mend the end of the log, choose or rebuild the index, replay.
//! The decisions are the table in `spec/07-storage.md`, section 5.

mod index;
mod survey;
mod tail;

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use crate::{
    apply::{Applier, ApplyError},
    committer::Tail,
    compact,
    config::Config,
    erase,
    error::OpenError,
    files::real::DirLock,
    index::{Direction, StoreError, rows},
    limits::{DAMAGES_MAX, FILE_BYTES_RANGE, REPLAY_BYTES, REPLAY_RECORDS, REPLAY_SAVEPOINT},
    log::{
        file::FRAMES_AT,
        walk::{Step, Walk, WalkFile},
    },
    maintenance,
    projection::Projection,
    record::RecordView,
    report::{Damage, DamageKind, OpenReport},
    savepoint::Savepoint,
    shared::{LogFiles, Shared, Usage, lock, log_dir},
};
use survey::Survey;

/// What the threads start with.
pub(crate) struct Opened<P> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) applier: Applier<P>,
    pub(crate) tail: Tail,
    pub(crate) report: OpenReport,
}

/// Opens the directory of `config`.
pub(crate) fn open<P: Projection>(config: &Config, projection: P) -> Result<Opened<P>, OpenError> {
    let started = Instant::now();
    check(config)?;
    create_dir(&config.dir)?;
    let held = DirLock::take(&config.dir).map_err(failed("lock", &config.dir))?;
    let held = Arc::new(held.ok_or_else(|| OpenError::InUse(config.dir.clone()))?);
    // Up to here and in here nothing is changed: an unknown format is left as it is.
    let survey = Survey::make(config)?;
    survey.tidy(config)?;
    let incarnation = survey.incarnation()?;

    let projection = Arc::new(Mutex::new(projection));
    let mut report = OpenReport {
        clean: survey.is_clean(),
        ..OpenReport::default()
    };
    let mut floor = survey.floor();
    let mut rebuild = survey.rebuild_reason(config);
    let mut old = index::open_old::<P>(config, &survey, incarnation, &mut rebuild, &mut floor);
    let mut damage = survey.damage.clone();
    let (tail, torn_bytes) = tail::mend(config, &survey, incarnation, floor, &mut damage)?;
    report.torn_bytes = torn_bytes;
    if old.is_some() && damage.iter().any(|damage| damage.kind == DamageKind::Tail) {
        rebuild = Some("the index is ahead of the log".to_owned());
        old = None;
    }
    loop {
        let chosen = match old.take() {
            Some(chosen) => chosen,
            None => index::create(config)?,
        };
        let number = if rebuild.is_some() {
            0
        } else {
            survey.floor_of_index()
        };
        let boot_id = config.boot_id.clone();
        Savepoint {
            number,
            incarnation,
            boot_id,
            clean: false,
        }
        .write(config)
        .map_err(failed("write", &crate::savepoint::path(config)))?;

        let store = chosen.store;
        let shared = Shared::new(
            config.clone(),
            Arc::clone(&held),
            incarnation,
            store,
            LogFiles::default(),
        );
        let shared = Arc::new(shared);
        shared.savepoint.store(number, Ordering::SeqCst);
        if rebuild.is_some() {
            lock(&projection).reset();
        }
        let mut applier = Applier::new(Arc::clone(&shared), Arc::clone(&projection), chosen.mark);
        match recover(&mut applier, &survey, &tail, chosen.mark) {
            Ok((replayed, found)) => {
                damage.extend(found);
                damage.truncate(DAMAGES_MAX);
                report.records = tail.newest;
                report.replayed = replayed;
                report.rebuilt = rebuild;
                report.damage = damage;
                report.duration = started.elapsed();
                return Ok(Opened {
                    shared,
                    applier,
                    tail,
                    report,
                });
            }
            Err((_, ApplyError::Store(StoreError::Damaged(reason)))) if rebuild.is_none() => {
                rebuild = Some(format!("the index failed while it was opened: {reason}"));
            }
            Err((number, error)) => {
                return Err(OpenError::Apply {
                    number,
                    reason: error.to_string(),
                });
            }
        }
    }
}

/// Brings the index up to the log; returns how many records that took, and the damage it met.
fn recover<P: Projection>(
    applier: &mut Applier<P>,
    survey: &Survey,
    tail: &Tail,
    mark: u64,
) -> Result<(u64, Vec<Damage>), (u64, ApplyError)> {
    let shared = Arc::clone(&applier.shared);
    let at = |error: ApplyError| (mark, error);
    shared.applied.store(mark, Ordering::SeqCst);
    let files = register(&shared, survey, tail).map_err(at)?;
    let (skip, from, first) = start(&shared, &files, mark).map_err(at)?;
    let mut walk = Walk::new(first);
    let mut current = mark;
    let (mut replayed, mut saved, mut waiting, mut bytes) = (0, 0, 0, 0);
    for (index, file) in files.iter().enumerate().skip(skip) {
        let from = if index == skip { from } else { FRAMES_AT };
        let walked = walk.file::<ApplyError>(file, from, &mut |step| {
            match step {
                Step::Record { place, frame } if frame.number > mark => {
                    current = frame.number;
                    let view = RecordView {
                        kind: frame.kind,
                        body: frame.body,
                        contents: &frame.contents,
                    };
                    applier.record(frame.number, view, place, frame.gone_bytes)?;
                    replayed += 1;
                    waiting += 1;
                    bytes += place.len as usize;
                }
                Step::Gap { last, .. } if last > mark => applier.gap(last),
                Step::Record { .. } | Step::Gap { .. } => {}
            }
            // Streamed: neither rows nor records of more than one batch are held.
            if waiting >= REPLAY_RECORDS || bytes >= REPLAY_BYTES {
                (waiting, bytes) = (0, 0);
                applier.finish()?;
                erase::pending(&applier.shared)?;
                if replayed - saved >= REPLAY_SAVEPOINT {
                    saved = replayed;
                    maintenance::savepoint(&applier.shared, false)?;
                }
            }
            Ok(())
        });
        walked.map_err(|error| (current, error))?;
    }
    walk.finish();
    // Also when nothing was replayed: a new index has no mark yet.
    applier.finish().map_err(|error| (current, error))?;
    shared.durable.store(tail.newest, Ordering::SeqCst);
    settle(&shared, survey).map_err(|error| (current, error))?;
    Ok((replayed, walk.damage))
}

/// Enters all files into the accounts, and lists them for the walk.
fn register(shared: &Shared, survey: &Survey, tail: &Tail) -> Result<Vec<WalkFile>, ApplyError> {
    let mut files = survey.walk_files(&shared.log_dir, tail);
    for (file, end, full) in survey.usages(tail) {
        let key = rows::dead_key(file.file);
        let dead = crate::tx::get(&*shared.store, &crate::index::Batch::new(), &key)?;
        let dead = dead
            .and_then(|row| row.try_into().ok())
            .map_or(0, u64::from_be_bytes);
        shared.files.set(Usage {
            id: file,
            bytes: end,
            dead,
            full,
        });
    }
    if survey.find(tail.file.header.id).is_none() {
        let id = tail.file.header.id;
        shared.files.set(Usage {
            id,
            bytes: tail.at,
            dead: 0,
            full: false,
        });
        let path = id.path(&shared.log_dir);
        files.push(WalkFile::Log {
            file: tail.file.clone(),
            path,
            end: tail.at,
        });
    }
    shared.files.remember(tail.file.clone());
    Ok(files)
}

/// Where the walk starts so that it meets everything after the mark: the file's index, the offset
/// in it, and the number that comes there.
fn start(shared: &Shared, files: &[WalkFile], mark: u64) -> Result<(usize, u64, u64), ApplyError> {
    let beginning = Ok((0, FRAMES_AT, 1));
    if mark == 0 {
        return beginning;
    }
    // The mark's own record may have been dropped by compaction.
    let found = shared
        .store
        .scan(&rows::place_range(1, mark), Direction::Reverse, 1)?;
    let Some((number, place)) = index::newest_place(found)? else {
        return beginning;
    };
    for (index, file) in files.iter().enumerate() {
        if let WalkFile::Log { file, .. } = file
            && (file.header.id.file, file.header.id.generation) == (place.file, place.generation)
            && index::is_at(file, number, place)?
        {
            let after = u64::from(place.offset) + u64::from(place.len);
            return Ok((index, after, number + 1));
        }
    }
    beginning
}

/// Ends what a crash interrupted: compactions, then erasures.
fn settle(shared: &Shared, survey: &Survey) -> Result<(), ApplyError> {
    if !survey.stale.is_empty() {
        for file in survey.replaced() {
            compact::adopt(shared, file)?;
        }
        maintenance::savepoint(shared, false)?;
        for path in &survey.stale {
            shared.config.files.0.remove(path)?;
        }
        shared.config.files.0.sync_dir(&shared.log_dir)?;
    }
    erase::resume(shared)?;
    Ok(())
}

fn check(config: &Config) -> Result<(), OpenError> {
    if !FILE_BYTES_RANGE.contains(&config.file_bytes) {
        return Err(OpenError::Config("file_bytes"));
    }
    if config.savepoint_every.is_zero() {
        return Err(OpenError::Config("savepoint_every"));
    }
    Ok(())
}

fn create_dir(dir: &Path) -> Result<(), OpenError> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    // The new entries must survive a power cut, or the directory is gone with what was promised.
    for parent in dir
        .ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty())
        .take(2)
    {
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(failed("sync", parent))?;
    }
    Ok(())
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path: path.clone(),
        source,
    }
}
