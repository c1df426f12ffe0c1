//! What became of one sent event, shared by the outbox and whoever waits.

use std::sync::{Mutex, PoisonError};

use comity_protocol::{
    ids::{ConversationId, EventId},
    session::Place,
};
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// How far a sent event got.
///
/// | state | survives |
/// |---|---|
/// | `Pending` | with a store: the end of this process at any moment, and the loss of the network |
/// | `Accepted` | also the loss of this machine, and a crash of the home server |
/// | `Accepted` with `replicated > 0` | also the loss of the home server |
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SendState {
    /// In the outbox.
    Pending,
    /// Durable at the home server.
    Accepted {
        /// Where it is shown.
        place: Place,
        /// Other servers that stored it too, as far as was heard.
        replicated: u32,
        /// Other servers that have to; `None` until the home server told.
        of: Option<u32>,
    },
    /// Refused for good; it was dropped from the outbox.
    Rejected(Error),
    /// Taken back before it was sent.
    Cancelled,
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) event: EventId,
    pub(crate) conversation: ConversationId,
    state: Mutex<SendState>,
    changed: Notify,
}

impl Ticket {
    pub(crate) fn new(event: EventId, conversation: ConversationId) -> Self {
        Self {
            event,
            conversation,
            state: Mutex::new(SendState::Pending),
            changed: Notify::new(),
        }
    }

    pub(crate) fn state(&self) -> SendState {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SendState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, state: SendState) {
        *self.lock() = state;
        self.changed.notify_waiters();
    }

    /// Notes on how many servers an accepted event is. A late report never takes back a newer one.
    pub(crate) fn delivered(&self, now: u32, servers: u32) {
        if let SendState::Accepted { replicated, of, .. } = &mut *self.lock() {
            *replicated = now.max(*replicated);
            *of = Some(servers);
        }
        self.changed.notify_waiters();
    }

    /// Waits until `done` gives something.
    pub(crate) async fn wait<T>(&self, done: impl Fn(&SendState) -> Option<T>) -> T {
        loop {
            // Made before the look, so that a change in between is not missed.
            let changed = self.changed.notified();
            if let Some(value) = done(&self.lock()) {
                return value;
            }
            changed.await;
        }
    }

    /// Waits until the event is accepted.
    pub(crate) async fn accepted(&self) -> Result<Place> {
        self.wait(|state| match state {
            SendState::Pending => None,
            SendState::Accepted { place, .. } => Some(Ok(*place)),
            SendState::Rejected(error) => Some(Err(error.clone())),
            SendState::Cancelled => Some(Err(cancelled())),
        })
        .await
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the send was cancelled")
}
