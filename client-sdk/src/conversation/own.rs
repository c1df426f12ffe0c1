//! Own events that are no lines: what did not come to count, and edits.

use comity_protocol::{
    ids::EventId,
    session::{Reply, Request},
};

use super::Conversation;
use crate::{
    error::{Error, ErrorKind, Result},
    message::Body,
    verify,
};

/// An own event as it was signed, whether it counts or not.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OwnEvent {
    /// What was signed.
    pub event: comity_protocol::event::Event,
    /// What it said.
    pub body: Body,
    /// Why it does not count, if it does not: a code of `spec/04-authority.md`, section 5.
    pub void: Option<String>,
}

impl Conversation {
    /// Reads an own event back that is no line: one that is void, as [`Event::Vanished`] tells, or an
    /// edit, as one that lost ([`Event::EditLost`]). So a program can show what was lost, and offer to
    /// say it again. It works also after the own membership ended.
    ///
    /// [`Event::Vanished`]: crate::Event::Vanished
    /// [`Event::EditLost`]: crate::Event::EditLost
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if it is not an own event, or a line of the conversation;
    /// [`ErrorKind::Protocol`] if it is not what this user signed;
    /// [`ErrorKind::Offline`] or [`ErrorKind::Timeout`].
    pub async fn own_event(&self, event: EventId) -> Result<OwnEvent> {
        let shared = self.client.shared();
        let request = Request::Own {
            conversation: self.id,
            event,
        };
        let Reply::Own(own) = shared.call(request).await? else {
            return Err(Error::unexpected_reply());
        };
        let (id, signed, body) = verify::own(shared, self.id, &own.event, &own.content).await?;
        if id != event || signed.author != shared.me.user {
            return Err(Error::new(ErrorKind::Protocol, "another event"));
        }
        Ok(OwnEvent {
            event: signed,
            body,
            void: own.void,
        })
    }
}
