//! Rows of the index: keys, values and the reads over them. Source: `spec/07-storage.md`, part
//! "Rows of a home server". Every read is a point or a range; every key begins with its table.

use std::{collections::BTreeMap, ops::Bound};

use comity_protocol::{
    authority::{Cause, Reason},
    commit::RootRef,
    encoding,
    event::Tip,
    ids::{Blob, CommitId, ConversationId, DeviceKey, EventId, Nonce, RootId, ServerId, UserId},
    link::Offer,
    role::Role,
    root::Steward,
    session::Place,
    shard::Due,
    time::Timestamp,
};
use comity_storage::{ContentAt, Direction, ReadError, Reader};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::records::{AccountRecord, ForkRow, Marks, ServerRecord, Slot, TokenRecord, TwinsRow};

mod outside;
mod sight;
mod withheld;

const VALUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Twin root records that operators are told of; one is alarming.
const TWINS_MAX: usize = 1_000;
/// Homes that forked their chains of which operators are told.
const FORKS_MAX: usize = 1_000;

/// A conversation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ConversationRow {
    pub(crate) offer: Offer,
    pub(crate) record: u64,
    pub(crate) at: Timestamp,
    pub(crate) members: u64,
    /// Those state fields that a list of conversations shows: title, topic.
    pub(crate) state: Vec<(String, EventId)>,
}

/// An event: where it is, and how it counts.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct EventRow {
    pub(crate) conversation: ConversationId,
    /// Where it is shown, or was.
    pub(crate) place: Place,
    pub(crate) record: u64,
    /// Which event of that record it is.
    pub(crate) at: u16,
    pub(crate) slot: Slot,
    pub(crate) shown: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) void: Option<String>,
    /// Beyond the policy `rate`, where it is shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) folded: bool,
    /// The act that took it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) void_by: Option<Cause>,
    /// Of an event that has no line, or none now: key suffix of its newest entry in the change log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) logged: Option<(u64, u16)>,
    /// Of a content that came withheld and is so still: the place under which it is listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) withheld: Option<Place>,
}

/// A line of a conversation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LineRow {
    pub(crate) event: EventId,
    pub(crate) record: u64,
    /// Which event of that record it is.
    pub(crate) at: u16,
    pub(crate) slot: Slot,
    pub(crate) late: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) folded: bool,
    pub(crate) marks: Marks,
    /// Key suffix of this event's newest entry in the change log.
    pub(crate) logged: (u64, u16),
}

/// What happened to a line.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogKind {
    Appeared,
    Changed,
    Vanished,
    /// It counts again: what is a line appears with that, and is logged so.
    Stands,
    /// It was void when it came: told to who took it away only.
    Voided,
}

/// An entry of a conversation's change log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LogRow {
    pub(crate) kind: LogKind,
    pub(crate) event: EventId,
    pub(crate) place: Place,
}

/// Whether a void event is among what was taken away by an act, by its reason's code: the others
/// never could have stood.
pub(crate) fn is_taken_away(reason: &str) -> bool {
    [Reason::Removed, Reason::GrantVoid]
        .iter()
        .any(|taken| taken.code() == reason)
}

/// A member.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct MemberRow {
    pub(crate) role: Role,
    pub(crate) home: ServerId,
    /// The state event that holds the display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<EventId>,
}

/// A local user in a conversation, now or once.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct UserRow {
    pub(crate) role: Role,
    /// Record of the change of role.
    pub(crate) since: u64,
    /// Record in which the membership began.
    pub(crate) joined: u64,
    /// The act that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<Cause>,
}

/// Keys.
pub(crate) mod key {
    use super::{
        CommitId, ContentAt, ConversationId, DeviceKey, EventId, Nonce, Place, RootId, ServerId,
        UserId,
    };

    pub(crate) fn conversation(id: &ConversationId) -> Vec<u8> {
        [b"c", id.as_bytes().as_slice()].concat()
    }
    pub(crate) fn event(id: &EventId) -> Vec<u8> {
        [b"e", id.as_bytes().as_slice()].concat()
    }
    pub(crate) fn lines(conversation: &ConversationId) -> Vec<u8> {
        [b"v", conversation.as_bytes().as_slice()].concat()
    }
    pub(crate) fn line(conversation: &ConversationId, place: &Place) -> Vec<u8> {
        [b"v", conversation.as_bytes().as_slice(), &place.to_key()].concat()
    }
    pub(crate) fn log(conversation: &ConversationId, record: u64, index: u16) -> Vec<u8> {
        let (record, index) = (record.to_be_bytes(), index.to_be_bytes());
        [b"l", conversation.as_bytes().as_slice(), &record, &index].concat()
    }
    /// Fields of the state.
    pub(crate) fn state(conversation: &ConversationId) -> Vec<u8> {
        [b"s", conversation.as_bytes().as_slice()].concat()
    }
    pub(crate) fn state_field(conversation: &ConversationId, field: &str) -> Vec<u8> {
        [b"s", conversation.as_bytes().as_slice(), field.as_bytes()].concat()
    }
    pub(crate) fn nonce(device: &DeviceKey, nonce: &Nonce) -> Vec<u8> {
        [b"n", device.as_bytes().as_slice(), nonce.as_bytes()].concat()
    }
    pub(crate) fn commits(conversation: &ConversationId) -> Vec<u8> {
        [b"k", conversation.as_bytes().as_slice()].concat()
    }
    pub(crate) fn commit(conversation: &ConversationId, id: &CommitId) -> Vec<u8> {
        [b"k", conversation.as_bytes().as_slice(), id.as_bytes()].concat()
    }
    pub(crate) fn tips(conversation: &ConversationId, home: &ServerId) -> Vec<u8> {
        [b"f", conversation.as_bytes().as_slice(), home.as_bytes()].concat()
    }
    /// Root records are among the commits of a conversation: ids of both are hashes.
    pub(crate) fn root(conversation: &ConversationId, id: &RootId) -> Vec<u8> {
        [b"k", conversation.as_bytes().as_slice(), id.as_bytes()].concat()
    }
    pub(crate) fn newest_root(conversation: &ConversationId) -> Vec<u8> {
        [b"r", conversation.as_bytes().as_slice()].concat()
    }
    /// What this home did as a steward.
    pub(crate) fn steward(conversation: &ConversationId) -> Vec<u8> {
        [b"p", conversation.as_bytes().as_slice()].concat()
    }
    /// Twin root records, by number.
    pub(crate) fn twins_of(conversation: &ConversationId, n: u64) -> Vec<u8> {
        [b"z", conversation.as_bytes().as_slice(), &n.to_be_bytes()].concat()
    }
    /// The newest proof that a home forked its chain.
    pub(crate) fn fork(conversation: &ConversationId, home: &ServerId) -> Vec<u8> {
        [b"F", conversation.as_bytes().as_slice(), home.as_bytes()].concat()
    }
    /// What a conversation waits for that nobody asks for.
    pub(crate) fn due(conversation: &ConversationId) -> Vec<u8> {
        [b"D", conversation.as_bytes().as_slice()].concat()
    }
    pub(crate) fn unreached(peer: &ServerId) -> Vec<u8> {
        [b"w", peer.as_bytes().as_slice()].concat()
    }
    /// What acts of a local user took away.
    pub(crate) fn voided_of(conversation: &ConversationId, by: &UserId) -> Vec<u8> {
        [b"b", conversation.as_bytes().as_slice(), by.as_bytes()].concat()
    }
    pub(crate) fn voided(conversation: &ConversationId, by: &UserId, place: &Place) -> Vec<u8> {
        [&*voided_of(conversation, by), &place.to_key()].concat()
    }
    /// Conversations in which somebody set for how many days contents are kept.
    pub(crate) fn keeping(conversation: &ConversationId) -> Vec<u8> {
        [b"j", conversation.as_bytes().as_slice()].concat()
    }
    pub(crate) fn own_end(conversation: &ConversationId) -> Vec<u8> {
        [b"y", conversation.as_bytes().as_slice()].concat()
    }
    /// Further copies of an event's content.
    pub(crate) fn copies(event: &EventId) -> Vec<u8> {
        [b"d", event.as_bytes().as_slice()].concat()
    }
    pub(crate) fn copy(event: &EventId, at: ContentAt) -> Vec<u8> {
        [copies(event).as_slice(), &at.to_bytes()].concat()
    }
    pub(crate) fn members(conversation: &ConversationId) -> Vec<u8> {
        [b"m", conversation.as_bytes().as_slice()].concat()
    }
    pub(crate) fn member(conversation: &ConversationId, user: &UserId) -> Vec<u8> {
        [b"m", conversation.as_bytes().as_slice(), user.as_bytes()].concat()
    }
    pub(crate) fn user_conversations(user: &UserId) -> Vec<u8> {
        [b"u", user.as_bytes().as_slice()].concat()
    }
    pub(crate) fn user_conversation(user: &UserId, conversation: &ConversationId) -> Vec<u8> {
        [b"u", user.as_bytes().as_slice(), conversation.as_bytes()].concat()
    }
    /// When a local user was a member.
    pub(crate) fn sight(conversation: &ConversationId, user: &UserId) -> Vec<u8> {
        [b"g", conversation.as_bytes().as_slice(), user.as_bytes()].concat()
    }
    /// Where the policy `history` changes.
    pub(crate) fn switches(conversation: &ConversationId) -> Vec<u8> {
        [b"q", conversation.as_bytes().as_slice()].concat()
    }
    /// Contents that came withheld and are so still.
    pub(crate) fn withheld(conversation: &ConversationId, place: &Place) -> Vec<u8> {
        [b"W", conversation.as_bytes().as_slice(), &place.to_key()].concat()
    }
    /// Void events of a user who was no member any more when they fell.
    pub(crate) fn outside(user: &UserId, record: u64, index: u16) -> Vec<u8> {
        let (record, index) = (record.to_be_bytes(), index.to_be_bytes());
        [b"V", user.as_bytes().as_slice(), &record, &index].concat()
    }
    pub(crate) fn server(server: &ServerId) -> Vec<u8> {
        [b"S", server.as_bytes().as_slice()].concat()
    }
    pub(crate) fn identity(user: &UserId) -> Vec<u8> {
        [b"i", user.as_bytes().as_slice()].concat()
    }
    pub(crate) fn account(handle: &str) -> Vec<u8> {
        [b"a", handle.as_bytes()].concat()
    }
    pub(crate) fn account_of(user: &UserId) -> Vec<u8> {
        [b"h", user.as_bytes().as_slice()].concat()
    }
    pub(crate) fn token(hash: &[u8]) -> Vec<u8> {
        [b"t", hash].concat()
    }
    pub(crate) fn ended(conversation: &ConversationId, peer: &ServerId) -> Vec<u8> {
        [b"x", conversation.as_bytes().as_slice(), peer.as_bytes()].concat()
    }
    pub(crate) fn outbox(peer: &ServerId, conversation: &ConversationId) -> Vec<u8> {
        [b"o", peer.as_bytes().as_slice(), conversation.as_bytes()].concat()
    }
}

/// Encodes a row.
pub(crate) fn value<T: Serialize>(row: &T) -> Vec<u8> {
    encoding::encode(row)
}

/// Decodes a row; `None` for bytes that are none, which the checksum of the storage rules out.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    encoding::decode_frame(bytes, VALUE_BYTES_MAX).ok()
}

fn get<T: DeserializeOwned>(reader: &Reader, key: &[u8]) -> Result<Option<T>, ReadError> {
    Ok(reader.get(key)?.and_then(|bytes| parse(&bytes)))
}

fn id_at<const N: usize>(key: &[u8], at: usize) -> Option<[u8; N]> {
    key.get(at..at + N)?.try_into().ok()
}

/// Reads over the rows.
#[derive(Clone, Debug)]
pub(crate) struct Rows(pub(crate) Reader);

impl Rows {
    pub(crate) fn conversation(
        &self,
        id: &ConversationId,
    ) -> Result<Option<ConversationRow>, ReadError> {
        get(&self.0, &key::conversation(id))
    }

    /// The frontier of every conversation with commits, as it is durable.
    pub(crate) fn frontiers(&self) -> Result<BTreeMap<ConversationId, Vec<Tip>>, ReadError> {
        let mut frontiers: BTreeMap<ConversationId, Vec<Tip>> = BTreeMap::new();
        for (key, bytes) in self.0.scan_prefix(b"f", Direction::Forward, usize::MAX)? {
            if let (Some(id), Some(tips)) = (id_at(&key, 1), parse::<Vec<Tip>>(&bytes)) {
                frontiers
                    .entry(ConversationId::from_bytes(id))
                    .or_default()
                    .extend(tips);
            }
        }
        frontiers.values_mut().for_each(|tips| tips.sort_unstable());
        Ok(frontiers)
    }

    /// The newest root record from 1 on of a conversation.
    pub(crate) fn newest_root(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<RootRef>, ReadError> {
        get(&self.0, &key::newest_root(conversation))
    }

    /// What this home promised and signed for the next root record.
    pub(crate) fn steward(
        &self,
        conversation: &ConversationId,
    ) -> Result<Option<Steward>, ReadError> {
        get(&self.0, &key::steward(conversation))
    }

    /// Twin root records of all conversations.
    pub(crate) fn twins(&self) -> Result<Vec<(ConversationId, TwinsRow)>, ReadError> {
        let rows = self.0.scan_prefix(b"z", Direction::Forward, TWINS_MAX)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            Some((ConversationId::from_bytes(id_at(key, 1)?), parse(bytes)?))
        });
        Ok(parsed.collect())
    }

    /// Homes that forked their chains, in all conversations.
    pub(crate) fn forks(&self) -> Result<Vec<(ConversationId, ForkRow)>, ReadError> {
        let rows = self.0.scan_prefix(b"F", Direction::Forward, FORKS_MAX)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            Some((ConversationId::from_bytes(id_at(key, 1)?), parse(bytes)?))
        });
        Ok(parsed.collect())
    }

    /// What a conversation waits for that nobody asks for.
    pub(crate) fn due(&self, conversation: &ConversationId) -> Result<Due, ReadError> {
        let row = get(&self.0, &key::due(conversation))?;
        Ok(row.unwrap_or_default())
    }

    /// The same of those after a conversation that wait for something, in order of their ids.
    pub(crate) fn due_after(
        &self,
        after: Option<&ConversationId>,
        limit: usize,
    ) -> Result<Vec<(ConversationId, Due)>, ReadError> {
        let low = after.map(key::due);
        let low = low
            .as_deref()
            .map_or(Bound::Included(b"D".as_slice()), Bound::Excluded);
        let rows = self
            .0
            .scan(low, Bound::Excluded(b"E"), Direction::Forward, limit)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            Some((ConversationId::from_bytes(id_at(key, 1)?), parse(bytes)?))
        });
        Ok(parsed.collect())
    }

    /// For how long each peer was not reached when that was last stored, in milliseconds.
    pub(crate) fn unreached(&self) -> Result<Vec<(ServerId, u64)>, ReadError> {
        let rows = self.0.scan_prefix(b"w", Direction::Forward, usize::MAX)?;
        let parsed = rows
            .iter()
            .filter_map(|(key, bytes)| Some((ServerId::from_bytes(id_at(key, 1)?), parse(bytes)?)));
        Ok(parsed.collect())
    }

    /// Every conversation there is.
    pub(crate) fn conversations(
        &self,
    ) -> Result<Vec<(ConversationId, ConversationRow)>, ReadError> {
        let rows = self.0.scan_prefix(b"c", Direction::Forward, usize::MAX)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            Some((ConversationId::from_bytes(id_at(key, 1)?), parse(bytes)?))
        });
        Ok(parsed.collect())
    }

    /// Conversations in which a server has a member.
    pub(crate) fn shared_with(&self, server: &ServerId) -> Result<Vec<ConversationId>, ReadError> {
        let mut shared = Vec::new();
        for (conversation, _) in self.conversations()? {
            let members = self.members(&conversation, None, usize::MAX)?;
            if members.iter().any(|(_, member)| member.home == *server) {
                shared.push(conversation);
            }
        }
        Ok(shared)
    }

    /// Conversations in which somebody set for how many days contents are kept.
    pub(crate) fn keeping(&self) -> Result<Vec<ConversationId>, ReadError> {
        let rows = self.0.scan_prefix(b"j", Direction::Forward, usize::MAX)?;
        let id = |(key, _): &(Vec<u8>, _)| Some(ConversationId::from_bytes(id_at(key, 1)?));
        Ok(rows.iter().filter_map(id).collect())
    }

    pub(crate) fn event(&self, id: &EventId) -> Result<Option<EventRow>, ReadError> {
        get(&self.0, &key::event(id))
    }

    pub(crate) fn nonce(
        &self,
        device: &DeviceKey,
        nonce: &Nonce,
    ) -> Result<Option<EventId>, ReadError> {
        get(&self.0, &key::nonce(device, nonce))
    }

    pub(crate) fn commit_record(
        &self,
        conversation: &ConversationId,
        id: &CommitId,
    ) -> Result<Option<u64>, ReadError> {
        get(&self.0, &key::commit(conversation, id))
    }

    /// Where the own chain of a conversation is known to go on beyond damage; `None` if it is whole.
    pub(crate) fn own_end(&self, conversation: &ConversationId) -> Result<Option<u64>, ReadError> {
        get(&self.0, &key::own_end(conversation))
    }

    /// Numbers of the records that hold a conversation's commits and root records, in the order
    /// they came.
    pub(crate) fn commit_records(
        &self,
        conversation: &ConversationId,
    ) -> Result<Vec<u64>, ReadError> {
        let prefix = key::commits(conversation);
        let rows = self
            .0
            .scan_prefix(&prefix, Direction::Forward, usize::MAX)?;
        let mut numbers: Vec<u64> = rows.iter().filter_map(|(_, bytes)| parse(bytes)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(crate) fn line(
        &self,
        conversation: &ConversationId,
        place: &Place,
    ) -> Result<Option<LineRow>, ReadError> {
        get(&self.0, &key::line(conversation, place))
    }

    /// Lines within bounds, in one direction.
    pub(crate) fn lines(
        &self,
        conversation: &ConversationId,
        (low, high): (Bound<Place>, Bound<Place>),
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Place, LineRow)>, ReadError> {
        let all = key::lines(conversation);
        let end = [all.as_slice(), &[0xff; 43]].concat();
        let key = |bound: Bound<Place>, otherwise: Vec<u8>| match bound {
            Bound::Unbounded => Bound::Included(otherwise),
            bound => bound.map(|place| key::line(conversation, &place)),
        };
        let (low, high) = (key(low, all), key(high, end));
        let (low, high) = (
            low.as_ref().map(Vec::as_slice),
            high.as_ref().map(Vec::as_slice),
        );
        let rows = self.0.scan(low, high, direction, limit)?;
        let parsed = rows
            .iter()
            .filter_map(|(key, bytes)| Some((Place::from_key(key.get(33..)?)?, parse(bytes)?)));
        Ok(parsed.collect())
    }

    /// What acts of a local user took away, after a place.
    pub(crate) fn voided(
        &self,
        conversation: &ConversationId,
        by: &UserId,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<(Place, EventId)>, ReadError> {
        let prefix = key::voided_of(conversation, by);
        let low = after.map(|place| key::voided(conversation, by, place));
        let low = low
            .as_deref()
            .map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
        let high = [prefix.as_slice(), &[0xff; 43]].concat();
        let rows = self
            .0
            .scan(low, Bound::Included(&high), Direction::Forward, limit)?;
        let parsed = rows
            .iter()
            .filter_map(|(key, bytes)| Some((Place::from_key(key.get(65..)?)?, parse(bytes)?)));
        Ok(parsed.collect())
    }

    /// Entries of the change log after a position, up to another one.
    pub(crate) fn log(
        &self,
        conversation: &ConversationId,
        after: (u64, u16),
        to: u64,
        limit: usize,
    ) -> Result<Vec<(u64, u16, LogRow)>, ReadError> {
        let low = key::log(conversation, after.0, after.1);
        let high = key::log(conversation, to, u16::MAX);
        self.by_position(&low, &high, limit)
    }

    /// Rows whose keys are an id, a record and an index, after one key and up to another.
    fn by_position<T: DeserializeOwned>(
        &self,
        low: &[u8],
        high: &[u8],
        limit: usize,
    ) -> Result<Vec<(u64, u16, T)>, ReadError> {
        if low >= high {
            return Ok(Vec::new());
        }
        let (low, high) = (Bound::Excluded(low), Bound::Included(high));
        let rows = self.0.scan(low, high, Direction::Forward, limit)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            let record = u64::from_be_bytes(id_at(key, 33)?);
            let index = u16::from_be_bytes(id_at(key, 41)?);
            Some((record, index, parse(bytes)?))
        });
        Ok(parsed.collect())
    }

    /// Record of the newest change in a conversation.
    pub(crate) fn newest_change(&self, conversation: &ConversationId) -> Result<u64, ReadError> {
        let prefix = [b"l", conversation.as_bytes().as_slice()].concat();
        let rows = self.0.scan_prefix(&prefix, Direction::Reverse, 1)?;
        let record = |(key, _): &(Vec<u8>, Vec<u8>)| Some(u64::from_be_bytes(id_at(key, 33)?));
        Ok(rows.first().and_then(record).unwrap_or(0))
    }

    /// Fields of a conversation's state after one, by name, and the events that hold their values.
    pub(crate) fn state(
        &self,
        conversation: &ConversationId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, EventId)>, ReadError> {
        let prefix = key::state(conversation);
        let low = after.map(|field| key::state_field(conversation, field));
        let low = low
            .as_deref()
            .map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
        let high = [prefix.as_slice(), &[0xff]].concat();
        let rows = self
            .0
            .scan(low, Bound::Included(&high), Direction::Forward, limit)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            let field = String::from_utf8(key.get(33..)?.to_vec()).ok()?;
            Some((field, parse(bytes)?))
        });
        Ok(parsed.collect())
    }

    pub(crate) fn member(
        &self,
        conversation: &ConversationId,
        user: &UserId,
    ) -> Result<Option<MemberRow>, ReadError> {
        get(&self.0, &key::member(conversation, user))
    }

    /// Members after a user, in order of their ids.
    pub(crate) fn members(
        &self,
        conversation: &ConversationId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<(UserId, MemberRow)>, ReadError> {
        let prefix = key::members(conversation);
        let low = after.map(|user| key::member(conversation, user));
        let low = low
            .as_deref()
            .map_or(Bound::Included(prefix.as_slice()), Bound::Excluded);
        let high = [prefix.as_slice(), &[0xff; 33]].concat();
        let rows = self
            .0
            .scan(low, Bound::Included(&high), Direction::Forward, limit)?;
        let parsed = rows
            .iter()
            .filter_map(|(key, bytes)| Some((UserId::from_bytes(id_at(key, 33)?), parse(bytes)?)));
        Ok(parsed.collect())
    }

    /// Conversations that a local user is or was in.
    pub(crate) fn user_conversations(
        &self,
        user: &UserId,
    ) -> Result<Vec<(ConversationId, UserRow)>, ReadError> {
        let prefix = key::user_conversations(user);
        let rows = self
            .0
            .scan_prefix(&prefix, Direction::Forward, usize::MAX)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            Some((ConversationId::from_bytes(id_at(key, 33)?), parse(bytes)?))
        });
        Ok(parsed.collect())
    }

    /// The cards of every server that was learnt of.
    pub(crate) fn servers(&self) -> Result<Vec<ServerRecord>, ReadError> {
        let rows = self.0.scan_prefix(b"S", Direction::Forward, usize::MAX)?;
        let parsed = rows.iter().filter_map(|(_, bytes)| parse(bytes));
        Ok(parsed.collect())
    }

    pub(crate) fn identity(&self, user: &UserId) -> Result<Option<Vec<Blob>>, ReadError> {
        get(&self.0, &key::identity(user))
    }

    pub(crate) fn account(&self, handle: &str) -> Result<Option<AccountRecord>, ReadError> {
        get(&self.0, &key::account(handle))
    }

    pub(crate) fn account_of(&self, user: &UserId) -> Result<Option<AccountRecord>, ReadError> {
        let handle: Option<String> = get(&self.0, &key::account_of(user))?;
        handle.map_or(Ok(None), |handle| self.account(&handle))
    }

    pub(crate) fn accounts(&self) -> Result<Vec<AccountRecord>, ReadError> {
        let rows = self.0.scan_prefix(b"a", Direction::Forward, usize::MAX)?;
        Ok(rows.iter().filter_map(|(_, bytes)| parse(bytes)).collect())
    }

    pub(crate) fn tokens(&self) -> Result<Vec<TokenRecord>, ReadError> {
        let rows = self.0.scan_prefix(b"t", Direction::Forward, usize::MAX)?;
        Ok(rows.iter().filter_map(|(_, bytes)| parse(bytes)).collect())
    }

    /// Homes whose last member is gone, and up to where the own chain is for them.
    pub(crate) fn ended(&self) -> Result<Vec<(ConversationId, ServerId, Option<u64>)>, ReadError> {
        let rows = self.0.scan_prefix(b"x", Direction::Forward, usize::MAX)?;
        let parsed = rows.iter().filter_map(|(key, bytes)| {
            let conversation = ConversationId::from_bytes(id_at(key, 1)?);
            Some((
                conversation,
                ServerId::from_bytes(id_at(key, 33)?),
                parse(bytes)?,
            ))
        });
        Ok(parsed.collect())
    }

    pub(crate) fn acked(
        &self,
        peer: &ServerId,
        conversation: &ConversationId,
    ) -> Result<Option<u64>, ReadError> {
        get(&self.0, &key::outbox(peer, conversation))
    }
}

#[cfg(test)]
mod tests;
