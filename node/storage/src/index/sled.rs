//! The store in sled 0.34.7, used for what it does well and trusted with nothing.
//!
//! What it does not do, and what stands against it here: `flush` is `sync_file_range` and no sync
//! (the savepoint adds an `fdatasync` of its file); a torn `snap.*.generating` poisons the next
//! open (removed first); corruption comes as a panic as often as an error (every call is caught);
//! large values go to files that are never synced (synced here).

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Batch, Direction, KeyRange, Row, Store, StoreError, is_empty_range};

/// Rows whose garbage one step of the collector takes.
const ROWS_PER_COLLECTION: usize = 16;

pub(crate) struct SledStore {
    db: sled::Db,
    dir: PathBuf,
}

impl SledStore {
    /// Opens or creates the store in `dir`.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        remove_torn_snapshots(dir).map_err(|error| StoreError::Io(Arc::new(error)))?;
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::LowSpace)
            // The thread behind this setting is also the only one that collects garbage.
            .flush_every_ms(Some(500));
        let db = guarded(|| config.open())?;
        Ok(Self {
            db,
            dir: dir.to_owned(),
        })
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| Ok(self.db.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(
        &self,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if is_empty_range(range) {
            return Ok(Vec::new());
        }
        guarded(|| {
            let rows = self
                .db
                .range::<Vec<u8>, _>((range.0.clone(), range.1.clone()));
            let copy = |row: sled::Result<(sled::IVec, sled::IVec)>| {
                row.map(|(key, value)| (key.to_vec(), value.to_vec()))
            };
            match direction {
                Direction::Forward => rows.take(limit).map(copy).collect(),
                Direction::Reverse => rows.rev().take(limit).map(copy).collect(),
            }
        })
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        guarded(|| {
            let mut changes = sled::Batch::default();
            for (key, value) in batch {
                match value {
                    Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                    None => changes.remove(key.as_slice()),
                }
            }
            self.db.apply_batch(changes)
        })?;
        collect_garbage(batch.len());
        Ok(())
    }

    fn savepoint(&self) -> Result<(), StoreError> {
        guarded(|| self.db.flush())?;
        sync_files(&self.dir).map_err(|error| StoreError::Io(Arc::new(error)))
    }

    fn bytes(&self) -> u64 {
        guarded(|| self.db.size_on_disk()).unwrap_or(0)
    }
}

/// Runs one call of sled; a panic is what other stores call an error.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(StoreError::Io(Arc::new(error))),
        Ok(Err(error)) => Err(StoreError::Damaged(error.to_string().into())),
        Err(panic) => Err(StoreError::Damaged(crate::guard::reason(&*panic).into())),
    }
}

/// Frees what a batch left behind.
///
/// sled replaces a whole node for every row, and leaves the old one to a collector that does a
/// fixed small amount of work per *call*: a batch is one call, so with batches of thousands of
/// rows garbage grows without end. Measured on a rebuild of 300,000 records of three rows: 2.3 GB
/// without this.
fn collect_garbage(rows: usize) {
    for _ in 0..=rows / ROWS_PER_COLLECTION {
        crossbeam_epoch::pin().flush();
    }
}

fn remove_torn_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Syncs sled's data, its large values if there are any, and the entries that name them.
fn sync_files(dir: &Path) -> io::Result<()> {
    File::open(dir.join("db"))?.sync_data()?;
    let blobs = dir.join("blobs");
    if let Ok(entries) = fs::read_dir(&blobs) {
        for entry in entries {
            match File::open(entry?.path()) {
                Ok(file) => file.sync_data()?,
                // Collected by sled in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        File::open(&blobs)?.sync_all()?;
    }
    File::open(dir)?.sync_all()
}
