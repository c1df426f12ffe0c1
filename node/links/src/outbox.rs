//! The bounded queue between `try_send` and the wire, one per link and channel.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::{
    event::Channel,
    limits::{COALESCE_BYTES, FRAME_MAX, SEND_QUEUE_BYTES, SEND_QUEUE_FRAMES},
};

/// Why a frame was not taken. The queue is as before.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no link to this peer, or not the one of this number.
    #[error("link is not up")]
    NotUp,
    /// No room; a `Writable` follows once the queue is under half.
    #[error("queue is full with {queued_bytes} bytes")]
    Full {
        /// Bytes in this channel's queue.
        queued_bytes: usize,
    },
    /// Longer than [`FRAME_MAX`].
    #[error("frame is longer than {FRAME_MAX} bytes")]
    TooLarge,
}

/// Both queues of a link.
#[derive(Debug)]
pub(crate) struct Outboxes {
    pub(crate) link: u64,
    queues: [Outbox; 2],
}

impl Outboxes {
    pub(crate) fn new(link: u64) -> Self {
        Self {
            link,
            queues: [Outbox::default(), Outbox::default()],
        }
    }

    pub(crate) fn of(&self, channel: Channel) -> &Outbox {
        &self.queues[channel.index()]
    }

    /// Takes no more frames; the writers end once they have written what is queued.
    pub(crate) fn close(&self) {
        self.queues.iter().for_each(Outbox::close);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    refused: bool,
    closed: bool,
}

/// What [`Outbox::take`] left behind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Taken {
    /// Frames to write; `writable` when a sender that was refused should be told.
    Frames { writable: bool },
    /// Closed and empty.
    End,
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > FRAME_MAX {
            return Err(SendError::TooLarge);
        }
        let mut state = self.state();
        if state.closed {
            return Err(SendError::NotUp);
        }
        if state.frames.len() >= SEND_QUEUE_FRAMES || state.bytes + frame.len() > SEND_QUEUE_BYTES {
            state.refused = true;
            return Err(SendError::Full {
                queued_bytes: state.bytes,
            });
        }
        state.bytes += frame.len();
        state.frames.push_back(frame);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_one();
    }

    /// Waits for frames and moves up to [`COALESCE_BYTES`] of them into `batch`, or one that is
    /// longer. For one caller.
    pub(crate) async fn take(&self, batch: &mut Vec<Bytes>) -> Taken {
        loop {
            if let Some(taken) = self.take_now(batch) {
                return taken;
            }
            self.ready.notified().await;
        }
    }

    fn take_now(&self, batch: &mut Vec<Bytes>) -> Option<Taken> {
        let mut state = self.state();
        let mut size = 0;
        while let Some(frame) = state.frames.front() {
            if size > 0 && size + frame.len() > COALESCE_BYTES {
                break;
            }
            // Every frame counts for something, or empty ones would make an endless batch.
            size += frame.len() + 4;
            state.bytes -= frame.len();
            batch.extend(state.frames.pop_front());
        }
        if batch.is_empty() {
            return state.closed.then_some(Taken::End);
        }
        let under_half =
            state.bytes < SEND_QUEUE_BYTES / 2 && state.frames.len() < SEND_QUEUE_FRAMES / 2;
        let writable = state.refused && under_half;
        state.refused &= !writable;
        Some(Taken::Frames { writable })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn take(outbox: &Outbox) -> (Option<Taken>, usize) {
        let mut batch = Vec::new();
        (outbox.take(&mut batch).now_or_never(), batch.len())
    }

    #[test]
    fn full_by_frames_and_by_bytes() {
        let outbox = Outbox::default();
        for _ in 0..SEND_QUEUE_FRAMES {
            outbox.push(Bytes::new()).unwrap();
        }
        assert_eq!(
            outbox.push(Bytes::new()),
            Err(SendError::Full { queued_bytes: 0 })
        );

        let outbox = Outbox::default();
        let long = Bytes::from(vec![0; FRAME_MAX]);
        outbox.push(long.clone()).unwrap();
        outbox.push(long).unwrap();
        let full = Err(SendError::Full {
            queued_bytes: SEND_QUEUE_BYTES,
        });
        assert_eq!(outbox.push(Bytes::from_static(b"x")), full);
    }

    #[test]
    fn too_large_is_told_from_full() {
        let outbox = Outbox::default();
        assert_eq!(
            outbox.push(Bytes::from(vec![0; FRAME_MAX + 1])),
            Err(SendError::TooLarge)
        );
        assert_eq!(take(&outbox), (None, 0));
    }

    #[test]
    fn writable_once_and_only_after_a_refusal() {
        let outbox = Outbox::default();
        let fill = || {
            let frame = Bytes::from(vec![0; COALESCE_BYTES - 4]);
            while outbox.push(frame.clone()).is_ok() {}
        };
        fill();
        let told: Vec<bool> = std::iter::from_fn(|| match take(&outbox).0 {
            Some(Taken::Frames { writable }) => Some(writable),
            _ => None,
        })
        .collect();
        assert_eq!(told.iter().filter(|writable| **writable).count(), 1);
        assert!(told.iter().position(|writable| *writable).unwrap() >= told.len() / 2 - 1);

        outbox.push(Bytes::new()).unwrap();
        assert_eq!(take(&outbox), (Some(Taken::Frames { writable: false }), 1));
    }

    #[test]
    fn batches_are_bounded_and_keep_long_frames_apart() {
        let outbox = Outbox::default();
        outbox.push(Bytes::from(vec![0; FRAME_MAX])).unwrap();
        for _ in 0..300 {
            outbox.push(Bytes::from(vec![0; 300])).unwrap();
        }
        assert_eq!(take(&outbox).1, 1);
        assert_eq!(take(&outbox).1, COALESCE_BYTES / 304);
    }

    #[test]
    fn closed_queue_gives_what_it_has_then_ends() {
        let outbox = Outbox::default();
        outbox.push(Bytes::new()).unwrap();
        outbox.close();
        assert_eq!(outbox.push(Bytes::new()), Err(SendError::NotUp));
        assert_eq!(take(&outbox), (Some(Taken::Frames { writable: false }), 1));
        assert_eq!(take(&outbox), (Some(Taken::End), 0));
    }
}
