//! What the driver hands to the intake: a queue that the driver can take back.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use comity_protocol::session::{Change, Cursor};
use tokio::sync::Notify;

/// What the driver hands over.
#[derive(Debug)]
pub(crate) enum Job {
    /// A session is open.
    Welcome {
        cursor: Cursor,
        reset: bool,
        first: bool,
    },
    /// Changes came in a frame of so many bytes.
    Update {
        cursor: Option<Cursor>,
        changes: Vec<Change>,
        bytes: usize,
    },
}

impl Job {
    const fn bytes(&self) -> usize {
        match self {
            Self::Welcome { .. } => 0,
            Self::Update { bytes, .. } => *bytes,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Job>,
    bytes: usize,
    closed: bool,
}

/// The queue. The driver bounds it by not reading on.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    inner: Mutex<Inner>,
    added: Notify,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, job: Job) {
        let mut inner = self.lock();
        inner.bytes += job.bytes();
        inner.queue.push_back(job);
        drop(inner);
        self.added.notify_one();
    }

    /// Bytes waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Drops what waits: it will come again.
    pub(crate) fn clear(&self) {
        let mut inner = self.lock();
        inner.queue.clear();
        inner.bytes = 0;
    }

    /// Nothing follows.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.added.notify_one();
    }

    /// The next job, and the bytes that waited with it; `None` after the last.
    pub(crate) async fn next(&self) -> Option<(Job, usize)> {
        loop {
            {
                let mut inner = self.lock();
                let waited = inner.bytes;
                if let Some(job) = inner.queue.pop_front() {
                    inner.bytes -= job.bytes();
                    return Some((job, waited));
                }
                if inner.closed {
                    return None;
                }
            }
            // One reader: a permit left by `notify_one` is his.
            self.added.notified().await;
        }
    }
}
