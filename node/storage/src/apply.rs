//! From durable records to rows.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::Ordering},
};

use crate::{
    guard,
    index::{
        StoreError,
        rows::{self, Mark, Place},
    },
    limits::{BATCH_DELETES, BATCH_ROWS},
    projection::Projection,
    record::RecordView,
    shared::{Shared, lock},
    tx::{self, Changes, Tx},
};

/// Why rows could not be made or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("the projection panicked: {0}")]
    Projection(String),
    #[error("the index failed: {0}")]
    Store(#[from] StoreError),
    #[error("the log cannot be read: {0}")]
    Io(std::io::Error),
}

impl From<std::io::Error> for ApplyError {
    /// Finds a store's error again that went through code that speaks of files.
    fn from(error: std::io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<StoreError>())
        {
            Some(store) => Self::Store(store.clone()),
            None => Self::Io(error),
        }
    }
}

/// Runs the projection and writes its rows, together with storage's own.
pub(crate) struct Applier<P> {
    pub(crate) projection: Arc<Mutex<P>>,
    pub(crate) shared: Arc<Shared>,
    changes: Changes,
    newest: u64,
    dead: BTreeMap<u32, u64>,
}

impl<P: Projection> Applier<P> {
    /// Goes on after record `newest`.
    pub(crate) fn new(shared: Arc<Shared>, projection: Arc<Mutex<P>>, newest: u64) -> Self {
        Self {
            projection,
            shared,
            changes: Changes::default(),
            newest,
            dead: BTreeMap::new(),
        }
    }

    /// Makes a record's rows. They are written at the latest by [`Self::finish`], earlier where a
    /// batch would grow too large.
    pub(crate) fn record(
        &mut self,
        number: u64,
        view: RecordView<'_>,
        place: Place,
        gone_bytes: u64,
    ) -> Result<(), ApplyError> {
        let key = rows::place_key(number);
        let row = rows::wrap(&key, &place.to_bytes());
        self.changes.rows.insert(key, Some(row));
        if gone_bytes > 0 {
            *self.dead.entry(place.file).or_default() += gone_bytes;
        }
        let mut tx = Tx {
            store: &*self.shared.store,
            changes: &mut self.changes,
        };
        let mut projection = lock(&self.projection);
        catch_unwind(AssertUnwindSafe(|| projection.apply(number, view, &mut tx)))
            .map_err(|panic| ApplyError::Projection(guard::reason(&*panic)))?;
        drop(projection);
        self.newest = number;
        if self.changes.rows.len() >= BATCH_ROWS || self.changes.deletes >= BATCH_DELETES {
            self.finish()?;
        }
        Ok(())
    }

    /// Passes over numbers that have no record.
    pub(crate) fn gap(&mut self, last: u64) {
        self.newest = last;
    }

    /// Writes all rows made so far, with the mark that says so, in one batch.
    pub(crate) fn finish(&mut self) -> Result<(), ApplyError> {
        let mut changes = std::mem::take(&mut self.changes);
        if let Some(error) = changes.failed.take() {
            return Err(error.into());
        }
        self.account(&mut changes)?;
        let mark = Mark {
            number: self.newest,
            format: P::FORMAT,
            incarnation: self.shared.incarnation,
        };
        let key = rows::mark_key();
        let row = rows::wrap(&key, &mark.to_bytes());
        changes.rows.insert(key, Some(row));
        // Before the rows can be read: whoever sees that a content was erased cannot read it.
        self.shared.erasing.add(changes.erasures.iter().copied());
        self.shared.store.apply(&changes.rows)?;
        let erasures = changes.erasures.iter().copied();
        self.shared.erasing.written(erasures);
        self.shared.applied.store(self.newest, Ordering::SeqCst);
        // The allocations are kept for the next group.
        changes.rows.clear();
        changes.erasures.clear();
        changes.released.clear();
        self.changes = Changes {
            deletes: 0,
            failed: None,
            ..changes
        };
        Ok(())
    }

    fn account(&mut self, changes: &mut Changes) -> Result<(), ApplyError> {
        for number in &changes.released {
            let row = tx::get(
                &*self.shared.store,
                &changes.rows,
                &rows::place_key(*number),
            )?;
            if let Some(row) = row {
                let place = Place::from_bytes(&row)?;
                *self.dead.entry(place.file).or_default() += u64::from(place.len);
            }
        }
        for (file, more) in std::mem::take(&mut self.dead) {
            let usage = self.shared.files.update(file, |usage| usage.dead += more);
            if let Some(usage) = usage {
                let key = rows::dead_key(file);
                let row = rows::wrap(&key, &usage.dead.to_be_bytes());
                changes.rows.insert(key, Some(row));
            }
        }
        Ok(())
    }
}
