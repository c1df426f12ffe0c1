//! A simulated disk: records that are durable, a group being written, and a queue.

use std::collections::VecDeque;

use comity_protocol::{
    ids::UserId,
    replication::Committed,
    session::{Code, WireError},
    shard::Done,
};

use crate::rows::Record;

/// Submissions that wait; a server that has more is out of its bounds.
pub(crate) const QUEUE_MAX: usize = 8_192;
/// Records in one write.
const GROUP_MAX: usize = 64;
/// After the disk was found full nothing is tried for this long, in milliseconds.
const FULL_PAUSE_MS: u64 = 500;

/// What follows once a record is durable.
#[derive(Debug)]
pub(crate) enum Then {
    /// The links are told, then the shard.
    Shard(Box<(Option<Committed>, Done)>),
    /// A log in memory is forgotten if it could not be stored.
    Identity(UserId),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) record: Record,
    pub(crate) then: Then,
}

/// What a finished write says.
pub(crate) enum Written {
    /// All of it is durable.
    Durable(Vec<Pending>),
    /// Nothing of it is, nor of what waited behind it.
    Failed(Vec<Pending>, WireError),
}

#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Durable records.
    pub(crate) log: Vec<Record>,
    queue: VecDeque<Pending>,
    writing: Vec<Pending>,
    /// Bytes of a write that failed or was cut: there, or not, after the next start.
    torn: Vec<Record>,
    pub(crate) full_until: u64,
    pub(crate) slow_until: u64,
    full_at: Option<u64>,
    fail_next: bool,
    read_only: bool,
}

impl Disk {
    /// Queues a record. True if a write has to be begun.
    pub(crate) fn submit(&mut self, pending: Pending) -> bool {
        self.queue.push_back(pending);
        self.writing.is_empty()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.writing.len()
    }

    /// Begins a write if there is something to write and none under way.
    pub(crate) fn begin(&mut self) -> bool {
        if !self.writing.is_empty() || self.queue.is_empty() {
            return false;
        }
        let group = self.queue.len().min(GROUP_MAX);
        self.writing = self.queue.drain(..group).collect();
        true
    }

    /// The write under way ends.
    pub(crate) fn end(&mut self, now: u64) -> Written {
        let group = std::mem::take(&mut self.writing);
        let error = if self.read_only || self.fail_next {
            if self.fail_next {
                let torn = group.iter().map(|pending| pending.record.clone());
                self.torn.extend(torn);
            }
            (self.fail_next, self.read_only) = (false, true);
            Some(read_only())
        } else if now < self.full_until {
            self.full_at = Some(now);
            Some(WireError::new(Code::DiskFull, "no space is left"))
        } else {
            None
        };
        match error {
            None => Written::Durable(group),
            Some(error) => {
                let behind = std::mem::take(&mut self.queue);
                Written::Failed(group.into_iter().chain(behind).collect(), error)
            }
        }
    }

    /// Why nothing can be stored now.
    pub(crate) fn cannot_store(&self, now: u64) -> Option<WireError> {
        if self.read_only {
            return Some(read_only());
        }
        let full = self.full_at.filter(|at| now < at + FULL_PAUSE_MS);
        full.map(|_| WireError::new(Code::DiskFull, "no space is left"))
    }

    pub(crate) const fn fail_next_write(&mut self) {
        self.fail_next = true;
    }

    pub(crate) const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The machine stops: of what was being written the first `kept` records may be found again,
    /// nobody was told of them.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.queue.clear();
        let writing = std::mem::take(&mut self.writing);
        let torn = std::mem::take(&mut self.torn);
        let found = torn
            .into_iter()
            .chain(writing.into_iter().map(|p| p.record));
        self.log.extend(found.take(kept));
        self.fail_next = false;
        self.read_only = false;
        self.full_at = None;
    }

    /// Records that a crash now could lose or keep.
    pub(crate) fn unsynced(&self) -> usize {
        self.torn.len() + self.writing.len()
    }
}

fn read_only() -> WireError {
    WireError::new(
        Code::ReadOnly,
        "a write failed; the server has to be started again",
    )
}
