//! Live fan-out: from durable records to the open sessions of the users concerned.
//!
//! Published by the storage's committer in the order of records, so that a session sees positions
//! rise. A session that does not keep up loses its queue, not its changes: it reads them from the
//! change log instead.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use comity_protocol::{
    ids::{ConversationId, DeviceKey, EventId, UserId},
    limits::{SESSION_QUEUE_BYTES, SESSION_QUEUE_FRAMES},
    session::{Change, Place, WireError},
};
use tokio::sync::Notify;

use crate::rows::LogKind;

/// A change as it is published. What needs a read is read by the session when it gets there.
#[derive(Clone, Debug)]
pub(crate) enum Live {
    /// Complete.
    Ready(Change),
    /// An entry of the change log.
    Line(ConversationId, LogKind, EventId, Option<Place>),
    /// The reader's summary of a conversation changed.
    Summary(ConversationId),
}

/// What one record changed, for one user.
#[derive(Clone, Debug)]
pub(crate) struct News {
    /// The record; `None` for a state that no cursor covers.
    pub(crate) position: Option<u64>,
    pub(crate) common: Arc<Vec<Live>>,
    pub(crate) own: Vec<Live>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<News>,
    bytes: usize,
    overflowed: bool,
    ended: Option<WireError>,
}

/// The queue of one session.
#[derive(Debug)]
pub(crate) struct Inbox {
    user: UserId,
    device: DeviceKey,
    inner: Mutex<Inner>,
    notify: Notify,
}

/// What a session finds in its inbox.
pub(crate) enum Taken {
    News(News),
    Overflowed,
    Ended(WireError),
    Nothing,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; a poisoned one is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    fn offer(&self, news: &News) {
        let mut inner = lock(&self.inner);
        if inner.overflowed {
            return;
        }
        let full = inner.queue.len() >= SESSION_QUEUE_FRAMES
            || inner.bytes + news.bytes > SESSION_QUEUE_BYTES;
        if full {
            // The queue is given up, and with it its memory: the log has the same changes.
            inner.queue = VecDeque::new();
            inner.bytes = 0;
            inner.overflowed = true;
        } else {
            inner.bytes += news.bytes;
            inner.queue.push_back(news.clone());
        }
        drop(inner);
        self.notify.notify_one();
    }

    pub(crate) fn take(&self) -> Taken {
        let mut inner = lock(&self.inner);
        if let Some(ended) = inner.ended.clone() {
            return Taken::Ended(ended);
        }
        if std::mem::take(&mut inner.overflowed) {
            return Taken::Overflowed;
        }
        let Some(news) = inner.queue.pop_front() else {
            return Taken::Nothing;
        };
        inner.bytes -= news.bytes;
        Taken::News(news)
    }

    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }

    fn end(&self, error: WireError) {
        lock(&self.inner).ended = Some(error);
        self.notify.notify_one();
    }
}

/// All open sessions, by user.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    sessions: Mutex<BTreeMap<UserId, Vec<Arc<Inbox>>>>,
    published: AtomicU64,
}

impl Hub {
    pub(crate) fn open(&self, user: UserId, device: DeviceKey) -> Arc<Inbox> {
        let inner = Mutex::new(Inner::default());
        let inbox = Arc::new(Inbox {
            user,
            device,
            inner,
            notify: Notify::new(),
        });
        lock(&self.sessions)
            .entry(user)
            .or_default()
            .push(Arc::clone(&inbox));
        inbox
    }

    pub(crate) fn close(&self, inbox: &Arc<Inbox>) {
        let mut sessions = lock(&self.sessions);
        if let Some(open) = sessions.get_mut(&inbox.user) {
            open.retain(|other| !Arc::ptr_eq(other, inbox));
            if open.is_empty() {
                sessions.remove(&inbox.user);
            }
        }
    }

    /// Hands what a record changed to the sessions of these users.
    pub(crate) fn publish<'a>(
        &self,
        position: Option<u64>,
        users: impl IntoIterator<Item = &'a UserId>,
        common: &Arc<Vec<Live>>,
        own: &BTreeMap<UserId, Vec<Live>>,
    ) {
        let size = |live: &Live| match live {
            Live::Ready(change) => crate::updates::size(change),
            Live::Line(..) | Live::Summary(_) => 120,
        };
        let bytes: usize = common.iter().map(size).sum();
        let sessions = lock(&self.sessions);
        for user in users {
            let Some(open) = sessions.get(user) else {
                continue;
            };
            let own = own.get(user).cloned().unwrap_or_default();
            let news = News {
                position,
                common: Arc::clone(common),
                bytes: bytes + own.iter().map(size).sum::<usize>(),
                own,
            };
            for inbox in open {
                inbox.offer(&news);
                self.published.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Ends the sessions of a device, or of all of a user's.
    pub(crate) fn end(&self, user: &UserId, device: Option<&DeviceKey>, error: &WireError) {
        let sessions = lock(&self.sessions);
        for inbox in sessions.get(user).into_iter().flatten() {
            if device.is_none_or(|device| *device == inbox.device) {
                inbox.end(error.clone());
            }
        }
    }

    pub(crate) fn open_sessions(&self) -> usize {
        lock(&self.sessions).values().map(Vec::len).sum()
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }
}
