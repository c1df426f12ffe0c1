//! Handles on sent events.

use std::{fmt, sync::Arc, time::Duration};

use comity_protocol::{
    ids::{ConversationId, EventId},
    session::{Place, Reply, Request},
};

use crate::{
    client::Client,
    error::{Error, ErrorKind, Result},
    outbox::{SendState, Ticket, cancelled},
};

/// Replication is asked for again after this long without news.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// On how many other servers an event has to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Replicas {
    /// On this many at least, the home server not counted.
    AtLeast(u32),
    /// On every server that takes part.
    All,
}

impl From<u32> for Replicas {
    fn from(count: u32) -> Self {
        Self::AtLeast(count)
    }
}

impl Replicas {
    const fn reached(self, replicated: u32, of: Option<u32>) -> bool {
        match (self, of) {
            (Self::AtLeast(count), _) => replicated >= count,
            (Self::All, Some(of)) => replicated >= of,
            (Self::All, None) => false,
        }
    }
}

/// An event on its way. Dropping the handle changes nothing.
#[derive(Clone)]
#[must_use = "`accepted()` waits until the home server has it; ignore with `let _ =`"]
pub struct Outgoing {
    client: Client,
    ticket: Arc<Ticket>,
}

impl Outgoing {
    pub(crate) const fn new(client: Client, ticket: Arc<Ticket>) -> Self {
        Self { client, ticket }
    }

    /// The event's id: known from the start, the same for ever.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        self.ticket.event
    }

    /// The conversation.
    #[must_use]
    pub fn conversation_id(&self) -> ConversationId {
        self.ticket.conversation
    }

    /// How far it got.
    #[must_use]
    pub fn state(&self) -> SendState {
        self.ticket.state()
    }

    /// Waits until it is durable at the home server, and gives its place. Waits through losses of
    /// the network, however long.
    ///
    /// # Errors
    ///
    /// The server's refusal; [`ErrorKind::Cancelled`]; [`ErrorKind::Closed`] when the client was
    /// closed first (the event is still in a stored outbox).
    pub async fn accepted(&self) -> Result<Place> {
        tokio::select! {
            biased;
            result = self.ticket.accepted() => result,
            error = self.client.shared().ended() => match self.ticket.state() {
                SendState::Accepted { place, .. } => Ok(place),
                _ => Err(error),
            },
        }
    }

    /// Waits until it is stored by other servers too.
    ///
    /// # Errors
    ///
    /// As [`accepted`](Self::accepted), and [`ErrorKind::Invalid`] for more servers than take part.
    pub async fn replicated(&self, on: impl Into<Replicas>) -> Result<()> {
        let wanted = on.into();
        self.accepted().await?;
        let reached = |state: &SendState| match state {
            SendState::Accepted { replicated, of, .. } => {
                wanted.reached(*replicated, *of).then_some(())
            }
            _ => None,
        };
        loop {
            tokio::select! {
                biased;
                () = self.ticket.wait(reached) => return Ok(()),
                error = self.client.shared().ended() => return Err(error),
                asked = self.ask() => match (asked, wanted) {
                    (Ok(of), Replicas::AtLeast(count)) if count > of => {
                        let text = format!("{count} servers wanted where {of} others take part");
                        return Err(Error::new(ErrorKind::Invalid, text));
                    }
                    (Err(error), _) if !error.is_retryable() => return Err(error),
                    _ => {}
                },
            }
            // Reports come by themselves; asking covers those lost with a session.
            tokio::select! {
                biased;
                () = self.ticket.wait(reached) => return Ok(()),
                error = self.client.shared().ended() => return Err(error),
                () = tokio::time::sleep(ASK_AGAIN) => {}
            }
        }
    }

    async fn ask(&self) -> Result<u32> {
        let request = Request::Delivery {
            conversation: self.ticket.conversation,
            event: self.ticket.event,
        };
        let Reply::Delivery { replicated, of, .. } = self.client.shared().call(request).await?
        else {
            return Err(Error::unexpected_reply());
        };
        self.ticket.delivered(replicated, of);
        Ok(of)
    }

    /// Takes it back, with edits and reactions on it, while it was never sent. Gives whether that
    /// was still possible; afterwards only deleting is.
    pub fn cancel(&self) -> bool {
        self.client.shared().outbox().cancel(&self.ticket.event)
    }

    /// The error, if it came to nothing.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        match self.ticket.state() {
            SendState::Rejected(error) => Some(error),
            SendState::Cancelled => Some(cancelled()),
            _ => None,
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("event", &self.ticket.event)
            .field("state", &self.ticket.state())
            .finish_non_exhaustive()
    }
}
