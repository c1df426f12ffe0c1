//! What users sent and were answered, kept apart from every server.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    conversation::RoleChange,
    event::{Act, SealedContent, SignedEvent, Target},
    identity::IdentityLog,
    ids::{ConversationId, DeviceKey, EventId, PublicKey, RootId, ServerId, UserId},
    link::{Frame, decode_frame},
    root::{Genesis, direct_conversation},
    session::{Accepted, WireError},
};

use super::{Violation, history::History, oracle::Owner, records::Seen};
use crate::{people::Made, rows::Record, server::Server, world::World};

/// What a conversation began as.
#[derive(Clone, Debug)]
pub(super) enum Birth {
    Group(Owner),
    /// Between users of these homes.
    Direct(BTreeSet<ServerId>),
}

/// An event that a home said yes to.
#[derive(Clone, Debug)]
struct Promised {
    home: usize,
    conversation: ConversationId,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    births: BTreeMap<ConversationId, Birth>,
    devices: BTreeMap<UserId, BTreeSet<DeviceKey>>,
    home_keys: BTreeMap<UserId, PublicKey>,
    promised: BTreeMap<EventId, Promised>,
    told: BTreeSet<EventId>,
    /// Homes that may know of a conversation.
    homes: BTreeMap<ConversationId, BTreeSet<ServerId>>,
    contents: BTreeMap<EventId, SealedContent>,
    lively: BTreeSet<ConversationId>,
    /// Events that were accepted, by kind.
    pub(crate) kinds: BTreeMap<&'static str, u64>,
    records: Seen,
    /// Root records of which a home told the owner that they stand.
    stood: Vec<(usize, ConversationId, RootId)>,
    /// Texts that a server let go because their days were over.
    expired: BTreeSet<(usize, EventId)>,
    /// Records that stewards signed once.
    signed: BTreeSet<(usize, RootId)>,
}

impl Ledger {
    /// An honest home told an owner that the record he wanted stands.
    pub(crate) fn stands(&mut self, home: usize, conversation: ConversationId, record: RootId) {
        self.stood.push((home, conversation, record));
    }

    /// Records that owners were told stand.
    pub(super) fn stood(&self, conversation: &ConversationId) -> impl Iterator<Item = RootId> {
        let of = self.stood.iter().filter(move |(_, c, _)| c == conversation);
        of.map(|(_, _, record)| *record)
    }

    pub(super) fn expired(&mut self, server: usize, events: &[EventId]) {
        self.expired
            .extend(events.iter().map(|event| (server, *event)));
    }

    /// How many texts were let go because their days were over, each at each server.
    pub(crate) fn expirations(&self) -> u64 {
        self.expired.len() as u64
    }

    /// Whether a steward signs a record for the first time.
    pub(super) fn is_first_note(&mut self, steward: usize, record: RootId) -> bool {
        self.signed.insert((steward, record))
    }

    pub(crate) fn devices_of(&mut self, log: &IdentityLog) {
        let keys = log.devices().map(|device| device.key);
        self.devices.entry(log.user()).or_default().extend(keys);
        self.home_keys.insert(log.user(), log.home_key());
    }

    /// Whether a device is a user's.
    pub(super) fn has_device(&self, user: &UserId, device: &DeviceKey) -> bool {
        let devices = self.devices.get(user);
        devices.is_some_and(|devices| devices.contains(device))
    }

    /// Whether a user's home speaks for him with this key.
    pub(super) fn is_home_key(&self, user: &UserId, key: &PublicKey) -> bool {
        self.home_keys.get(user) == Some(key)
    }

    /// The new home of an owner may know of the conversation.
    pub(crate) fn handed_to(&mut self, conversation: ConversationId, home: ServerId) {
        self.homes.entry(conversation).or_default().insert(home);
    }

    pub(super) fn count_records(&mut self, seen: Seen) {
        for (kind, ids) in seen {
            self.records.entry(kind).or_default().extend(ids);
        }
    }

    /// Root records that were held at a look, by what they are.
    pub(crate) fn records(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.records.iter();
        counts
            .map(|(kind, ids)| (*kind, ids.len() as u64))
            .collect()
    }

    pub(crate) fn group(&mut self, genesis: &Genesis) {
        let (user, home) = (genesis.root().owner, genesis.root().home);
        let conversation = genesis.conversation();
        let record = genesis.id();
        self.births
            .insert(conversation, Birth::Group(Owner { user, home, record }));
        self.homes.entry(conversation).or_default().insert(home);
    }

    pub(crate) fn direct(&mut self, members: &[RoleChange; 2]) {
        let [a, b] = members;
        let conversation = direct_conversation(&a.user, &b.user);
        let homes: BTreeSet<_> = [a.home, b.home].into();
        self.homes
            .entry(conversation)
            .or_default()
            .extend(homes.clone());
        self.births.insert(conversation, Birth::Direct(homes));
    }

    /// Conversations in which something was accepted.
    pub(crate) fn lively(&self) -> usize {
        self.lively.len()
    }

    pub(super) fn birth(&self, conversation: &ConversationId) -> Option<&Birth> {
        self.births.get(conversation)
    }

    pub(crate) fn conversations(&self) -> impl Iterator<Item = &ConversationId> {
        self.births.keys()
    }

    pub(crate) fn sent(&mut self, made: &Made) {
        let event = made.event.event();
        let home = match &event.act {
            Act::Grant(grant) => match grant.target {
                Target::User { home, .. } => Some(home),
                Target::Anyone => None,
            },
            Act::Join { home, .. } | Act::Move { home, .. } => Some(*home),
            _ => None,
        };
        let homes = self.homes.entry(event.conversation).or_default();
        homes.extend(home);
        if let Some(content) = &made.content {
            self.contents.insert(made.event.id(), content.clone());
        }
    }

    /// The content that came with an event.
    pub(crate) fn content(&self, event: &EventId) -> Option<&SealedContent> {
        self.contents.get(event)
    }

    pub(crate) fn accepted(
        &mut self,
        home: usize,
        hostile: bool,
        event: &SignedEvent,
        _: &Accepted,
    ) {
        let conversation = event.event().conversation;
        self.lively.insert(conversation);
        let promised = Promised { home, conversation };
        if self.promised.insert(event.id(), promised).is_none() {
            *self.kinds.entry(event.event().act.kind()).or_default() += 1;
        }
        if hostile {
            // Its word counts for nothing.
            self.promised.remove(&event.id());
        }
    }

    pub(crate) fn refused(&mut self, event: &SignedEvent, _: &WireError) {
        self.told.insert(event.id());
    }

    /// P1: what a home said yes to is on its disk.
    pub(crate) fn all_there(&self, server: &Server, n: usize) -> Result<(), Violation> {
        let of = |(_, promised): &(&EventId, &Promised)| promised.home == n;
        for (event, _) in self.promised.iter().filter(of) {
            if !server.rows.events.contains_key(event) {
                let what = format!("server {n} accepted {event} and lost it");
                return Err(Violation::new("P1", what));
            }
        }
        for (_, conversation, record) in self.stood.iter().filter(|(home, ..)| *home == n) {
            let known = server.rows.known.get(conversation);
            if known.is_none_or(|known| known.root_of(record, &server.disk.log).is_none()) {
                let what = format!("server {n} told an owner that {record} stands and lost it");
                return Err(Violation::new("P1", what));
            }
        }
        Ok(())
    }

    /// P2: in the lines of every home that takes part, or void, and the author can learn why.
    pub(super) fn once_or_void(
        &self,
        world: &World,
        conversation: &ConversationId,
        parts: &[usize],
    ) -> Result<(), Violation> {
        let of = |(_, p): &(&EventId, &Promised)| p.conversation == *conversation;
        for (event, promised) in self.promised.iter().filter(of) {
            let home = &world.servers[promised.home];
            let Some(row) = home.rows.events.get(event) else {
                continue;
            };
            if row.void.is_some() {
                let told = home
                    .known_answer(event)
                    .is_some_and(|answer| answer.is_err());
                if !told && !self.told.contains(event) {
                    let what = format!("{event} is void and its author is not told");
                    return Err(Violation::new("P2", what));
                }
                continue;
            }
            // A home that takes part no longer is told of nothing that came later.
            let here = parts.contains(&promised.home);
            for n in parts.iter().filter(|_| here) {
                let row = world.servers[*n].rows.events.get(event);
                if row.is_none_or(|row| row.void.is_some()) {
                    let what = format!(
                        "{event}, accepted at server {} and standing there, is not at server {n}",
                        promised.home
                    );
                    return Err(Violation::new("P2", what));
                }
            }
        }
        Ok(())
    }

    /// Nobody speaks for others: every event is signed by a device of its author.
    pub(super) fn authors(&self, history: &History) -> Result<(), Violation> {
        for y in history.appearances() {
            let event = history.event(y);
            if !self.has_device(&event.author, &event.device) {
                let what = format!(
                    "{} is held as said by {}, who did not sign it",
                    history.id(y),
                    event.author
                );
                return Err(Violation::new("authorship", what));
            }
        }
        Ok(())
    }

    /// P6: the text of these is on no disk.
    pub(super) fn gone(
        &self,
        server: &Server,
        n: usize,
        erased: &BTreeSet<EventId>,
        why: &str,
    ) -> Result<(), Violation> {
        let texts: BTreeMap<u64, EventId> = erased
            .iter()
            .filter_map(|event| Some((text_in(self.contents.get(event)?.bytes())?, *event)))
            .collect();
        for record in &server.disk.log {
            for text in texts_of(record) {
                if let Some(event) = texts.get(&text) {
                    let what = format!("the text of {event}, {why}, is on the disk of server {n}");
                    return Err(Violation::new("P6", what));
                }
            }
        }
        Ok(())
    }

    /// Nobody outside a conversation is given anything of it.
    pub(crate) fn may_have(&self, to: &Server, from: usize, bytes: &[u8]) -> Result<(), Violation> {
        let bundles = match decode_frame(bytes) {
            Ok(Frame::Push { bundle, .. }) => vec![bundle],
            Ok(Frame::Have { bundles, .. }) => bundles,
            _ => return Ok(()),
        };
        for bundle in &bundles {
            let conversation = comity_protocol::replication::conversation_of(bundle);
            let homes = conversation.and_then(|c| self.homes.get(&c));
            if homes.is_some_and(|homes| !homes.contains(&to.id)) {
                let what = format!("server {from} served a conversation to a server outside it");
                return Err(Violation::new("secrecy", what));
            }
        }
        Ok(())
    }
}

/// The number in a text.
fn number(bytes: &[u8]) -> Option<u64> {
    let from = bytes.iter().position(|b| *b == b'#')? + 1;
    let to = from + bytes[from..].iter().position(|b| *b == b'#')?;
    std::str::from_utf8(&bytes[from..to]).ok()?.parse().ok()
}

fn texts_of(record: &Record) -> impl Iterator<Item = u64> + '_ {
    record
        .contents
        .iter()
        .flatten()
        .filter_map(|bytes| text_in(bytes))
}

/// As [`number`], past any byte of a salt that looks like the mark.
fn text_in(bytes: &[u8]) -> Option<u64> {
    let mark = b"words #";
    let at = bytes.windows(mark.len()).position(|w| w == mark)?;
    number(&bytes[at..])
}
