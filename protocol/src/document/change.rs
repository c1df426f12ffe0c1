//! Typed changes: the only thing a document is made of.

use data_encoding::BASE64URL_NOPAD;

use super::{Refusal, engine::Map, limits::KEY_BYTES_MAX};
use crate::{
    event::{Act, ContentRef, Event},
    ids::{EventId, ServerId, UserId},
    limits::{EMOJI_BYTES_MAX, STATE_FIELD_BYTES_MAX},
    session::Place,
};

/// The state field that holds its author's display name instead of the conversation's.
const NAME_FIELD: &str = "name";

/// One valid event that changes something.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Change {
    /// The event; a document takes each once.
    pub event: EventId,
    /// The home that committed the appearance which counts.
    pub home: ServerId,
    /// That commit's epoch, which tells appearances apart and decides nothing.
    pub epoch: u64,
    /// What changes.
    pub kind: ChangeKind,
}

/// What a change does.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum ChangeKind {
    /// Replaces a message's content.
    Edit {
        /// The message.
        target: EventId,
        /// Its new content.
        content: ContentRef,
        /// Who edits, to be told if a concurrent edit wins.
        author: UserId,
        /// Place in the order: of concurrent edits the last there wins.
        at: Place,
    },
    /// Deletes a message for good.
    Delete {
        /// The message.
        target: EventId,
        /// Who deletes.
        by: UserId,
    },
    /// Puts a reaction on a message or takes it off.
    React {
        /// The message.
        target: EventId,
        /// 1..=64 bytes without control characters.
        emoji: String,
        /// Who reacts.
        user: UserId,
        /// Off takes away only what it has seen.
        on: bool,
        /// The edit that was reacted to; none: the message as it was written.
        version: Option<EventId>,
    },
    /// Sets or clears a field of the conversation.
    State {
        /// 1..=64 bytes without control characters.
        field: String,
        /// None clears.
        value: Option<ContentRef>,
        /// Place in the order: of concurrent values the last there wins.
        at: Place,
    },
    /// Pins or unpins a message.
    Pin {
        /// The message.
        target: EventId,
        /// Off takes away only what it has seen.
        on: bool,
    },
    /// Sets or clears a user's display name in the conversation.
    Name {
        /// The user.
        user: UserId,
        /// None clears.
        value: Option<ContentRef>,
        /// Place in the order: of concurrent values the last there wins.
        at: Place,
    },
}

/// Which document a change belongs to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DocumentKind {
    /// What happened to the messages of one pack.
    Pack,
    /// The state of one conversation.
    State,
}

impl ChangeKind {
    /// What a valid event at `at` changes; `None` if it changes no document.
    #[must_use]
    pub fn of(event: &Event, at: Place) -> Option<Self> {
        let author = event.author;
        Some(match &event.act {
            Act::Edit { target, content } => Self::Edit {
                target: *target,
                content: *content,
                author,
                at,
            },
            Act::Delete { target } => Self::Delete {
                target: *target,
                by: author,
            },
            Act::React {
                target,
                emoji,
                on,
                version,
            } => Self::React {
                target: *target,
                emoji: emoji.clone(),
                user: author,
                on: *on,
                version: *version,
            },
            Act::Pin { target, on } => Self::Pin {
                target: *target,
                on: *on,
            },
            Act::State { field, content } if field == NAME_FIELD => Self::Name {
                user: author,
                value: *content,
                at,
            },
            Act::State { field, content } => Self::State {
                field: field.clone(),
                value: *content,
                at,
            },
            _ => return None,
        })
    }

    /// The document that takes it.
    #[must_use]
    pub const fn document(&self) -> DocumentKind {
        match self {
            Self::Edit { .. } | Self::Delete { .. } | Self::React { .. } => DocumentKind::Pack,
            Self::State { .. } | Self::Pin { .. } | Self::Name { .. } => DocumentKind::State,
        }
    }

    /// The place that decides between concurrent values.
    pub(super) const fn place(&self) -> Option<Place> {
        match self {
            Self::Edit { at, .. } | Self::State { at, .. } | Self::Name { at, .. } => Some(*at),
            Self::Delete { .. } | Self::React { .. } | Self::Pin { .. } => None,
        }
    }

    /// The same change of an event that counts from another place.
    #[must_use]
    pub(crate) fn at_place(mut self, place: Place) -> Self {
        if let Self::Edit { at, .. } | Self::State { at, .. } | Self::Name { at, .. } = &mut self {
            *at = place;
        }
        self
    }

    pub(super) const fn is_deletion(&self) -> bool {
        matches!(self, Self::Delete { .. })
    }

    /// The map and key that the change writes.
    pub(super) fn slot(&self) -> (Map, String) {
        match self {
            Self::Edit { target, .. } => (Map::Edits, id_key(target.as_bytes())),
            Self::Delete { target, .. } => (Map::Deletions, id_key(target.as_bytes())),
            Self::React {
                target,
                emoji,
                user,
                ..
            } => {
                let mut key = reactions_prefix(*target);
                key.push_str(emoji);
                key.push('|');
                key.push_str(&id_key(user.as_bytes()));
                (Map::Reactions, key)
            }
            Self::State { field, .. } => (Map::Fields, field.clone()),
            Self::Pin { target, .. } => (Map::Pins, id_key(target.as_bytes())),
            Self::Name { user, .. } => (Map::Names, id_key(user.as_bytes())),
        }
    }

    /// What decides the part of a large document: all about one message stays together.
    pub(super) fn shard_hash(&self) -> u8 {
        match self {
            Self::Edit { target, .. }
            | Self::Delete { target, .. }
            | Self::React { target, .. }
            | Self::Pin { target, .. } => shard_hash(target.as_bytes()),
            Self::State { field, .. } => shard_hash(field.as_bytes()),
            Self::Name { user, .. } => shard_hash(user.as_bytes()),
        }
    }

    /// Checks what a decoded event guarantees already, so that a document never relies on it.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let label = |text: &str, max: usize| {
            (1..=max).contains(&text.len()) && !text.contains(char::is_control)
        };
        let fits = match self {
            Self::React { emoji, .. } => label(emoji, EMOJI_BYTES_MAX),
            Self::State { field, .. } => label(field, STATE_FIELD_BYTES_MAX),
            _ => true,
        };
        if fits && self.slot().1.len() <= KEY_BYTES_MAX {
            Ok(())
        } else {
            Err(Refusal::Key)
        }
    }
}

/// Start of the keys of a message's reactions.
pub(super) fn reactions_prefix(target: EventId) -> String {
    let mut key = id_key(target.as_bytes());
    key.push('|');
    key
}

/// An identifier in a key: base64url without padding, 43 characters.
pub(super) fn id_key(id: &[u8; 32]) -> String {
    BASE64URL_NOPAD.encode(id)
}

/// First byte of the BLAKE3 of what a change is about.
pub(super) fn shard_hash(about: &[u8]) -> u8 {
    blake3::hash(about).as_bytes()[0]
}
