//! A conversation: sending into it, reading it, and who is in it.

mod own;
mod ownership;
mod roles;
mod voided;

pub use voided::{Confirmed, Voided};

pub(crate) use ownership::{Wanted, name_stewards};

use std::{fmt, sync::Arc};

use comity_protocol::{
    event::{Act, Attachment, Content, SealedContent},
    ids::{Blob, ConversationId, EventId, Nonce, Salt, UserId},
    role::Role,
    session::{Member, Reply, Request, Summary},
};

pub use own::OwnEvent;

use crate::{
    client::Client,
    error::{Error, Result},
    history::History,
    random,
    sending::Outgoing,
};

/// Members asked for at once.
const MEMBERS_PAGE: u32 = 500;

/// A message before it is sent.
///
/// ```
/// use comity_sdk::Draft;
/// let draft = Draft::text("waves").action();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Draft {
    content: Content,
    claims: Option<Role>,
}

impl Draft {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            content: Content {
                v: 1,
                text: text.into(),
                ..Content::default()
            },
            claims: None,
        }
    }

    /// Something the author does rather than says.
    #[must_use]
    pub const fn action(mut self) -> Self {
        self.content.action = true;
        self
    }

    /// Answers a message, sent or still in the outbox; 16 at most, each once.
    #[must_use]
    pub fn reply_to(mut self, message: EventId) -> Self {
        if !self.content.reply_to.contains(&message) {
            self.content.reply_to.push(message);
        }
        self
    }

    /// Calls a user; 64 at most.
    #[must_use]
    pub fn mention(mut self, user: UserId) -> Self {
        self.content.mentions.push(user);
        self
    }

    /// Adds a file that the home server has already; 32 at most.
    #[must_use]
    pub fn attach(mut self, attachment: Attachment) -> Self {
        self.content.attachments.push(attachment);
        self
    }

    pub(crate) fn into_content(self) -> Content {
        self.content
    }

    /// The role to claim, where it is not the least that may post (member, or the role of the
    /// conversation's posting policy as far as this client has seen it).
    #[must_use]
    pub const fn claiming(mut self, role: Role) -> Self {
        self.claims = Some(role);
        self
    }
}

/// A conversation. Cheap to make and clone; it need not be known to this client yet.
#[derive(Clone)]
pub struct Conversation {
    client: Client,
    id: ConversationId,
}

#[expect(
    clippy::unused_async,
    reason = "a send may have to wait for room one day: its callers await it already"
)]
impl Conversation {
    pub(crate) const fn new(client: Client, id: ConversationId) -> Self {
        Self { client, id }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> ConversationId {
        self.id
    }

    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// What the list of conversations says, as last heard; `None` for an unknown one.
    #[must_use]
    pub fn summary(&self) -> Option<Arc<Summary>> {
        self.client.shared().notebook().known.get(&self.id).cloned()
    }

    /// Its title, if it has one.
    #[must_use]
    pub fn title(&self) -> Option<String> {
        self.summary()?.title.clone()
    }

    /// The own role; none for an unknown one.
    #[must_use]
    pub fn role(&self) -> Role {
        self.summary().map_or(Role::None, |summary| summary.role)
    }

    /// Whether it has exactly two members for ever.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.summary().is_some_and(|summary| summary.direct)
    }

    /// Sends a text. `Ok` means that it is safe in the outbox; it is sent as soon as there is a
    /// session, and again until the home server has it, and counts once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) beyond 64 KiB,
    /// [`ErrorKind::OutboxFull`](crate::ErrorKind::OutboxFull),
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage), and
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); nothing was taken then.
    pub async fn send(&self, text: impl Into<String>) -> Result<Outgoing> {
        self.queue_draft(Draft::text(text))
    }

    /// Sends a draft.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for more
    /// references than a message may have.
    pub async fn send_content(&self, draft: Draft) -> Result<Outgoing> {
        self.queue_draft(draft)
    }

    pub(crate) fn queue_draft(&self, draft: Draft) -> Result<Outgoing> {
        let claims = draft.claims.unwrap_or_else(|| self.posting_role());
        let sealed = seal(draft.content)?;
        let content = sealed.reference();
        self.queue(claims, Act::Message { content }, Some(sealed))
    }

    pub(crate) fn queue(
        &self,
        claims: Role,
        act: Act,
        sealed: Option<SealedContent>,
    ) -> Result<Outgoing> {
        self.queue_as(claims, act, sealed, Nonce::from_bytes(random::bytes()?))
    }

    /// Of a nonce the home server takes one event.
    fn queue_as(
        &self,
        claims: Role,
        act: Act,
        sealed: Option<SealedContent>,
        nonce: Nonce,
    ) -> Result<Outgoing> {
        let content = sealed.map(|s| Blob(s.into_bytes()));
        let shared = self.client.shared();
        let ticket = shared.put(self.id, claims, act, content, nonce)?;
        Ok(Outgoing::new(self.client.clone(), ticket))
    }

    /// The least role that may post, as far as is known here, and no more than the own one.
    fn posting_role(&self) -> Role {
        self.client.shared().posting_role(self.id)
    }

    /// Replaces the text of an own message, sent or still in the outbox.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn edit(&self, message: EventId, text: impl Into<String>) -> Result<Outgoing> {
        let sealed = seal(Draft::text(text).content)?;
        let act = Act::Edit {
            target: message,
            content: sealed.reference(),
        };
        self.queue(self.posting_role(), act, Some(sealed))
    }

    /// Deletes an own message: its text is erased on every server.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn delete(&self, message: EventId) -> Result<Outgoing> {
        // An author's deletion needs no role: it counts even after a removal.
        self.queue(Role::None, Act::Delete { target: message }, None)
    }

    /// Deletes another's message.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); the home server refuses below moderator.
    pub async fn delete_as_moderator(&self, message: EventId) -> Result<Outgoing> {
        self.queue(Role::Moderator, Act::Delete { target: message }, None)
    }

    /// Puts an emoji on a message. It names the version of the text that this client was shown last,
    /// so that readers learn if it was another one ([`Reaction::older`]).
    ///
    /// [`Reaction::older`]: comity_protocol::session::Reaction::older
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a text that
    /// is no emoji: empty, over 64 bytes, with control characters or `|`.
    pub async fn react(&self, message: EventId, emoji: impl Into<String>) -> Result<Outgoing> {
        // What its author was shown: readers are told if the text changed afterwards.
        let shown = self.client.shared().shown_edit(&message);
        self.reaction(message, emoji.into(), true, shown)
    }

    /// Takes an own emoji off a message.
    ///
    /// # Errors
    ///
    /// As [`react`](Self::react).
    pub async fn unreact(&self, message: EventId, emoji: impl Into<String>) -> Result<Outgoing> {
        self.reaction(message, emoji.into(), false, None)
    }

    /// Puts an emoji on a version of a message, or takes it off.
    pub(crate) fn reaction(
        &self,
        target: EventId,
        emoji: String,
        on: bool,
        version: Option<EventId>,
    ) -> Result<Outgoing> {
        let act = Act::React {
            target,
            emoji,
            on,
            version,
        };
        self.queue(self.posting_role(), act, None)
    }

    /// Pins a message, or unpins it. Needs a moderator.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn pin(&self, message: EventId, on: bool) -> Result<Outgoing> {
        self.queue(
            Role::Moderator,
            Act::Pin {
                target: message,
                on,
            },
            None,
        )
    }

    /// Sets the title; an empty one clears it. Needs a moderator.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn set_title(&self, title: impl Into<String>) -> Result<Outgoing> {
        self.set("title", title.into(), Role::Moderator)
    }

    /// Sets the topic; an empty one clears it. Needs a moderator.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn set_topic(&self, topic: impl Into<String>) -> Result<Outgoing> {
        self.set("topic", topic.into(), Role::Moderator)
    }

    /// Sets the own display name in this conversation; an empty one clears it.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn set_name(&self, name: impl Into<String>) -> Result<Outgoing> {
        self.set("name", name.into(), self.posting_role())
    }

    fn set(&self, field: &str, value: String, claims: Role) -> Result<Outgoing> {
        let sealed = if value.is_empty() {
            None
        } else {
            Some(seal(Draft::text(value).content)?)
        };
        let act = Act::State {
            field: field.to_owned(),
            content: sealed.as_ref().map(SealedContent::reference),
        };
        self.queue(claims, act, sealed)
    }

    /// All members, in order of their ids.
    ///
    /// # Errors
    ///
    /// The server's refusal, or [`ErrorKind::Offline`](crate::ErrorKind::Offline).
    pub async fn members(&self) -> Result<Vec<Member>> {
        let mut all: Vec<Member> = vec![];
        loop {
            let request = Request::Members {
                conversation: self.id,
                after: all.last().map(|member| member.user),
                limit: MEMBERS_PAGE,
            };
            let reply = self.client.shared().call(request).await?;
            let Reply::Members { members, complete } = reply else {
                return Err(Error::unexpected_reply());
            };
            let stuck = members.is_empty() || members.iter().any(|m| after(&all, m.user));
            all.extend(members);
            if complete {
                return Ok(all);
            }
            // A server whose pages do not move on would keep this loop going for ever.
            if stuck {
                return Err(Error::unexpected_reply());
            }
        }
    }

    /// Reads the conversation: pages or a stream, from either end or from a place.
    pub fn history(&self) -> History {
        History::new(self.clone())
    }
}

fn after(all: &[Member], user: UserId) -> bool {
    all.last().is_some_and(|last| user <= last.user)
}

fn seal(mut content: Content) -> Result<SealedContent> {
    content.salt.0 = Salt::from_bytes(random::bytes()?);
    Ok(SealedContent::seal(&content)?)
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
