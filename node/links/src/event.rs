//! The way from the links to their one consumer: ordered, and bounded per peer and in total.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    key::PeerKey,
    limits::{EVENT_QUEUE, FRAME_OVERHEAD_BYTES, READ_AHEAD_BYTES},
};

/// Which of a link's two streams a frame travels on. Each is ordered; between them nothing is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Channel {
    /// What people wait for.
    Live,
    /// History, media: may fill its window without delaying [`Channel::Live`].
    Bulk,
}

impl Channel {
    pub(crate) const ALL: [Self; 2] = [Self::Live, Self::Bulk];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Live => 0,
            Self::Bulk => 1,
        }
    }
}

/// What happened. `link` numbers are fresh for each link and never used again in a process, so an
/// answer to a frame of an earlier link can be told from one of the present link.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// Frames can flow both ways. Exactly one per link, before anything else about it.
    Up {
        /// The other server.
        peer: PeerKey,
        /// Number of the link.
        link: u64,
    },
    /// A frame arrived, whole, in the order of its channel.
    Frame {
        /// The other server.
        peer: PeerKey,
        /// Number of the link.
        link: u64,
        /// The channel it was sent on.
        channel: Channel,
        /// As sent, at most [`FRAME_MAX`](crate::limits::FRAME_MAX) bytes.
        bytes: Bytes,
    },
    /// A queue that refused a frame as full is under half again.
    Writable {
        /// The other server.
        peer: PeerKey,
        /// Number of the link.
        link: u64,
        /// The channel whose queue it is.
        channel: Channel,
    },
    /// The link is over; nothing more comes of it. Frames accepted by `try_send` may be lost.
    Down {
        /// The other server.
        peer: PeerKey,
        /// Number of the link.
        link: u64,
        /// For people to read.
        reason: String,
    },
    /// A dial failed. Left out when the event queue is full; `status()` has it as well.
    DialFailed {
        /// The server that was dialled.
        peer: PeerKey,
        /// For people to read.
        error: String,
        /// Milliseconds until the next dial.
        next_try_ms: u64,
    },
}

/// Receives the events of all links. Dropping it stops the links.
///
/// Not a bare channel: taking a frame is what lets its peer send more.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Queued>,
}

impl Events {
    /// The next event, or `None` after a shutdown. Cancel safe.
    pub async fn recv(&mut self) -> Option<LinkEvent> {
        self.queue.recv().await.map(|queued| queued.event)
    }

    /// The next event if one is waiting.
    pub fn try_recv(&mut self) -> Option<LinkEvent> {
        self.queue.try_recv().ok().map(|queued| queued.event)
    }
}

#[derive(Debug)]
struct Queued {
    event: LinkEvent,
    /// Given back when the consumer takes the event.
    _room: Option<OwnedSemaphorePermit>,
}

/// Sending side of [`Events`].
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    queue: mpsc::Sender<Queued>,
}

/// The consumer is gone.
#[derive(Debug)]
pub(crate) struct Closed;

pub(crate) fn feed() -> (Feed, Events) {
    let (sender, queue) = mpsc::channel(EVENT_QUEUE);
    (Feed { queue: sender }, Events { queue })
}

impl Feed {
    /// Waits for a place. The queue serves waiting senders in turn, so a flood of one peer delays
    /// another peer's event by what is in the queue, never by what is behind it.
    pub(crate) async fn send(&self, event: LinkEvent) -> Result<(), Closed> {
        self.queue
            .send(Queued { event, _room: None })
            .await
            .map_err(|_| Closed)
    }

    /// For news that may be missed.
    pub(crate) fn offer(&self, event: LinkEvent) {
        let _ = self.queue.try_send(Queued { event, _room: None });
    }

    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }
}

/// Sends the frames of one peer and channel, at most [`READ_AHEAD_BYTES`] ahead of the consumer.
#[derive(Debug)]
pub(crate) struct FrameFeed {
    feed: Feed,
    room: Arc<Semaphore>,
    peer: PeerKey,
    link: u64,
    channel: Channel,
}

impl FrameFeed {
    pub(crate) fn new(feed: Feed, peer: PeerKey, link: u64, channel: Channel) -> Self {
        let room = Arc::new(Semaphore::new(READ_AHEAD_BYTES as usize));
        Self {
            feed,
            room,
            peer,
            link,
            channel,
        }
    }

    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), Closed> {
        // A frame longer than the whole allowance takes all of it and so travels alone.
        let length = u32::try_from(bytes.len()).unwrap_or(READ_AHEAD_BYTES);
        let cost = length
            .saturating_add(FRAME_OVERHEAD_BYTES)
            .min(READ_AHEAD_BYTES);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(cost)
            .await
            .map_err(|_| Closed)?;
        let Self {
            peer,
            link,
            channel,
            ..
        } = *self;
        let event = LinkEvent::Frame {
            peer,
            link,
            channel,
            bytes,
        };
        self.feed
            .queue
            .send(Queued {
                event,
                _room: Some(room),
            })
            .await
            .map_err(|_| Closed)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn one_peer_cannot_fill_the_queue() {
        let (feed, mut events) = feed();
        let flood = FrameFeed::new(feed.clone(), PeerKey([1; 32]), 1, Channel::Live);
        let calm = FrameFeed::new(feed, PeerKey([2; 32]), 2, Channel::Live);
        let mut sent = 0;
        while flood.send(Bytes::new()).now_or_never().is_some() {
            sent += 1;
        }
        assert_eq!(sent, READ_AHEAD_BYTES / FRAME_OVERHEAD_BYTES);
        assert!(
            calm.send(Bytes::new()).now_or_never().is_some(),
            "another peer still has room"
        );
        assert!(events.try_recv().is_some());
        assert!(
            flood.send(Bytes::new()).now_or_never().is_some(),
            "taking one lets one in"
        );
    }

    #[test]
    fn a_longest_frame_passes_alone() {
        let (feed, mut events) = feed();
        let frames = FrameFeed::new(feed, PeerKey([1; 32]), 1, Channel::Bulk);
        let long = Bytes::from(vec![0; crate::limits::FRAME_MAX]);
        assert!(frames.send(long.clone()).now_or_never().is_some());
        assert!(frames.send(long.clone()).now_or_never().is_none());
        assert!(events.try_recv().is_some());
        assert!(frames.send(long).now_or_never().is_some());
    }
}
