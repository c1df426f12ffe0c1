//! The conversations of one home that are driven together, as a state machine: who waits for what
//! in them, what goes to the disk, and what is said once it is there.
//! Source: `spec/03-history-and-documents.md`, part "History".
//!
//! A [`Conversation`] that took a commit has it at once; nobody is told before the commit is
//! durable. What could not be made durable is given up in memory, with all that stands behind it,
//! and read again from the store.

mod again;
mod ask;
mod ballots;
mod documents;
mod open;
mod peers;
mod records;
mod retention;
mod seed;
mod sight;
mod stewards;
#[cfg(test)]
mod tests;
mod wake;
mod withheld;
mod work;

pub use ballots::{BALLOTS_MAX, OwnerAsks};
pub use open::Stored;
pub use wake::Due;
pub use work::{Done, Opening, Output, ReplyTo, Submission, Submitted, What, first_answer};

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    authority::Span,
    conversation::{CheckpointPace, Conversation, Homes, RoleChange, Taken},
    event::{SealedContent, SignedEvent},
    ids::{CommitId, ConversationId, DeviceKey, EventId, PublicKey, ServerId, UserId},
    link::{Offer, Verdict},
    replication::{Committed, ForPeers, NewConversation, RecordsNeed},
    role::Role,
    root::StewardMessage,
    session::{Accepted, Code, NextRoot, Place, WireError},
    signing::SecretKey,
    time::Timestamp,
};

use open::Open;
use retention::Retention;
use seed::Seed;
use wake::Waking;
use withheld::Lacking;
use work::{Waiter, Work};

/// Calls of [`Shard::release`] between two in which identity logs are asked for again.
const ASK_AGAIN: u64 = 8;
/// Conversations kept open while nobody uses them.
pub const OPEN_MAX: usize = 1_024;

/// What is stored, read at once. Nothing of it may be newer than the last [`Shard::stored`] of
/// what it is about.
pub trait Store {
    /// Reads a conversation back; `None` if it is not known.
    ///
    /// # Errors
    ///
    /// Why it cannot be read now, as a client is told.
    fn read(&self, conversation: &ConversationId) -> Result<Option<Stored>, WireError>;
    /// The bundle of a stored commit with its authors, contents withheld or not; `None` if it
    /// cannot be read.
    fn bundle(
        &self,
        conversation: &ConversationId,
        commit: &CommitId,
        with_contents: bool,
    ) -> Option<ForPeers>;
    /// Whether a device's key occurs in a user's identity log; `None` while the log is not held.
    fn had_device(&self, user: &UserId, device: &DeviceKey) -> Option<bool>;
    /// Whether a key by which a home speaks for a user occurs in his identity log; `None` while the
    /// log is not held.
    fn had_home_key(&self, user: &UserId, key: &PublicKey) -> Option<bool>;
    /// The key by which this home speaks for a user of its own.
    fn home_key(&self, user: &UserId) -> Option<SecretKey>;
    /// The key of an origin's epoch, from its card.
    fn key_of(&self, origin: &ServerId, epoch: u64) -> Option<PublicKey>;
    /// For how many milliseconds this server tried in vain to reach another, never more than since
    /// it last did; 0 for one that it does not try to reach.
    fn unreached_ms(&self, server: &ServerId) -> u64;
    /// Whether the content of an event is held.
    fn holds(&self, event: &EventId) -> bool;
    /// Where in the order contents are that came withheld, and are so still: those within a span,
    /// the first ones, at most so many. Each is at the place of its event in the commit that came.
    fn withheld(&self, conversation: &ConversationId, within: &Span, limit: usize) -> Vec<Place>;
    /// Why nothing can be stored now, if so. Known before a machine takes in what it would have to
    /// give up again, and be read back for.
    fn cannot_store(&self) -> Option<WireError>;
}

/// What was done, since the last look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Of local users, durable.
    pub accepted: u64,
    /// Of all homes, durable.
    pub taken: u64,
    /// Of local users, refused by their conversation.
    pub refused: u64,
    /// Conversations opened because something was due in them.
    pub woken: u64,
}

/// Conversations that are driven together.
#[derive(Debug)]
pub struct Shard {
    me: ServerId,
    epoch: u64,
    key: SecretKey,
    open: BTreeMap<ConversationId, Open>,
    /// Conversations with events that wait for a commit.
    dirty: BTreeSet<ConversationId>,
    /// Submissions on their way to the disk, by conversation.
    on_the_way: BTreeMap<ConversationId, usize>,
    uses: u64,
    openings: u64,
    releases: u64,
    counts: Counts,
    /// Of all open conversations, roughly.
    document_bytes: usize,
    seed: Seed,
    /// Conversations whose next root record is being made.
    balloting: BTreeSet<ConversationId>,
    /// Of these, those in which a record was taken meanwhile.
    overtaken: Vec<ConversationId>,
    /// What this home as a steward answered itself.
    words: VecDeque<(ConversationId, StewardMessage)>,
    pace: CheckpointPace,
    retention: Retention,
    /// Conversations with contents that may be had, and are not held. No more than the store holds
    /// withheld contents in, and those whose members changed in the last second.
    lacking: BTreeMap<ConversationId, Lacking>,
    /// Events whose contents came and are on their way to the disk.
    filling: BTreeSet<EventId>,
    waking: Waking,
}

fn not_found() -> WireError {
    WireError::new(Code::NotFound, "no such conversation")
}

impl Shard {
    /// No conversation is open. `epoch` and `key` are those of the home's chains; `seed` is random
    /// and was never used before.
    #[must_use]
    pub const fn new(me: ServerId, epoch: u64, key: SecretKey, seed: [u8; 32]) -> Self {
        Self {
            me,
            epoch,
            key,
            open: BTreeMap::new(),
            dirty: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            uses: 0,
            openings: 0,
            releases: 0,
            counts: Counts {
                accepted: 0,
                taken: 0,
                refused: 0,
                woken: 0,
            },
            document_bytes: 0,
            seed: Seed::new(seed),
            balloting: BTreeSet::new(),
            overtaken: Vec::new(),
            words: VecDeque::new(),
            pace: CheckpointPace::DAILY,
            retention: Retention::new(),
            lacking: BTreeMap::new(),
            filling: BTreeSet::new(),
            waking: Waking::new(),
        }
    }

    /// Nothing is on its way to the disk, and nothing waits to be.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.on_the_way.is_empty()
            && self.dirty.is_empty()
            && self.words.is_empty()
            && self.overtaken.is_empty()
    }

    /// Counts since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// The machine of a conversation, if it is open.
    #[must_use]
    pub fn conversation(&self, id: &ConversationId) -> Option<&Conversation> {
        self.open.get(id).map(|open| &open.machine)
    }

    fn opened(
        &mut self,
        id: &ConversationId,
        store: &dyn Store,
    ) -> Result<Option<&mut Open>, WireError> {
        if !self.open.contains_key(id) {
            if self.on_the_way.contains_key(id) {
                // It was given up, and what is on its way is in no row yet: read now, its machine
                // would lack that and the home's next commit would fork its own chain.
                let busy = "the conversation is being read back; try again";
                return Err(WireError::new(Code::Busy, busy));
            }
            let Some(stored) = store.read(id)? else {
                return Ok(None);
            };
            let opening = self.next_opening();
            self.open.insert(*id, Open::read(stored, &self.me, opening));
        }
        self.uses += 1;
        let open = self.open.get_mut(id);
        Ok(open.map(|open| open.touch(self.uses)))
    }

    const fn next_opening(&mut self) -> Opening {
        self.openings += 1;
        Opening(self.openings)
    }

    fn known(&mut self, id: &ConversationId, store: &dyn Store) -> Result<&mut Open, WireError> {
        self.opened(id, store)?.ok_or_else(not_found)
    }

    /// Takes an event of a local user, checked but for what its conversation knows. It is answered
    /// with [`Output::Accepted`]; a retry shares the answer of the first try.
    pub fn send(
        &mut self,
        now: Timestamp,
        event: SignedEvent,
        content: Option<SealedContent>,
        reply: ReplyTo,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let (id, conversation) = (event.id(), event.event().conversation);
        let open = match self.known(&conversation, store) {
            Ok(open) => open,
            Err(error) => return out.push(Output::Accepted(reply, Err(error))),
        };
        // A retry shares the answer of the first try, whatever has become of it meanwhile.
        if let Some(senders) = open.senders.get_mut(&id) {
            return senders.push(reply);
        }
        if let Some(place) = open.machine.place_of(&id) {
            let accepted = Accepted { event: id, place };
            return out.push(Output::Accepted(reply, Ok(accepted)));
        }
        if let Some(error) = store.cannot_store() {
            return out.push(Output::Accepted(reply, Err(error)));
        }
        if open.is_mending() {
            let text = "part of this conversation was lost here and is being fetched back";
            let busy = WireError::new(Code::Busy, text);
            return out.push(Output::Accepted(reply, Err(busy)));
        }
        match open.machine.submit(now, event, content) {
            Ok(()) => {
                open.senders.insert(id, vec![reply]);
                self.dirty.insert(conversation);
            }
            Err(refusal) => {
                self.counts.refused += 1;
                let error = WireError::new(refusal.code(), refusal.to_string());
                out.push(Output::Accepted(reply, Err(error)));
            }
        }
    }

    /// Makes a conversation known: a new one, or one that a peer offers. Whoever asks is answered
    /// with [`Output::Created`] once it is durable, also if it was known before.
    pub fn create(
        &mut self,
        new: &NewConversation,
        reply: Option<ReplyTo>,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let id = new.conversation();
        let mut answer = |result: Result<(), WireError>| {
            out.extend(reply.map(|reply| Output::Created(reply, result)));
        };
        match self.opened(&id, store) {
            Ok(Some(open)) => {
                // Known is what is durable: the rows are read next.
                return match &mut open.creating {
                    Some(waiting) => waiting.extend(reply),
                    None => answer(Ok(())),
                };
            }
            Err(error) => return answer(Err(error)),
            Ok(None) => {}
        }
        if let Some(error) = store.cannot_store() {
            return answer(Err(error));
        }
        let (offer, members) = beginning(new);
        let Some(machine) = Conversation::of_offer(&offer, self.me, self.epoch) else {
            return answer(Err(WireError::new(Code::Malformed, "not a conversation")));
        };
        let me = self.me;
        let local = |member: &RoleChange| (member.home == me).then_some(member.user);
        let locals: Vec<_> = members.iter().filter_map(local).collect();
        let others = members.iter().map(|m| m.home).filter(|home| *home != me);
        let peers: BTreeSet<_> = others.collect();
        let opening = self.next_opening();
        let mut open = Open::new(machine, locals.clone(), peers.clone(), opening);
        open.creating = Some(reply.into_iter().collect());
        self.open.insert(id, open);
        let what = What::Conversation {
            offer: offer.clone(),
            members,
        };
        let committed = Committed::Known {
            conversation: id,
            offer,
            peers,
        };
        self.submit(
            id,
            what,
            Arc::new(locals),
            Some(committed),
            Work::Conversation,
            out,
        );
    }

    /// Makes commits of what waits, and goes on with root records. To be called when a few inputs
    /// were handled, so that whatever came meanwhile shares them.
    pub fn commit(&mut self, now: Timestamp, store: &dyn Store, out: &mut Vec<Output>) {
        self.go_on(now, store, out);
        for id in std::mem::take(&mut self.dirty) {
            if self.commit_again(now, id, store, out) {
                continue;
            }
            let open = self.open.get_mut(&id).filter(|open| !open.is_mending());
            let taken = open.and_then(|open| open.machine.next_commit(now, &self.key));
            if let Some(taken) = taken {
                self.taken(id, taken, out);
            }
        }
    }

    /// Sends a taken commit on its way to the disk.
    fn taken(&mut self, id: ConversationId, taken: Taken, out: &mut Vec<Output>) {
        let me = self.me;
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let commit = taken.commit.id();
        let (origin, seq) = (taken.commit.commit().origin, taken.commit.commit().seq);
        let own = (origin == me).then_some(seq);
        let arrived = open.on_arrival.remove(&commit).unwrap_or_default();
        let waiters = arrived.into_iter().map(Waiter::again);
        open.on_disk.entry(commit).or_default().extend(waiters);
        let users = open.roles(&me, &taken.changes.roles);
        let Homes { joined, left } = open.homes(&me, &taken.changes.homes);
        let own_tip = own.or(open.own_tip);
        let mut tips: Vec<_> = open.machine.graph().tips(&origin).collect();
        tips.sort_unstable();
        let ended = left.iter().map(|home| (*home, own_tip)).collect();
        open.note_sights(&me, Some(&commit), &taken.changes);
        let lacks = open.lacks_of(&me, &taken);
        open.looks.lacks(lacks);
        // What not everybody may have is read for each peer by itself.
        let node = open.machine.graph().ix(&commit);
        let fork = node.and_then(|node| open.machine.graph().fork_at(node));
        let pushed = own.is_some() && !open.peers.is_empty();
        let pushed = pushed && node.is_some_and(|node| open.is_for_all(node));
        let bundle = pushed.then(|| taken.to_bundle());
        let committed = Committed::Commit {
            conversation: id,
            frontier: open.machine.frontier(),
            own: own.map(|seq| (seq, bundle)),
            own_tip,
            joined,
            left,
        };
        let place = |index: u16| Place {
            hlc: taken.commit.commit().hlc,
            commit,
            index,
        };
        let events = (0u16..)
            .zip(&taken.events)
            .map(|(index, e)| (e.event.id(), place(index), e.event.event().author, e.void));
        let work = Work::Commit {
            commit,
            own,
            events: events.collect(),
        };
        let what = What::Commit {
            taken: Box::new(taken),
            tips,
            fork,
            ended,
        };
        self.submit(id, what, users, Some(committed), work, out);
        self.bound_documents(id);
    }

    fn submit(
        &mut self,
        conversation: ConversationId,
        what: What,
        users: Arc<Vec<UserId>>,
        committed: impl Into<Option<Committed>>,
        work: Work,
        out: &mut Vec<Output>,
    ) {
        let Some(open) = self.open.get_mut(&conversation) else {
            return;
        };
        let looks = std::mem::take(&mut open.looks);
        let changes_due = matches!(
            what,
            What::Commit { .. } | What::Record { .. } | What::Steward(_)
        );
        let due = changes_due.then(|| open.new_due(&self.me, self.pace));
        *self.on_the_way.entry(conversation).or_default() += 1;
        out.push(Output::Store(Box::new(Submission {
            what,
            due: due.flatten(),
            users,
            committed: committed.into(),
            done: Done {
                conversation,
                opening: open.opening,
                work,
                looks,
            },
        })));
    }

    /// A submission is durable, or could not be made so: then `result` says why.
    pub fn stored(&mut self, done: Done, result: Result<(), WireError>, out: &mut Vec<Output>) {
        let id = done.conversation;
        if matches!(done.work, Work::Expired) {
            self.retention.stored();
        }
        if let Work::Contents(events) = &done.work {
            for event in events {
                self.filling.remove(event);
            }
            if result.is_err() {
                self.look(id, Span::ALL.from, false);
            }
        }
        if result.is_ok() {
            for (from, anew) in done.looks.all() {
                self.look(id, from, anew);
            }
        }
        if let Some(count) = self.on_the_way.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.on_the_way.remove(&id);
            }
        }
        if let Work::Steward { asks, .. } = &done.work {
            let heard = |of| Output::Heard(of, RecordsNeed::default());
            out.extend(asks.of.map(heard));
        }
        // A conversation that was given up and read back knows nothing of what was before.
        let open = self.open.get_mut(&id);
        let Some(open) = open.filter(|open| open.opening == done.opening) else {
            return;
        };
        if let Err(error) = result {
            return self.failed(id, &error, out);
        }
        match done.work {
            Work::Conversation => {
                let replies = open.creating.take().unwrap_or_default();
                out.extend(replies.into_iter().map(|to| Output::Created(to, Ok(()))));
            }
            Work::Record(record) => {
                open.recording.remove(&record);
                for (_, reply) in open.owed.extract_if(.., |(owed, _)| *owed == record) {
                    out.push(Output::NextRoot(reply, Ok(NextRoot::Stands(record))));
                }
            }
            Work::Steward { asks, answer } => {
                open.stewarding -= 1;
                self.say(id, asks.by, *answer, out);
            }
            Work::Expired | Work::Contents(_) => {}
            Work::Commit {
                commit,
                own,
                events,
            } => {
                open.machine.durable(&commit);
                for waiter in open.on_disk.remove(&commit).unwrap_or_default() {
                    out.push(waiter.answer(Verdict::Stored));
                }
                self.counts.taken += events.len() as u64;
                if let Some(seq) = own {
                    open.own_tip = open.own_tip.max(Some(seq));
                    let followed = events.iter().map(|(e, _, author, _)| (*e, *author));
                    open.follow(seq, followed.collect());
                    self.counts.accepted += events.len() as u64;
                    for (event, place, _, void) in events {
                        let answer = first_answer(event, place, void);
                        for sender in open.senders.remove(&event).unwrap_or_default() {
                            out.push(Output::Accepted(sender, answer.clone()));
                        }
                    }
                }
                self.dirty.insert(id);
            }
        }
    }

    /// A submission was refused: nothing of it is on the disk, so the machine, which took it
    /// already, is given up and read again when it is needed.
    fn failed(&mut self, id: ConversationId, error: &WireError, out: &mut Vec<Output>) {
        let Some(mut open) = self.put_away(&id) else {
            return;
        };
        out.push(Output::GivenUp(id, error.clone()));
        for reply in open.creating.take().unwrap_or_default() {
            out.push(Output::Created(reply, Err(error.clone())));
        }
        for sender in std::mem::take(&mut open.senders).into_values().flatten() {
            out.push(Output::Accepted(sender, Err(error.clone())));
        }
        let mut owed: Vec<_> = open.owed.iter().map(|(_, reply)| *reply).collect();
        owed.extend(open.ballot.as_mut().and_then(|ballot| ballot.reply()));
        for reply in owed {
            out.push(Output::NextRoot(reply, Err(error.clone())));
        }
        for waiter in std::mem::take(&mut open.on_disk).into_values().flatten() {
            out.push(waiter.answer(Verdict::Refused(error.code)));
        }
        open.give_up_waiting(out);
    }

    /// Something came that items may have waited for: time, or an identity log. To be called every
    /// second.
    pub fn release(&mut self, now: Timestamp, store: &dyn Store, out: &mut Vec<Output>) {
        if store.cannot_store().is_some() {
            return;
        }
        let devices = |user: &UserId, device: &DeviceKey| store.had_device(user, device);
        let mut released = Vec::new();
        for (id, open) in &mut self.open {
            if open.machine.has_lost() || open.machine.is_ahead(now) {
                self.dirty.insert(*id);
            }
            let all = open.machine.release_waiting(now, &devices);
            open.answer_given_up(out);
            released.extend(all.into_iter().map(|taken| (*id, taken)));
        }
        for (id, taken) in released {
            self.taken(id, taken, out);
        }
        self.release_records(now, store, out);
        self.ask_for_withheld(now, store, out);
        self.releases += 1;
        if self.releases.is_multiple_of(ASK_AGAIN) {
            self.open.values().for_each(|open| open.ask_again(out));
        }
    }

    /// Closes conversations that nobody used for longest, if there are too many.
    pub fn close_some(&mut self, out: &mut Vec<Output>) {
        if self.open.len() <= OPEN_MAX {
            return;
        }
        let closable = self.open.iter().filter(|(_, open)| open.can_close());
        // Those in which something waits that can be fetched again go last.
        let mut closable: Vec<_> = closable
            .map(|(id, open)| (!open.machine.is_idle(), open.used, *id))
            .collect();
        closable.sort_unstable();
        for (_, _, id) in closable.into_iter().take(OPEN_MAX / 4) {
            if let Some(mut open) = self.put_away(&id) {
                open.give_up_waiting(out);
            }
        }
    }
}

/// What a new conversation begins with: what makes it known, and who is in it before any commit.
fn beginning(new: &NewConversation) -> (Offer, Vec<RoleChange>) {
    match new {
        NewConversation::Group(genesis) => {
            let root = genesis.root();
            let owner = RoleChange {
                user: root.owner,
                role: Role::Owner,
                home: root.home,
            };
            (Offer::Group(genesis.raw().clone()), vec![owner])
        }
        NewConversation::Direct([a, b]) => {
            let offer = Offer::Direct(a.user.min(b.user), a.user.max(b.user));
            let one = a.user == b.user;
            (offer, if one { vec![*a] } else { vec![*a, *b] })
        }
    }
}
