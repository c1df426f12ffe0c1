//! The thread behind the scenes: erasures, savepoints, compaction, one thing at a time.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use crate::{
    compact, erase,
    error::SubmitError,
    projection::Projection,
    report::{CompactionReport, Health},
    savepoint::Savepoint,
    shared::{Shared, Usage, lock},
};

/// Pause after a task failed for want of space.
const RETRY: Duration = Duration::from_secs(5);

/// Wakes the maintenance thread.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    wake: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *lock(&self.rung) = true;
        self.wake.notify_one();
    }

    /// Rings if the last group left something to do.
    pub(crate) fn after_group(&self, shared: &Shared) {
        let since = shared.applied.load(Ordering::SeqCst) - shared.savepoint.load(Ordering::SeqCst);
        if shared.erasing.len() > 0 || since >= shared.config.savepoint_records {
            self.ring();
        }
    }

    fn wait(&self, at_most: Duration) {
        let rung = lock(&self.rung);
        let waited = self.wake.wait_timeout_while(rung, at_most, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

/// Asks for a compaction, with the least share of dead bytes in percent.
pub(crate) struct CompactRequest {
    pub(crate) min_dead_percent: u8,
    pub(crate) answer: Sender<Result<CompactionReport, SubmitError>>,
}

pub(crate) struct Maintenance<P> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) projection: Arc<Mutex<P>>,
    pub(crate) requests: Receiver<CompactRequest>,
    /// Held over every task, so that a check sees files that stay.
    pub(crate) busy: Arc<Mutex<()>>,
}

impl<P: Projection> Maintenance<P> {
    /// Runs until the requests' sender is gone, and does what is left to do then.
    pub(crate) fn run(self) {
        let mut last_savepoint = Instant::now();
        let mut not_before = Instant::now();
        loop {
            let request = self.requests.try_recv();
            if Instant::now() >= not_before && !matches!(self.shared.health(), Health::ReadOnly(_))
            {
                let busy = lock(&self.busy);
                if let Err(error) = self.round(&mut last_savepoint) {
                    self.failed("maintenance", &error);
                    not_before = Instant::now() + RETRY;
                }
                drop(busy);
            }
            match request {
                Ok(request) => {
                    let busy = lock(&self.busy);
                    let answer = self.compact(request.min_dead_percent);
                    drop(busy);
                    // Nobody waits for the answer any more if this fails.
                    let _ = request.answer.send(answer);
                }
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                Err(std::sync::mpsc::TryRecvError::Empty) => {
                    self.bell
                        .wait(self.shared.config.savepoint_every.min(RETRY));
                }
            }
        }
    }

    fn round(&self, last_savepoint: &mut Instant) -> io::Result<()> {
        let shared = &self.shared;
        erase::pending(shared)?;
        let since = shared.applied.load(Ordering::SeqCst) - shared.savepoint.load(Ordering::SeqCst);
        let due = last_savepoint.elapsed() >= shared.config.savepoint_every;
        if since >= shared.config.savepoint_records || (since > 0 && due) {
            savepoint(shared, false)?;
            *last_savepoint = Instant::now();
        }
        let percent = shared.config.compact_at_percent;
        if percent <= 100 {
            for usage in shared.files.all() {
                if usage.dead > 0 && is_worth_it(usage, percent) {
                    compact::file(shared, &self.projection, usage)?;
                }
            }
        }
        Ok(())
    }

    fn compact(&self, min_dead_percent: u8) -> Result<CompactionReport, SubmitError> {
        let mut report = CompactionReport::default();
        if let Health::ReadOnly(reason) = self.shared.health() {
            return Err(SubmitError::ReadOnly(reason));
        }
        for usage in self.shared.files.all() {
            if !is_worth_it(usage, min_dead_percent) {
                continue;
            }
            match compact::file(&self.shared, &self.projection, usage) {
                Ok(Some(bytes_after)) => {
                    report.files += 1;
                    report.bytes_before += usage.bytes;
                    report.bytes_after += bytes_after;
                }
                Ok(None) => {}
                Err(error) => return Err(self.failed("compaction", &error)),
            }
        }
        Ok(report)
    }

    /// Want of space passes; anything else does not.
    fn failed(&self, what: &str, error: &io::Error) -> SubmitError {
        if error.kind() == io::ErrorKind::StorageFull {
            tracing::warn!(what, "put off: the disk is full");
            return SubmitError::Full;
        }
        SubmitError::ReadOnly(
            self.shared
                .turn_read_only(&format!("{what} failed: {error}")),
        )
    }
}

fn is_worth_it(usage: Usage, percent: u8) -> bool {
    usage.full && usage.dead.saturating_mul(100) >= usage.bytes.saturating_mul(u64::from(percent))
}

/// Makes the index durable and records up to where.
pub(crate) fn savepoint(shared: &Shared, clean: bool) -> io::Result<()> {
    if shared.index_is_damaged() {
        return Ok(());
    }
    // Read first: what is applied meanwhile may or may not be durable with it.
    let number = shared.applied.load(Ordering::SeqCst);
    shared
        .store
        .savepoint()
        .map_err(|error| erase::store_failed(shared, error))?;
    let boot_id = shared.config.boot_id.clone();
    Savepoint {
        number,
        incarnation: shared.incarnation,
        boot_id,
        clean,
    }
    .write(&shared.config)?;
    shared.savepoint.store(number, Ordering::SeqCst);
    Ok(())
}
