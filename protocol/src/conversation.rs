//! One conversation at one home: history, authority and documents composed, with what waits.
//! Source: `spec/03-history-and-documents.md`, part "History".
//!
//! A driver gives it local events and peers' bundles; it gives back [`Taken`] commits, each with
//! everything that it changed. A commit taken here is part of the state at once; the driver makes
//! it durable before it tells anybody.

mod again;
mod bundle;
mod came;
mod documents;
mod local;
mod proposals;
mod rate;
mod records;
mod retention;
mod taken;
mod waiting;

pub use bundle::{BundleError, CheckedBundle, CheckedEvent, Slot};
pub use came::Came;
pub use local::Refusal;
pub use proposals::{NotSigned, RootChange};
pub use records::{CheckpointPace, ProvenTwins, ReceivedRecord, RecordKeys, TakenRecord};
pub use retention::Expired;
pub use taken::{Changes, Homes, RoleChange, SightChange, Taken, TakenEvent, Voided};

use std::collections::{BTreeSet, VecDeque};

use crate::{
    authority::Authority,
    commit::{RootRef, SignedCommit},
    event::{Event, SignedEvent, Tip},
    history::{Graph, Inserted, NodeIx},
    ids::{CommitId, ConversationId, EventId, ServerId, UserId},
    limits::AHEAD_HOLD_MS,
    link::{Offer, Range},
    root::{Genesis, direct_conversation},
    session::{Code, Place},
    time::Timestamp,
};

use again::Again;
use documents::Documents;
use local::Queued;
use rate::Rates;
use records::Records;
use retention::Retention;
use waiting::{Waiting, WaitsFor};

/// What became of a peer's bundle.
#[derive(Debug)]
pub enum Received {
    /// It is part of the conversation now; so are others that waited for it, behind it.
    Taken(Vec<Taken>),
    /// It was before.
    Known,
    /// Kept in memory until these are had.
    Waiting {
        /// Commits that it names.
        commits: Vec<Range>,
        /// The root record that it names.
        record: Option<RootRef>,
        /// Users whose identity log is not held, or lacks the device.
        users: Vec<UserId>,
    },
    /// Refused for good.
    Refused(Code, &'static str),
}

/// Whether a device's key occurs in a user's identity log; `None` while the log is not held.
pub type Devices<'a> = dyn Fn(&UserId, &crate::ids::DeviceKey) -> Option<bool> + 'a;

/// One conversation.
#[derive(Debug)]
pub struct Conversation {
    id: ConversationId,
    me: ServerId,
    epoch: u64,
    offer: Offer,
    graph: Graph,
    authority: Authority,
    documents: Documents,
    queue: VecDeque<Queued>,
    queued: BTreeSet<EventId>,
    in_flight: Option<CommitId>,
    again: Again,
    waiting: Waiting,
    records: Records,
    rates: Rates,
    retention: Retention,
    /// Waited and was given up, with the reason.
    given_up: Vec<(CommitId, Code)>,
    newest: Option<Place>,
}

impl Conversation {
    /// The conversation that an offer makes, if it was checked before; `None` if it makes none.
    #[must_use]
    pub fn of_offer(offer: &Offer, me: ServerId, epoch: u64) -> Option<Self> {
        Some(match offer {
            Offer::Group(raw) => Self::group(&Genesis::verify(raw.clone()).ok()?, me, epoch),
            Offer::Direct(a, b) => Self::direct(*a, *b, me, epoch),
        })
    }

    /// A group, by its root record 0. `epoch` is the home's.
    #[must_use]
    pub fn group(genesis: &Genesis, me: ServerId, epoch: u64) -> Self {
        let authority = Authority::group(genesis);
        let offer = Offer::Group(genesis.raw().clone());
        let mut group = Self::new(genesis.conversation(), me, epoch, offer, authority);
        group.records.first = Some(genesis.root().clone());
        group
    }

    /// The direct conversation of two users.
    #[must_use]
    pub fn direct(a: UserId, b: UserId, me: ServerId, epoch: u64) -> Self {
        let (low, high) = (a.min(b), a.max(b));
        let id = direct_conversation(&low, &high);
        let mut conversation = Self::new(
            id,
            me,
            epoch,
            Offer::Direct(low, high),
            Authority::direct(low, high),
        );
        if low == high {
            conversation.documents = Documents::of_one();
        }
        conversation
    }

    fn new(
        id: ConversationId,
        me: ServerId,
        epoch: u64,
        offer: Offer,
        authority: Authority,
    ) -> Self {
        Self {
            id,
            me,
            epoch,
            offer,
            graph: Graph::new(id),
            authority,
            documents: Documents::default(),
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            in_flight: None,
            again: Again::default(),
            waiting: Waiting::default(),
            records: Records::default(),
            rates: Rates::default(),
            retention: Retention::default(),
            given_up: Vec::new(),
            newest: None,
        }
    }

    /// The conversation's id.
    #[must_use]
    pub const fn id(&self) -> ConversationId {
        self.id
    }

    /// What makes it known to others.
    #[must_use]
    pub const fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The commits.
    #[must_use]
    pub const fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Who may do what.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether it is a user's with himself: his notes, and his settings.
    #[must_use]
    pub fn is_of_one(&self) -> bool {
        matches!(self.offer, Offer::Direct(low, high) if low == high)
    }

    /// Bytes of the documents that are open here, roughly. They are caches: see
    /// [`Self::close_documents`].
    #[must_use]
    pub fn document_bytes(&self) -> usize {
        self.documents.open_bytes()
    }

    /// How many packs have an open document.
    #[must_use]
    pub fn open_packs(&self) -> usize {
        self.documents.open_packs()
    }

    /// Closes all documents: they are built again, from what is held, when they are needed.
    pub fn close_documents(&mut self) {
        self.documents.close();
    }

    /// Nothing is queued, in flight or waiting: it can be put away.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none() && self.waiting.is_empty()
    }

    /// Something of its own users is queued or in flight: what else waits here can be fetched again.
    #[must_use]
    pub fn has_own_work(&self) -> bool {
        !self.queue.is_empty() || self.in_flight.is_some()
    }

    /// Takes a stored commit back in, in the order they were stored. Nothing new follows from it.
    ///
    /// # Errors
    ///
    /// The reason, if the store gives what it never took: damage, or an order of its own.
    pub fn restore(&mut self, commit: &SignedCommit, events: &[SignedEvent]) -> Result<(), String> {
        match self.graph.insert(commit) {
            Inserted::New(node) => {
                let named: Vec<(EventId, &Event)> =
                    events.iter().map(|e| (e.id(), e.event())).collect();
                let effects = self.authority.insert(&self.graph, node, &named);
                self.rates
                    .take(&self.graph, &self.authority, node, &effects);
                self.documents
                    .restore(&self.graph, &self.authority, node, &named);
                self.note_newest(node);
                if commit.commit().origin == self.me && self.graph.fork_at(node).is_some() {
                    self.note_own(None);
                }
                Ok(())
            }
            Inserted::Duplicate(_) => Ok(()),
            other => Err(format!("a stored commit is {other:?}")),
        }
    }

    fn note_newest(&mut self, node: NodeIx) -> bool {
        let (node, last) = (self.graph.node(node), self.newest);
        let count = u16::try_from(node.events().len()).unwrap_or(u16::MAX);
        let place = Place {
            hlc: node.hlc(),
            commit: node.id(),
            index: count.saturating_sub(1),
        };
        let late = last.is_some_and(|newest| place < newest);
        self.newest = last.max(Some(place));
        late
    }

    /// Takes a peer's bundle, whose signatures were checked.
    pub fn receive(
        &mut self,
        now: Timestamp,
        bundle: CheckedBundle,
        devices: &Devices<'_>,
    ) -> Received {
        let id = bundle.commit.id();
        if self.graph.ix(&id).is_some() {
            return Received::Known;
        }
        let hlc = bundle.commit.commit().hlc;
        let mut waits = WaitsFor::default();
        if hlc.timestamp().0 > now.plus_ms(AHEAD_HOLD_MS).0 {
            waits.until = Some(Timestamp(hlc.timestamp().0 - AHEAD_HOLD_MS));
        }
        for event in &bundle.events {
            let event = event.event.event();
            // A device that is in no entry held here may be in one that is not held yet: the event
            // waits for the log, it is never void for it.
            if devices(&event.author, &event.device) != Some(true) {
                waits.users.insert(event.author);
            }
        }
        if !waits.is_nothing() {
            // Asked for now: once the rest has come nobody is asked any more.
            waits.commits = self.lacks(&bundle);
            waits.record = self.lacks_record(&bundle);
            return self.wait(bundle, waits);
        }
        if bundle.commit.commit().origin == self.me {
            self.note_own(Some(now));
        }
        match self.take(now, bundle) {
            Ok(taken) => {
                let mut all = vec![taken];
                self.release(now, devices, &mut all);
                Received::Taken(all)
            }
            Err(NotTaken::Missing(bundle)) => {
                let waits = self.lacking(&bundle);
                self.wait(*bundle, waits)
            }
            Err(NotTaken::Refused(_, code, why)) => Received::Refused(code, why),
            Err(NotTaken::Known) => Received::Known,
        }
    }

    /// Takes what waited for something that came meanwhile: time, or identity logs.
    pub fn release_waiting(&mut self, now: Timestamp, devices: &Devices<'_>) -> Vec<Taken> {
        let mut all = Vec::new();
        self.release(now, devices, &mut all);
        all
    }

    fn release(&mut self, now: Timestamp, devices: &Devices<'_>, all: &mut Vec<Taken>) {
        let mut progress = true;
        while progress {
            progress = false;
            for bundle in self.waiting.ready(now, &self.graph, devices) {
                if bundle.commit.commit().origin == self.me {
                    self.note_own(Some(now));
                }
                match self.take(now, bundle) {
                    Ok(taken) => {
                        all.push(taken);
                        progress = true;
                    }
                    Err(NotTaken::Missing(bundle)) => {
                        let waits = self.lacking(&bundle);
                        self.keep_waiting(*bundle, waits);
                    }
                    Err(NotTaken::Refused(id, code, _)) => self.given_up.push((id, code)),
                    Err(NotTaken::Known) => {}
                }
            }
        }
    }

    fn wait(&mut self, bundle: CheckedBundle, waits: WaitsFor) -> Received {
        // What waits here itself was asked for when it came.
        let commits = waits
            .commits
            .iter()
            .filter(|id| !self.waiting.holds(id))
            .filter_map(|id| self.range_of(&bundle, id))
            .collect();
        let users = waits.users.iter().copied().collect();
        let record = waits.record;
        self.keep_waiting(bundle, waits);
        Received::Waiting {
            commits,
            record,
            users,
        }
    }

    fn keep_waiting(&mut self, bundle: CheckedBundle, waits: WaitsFor) {
        let dropped = self.waiting.add(bundle, waits);
        self.given_up
            .extend(dropped.into_iter().map(|id| (id, Code::Busy)));
    }

    /// Commits that waited and are given up, since the last call: refused for good, or dropped for
    /// want of room (`busy`), which may come again.
    pub fn take_given_up(&mut self) -> Vec<(CommitId, Code)> {
        std::mem::take(&mut self.given_up)
    }

    /// Commits that wait for identity logs, and whose: an answer may have been lost, or could not be
    /// stored.
    pub fn waits_for_users(&self) -> impl Iterator<Item = (CommitId, Vec<UserId>)> + '_ {
        let waiting = self.waiting.for_users();
        waiting.map(|(commit, users)| (commit, users.iter().copied().collect()))
    }

    /// Commits that a bundle names and that are not held.
    fn lacks(&self, bundle: &CheckedBundle) -> BTreeSet<CommitId> {
        let commit = bundle.commit.commit();
        let tips = commit.authority.as_ref().map_or(&[][..], |a| &a.tips);
        let named = commit.prev.into_iter().chain(tips.iter().map(|tip| tip.id));
        named.filter(|id| self.graph.ix(id).is_none()).collect()
    }

    /// The root record that a bundle names, if it is not held.
    fn lacks_record(&self, bundle: &CheckedBundle) -> Option<RootRef> {
        let root = bundle.commit.commit().authority.as_ref()?.root;
        root.filter(|root| root.n > 0 && self.graph.record(&root.id).is_none())
    }

    fn lacking(&self, bundle: &CheckedBundle) -> WaitsFor {
        WaitsFor {
            commits: self.lacks(bundle),
            record: self.lacks_record(bundle),
            ..WaitsFor::default()
        }
    }

    /// How to ask for a commit that a bundle names.
    fn range_of(&self, bundle: &CheckedBundle, id: &CommitId) -> Option<Range> {
        let commit = bundle.commit.commit();
        let (home, to) = if commit.prev == Some(*id) {
            (commit.origin, commit.seq - 1)
        } else {
            let tips = &commit.authority.as_ref()?.tips;
            let tip = tips.iter().find(|tip| tip.id == *id)?;
            (tip.home, tip.seq)
        };
        Some(self.range_up_to(home, *id, to))
    }

    /// How to ask for a commit that a tip names.
    fn range_to(&self, tip: &Tip) -> Range {
        self.range_up_to(tip.home, tip.id, tip.seq)
    }

    fn range_up_to(&self, home: ServerId, tip: CommitId, to: u64) -> Range {
        let held = self
            .graph
            .standing_tip(&home)
            .map(|node| self.graph.node(node).seq());
        let from = held.map_or(0, |seq| if seq < to { seq + 1 } else { to });
        Range {
            conversation: self.id,
            home,
            tip,
            from,
            to,
        }
    }

    fn take(&mut self, now: Timestamp, mut bundle: CheckedBundle) -> Result<Taken, NotTaken> {
        self.documents.settle_restored(&self.graph, &self.authority);
        match self.graph.insert(&bundle.commit) {
            Inserted::New(node) => {
                self.drop_expired(now, &bundle.commit, &mut bundle.events);
                Ok(self.taken(node, bundle))
            }
            Inserted::Duplicate(_) => Err(NotTaken::Known),
            Inserted::Missing(_) | Inserted::MissingRecord(_) => {
                Err(NotTaken::Missing(Box::new(bundle)))
            }
            Inserted::Invalid(invalid) => Err(NotTaken::Refused(
                bundle.commit.id(),
                Code::Malformed,
                invalid.code(),
            )),
            Inserted::Surplus => Err(NotTaken::Refused(
                bundle.commit.id(),
                Code::Conflict,
                "another branch of a fork that is proven",
            )),
        }
    }

    /// Ends of the standing chain of a home and of its proven fork.
    #[must_use]
    pub fn frontier(&self) -> Vec<Tip> {
        self.graph.frontier()
    }
}

enum NotTaken {
    Missing(Box<CheckedBundle>),
    Refused(CommitId, Code, &'static str),
    Known,
}

#[cfg(test)]
mod tests;
