//! What a server tells its clients about conversations. Source: `spec/06-client-protocol.md`,
//! sections 4 and 5.

use serde::{Deserialize, Serialize};

use crate::{
    authority::Cause,
    event::RawEvent,
    ids::{Blob, ConversationId, EventId, ServerId, UserId},
    place::Place,
    role::Role,
    time::Timestamp,
};

/// A content as a client may see it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ContentState {
    /// Canonical bytes of the content.
    Held(Blob),
    /// Erased by its author's deletion or a moderator's, or by somebody from whom it would have come.
    Gone,
    /// Erased because it is older than the conversation keeps contents.
    Expired,
    /// Not here yet; it is being fetched.
    Missing,
    /// Not for this reader: it is from a time that he does not see.
    Withheld,
    /// The event carries none.
    None,
}

/// The edit that won.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Edited {
    /// The edit's event, for checking its author's signature.
    pub event: RawEvent,
    /// The text that it gave.
    pub content: ContentState,
}

/// Who put one emoji on a message.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    /// The emoji.
    pub emoji: String,
    /// Users, in order of their ids; at most 64, `count` has them all.
    pub users: Vec<UserId>,
    /// How many users.
    pub count: u64,
    /// Those of `users` who reacted to another version than the one that is shown now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older: Vec<UserId>,
}

/// One line of a conversation as it is now.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Where it is shown.
    pub place: Place,
    /// The home whose commit it is in.
    pub origin: ServerId,
    /// The event as its author signed it.
    pub event: RawEvent,
    /// Its content.
    pub content: ContentState,
    /// The edit that won, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<Edited>,
    /// Edits that were made without having seen the one that won, and lost against it; in the order
    /// of their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<EventId>,
    /// The deletion's event, if deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<EventId>,
    /// Reactions, in order of their emoji.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
    /// It came in after later ones were shown here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// It is beyond the policy `rate`: show that it is there, and not what it says, until somebody
    /// asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub folded: bool,
}

/// An event that an act of the reader took away.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VoidItem {
    /// Where it would be shown.
    pub place: Place,
    /// The event as its author signed it.
    pub event: RawEvent,
    /// Its content, if it is the value of a state field; everything else is withheld.
    pub content: ContentState,
    /// Why it does not count: a code of `spec/04-authority.md`, section 5.
    pub reason: String,
    /// The reader's act.
    pub by: EventId,
}

/// A conversation in the list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The conversation.
    pub conversation: ConversationId,
    /// Exactly two users for ever.
    pub direct: bool,
    /// Title as set; absent in direct ones and where nobody set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Topic as set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The reader's own role.
    pub role: Role,
    /// How many members.
    pub members: u64,
    /// Home servers taking part.
    pub servers: Vec<ServerId>,
    /// Place of the newest line, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Place>,
    /// Time of the newest change here.
    pub changed_at: Timestamp,
    /// The reader owns it, and his device is to have the usual stewards named, by `next_root` without
    /// names: his home cannot do that by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_stewards: bool,
}

/// One change, in the order the server took it in.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// A line came, anywhere in the order.
    Appeared {
        /// Where.
        conversation: ConversationId,
        /// The line.
        item: Box<Item>,
    },
    /// A line was edited, deleted or reacted to, or its content came or went.
    Changed {
        /// Where.
        conversation: ConversationId,
        /// The line as it is now.
        item: Box<Item>,
    },
    /// An event is void now: it stands in no member's history. Told of lines and of edits,
    /// deletions and reactions alike, so that their author learns of it; and of what came after the
    /// act that took it away to who did that.
    Vanished {
        /// Where.
        conversation: ConversationId,
        /// The event that counted.
        event: EventId,
        /// Why: a code of `spec/04-authority.md`, section 5.
        reason: String,
        /// The act that took it away, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Cause>,
    },
    /// What had vanished and is no line counts again. A line appears.
    Stands {
        /// Where.
        conversation: ConversationId,
        /// The event.
        event: EventId,
    },
    /// A conversation is new to the reader, or its summary changed.
    Conversation(Box<Summary>),
    /// The reader is no longer a member.
    Left {
        /// Where.
        conversation: ConversationId,
        /// The act that ended it, where one did; the reader's own if he left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Cause>,
    },
    /// An own event is durable on this many of the other servers taking part. Sent without a
    /// cursor of its own: it is a state, not history.
    Delivery {
        /// Where.
        conversation: ConversationId,
        /// The event.
        event: EventId,
        /// Servers that stored it, this one not counted.
        replicated: u32,
        /// Servers that have to.
        of: u32,
    },
    /// Changes from here on may be missing in this conversation: re-read its newest page.
    Gap {
        /// Where.
        conversation: ConversationId,
    },
}
