//! Buffers between the client and the program's event streams, and the accounting of what was
//! handled. No clock, no file, no task: wakers and values only.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use comity_protocol::{
    ids::{ConversationId, EventId},
    session::{Cursor, Place},
};

use super::{Event, Notice};
use crate::{
    limits::{EVENTS_BUFFERED_BYTES_MAX, EVENTS_BUFFERED_MAX, MARKS_MAX, SUBSCRIBERS_MAX},
    store::Progress,
};

/// What may be written down once everything published before it was handled.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    /// A line was handed over, in this version.
    Line {
        conversation: ConversationId,
        place: Place,
        event: EventId,
        version: u64,
    },
    /// Everything up to this cursor was.
    Cursor(Cursor),
}

#[derive(Debug, Default)]
struct Subscriber {
    queue: VecDeque<(u64, Notice)>,
    bytes: usize,
    lagged: u64,
    /// Everything published up to here was handled.
    handled: u64,
    /// Handed to the program and not yet known to be handled.
    handed: Option<u64>,
    waker: Option<Waker>,
}

impl Subscriber {
    fn push(&mut self, number: u64, notice: Notice) {
        self.bytes += notice.weight();
        self.queue.push_back((number, notice));
        while self.queue.len() > EVENTS_BUFFERED_MAX || self.bytes > EVENTS_BUFFERED_BYTES_MAX {
            let Some((_, lost)) = self.queue.pop_front() else {
                break;
            };
            self.bytes -= lost.weight();
            self.lagged += 1;
        }
    }

    fn settle(&mut self, published: u64) {
        if let Some(number) = self.handed.take() {
            self.handled = self.handled.max(number);
        }
        if self.queue.is_empty() && self.lagged == 0 {
            self.handled = published;
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    subscribers: BTreeMap<u64, Subscriber>,
    /// What comes while nobody subscribes.
    parked: Option<Subscriber>,
    next_subscriber: u64,
    published: u64,
    marks: VecDeque<(u64, Mark)>,
    closed: bool,
}

impl Inner {
    /// The marks that every subscriber has passed, as one step.
    fn progress(&mut self) -> Option<Progress> {
        let all = self.subscribers.values().chain(&self.parked);
        let handled = all.map(|s| s.handled).min()?;
        let mut progress = None;
        while let Some((_, mark)) = self.marks.pop_front_if(|(number, _)| *number <= handled) {
            let progress = progress.get_or_insert_with(Progress::default);
            match mark {
                Mark::Cursor(cursor) => {
                    progress.cursor = Some(cursor);
                }
                Mark::Line {
                    conversation,
                    place,
                    event,
                    version,
                } => {
                    progress.reached.push((conversation, place));
                    progress.handled.push((event, version));
                }
            }
        }
        progress
    }
}

/// All streams of one client.
#[derive(Debug)]
pub(crate) struct Hub {
    inner: Mutex<Inner>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                parked: Some(Subscriber::default()),
                ..Inner::default()
            }),
        }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a notice to every stream.
    pub(crate) fn publish(&self, notice: impl Into<Notice>) {
        let notice = notice.into();
        let mut inner = self.lock();
        inner.published += 1;
        let number = inner.published;
        if let Some(parked) = &mut inner.parked {
            parked.push(number, notice);
            return;
        }
        for subscriber in inner.subscribers.values_mut() {
            subscriber.push(number, notice.clone());
            if let Some(waker) = subscriber.waker.take() {
                waker.wake();
            }
        }
    }

    /// Adds a mark behind everything published so far. Gives what may be written down at once.
    pub(crate) fn mark(&self, mark: Mark) -> Option<Progress> {
        let mut inner = self.lock();
        let number = inner.published;
        // Dropping the oldest costs repeated events after a crash, never lost ones.
        if inner.marks.len() >= MARKS_MAX {
            inner.marks.pop_front();
        }
        inner.marks.push_back((number, mark));
        inner.progress()
    }

    pub(crate) fn subscribe(&self) -> u64 {
        let mut inner = self.lock();
        let id = inner.next_subscriber;
        inner.next_subscriber += 1;
        let published = inner.published;
        let mut subscriber = inner.parked.take().unwrap_or_else(|| Subscriber {
            handled: published,
            ..Subscriber::default()
        });
        if inner.subscribers.len() >= SUBSCRIBERS_MAX {
            // One stream too many is a leak in the program: it gets nothing but the end.
            return u64::MAX;
        }
        subscriber.waker = None;
        inner.subscribers.insert(id, subscriber);
        id
    }

    /// Ends a stream. What the last one left is kept for the next.
    pub(crate) fn unsubscribe(&self, id: u64) -> Option<Progress> {
        let mut inner = self.lock();
        let mut subscriber = inner.subscribers.remove(&id)?;
        if inner.subscribers.is_empty() {
            subscriber.settle(inner.published);
            subscriber.waker = None;
            inner.parked = Some(subscriber);
        }
        inner.progress()
    }

    /// The next notice of a stream, and what may be written down because it was asked for.
    pub(crate) fn poll(
        &self,
        id: u64,
        cx: &mut Context<'_>,
    ) -> (Poll<Option<Notice>>, Option<Progress>) {
        let mut inner = self.lock();
        let (published, closed) = (inner.published, inner.closed);
        let Some(subscriber) = inner.subscribers.get_mut(&id) else {
            return (Poll::Ready(None), None);
        };
        subscriber.settle(published);
        let next = if subscriber.lagged > 0 {
            let lost = std::mem::take(&mut subscriber.lagged);
            Poll::Ready(Some(Event::Lagged(lost).into()))
        } else if let Some((number, notice)) = subscriber.queue.pop_front() {
            subscriber.bytes -= notice.weight();
            subscriber.handled = subscriber.handled.max(number - 1);
            subscriber.handed = Some(number);
            Poll::Ready(Some(notice))
        } else if closed {
            Poll::Ready(None)
        } else {
            subscriber.waker = Some(cx.waker().clone());
            Poll::Pending
        };
        (next, inner.progress())
    }

    /// Lets every stream end once it was read to its end.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        for subscriber in inner.subscribers.values_mut() {
            if let Some(waker) = subscriber.waker.take() {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use comity_protocol::ids::Blob;
    use futures::task::noop_waker_ref;

    use super::*;

    fn take(hub: &Hub, id: u64) -> (Option<Notice>, Option<Progress>) {
        match hub.poll(id, &mut Context::from_waker(noop_waker_ref())) {
            (Poll::Ready(notice), progress) => (notice, progress),
            (Poll::Pending, progress) => (None, progress),
        }
    }

    fn cursor(n: u8) -> Cursor {
        Cursor(Blob(vec![n]))
    }

    fn publish(hub: &Hub, n: u8) -> Option<Progress> {
        hub.publish(Event::Lagged(n.into()));
        hub.mark(Mark::Cursor(cursor(n)))
    }

    fn number(notice: Option<Notice>) -> Option<u64> {
        match notice {
            Some(Notice::Other(event)) => match *event {
                Event::Lagged(n) => Some(n),
                _ => None,
            },
            _ => None,
        }
    }

    #[test]
    fn the_first_stream_has_what_came_before_it() {
        let hub = Hub::default();
        publish(&hub, 7);
        let id = hub.subscribe();
        assert_eq!(number(take(&hub, id).0), Some(7));
    }

    #[test]
    fn a_cursor_is_written_only_after_the_next_event_was_asked_for() {
        let hub = Hub::default();
        let id = hub.subscribe();
        assert!(publish(&hub, 1).is_none() && publish(&hub, 2).is_none());
        assert!(take(&hub, id).1.is_none());
        assert_eq!(take(&hub, id).1.unwrap().cursor, Some(cursor(1)));
        assert_eq!(take(&hub, id).1.unwrap().cursor, Some(cursor(2)));
    }

    #[test]
    fn the_slowest_stream_decides_and_a_dropped_one_does_not_hold_back() {
        let hub = Hub::default();
        let (fast, slow) = (hub.subscribe(), hub.subscribe());
        publish(&hub, 1);
        assert!(take(&hub, fast).1.is_none() && take(&hub, fast).1.is_none());
        assert_eq!(hub.unsubscribe(slow).unwrap().cursor, Some(cursor(1)));
    }

    #[test]
    fn a_later_stream_goes_on_where_the_last_one_stopped() {
        let hub = Hub::default();
        let id = hub.subscribe();
        publish(&hub, 1);
        publish(&hub, 2);
        assert_eq!(number(take(&hub, id).0), Some(1));
        assert_eq!(hub.unsubscribe(id).unwrap().cursor, Some(cursor(1)));
        publish(&hub, 3);
        let id = hub.subscribe();
        assert_eq!(number(take(&hub, id).0), Some(2));
        assert_eq!(number(take(&hub, id).0), Some(3));
    }

    #[test]
    fn a_slow_reader_is_told_how_many_it_lost_and_then_goes_on() {
        let hub = Hub::default();
        let id = hub.subscribe();
        for _ in 0..EVENTS_BUFFERED_MAX + 10 {
            publish(&hub, 200);
        }
        assert_eq!(number(take(&hub, id).0), Some(10));
        for _ in 0..EVENTS_BUFFERED_MAX {
            assert_eq!(number(take(&hub, id).0), Some(200));
        }
        assert!(take(&hub, id).0.is_none());
    }

    #[test]
    fn a_closed_stream_is_read_to_its_end_first() {
        let hub = Hub::default();
        let id = hub.subscribe();
        publish(&hub, 1);
        hub.close();
        assert_eq!(number(take(&hub, id).0), Some(1));
        assert!(take(&hub, id).0.is_none());
    }
}
