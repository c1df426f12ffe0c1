//! Records and the rows that are a function of them, as a home server has them: which events are
//! shown, how they read, who is a member. What an event means was concluded by the machines and
//! written into its record.

mod reading;
mod record;

pub(crate) use record::{Body, CommitRecord, Entry, Kept, Record, RootRecord};

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    commit::{RootRef, UnverifiedCommit},
    conversation::{Changes, RoleChange},
    document::MessageState,
    event::Tip,
    ids::{CommitId, ConversationId, EventId, RootId, ServerId, UserId},
    link::Offer,
    place::Place,
    role::Role,
    root::{Genesis, Root, SignedRoot, Steward},
};

use crate::planted::Planted;

/// A line as it reads.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Marks {
    pub(crate) edit: Option<EventId>,
    pub(crate) deleted: bool,
    pub(crate) reactions: Vec<(String, Vec<UserId>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct EventRow {
    pub(crate) conversation: ConversationId,
    pub(crate) place: Place,
    kept: Kept,
    shown: bool,
    pub(crate) void: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) offer: Offer,
    pub(crate) members: BTreeMap<UserId, (Role, ServerId)>,
    pub(crate) tips: BTreeMap<ServerId, Vec<Tip>>,
    /// Commits and their records.
    pub(crate) commits: BTreeMap<CommitId, usize>,
    /// Records of commits and root records, oldest first.
    pub(crate) order: Vec<usize>,
    /// The newest root record from 1 on that stands.
    pub(crate) root: Option<RootRef>,
    /// What this home promised and signed for the next.
    pub(crate) steward: Option<Steward>,
    pub(crate) lines: BTreeMap<Place, (EventId, Marks)>,
    pub(crate) ended: BTreeMap<ServerId, Option<u64>>,
    pub(crate) state: BTreeMap<String, EventId>,
    /// Homes that ever had a member.
    pub(crate) homes: BTreeSet<ServerId>,
}

impl Known {
    /// The root record with this id.
    pub(crate) fn root_of(&self, id: &RootId, log: &[Record]) -> Option<Root> {
        if let Offer::Group(raw) = &self.offer
            && let Ok(genesis) = Genesis::verify(raw.clone())
            && genesis.id() == *id
        {
            return Some(genesis.root().clone());
        }
        let of = |number: &usize| match &log[*number].body {
            Body::Root(record) if SignedRoot::id_of(&record.raw) == *id => {
                SignedRoot::decode(&record.raw).ok()
            }
            _ => None,
        };
        self.order.iter().rev().find_map(of)
    }
}

/// Rows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) known: BTreeMap<ConversationId, Known>,
    pub(crate) events: BTreeMap<EventId, EventRow>,
    copies: BTreeMap<EventId, BTreeSet<(usize, usize)>>,
    pub(crate) acked: BTreeMap<(ConversationId, ServerId), u64>,
    /// For how long peers were tried in vain, in milliseconds.
    pub(crate) unreached: BTreeMap<ServerId, u64>,
    /// Conversations in which anybody ever said for how long contents are kept.
    pub(crate) keeping: BTreeSet<ConversationId>,
    pub(crate) planted: Option<Planted>,
    arrivals: u16,
}

impl Rows {
    /// Applies a record that is durable; erases in `log`, of which it is the last or a later one.
    pub(crate) fn apply(&mut self, number: usize, log: &mut [Record]) {
        match log[number].body.clone() {
            Body::Conversation {
                conversation,
                offer,
                members,
            } => {
                let known = Known {
                    offer,
                    members: BTreeMap::new(),
                    tips: BTreeMap::new(),
                    commits: BTreeMap::new(),
                    order: Vec::new(),
                    root: None,
                    steward: None,
                    lines: BTreeMap::new(),
                    ended: BTreeMap::new(),
                    state: BTreeMap::new(),
                    homes: BTreeSet::new(),
                };
                self.known.entry(conversation).or_insert(known);
                self.members(conversation, &members);
            }
            Body::Commit(record) => self.commit(number, &record, log),
            Body::Root(record) => self.root(number, &record, log),
            Body::Expired(_, events, _) => {
                events.iter().for_each(|event| self.expire(event, log));
            }
            Body::Contents(came) => {
                for (event, kept) in &came {
                    self.came(number, event, *kept, log);
                }
            }
            Body::Identity(..) => {}
            Body::Steward(conversation, steward) => {
                if let Some(known) = self.known.get_mut(&conversation) {
                    known.steward = Some(*steward);
                }
            }
            Body::Unreached(peer, ms) => drop(self.unreached.insert(peer, ms)),
            Body::Outbox(peer, acked) => {
                for (conversation, seq) in acked {
                    self.acked.insert((conversation, peer), seq);
                }
            }
        }
    }

    /// What came after its commit, unless it was erased before or came otherwise.
    fn came(&mut self, number: usize, event: &EventId, kept: Kept, log: &mut [Record]) {
        if let Kept::Held(index) = kept {
            let copies = self.copies.entry(*event).or_default();
            copies.insert((number, index));
        }
        let Some(row) = self.events.get_mut(event) else {
            return;
        };
        match (row.kept, kept) {
            (Kept::Withheld, Kept::Held(index)) => row.kept = Kept::Later(number, index),
            (Kept::Withheld, kept) => row.kept = kept,
            (Kept::Gone | Kept::Expired, _) => self.erase_copies(event, log),
            _ => {}
        }
    }

    fn members(&mut self, conversation: ConversationId, changes: &[RoleChange]) {
        let Some(known) = self.known.get_mut(&conversation) else {
            return;
        };
        for change in changes {
            if change.role == Role::None {
                if self.planted != Some(Planted::IgnoreRemoval) {
                    known.members.remove(&change.user);
                }
            } else {
                let member = (change.role, change.home);
                known.members.insert(change.user, member);
                known.ended.remove(&change.home);
                known.homes.insert(change.home);
            }
        }
    }

    fn root(&mut self, number: usize, record: &RootRecord, log: &mut [Record]) {
        if let Some(known) = self.known.get_mut(&record.conversation) {
            known.order.push(number);
            known.root = Some(record.newest);
        }
        let mut changes = record.changes.clone();
        match self.planted {
            Some(Planted::ForgetTransfer) => changes.roles.clear(),
            Some(Planted::KeepModerated) => changes.erase.clear(),
            Some(Planted::Unsettle) => {
                changes.voided.clear();
                changes.stands_again.clear();
            }
            _ => {}
        }
        self.changed(record.conversation, &record.ended, &changes, log);
    }

    fn changed(
        &mut self,
        conversation: ConversationId,
        ended: &[(ServerId, Option<u64>)],
        changes: &Changes,
        log: &mut [Record],
    ) {
        if let Some(known) = self.known.get_mut(&conversation) {
            known.ended.extend(ended.iter().copied());
            for (field, event) in &changes.state {
                match event {
                    Some(event) => drop(known.state.insert(field.clone(), *event)),
                    None => drop(known.state.remove(field)),
                }
            }
        }
        for voided in &changes.voided {
            self.void(&voided.event, voided.reason);
        }
        for event in &changes.stands_again {
            self.stand(event);
        }
        for (event, place) in &changes.moved {
            self.shift(event, *place);
        }
        for (target, state) in &changes.touched {
            self.mark(target, state);
        }
        for event in &changes.erase {
            self.erase(event, log);
        }
        self.members(conversation, &changes.roles);
    }

    fn commit(&mut self, number: usize, record: &CommitRecord, log: &mut [Record]) {
        let conversation = record.conversation;
        let Ok(commit) = UnverifiedCommit::decode(record.commit.clone()) else {
            return;
        };
        let header = commit.commit();
        if let Some(known) = self.known.get_mut(&conversation) {
            known.commits.insert(record.id, number);
            known.order.push(number);
            known.tips.insert(header.origin, record.tips.clone());
        }
        for (index, entry) in (0u16..).zip(&record.events) {
            let place = Place {
                hlc: header.hlc,
                commit: record.id,
                index,
            };
            self.event(number, conversation, place, entry, log);
        }
        self.changed(conversation, &record.ended, &record.changes, log);
    }

    fn event(
        &mut self,
        number: usize,
        conversation: ConversationId,
        mut place: Place,
        entry: &Entry,
        log: &mut [Record],
    ) {
        let mut void = entry.void;
        if self.planted == Some(Planted::ShowVoid) {
            void = None;
        }
        let mut kept = entry.kept;
        if let Kept::Held(index) = kept {
            self.copies
                .entry(entry.id)
                .or_default()
                .insert((number, index));
        }
        // An event counts once, at its first place; a later appearance is void.
        if entry.keeps {
            self.keeping.insert(conversation);
        }
        let before = self.events.get(&entry.id).map(|row| (row.kept, row.void));
        if let Some((was, was_void)) = before {
            if matches!(was, Kept::Gone | Kept::Expired) {
                // Erased before this copy came.
                self.erase_copies(&entry.id, log);
                kept = was;
            }
            if was_void.is_none() || void.is_some() {
                return;
            }
            if kept == Kept::Expired {
                // Where it is shown it is too old, whatever else holds it.
                self.erase_copies(&entry.id, log);
            } else if !matches!(kept, Kept::Held(_))
                && let Some(copies) = self.copies.get(&entry.id)
                && let Some((number, index)) = copies.first()
            {
                // What is held stays so, whatever the new appearance came without.
                kept = Kept::Later(*number, *index);
            }
        }
        if self.planted == Some(Planted::OrderByArrival) {
            self.arrivals = self.arrivals.saturating_add(1);
            place.hlc = comity_protocol::time::Hlc::from_bits(self.arrivals.into());
        }
        let row = EventRow {
            conversation,
            place,
            kept,
            shown: entry.shown,
            void,
        };
        self.events.insert(entry.id, row);
        if entry.shown && void.is_none() {
            self.show(conversation, place, entry.id);
        }
    }

    fn show(&mut self, conversation: ConversationId, place: Place, event: EventId) {
        if let Some(known) = self.known.get_mut(&conversation) {
            known.lines.insert(place, (event, Marks::default()));
        }
    }

    fn void(&mut self, event: &EventId, reason: &'static str) {
        if self.planted == Some(Planted::KeepVoided) {
            return;
        }
        let Some(row) = self.events.get_mut(event) else {
            return;
        };
        row.void = Some(reason);
        if let Some(known) = self.known.get_mut(&row.conversation) {
            known.lines.remove(&row.place);
        }
    }

    fn stand(&mut self, event: &EventId) {
        let Some(row) = self.events.get_mut(event) else {
            return;
        };
        row.void = None;
        let (conversation, place, shown) = (row.conversation, row.place, row.shown);
        if shown {
            self.show(conversation, place, *event);
        }
    }

    /// An event is shown elsewhere.
    fn shift(&mut self, event: &EventId, place: Place) {
        let Some(row) = self.events.get_mut(event) else {
            return;
        };
        let before = std::mem::replace(&mut row.place, place);
        if let Some(known) = self.known.get_mut(&row.conversation)
            && before != place
            && let Some(line) = known.lines.remove(&before)
        {
            known.lines.insert(place, line);
        }
    }

    fn mark(&mut self, target: &EventId, state: &MessageState) {
        let Some(row) = self.events.get(target) else {
            return;
        };
        let line = self
            .known
            .get_mut(&row.conversation)
            .and_then(|known| known.lines.get_mut(&row.place));
        if let Some((_, marks)) = line {
            let dead = self.planted != Some(Planted::EditAfterDelete);
            *marks = Marks {
                edit: state.edit.as_ref().map(|edit| edit.event),
                deleted: state.deleted_by.is_some() && (dead || marks.edit.is_none()),
                reactions: state.reactions.clone(),
            };
        }
    }

    fn erase(&mut self, event: &EventId, log: &mut [Record]) {
        match self.planted {
            Some(Planted::ForgetDeletion) => return,
            Some(Planted::EraseOnce) if self.events.get(event).is_some_and(|row| !row.shown) => {
                return;
            }
            _ => {}
        }
        self.erase_copies(event, log);
        if let Some(row) = self.events.get_mut(event) {
            row.kept = Kept::Gone;
        }
    }

    fn expire(&mut self, event: &EventId, log: &mut [Record]) {
        if self.planted == Some(Planted::KeepExpired) {
            return;
        }
        self.erase_copies(event, log);
        if let Some(row) = self.events.get_mut(event) {
            row.kept = Kept::Expired;
        }
    }

    fn erase_copies(&mut self, event: &EventId, log: &mut [Record]) {
        for (record, index) in self.copies.remove(event).unwrap_or_default() {
            log[record].contents[index] = None;
        }
    }
}
