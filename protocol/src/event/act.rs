//! What an event does, one variant a kind. Source: `spec/02-events-and-commits.md`, section 3.

use serde::{Deserialize, Serialize};

use super::ContentRef;
use crate::{
    ids::{CommitId, EventId, ServerId, UserId},
    role::Role,
};

/// The end of a home's chain as somebody knew it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tip {
    /// The home whose chain it is.
    pub home: ServerId,
    /// The writer's epoch.
    pub epoch: u64,
    /// Place in the chain, from 0.
    pub seq: u64,
    /// The commit there.
    pub id: CommitId,
}

/// Whom a grant is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Target {
    /// One user, who is bound to this home by the grant.
    User {
        /// The user.
        user: UserId,
        /// The home server that signs this user's commits.
        home: ServerId,
    },
    /// Whoever wants to join: a *door*.
    Anyone,
}

/// A change of somebody's role.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// Who gets the role.
    pub target: Target,
    /// The role given; none removes.
    pub role: Role,
    /// What a removal, ban or demotion lets stand: the target's homes' chains up to these tips.
    /// Strictly increasing.
    pub cut: Vec<Tip>,
    /// Kills grants that it has not seen, too.
    pub ban: bool,
    /// Bans that this grant ends. Strictly increasing.
    pub lifts: Vec<EventId>,
}

/// A policy's field.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Field {
    /// The least role that may post: a [`Role`]'s number. Without it: member.
    Posting,
    /// Who sees what was said before they came: 0 `shared` (all of it), 1 `joined` (nothing).
    History,
    /// Days that contents of messages and edits are kept; 0 for ever.
    KeepDays,
    /// Messages a minute and home beyond which messages are folded; 0 no limit.
    Rate,
}

/// What was done.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Act {
    /// Posted a message.
    Message {
        /// The text, by hash.
        content: ContentRef,
    },
    /// Replaced the text of an own message.
    Edit {
        /// The message.
        target: EventId,
        /// The new text, by hash.
        content: ContentRef,
    },
    /// Deleted a message.
    Delete {
        /// The message.
        target: EventId,
    },
    /// Put a reaction on a message or took it off.
    React {
        /// The message.
        target: EventId,
        /// The emoji: 1..=64 bytes without control characters.
        emoji: String,
        /// Off takes away only what its author's home had seen: a concurrent reaction stays.
        on: bool,
        /// The edit whose text its author was shown; none: the message as it was written. Only
        /// with `on`: what is taken off is taken off whatever it was put on.
        version: Option<EventId>,
    },
    /// Pinned a message or unpinned it.
    Pin {
        /// The message.
        target: EventId,
        /// Pinned or not.
        on: bool,
    },
    /// Set a field of the conversation's state, or one's own display name in it.
    State {
        /// `title`, `topic`, ... or `name` for the author's own display name.
        field: String,
        /// The value, by hash; none clears the field.
        content: Option<ContentRef>,
    },
    /// Changed somebody's role.
    Grant(Grant),
    /// Came in through a door.
    Join {
        /// The role taken.
        role: Role,
        /// The joiner's home, which signs the commit.
        home: ServerId,
    },
    /// Left, or declined an invitation.
    Leave {
        /// What of the author's own stands: his homes' chains up to these tips.
        cut: Vec<Tip>,
    },
    /// Moved to another home.
    Move {
        /// The new home, which signs the commit.
        home: ServerId,
        /// Entry of the identity log that says so.
        n: u64,
        /// What of the old homes stands.
        cut: Vec<Tip>,
    },
    /// Set a policy.
    Policy {
        /// Which one.
        field: Field,
        /// Its value.
        value: u64,
    },
}

impl Act {
    /// Whether this act takes part in authority: it is named by frontiers and judged by others.
    #[must_use]
    pub const fn is_authority(&self) -> bool {
        matches!(
            self,
            Self::Grant(_)
                | Self::Join { .. }
                | Self::Leave { .. }
                | Self::Move { .. }
                | Self::Policy { .. }
        )
    }

    /// The event this one is about.
    #[must_use]
    pub const fn target(&self) -> Option<EventId> {
        match self {
            Self::Edit { target, .. }
            | Self::Delete { target }
            | Self::React { target, .. }
            | Self::Pin { target, .. } => Some(*target),
            _ => None,
        }
    }

    /// The content this one carries, by hash.
    #[must_use]
    pub const fn content(&self) -> Option<ContentRef> {
        match self {
            Self::Message { content } | Self::Edit { content, .. } => Some(*content),
            Self::State { content, .. } => *content,
            _ => None,
        }
    }

    /// The kind's name on the wire.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Message { .. } => "message",
            Self::Edit { .. } => "edit",
            Self::Delete { .. } => "delete",
            Self::React { .. } => "react",
            Self::Pin { .. } => "pin",
            Self::State { .. } => "state",
            Self::Grant(_) => "grant",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
            Self::Move { .. } => "move",
            Self::Policy { .. } => "policy",
        }
    }
}
