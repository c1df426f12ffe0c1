//! A line of a conversation: a message, or an act that is shown between messages.

use std::{fmt, sync::Arc};

use comity_protocol::{
    event::{Act, Attachment, Content},
    ids::{ConversationId, DeviceKey, EventId, ServerId, UserId},
    session::{Place, Reaction},
    time::Timestamp,
};

use crate::{
    client::Client,
    conversation::{Conversation, Draft},
    error::Result,
    sending::Outgoing,
};

/// What is left of a line's content.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Body {
    /// The text and what hangs on it.
    Held(Content),
    /// Erased by its author or a moderator.
    Gone,
    /// Erased because the conversation does not keep contents for so long.
    Expired,
    /// Not at the home server yet; [`Event::Message`](crate::Event::Message) follows once it is.
    Missing,
    /// Not for this reader: it was said when he was no member, and the conversation's history is for
    /// those who were.
    Withheld,
    /// An act without content.
    None,
}

/// A verified line, as it is buffered.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) conversation: ConversationId,
    pub(crate) place: Place,
    pub(crate) origin: ServerId,
    pub(crate) id: EventId,
    pub(crate) event: comity_protocol::event::Event,
    pub(crate) body: Body,
    pub(crate) edited: Option<(EventId, Body)>,
    pub(crate) lost: Vec<EventId>,
    pub(crate) deleted: Option<EventId>,
    pub(crate) reactions: Vec<Reaction>,
    pub(crate) late: bool,
    pub(crate) folded: bool,
    pub(crate) version: u64,
}

impl Line {
    pub(crate) fn weight(&self) -> usize {
        let text = |body: &Body| match body {
            Body::Held(content) => content.text.len(),
            _ => 0,
        };
        1_024 + text(&self.body) + self.edited.as_ref().map_or(0, |(_, body)| text(body))
    }

    fn shown(&self) -> &Body {
        match &self.edited {
            // Of an edit that is not for this reader he is told only that there is one.
            Some((_, body)) if self.deleted.is_none() && *body != Body::Withheld => body,
            _ => &self.body,
        }
    }
}

/// One line of a conversation, as it was when it was read. Cheap to clone.
///
/// Its author's signature was checked: nobody but a device of [`author`](Self::author) wrote it.
/// Reactions and deletions come without their events, on the home server's word.
#[derive(Clone)]
pub struct Message {
    client: Client,
    line: Arc<Line>,
}

impl Message {
    pub(crate) const fn new(client: Client, line: Arc<Line>) -> Self {
        Self { client, line }
    }

    /// The event's id: never changes, unique everywhere.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.line.id
    }

    /// The conversation's id.
    #[must_use]
    pub fn conversation_id(&self) -> ConversationId {
        self.line.conversation
    }

    /// The conversation.
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        self.client.conversation(self.line.conversation)
    }

    /// Who wrote it.
    #[must_use]
    pub fn author(&self) -> UserId {
        self.line.event.author
    }

    /// On which device.
    #[must_use]
    pub fn device(&self) -> DeviceKey {
        self.line.event.device
    }

    /// Whether this client's user wrote it, on any device.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.author() == self.client.user()
    }

    /// Whether it is a message and not another act.
    #[must_use]
    pub fn is_message(&self) -> bool {
        matches!(self.line.event.act, Act::Message { .. })
    }

    /// What was done.
    #[must_use]
    pub fn act(&self) -> &Act {
        &self.line.event.act
    }

    /// The text as it is now, after edits; empty where there is none (any more).
    ///
    /// It is what its author wrote, byte for byte: control characters and directions included.
    #[must_use]
    pub fn text(&self) -> &str {
        self.content().map_or("", |content| &content.text)
    }

    /// The content as it is now, after edits.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        match self.line.shown() {
            Body::Held(content) => Some(content),
            _ => None,
        }
    }

    /// The content as it is now, with the reason if there is none.
    #[must_use]
    pub fn body(&self) -> &Body {
        self.line.shown()
    }

    /// The text before edits, while it is held.
    #[must_use]
    pub fn original_text(&self) -> Option<&str> {
        match &self.line.body {
            Body::Held(content) => Some(&content.text),
            _ => None,
        }
    }

    /// The messages that this one answers.
    #[must_use]
    pub fn reply_to(&self) -> &[EventId] {
        self.content().map_or(&[], |content| &content.reply_to)
    }

    /// The users that this message calls.
    #[must_use]
    pub fn mentions(&self) -> &[UserId] {
        self.content().map_or(&[], |content| &content.mentions)
    }

    /// The files of this message.
    #[must_use]
    pub fn attachments(&self) -> &[Attachment] {
        self.content().map_or(&[], |content| &content.attachments)
    }

    /// Whether the text is something the author does (`/me waves`).
    #[must_use]
    pub fn is_action(&self) -> bool {
        self.content().is_some_and(|content| content.action)
    }

    /// The edit whose text is shown.
    #[must_use]
    pub fn edited(&self) -> Option<EventId> {
        self.line.edited.as_ref().map(|(id, _)| *id)
    }

    /// Edits that were made without having seen the one shown, and lost against it; in the order of
    /// their ids. Their author is told by [`Event::EditLost`](crate::Event::EditLost).
    #[must_use]
    pub fn lost_edits(&self) -> &[EventId] {
        &self.line.lost
    }

    /// The deletion, if deleted.
    #[must_use]
    pub fn deleted(&self) -> Option<EventId> {
        self.line.deleted
    }

    /// Reactions, in order of their emoji; each says who put it on another version of the text.
    #[must_use]
    pub fn reactions(&self) -> &[Reaction] {
        &self.line.reactions
    }

    /// Where it is shown: the order of places is the order of the conversation, everywhere.
    #[must_use]
    pub fn place(&self) -> Place {
        self.line.place
    }

    /// The home server that took it in.
    #[must_use]
    pub fn origin(&self) -> ServerId {
        self.line.origin
    }

    /// When its home server took it in.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.line.place.hlc.timestamp()
    }

    /// When it was written, by the author's clock. Nothing checks that clock.
    #[must_use]
    pub fn sent_at(&self) -> Timestamp {
        self.line.event.sent_at
    }

    /// It came in after later ones were shown.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.line.late
    }

    /// Its home server took in more messages in that minute than the conversation's policy `rate`
    /// wants. It is as good as any other; a program that shows a history folds it, and wakes nobody
    /// for it.
    #[must_use]
    pub fn is_folded(&self) -> bool {
        self.line.folded
    }

    /// Answers this message. `Ok` means that the answer is safe in the outbox.
    ///
    /// # Errors
    ///
    /// As [`Conversation::send`].
    pub async fn reply(&self, text: impl Into<String>) -> Result<Outgoing> {
        let answer = Draft::text(text).reply_to(self.id());
        self.conversation().send_content(answer).await
    }

    /// Replaces the text of an own message.
    ///
    /// # Errors
    ///
    /// As [`Conversation::edit`].
    pub async fn edit(&self, text: impl Into<String>) -> Result<Outgoing> {
        self.conversation().edit(self.id(), text).await
    }

    /// Deletes this message: an own one, or another's as a moderator.
    ///
    /// # Errors
    ///
    /// As [`Conversation::delete`].
    pub async fn delete(&self) -> Result<Outgoing> {
        if self.is_own() {
            self.conversation().delete(self.id()).await
        } else {
            self.conversation().delete_as_moderator(self.id()).await
        }
    }

    /// Puts an emoji on this message, as it was when it was read: on this version of its text.
    ///
    /// # Errors
    ///
    /// As [`Conversation::react`].
    #[expect(clippy::unused_async, reason = "as `Conversation::react`")]
    pub async fn react(&self, emoji: impl Into<String>) -> Result<Outgoing> {
        let version = self.edited();
        self.conversation()
            .reaction(self.id(), emoji.into(), true, version)
    }

    /// Takes an own emoji off this message.
    ///
    /// # Errors
    ///
    /// As [`Conversation::react`].
    pub async fn unreact(&self, emoji: impl Into<String>) -> Result<Outgoing> {
        self.conversation().unreact(self.id(), emoji).await
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.line.id)
            .field("author", &self.line.event.author)
            .field("body", self.line.shown())
            .finish_non_exhaustive()
    }
}
