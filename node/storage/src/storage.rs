//! The one handle an owner holds.

use std::{
    sync::{
        Arc, Mutex,
        atomic::Ordering,
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
};

use crate::{
    check,
    committer::Committer,
    config::Config,
    erase,
    error::{OpenError, SubmitError},
    maintenance::{self, Bell, CompactRequest, Maintenance},
    open::{self, Opened},
    projection::Projection,
    queue::{Queue, Submission},
    reader::Reader,
    record::Record,
    report::{CheckReport, CompactionReport, Durable, Health, OpenReport, Stats},
    shared::{Shared, lock},
};

/// Called once, on the committer's thread, or on the submitter's if the submission is refused at
/// once. It must not block: everybody's acknowledgements wait behind it.
pub type Done = Box<dyn FnOnce(Result<Durable, SubmitError>) + Send>;

/// An open storage. Dropping it without [`Self::close`] is like a crash of the process, except
/// that what was queued is still written: the next open replays from the last savepoint.
pub struct Storage {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    bell: Arc<Bell>,
    busy: Arc<Mutex<()>>,
    /// Its end is what stops the maintenance thread.
    requests: Option<Mutex<Sender<CompactRequest>>>,
    committer: Option<JoinHandle<()>>,
    maintenance: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Storage")
            .field("dir", &self.shared.config.dir)
            .finish_non_exhaustive()
    }
}

impl Storage {
    /// Opens the directory, recovers what a crash left, and starts the threads.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; each variant tells what was touched.
    // Taken by value: the storage keeps it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "an owner has no use for it afterwards"
    )]
    pub fn open<P: Projection>(
        config: Config,
        projection: P,
    ) -> Result<(Self, OpenReport), OpenError> {
        let Opened {
            shared,
            applier,
            tail,
            report,
        } = open::open(&config, projection)?;
        let queue = Arc::new(Queue::default());
        let bell = Arc::new(Bell::default());
        let busy = Arc::new(Mutex::new(()));
        let (sender, requests) = mpsc::channel();
        let projection = Arc::clone(&applier.projection);
        let committer = Committer {
            shared: Arc::clone(&shared),
            queue: Arc::clone(&queue),
            bell: Arc::clone(&bell),
            applier,
            tail,
        };
        let maintenance = Maintenance {
            shared: Arc::clone(&shared),
            bell: Arc::clone(&bell),
            projection,
            requests,
            busy: Arc::clone(&busy),
        };
        let mut storage = Self {
            shared,
            queue,
            bell,
            busy,
            requests: Some(Mutex::new(sender)),
            committer: None,
            maintenance: None,
        };
        storage.committer = Some(storage.spawn("storage-commit", move || committer.run())?);
        storage.maintenance = Some(storage.spawn("storage-care", move || maintenance.run())?);
        Ok((storage, report))
    }

    fn spawn(
        &self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, OpenError> {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(open::failed("start a thread for", &self.shared.config.dir))
    }

    /// Queues records; they are written, and found after a crash, together or not at all. `done`
    /// is called when they are durable and their rows can be read, or when they are refused.
    pub fn submit(&self, records: Vec<Record>, done: Done) {
        let submission = Submission::new(records, done);
        if let Err(error) = submission.check() {
            (submission.done)(Err(error));
            return;
        }
        if let Err((submission, error)) = self.queue.push(submission) {
            (submission.done)(Err(error));
        }
    }

    /// [`Self::submit`], waiting for the answer.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; each variant tells what was written.
    pub fn submit_and_wait(&self, records: Vec<Record>) -> Result<Durable, SubmitError> {
        let (sender, answer) = mpsc::sync_channel(1);
        self.submit(records, Box::new(move |result| drop(sender.send(result))));
        answer.recv().unwrap_or(Err(SubmitError::Closed))
    }

    /// A handle for reading.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Whether submissions are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Figures for operators.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.shared;
        let files = shared.files.all();
        let figures = &shared.figures;
        let groups = figures.groups.load(Ordering::Relaxed);
        let group_records = figures.group_records.load(Ordering::Relaxed);
        let (sync_p50_us, sync_p99_us) = figures.sync_percentiles();
        let applied = shared.applied.load(Ordering::SeqCst);
        let durable = shared.durable.load(Ordering::SeqCst);
        Stats {
            records: durable,
            files: files.len() as u64,
            log_bytes: files.iter().map(|file| file.bytes).sum(),
            dead_bytes: files.iter().map(|file| file.dead).sum(),
            groups,
            last_group_records: figures.last_group.load(Ordering::Relaxed),
            mean_group_records: if groups == 0 {
                0.0
            } else {
                group_records as f64 / groups as f64
            },
            sync_p50_us,
            sync_p99_us,
            index_lag: durable.saturating_sub(applied),
            index_bytes: shared.store.bytes(),
            savepoint: shared.savepoint.load(Ordering::SeqCst),
            queued_records: self.queue.records() as u64,
            pending_erasures: shared.erasing.len() as u64,
            compacted_files: figures.compacted.load(Ordering::Relaxed),
            free_bytes: shared
                .config
                .files
                .0
                .free_bytes(&shared.config.dir)
                .unwrap_or(0),
        }
    }

    /// Random, made with the directory, kept for as long as record numbers are preserved.
    #[must_use]
    pub fn incarnation(&self) -> [u8; 16] {
        self.shared.incarnation
    }

    /// Compacts every full file with at least this share of dead bytes, in percent; 0 compacts
    /// all full ones. Blocks until done, while submissions go on.
    ///
    /// # Errors
    ///
    /// [`SubmitError`]; files already replaced stay so, the others are as they were.
    pub fn compact(&self, min_dead_percent: u8) -> Result<CompactionReport, SubmitError> {
        let (answer, result) = mpsc::channel();
        let request = CompactRequest {
            min_dead_percent,
            answer,
        };
        let requests = self.requests.as_ref().ok_or(SubmitError::Closed)?;
        lock(requests)
            .send(request)
            .map_err(|_| SubmitError::Closed)?;
        self.bell.ring();
        result.recv().unwrap_or(Err(SubmitError::Closed))
    }

    /// Reads the whole log and all rows. Blocks until done, while submissions go on; erasures
    /// and compaction wait meanwhile.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn check(&self) -> std::io::Result<CheckReport> {
        let busy = lock(&self.busy);
        let report = check::check(&self.reader());
        drop(busy);
        report
    }

    /// Writes what is queued, erases what is decided, makes the index durable, and marks the
    /// directory clean.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] if that could not be done; the next open recovers.
    pub fn close(mut self) -> Result<(), SubmitError> {
        self.stop();
        if let Health::ReadOnly(reason) = self.shared.health() {
            return Err(SubmitError::ReadOnly(reason));
        }
        let ended =
            erase::pending(&self.shared).and_then(|()| maintenance::savepoint(&self.shared, true));
        ended.map_err(|error| {
            SubmitError::ReadOnly(
                self.shared
                    .turn_read_only(&format!("closing failed: {error}")),
            )
        })
    }

    fn stop(&mut self) {
        self.queue.close();
        join(self.committer.take());
        self.requests = None;
        self.bell.ring();
        join(self.maintenance.take());
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.stop();
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.join().is_err()
    {
        tracing::error!("a storage thread panicked");
    }
}
