//! What the home server writes into its log: one record a change of state, each with all that its
//! rows are made of. Source: `spec/07-storage.md`, part "Records of a home server".
//!
//! A record of a commit carries what the engine concluded (what is shown, what turned void), so
//! that the index is a function of the log alone and needs no protocol to be built again.

use comity_protocol::{
    authority::{Cause, Span, Switch},
    card::RawCard,
    commit::{RawCommit, RootRef},
    encoding,
    event::{RawEvent, Tip},
    ids::{Blob, CommitId, ConversationId, EventId, RootId, ServerId, UserId},
    link::Offer,
    role::Role,
    root::{RawRoot, Steward},
    session::Place,
    shard::Due,
    time::Timestamp,
};
use comity_storage::Record;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Tags of records. Numbers are for ever.
pub(crate) mod kind {
    /// A [`super::ConversationRecord`].
    pub(crate) const CONVERSATION: u8 = 1;
    /// A [`super::CommitRecord`].
    pub(crate) const COMMIT: u8 = 2;
    /// A [`super::IdentityRecord`].
    pub(crate) const IDENTITY: u8 = 3;
    /// A [`super::AccountRecord`].
    pub(crate) const ACCOUNT: u8 = 4;
    /// A [`super::TokenRecord`].
    pub(crate) const TOKEN: u8 = 5;
    /// A [`super::OutboxRecord`].
    pub(crate) const OUTBOX: u8 = 6;
    /// A [`super::RootRecord`].
    pub(crate) const ROOT: u8 = 7;
    /// A [`super::StewardRecord`].
    pub(crate) const STEWARD: u8 = 8;
    /// An [`super::UnreachedRecord`].
    pub(crate) const UNREACHED: u8 = 9;
    /// An [`super::ExpiredRecord`].
    pub(crate) const EXPIRED: u8 = 10;
    /// A [`super::ContentsRecord`].
    pub(crate) const CONTENTS: u8 = 11;
    /// A [`super::ServerRecord`].
    pub(crate) const SERVER: u8 = 12;
}

/// State fields that a list of conversations shows.
pub(crate) const SUMMARY_FIELDS: [&str; 2] = ["title", "topic"];
/// Bytes of a record's body that are read back at most.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A body that is no record of this program: damage, or a bug.
#[derive(Debug, thiserror::Error)]
#[error("record {number} cannot be read: {source}")]
pub(crate) struct UnreadableRecord {
    pub(crate) number: u64,
    source: encoding::DecodeError,
}

pub(crate) fn read<T: DeserializeOwned>(number: u64, body: &[u8]) -> Result<T, UnreadableRecord> {
    encoding::decode_frame(body, BODY_BYTES_MAX)
        .map_err(|source| UnreadableRecord { number, source })
}

pub(crate) fn record<T: Serialize>(kind: u8, body: &T, contents: Vec<Vec<u8>>) -> Record {
    Record {
        kind,
        body: encoding::encode(body),
        contents,
    }
}

/// A conversation is known from here on.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConversationRecord {
    pub(crate) conversation: ConversationId,
    pub(crate) offer: Offer,
    pub(crate) at: Timestamp,
    /// The creator of a group, member before any commit.
    pub(crate) members: Vec<MemberChange>,
}

/// Where an event's content is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Slot {
    /// The event names none.
    None,
    /// Content of this record, by index.
    Held(u16),
    /// Erased before it came here.
    Gone,
    /// Older than its conversation keeps contents.
    Expired,
    /// Not for this server to have.
    Withheld,
    /// It came withheld, and later by itself: content of that record, by index. In rows only.
    Later(u64, u16),
}

/// An event of a commit as it counts here.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventEntry {
    pub(crate) raw: RawEvent,
    pub(crate) slot: Slot,
    /// Shown as a line of its own.
    pub(crate) shown: bool,
    /// The reason's code, if void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) void: Option<String>,
    /// The act that took it away before it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) void_by: Option<Cause>,
    /// Beyond the policy `rate`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) folded: bool,
}

/// What a message looks like after edits, reactions and deletions.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marks {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edit: Option<EventId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted: Option<EventId>,
    /// Emoji and the users who put it, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reactions: Vec<(String, Vec<UserId>)>,
    /// Those of them that were to another version than the one shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) older: Vec<(String, Vec<UserId>)>,
    /// Edits that lost against the one shown, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lost: Vec<EventId>,
}

/// A role that changed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberChange {
    pub(crate) user: UserId,
    pub(crate) role: Role,
    pub(crate) home: ServerId,
    /// The act that ended the membership.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<Cause>,
}

/// A commit and what it changed here.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitRecord {
    pub(crate) conversation: ConversationId,
    pub(crate) commit: RawCommit,
    pub(crate) events: Vec<EventEntry>,
    /// Later lines were shown here before.
    pub(crate) late: bool,
    pub(crate) at: Timestamp,
    /// Targets whose marks changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) marks: Vec<(EventId, Marks)>,
    /// Earlier events that turned void, with the reason's code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) void: Vec<(EventId, String)>,
    /// The acts that took them away, of those that have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) void_by: Vec<(EventId, Cause)>,
    /// Of those, the ones of users who had their home here and are no members any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) void_outside: Vec<(UserId, EventId)>,
    /// Earlier events that stand again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stand: Vec<EventId>,
    /// Earlier events that are shown at another place now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) moved: Vec<(EventId, Place)>,
    /// Earlier messages, and whether they are beyond the policy `rate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) folded: Vec<(EventId, bool)>,
    /// Events whose contents are erased.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) erase: Vec<EventId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) members: Vec<MemberChange>,
    /// When users at home here were members, of those for whom that changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sights: Vec<(UserId, Vec<Span>)>,
    /// Where the policy `history` changes, if that is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<Vec<Switch>>,
    /// Ends of the chain of the commit's home, where it stands and where it forked.
    pub(crate) tips: Vec<Tip>,
    /// State fields and the event that holds the value, `None` if cleared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) state: Vec<(String, Option<EventId>)>,
    /// Homes that take part no longer, and the end of the own chain that they are still to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ended: Vec<(ServerId, Option<u64>)>,
    /// Another commit of its home on the same one before: proof that this home forked its chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fork: Option<ForkRow>,
    /// What this home is to do here by itself from now on, if that is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due: Option<Due>,
}

/// A root record from 1 on and what it changed here; the fields are those of a [`CommitRecord`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootRecord {
    pub(crate) conversation: ConversationId,
    pub(crate) root: RawRoot,
    pub(crate) id: RootId,
    /// The record before, if it is not record 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<RootId>,
    /// Commits that it has seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) frontier: Vec<CommitId>,
    /// The newest record that stands with it.
    pub(crate) newest: RootRef,
    /// Two records of its number on one before, of which it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) twins: Option<TwinsRow>,
    pub(crate) at: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) marks: Vec<(EventId, Marks)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) void: Vec<(EventId, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) void_by: Vec<(EventId, Cause)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) void_outside: Vec<(UserId, EventId)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stand: Vec<EventId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) moved: Vec<(EventId, Place)>,
    /// Earlier messages, and whether they are beyond the policy `rate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) folded: Vec<(EventId, bool)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) erase: Vec<EventId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) members: Vec<MemberChange>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sights: Vec<(UserId, Vec<Span>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) history: Option<Vec<Switch>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) state: Vec<(String, Option<EventId>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ended: Vec<(ServerId, Option<u64>)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due: Option<Due>,
}

/// Proof against the stewards that signed two records on one.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TwinsRow {
    pub(crate) n: u64,
    pub(crate) stands: RootId,
    pub(crate) loses: RootId,
    pub(crate) signed_both: Vec<ServerId>,
}

/// Proof that a home forked its chain: two commits of it on one before.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForkRow {
    pub(crate) home: ServerId,
    pub(crate) stands: CommitId,
    pub(crate) loses: CommitId,
}

/// What this home promised and signed for the next root record of a conversation, as it is now.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StewardRecord {
    pub(crate) conversation: ConversationId,
    pub(crate) steward: Steward,
    /// What this home is to do here by itself from now on, if that is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due: Option<Due>,
}

/// For how long this server has tried in vain to reach another, in milliseconds. Written lazily: a
/// lower count only means that it waits longer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnreachedRecord {
    pub(crate) peer: ServerId,
    pub(crate) ms: u64,
}

/// Contents that are erased because their days are over.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpiredRecord {
    pub(crate) conversation: ConversationId,
    /// The message or edit, and the message that reads otherwise without it.
    pub(crate) events: Vec<(EventId, EventId)>,
    pub(crate) at: Timestamp,
}

/// Contents that came after their commits, which came without.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContentsRecord {
    pub(crate) conversation: ConversationId,
    pub(crate) events: Vec<ContentEntry>,
    pub(crate) at: Timestamp,
}

/// What came of one content: it is held, or there will be none.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContentEntry {
    pub(crate) event: EventId,
    /// The line that reads otherwise with it.
    pub(crate) line: EventId,
    pub(crate) slot: Slot,
}

/// A server's cards as they are now, whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerRecord {
    pub(crate) server: ServerId,
    pub(crate) cards: Vec<RawCard>,
    /// It answered at its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) named: bool,
}

/// A user's identity log as it is now, whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityRecord {
    pub(crate) user: UserId,
    pub(crate) entries: Vec<Blob>,
}

/// An account of this home as it is now.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountRecord {
    pub(crate) user: UserId,
    pub(crate) handle: String,
    /// PHC string of argon2id; absent for accounts without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
    pub(crate) created_at: Timestamp,
}

/// A token as it is now; the text itself is stored nowhere.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRecord {
    /// BLAKE3 of the token.
    pub(crate) hash: Blob,
    /// The user whose devices it enrols; absent for one that makes accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<UserId>,
    pub(crate) uses_left: u32,
    pub(crate) expires_at: Timestamp,
}

/// How far a peer is. Written lazily: an older position only means that more is compared.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutboxRecord {
    pub(crate) peer: ServerId,
    /// Conversation and the newest own seq that the peer stored.
    pub(crate) acked: Vec<(ConversationId, u64)>,
}
