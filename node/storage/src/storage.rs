//! The one handle an owner holds.

use crate::{
    config::Config,
    error::{OpenError, SubmitError},
    projection::Projection,
    reader::Reader,
    record::Record,
    report::{CheckReport, CompactionReport, Durable, Health, OpenReport, Stats},
};

/// Called once, from the committer's thread or the submitter's; it must not block.
pub type Done = Box<dyn FnOnce(Result<Durable, SubmitError>) + Send>;

/// An open storage. Dropping it without [`Self::close`] is like a crash of the process: nothing
/// acknowledged is lost, and the next open replays from the last savepoint.
#[derive(Debug)]
pub struct Storage {}

impl Storage {
    /// Opens the directory, recovers what a crash left, and starts the threads.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; each variant tells what was touched.
    pub fn open<P: Projection>(
        config: Config,
        projection: P,
    ) -> Result<(Self, OpenReport), OpenError> {
        let _ = (config, projection);
        unimplemented!()
    }

    /// Queues records; they are written, and found after a crash, together or not at all. `done`
    /// is called when they are durable and their rows can be read, or refused.
    pub fn submit(&self, records: Vec<Record>, done: Done) {
        let _ = (records, done);
        unimplemented!()
    }

    /// A handle for reading.
    #[must_use]
    pub fn reader(&self) -> Reader {
        unimplemented!()
    }

    /// Whether submissions are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        unimplemented!()
    }

    /// Figures for operators.
    #[must_use]
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Random, made with the directory, kept for as long as record numbers are preserved.
    #[must_use]
    pub fn incarnation(&self) -> [u8; 16] {
        unimplemented!()
    }

    /// Compacts every full file with at least this share of dead bytes, in percent; 0 compacts
    /// all full ones. Blocks until done, while submissions go on.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; files already replaced stay so, the others are as they were.
    pub fn compact(&self, min_dead_percent: u8) -> Result<CompactionReport, SubmitError> {
        let _ = min_dead_percent;
        unimplemented!()
    }

    /// Reads the whole log and all rows. Blocks until done, while submissions go on.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn check(&self) -> std::io::Result<CheckReport> {
        unimplemented!()
    }

    /// Writes what is queued, makes the index durable, and marks the directory clean.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] if that could not be done; the next open recovers.
    pub fn close(self) -> Result<(), SubmitError> {
        unimplemented!()
    }
}
