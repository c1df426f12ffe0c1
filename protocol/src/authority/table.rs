//! What the authority keeps of events: one small entry for every appearance, more for acts.

use super::{Authority, Awaited, Pass, Verdict, members::Standing};
use crate::{
    event::{Act as EventAct, Event, Field, Target, Tip},
    history::{Appearance, BranchIx, Graph, NodeIx, Past},
    ids::{EventId, RootId, ServerId, UserId},
    role::Role,
};

/// A user, or whoever comes through a door.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SubjectIx(pub(super) u32);

/// Whoever comes through a door.
pub(super) const ANYONE: SubjectIx = SubjectIx(0);
/// A user of whom nothing is held.
pub(super) const NOBODY: SubjectIx = SubjectIx(u32::MAX);

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct EntryIx(pub(super) u32);

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ActIx(pub(super) u32);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Only the id is known.
    Absent,
    Message,
    Edit,
    Delete,
    React,
    Pin,
    State,
    /// A `state` event that sets its author's own display name.
    Name,
    /// That a root record's owner is the owner.
    Record,
    /// That the owner before is an admin, by the record that names another.
    Former,
    Grant,
    Join,
    Leave,
    Move,
    Policy,
}

impl Kind {
    pub(super) const fn is_act(self) -> bool {
        matches!(
            self,
            Self::Record
                | Self::Former
                | Self::Grant
                | Self::Join
                | Self::Leave
                | Self::Move
                | Self::Policy
        )
    }

    /// Whether the posting policy decides who may.
    pub(super) const fn is_posting(self) -> bool {
        matches!(self, Self::Message | Self::Edit | Self::React | Self::Name)
    }

    pub(super) const fn of(act: &EventAct) -> Self {
        match act {
            EventAct::Message { .. } => Self::Message,
            EventAct::Edit { .. } => Self::Edit,
            EventAct::Delete { .. } => Self::Delete,
            EventAct::React { .. } => Self::React,
            EventAct::Pin { .. } => Self::Pin,
            EventAct::State { field, .. } => {
                if matches!(field.as_bytes(), b"name") {
                    Self::Name
                } else {
                    Self::State
                }
            }
            EventAct::Grant(_) => Self::Grant,
            EventAct::Join { .. } => Self::Join,
            EventAct::Leave { .. } => Self::Leave,
            EventAct::Move { .. } => Self::Move,
            EventAct::Policy { .. } => Self::Policy,
        }
    }
}

/// One appearance of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) node: NodeIx,
    pub(super) author: SubjectIx,
    /// Index into the acts, or into the targets.
    pub(super) detail: u32,
    pub(super) index: u16,
    pub(super) kind: Kind,
    pub(super) claims: Role,
    pub(super) verdict: Verdict,
    /// Its verdict for ever, once a root record settled it.
    pub(super) settled: Option<Verdict>,
}

impl Entry {
    pub(super) const fn at(&self) -> Appearance {
        Appearance {
            node: self.node,
            index: self.index,
        }
    }
}

/// One appearance of an act.
#[derive(Clone, Debug)]
pub(super) struct Act {
    /// None for what a root record says.
    pub(super) entry: Option<EntryIx>,
    /// For what a root record says, its id.
    pub(super) event: EventId,
    pub(super) kind: Kind,
    /// An act depends on acts of strictly higher level only.
    pub(super) level: u8,
    /// Whom it is about: a grant's target, else its author.
    pub(super) subject: SubjectIx,
    /// Given, or taken by a join; for policies none.
    pub(super) role: Role,
    /// Claimed; what a record says outranks any claim.
    pub(super) claims: Role,
    /// Home bound or moved to.
    pub(super) home: Option<ServerId>,
    pub(super) ban: bool,
    pub(super) lifts: Box<[EventId]>,
    pub(super) cut: Box<[Tip]>,
    /// A move's entry of the identity log.
    pub(super) n: u64,
    /// A policy's field and value.
    pub(super) policy: Option<(Field, u64)>,
    /// What a record says that lost to its twin.
    pub(super) lost: bool,
    branch: BranchIx,
    seq: u32,
    index: u16,
}

/// Level of `leave` and `move`: above every claim.
const LEVEL_OWN: u8 = 16;
/// Level of what root records say.
const LEVEL_RECORD: u8 = 18;

pub(super) fn level(kind: Kind, claims: Role, role: Role) -> u8 {
    match kind {
        Kind::Record | Kind::Former => LEVEL_RECORD,
        Kind::Leave | Kind::Move => LEVEL_OWN,
        Kind::Grant | Kind::Policy => 2 * u8::from(claims),
        // A join depends on doors, whose claim is above the role taken, and carries acts up to it.
        Kind::Join => 2 * u8::from(role) + 1,
        _ => 0,
    }
}

impl Act {
    /// That `owner` is the owner by record `id`: record 0 until it is put [at](Self::at) a place.
    pub(super) fn record(owner: SubjectIx, home: ServerId, id: RootId) -> Self {
        Self {
            entry: None,
            event: EventId::from_bytes(*id.as_bytes()),
            kind: Kind::Record,
            level: LEVEL_RECORD,
            subject: owner,
            role: Role::Owner,
            claims: Role::Owner,
            home: Some(home),
            ban: false,
            lifts: Box::default(),
            cut: Box::default(),
            n: 0,
            policy: None,
            lost: false,
            branch: BranchIx(u32::MAX),
            seq: 0,
            index: 0,
        }
    }

    /// That an owner whom record `id` replaces is an admin from then on. It takes away as a grant
    /// does that claims more than the owner. It needs no cut: what the record has seen is settled.
    pub(super) fn former(owner: SubjectIx, home: ServerId, id: RootId) -> Self {
        Self {
            kind: Kind::Former,
            role: Role::Admin,
            ..Self::record(owner, home, id)
        }
    }

    /// The same at a place of the chain of records.
    pub(super) fn at(self, (branch, seq): (BranchIx, u32), index: u16) -> Self {
        Self {
            // Until it is known to stand.
            lost: true,
            branch,
            seq,
            index,
            ..self
        }
    }

    /// Whether it is record 0, which lies in the past of everything.
    pub(super) fn is_first_record(&self) -> bool {
        self.kind == Kind::Record && self.branch == BranchIx(u32::MAX)
    }

    /// The act of an event that is not, or not yet, in a commit; none if the event is no act.
    pub(super) fn of(
        event: EventId,
        author: SubjectIx,
        claims: Role,
        act: &EventAct,
        subject_of: impl FnOnce(&UserId) -> SubjectIx,
    ) -> Option<Self> {
        let kind = Kind::of(act);
        let mut made = Self {
            event,
            kind,
            subject: author,
            claims,
            role: Role::None,
            home: None,
            ..Self::record(
                author,
                ServerId::from_bytes([0; 32]),
                RootId::from_bytes([0; 32]),
            )
        };
        match act {
            EventAct::Grant(grant) => {
                (made.subject, made.home) = match &grant.target {
                    Target::User { user, home } => (subject_of(user), Some(*home)),
                    Target::Anyone => (ANYONE, None),
                };
                made.role = grant.role;
                made.ban = grant.ban;
                made.lifts = grant.lifts.as_slice().into();
                made.cut = grant.cut.as_slice().into();
            }
            EventAct::Join { role, home } => {
                made.role = *role;
                made.home = Some(*home);
            }
            EventAct::Leave { cut } => made.cut = cut.as_slice().into(),
            EventAct::Move { home, n, cut } => {
                made.home = Some(*home);
                made.n = *n;
                made.cut = cut.as_slice().into();
            }
            EventAct::Policy { field, value } => made.policy = Some((*field, *value)),
            _ => return None,
        }
        made.level = level(kind, claims, made.role);
        Some(made)
    }

    /// Whether it is a policy of this field.
    pub(super) fn sets(&self, field: Field) -> bool {
        self.policy.is_some_and(|(of, _)| of == field)
    }

    /// Whether this lies before `(seq, index)` of the same branch, or in `past`; record 0 always.
    pub(super) fn is_before(&self, branch: Option<BranchIx>, seq: u32, index: u16) -> Option<bool> {
        if self.is_first_record() {
            Some(true)
        } else {
            (branch == Some(self.branch)).then_some((self.seq, self.index) < (seq, index))
        }
    }

    pub(super) const fn position(&self) -> (BranchIx, u32) {
        (self.branch, self.seq)
    }

    pub(super) const fn index(&self) -> u16 {
        self.index
    }
}

/// What is held of one user.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// None for [`ANYONE`].
    pub(super) id: Option<UserId>,
    /// Record 0, grants, joins and leaves about this user.
    pub(super) about: Vec<ActIx>,
    pub(super) moves: Vec<ActIx>,
    /// Everything this user is the author of, by branch and place.
    pub(super) entries: Vec<EntryIx>,
    pub(super) standing: Standing,
}

impl Subject {
    pub(super) fn new(id: Option<UserId>) -> Self {
        Self {
            id,
            about: Vec::new(),
            moves: Vec::new(),
            entries: Vec::new(),
            standing: Standing::default(),
        }
    }
}

/// Puts an entry where it belongs by branch and place. Mostly that is the end.
fn insert_in_order(graph: &Graph, entries: &[Entry], list: &mut Vec<EntryIx>, ix: EntryIx) {
    let place = |ix: EntryIx| {
        let entry = &entries[ix.0 as usize];
        let node = graph.node(entry.node);
        (node.branch(), node.short_seq(), entry.index)
    };
    let own = place(ix);
    if list.last().is_none_or(|last| place(*last) < own) {
        list.push(ix);
    } else {
        list.insert(list.partition_point(|other| place(*other) < own), ix);
    }
}

impl Authority {
    /// Makes room for a commit's events; true if there was room already.
    pub(super) fn reserve(&mut self, graph: &Graph, node: NodeIx) -> bool {
        let at = node.0 as usize;
        if self.first.len() <= at {
            self.first.resize(at + 1, u32::MAX);
        }
        if self.first[at] != u32::MAX {
            return true;
        }
        self.first[at] = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let indices = (0u16..).take(graph.node(node).events().len());
        self.entries.extend(indices.map(|index| Entry {
            node,
            author: NOBODY,
            detail: u32::MAX,
            index,
            kind: Kind::Absent,
            claims: Role::None,
            verdict: Verdict::Waits(Awaited::Event),
            settled: None,
        }));
        false
    }

    /// Fills in events that were not known before, and queues them and who waited for them.
    pub(super) fn learn(
        &mut self,
        graph: &Graph,
        node: NodeIx,
        events: &[(EventId, &Event)],
        pass: &mut Pass,
    ) {
        let ids = graph.node(node).events();
        for (at, (id, event)) in events.iter().enumerate() {
            // Callers mostly pass all events in order; otherwise look.
            let found = match ids.get(at) {
                Some(same) if same == id => Some(at),
                _ => ids.iter().position(|other| other == id),
            };
            let Some(index) = found.and_then(|index| u16::try_from(index).ok()) else {
                continue;
            };
            let Some(ix) = self.entry_at(Appearance { node, index }) else {
                continue;
            };
            if self.entries[ix.0 as usize].kind == Kind::Absent {
                self.fill(graph, ix, *id, event);
                pass.new.insert(ix);
                pass.queue_at(self.level(ix), ix);
                for waiting in self.awaiting_target.remove(id).unwrap_or_default() {
                    pass.queue_at(self.level(waiting), waiting);
                }
                self.bind(graph, ix, pass);
            }
        }
    }

    fn fill(&mut self, graph: &Graph, ix: EntryIx, id: EventId, event: &Event) {
        let author = self.subject(&event.author);
        let act = Act::of(id, author, event.claims, &event.act, |user| {
            self.subject(user)
        });
        let detail = match act {
            Some(act) => self.add_act(graph, ix, act).0,
            None => match event.act.target() {
                Some(target) => {
                    self.targets.push(target);
                    u32::try_from(self.targets.len() - 1).unwrap_or(u32::MAX)
                }
                None => u32::MAX,
            },
        };
        let entry = &mut self.entries[ix.0 as usize];
        entry.author = author;
        entry.kind = Kind::of(&event.act);
        entry.claims = event.claims;
        entry.detail = detail;
        if entry.kind == Kind::Join {
            let branch = graph.node(entry.node).branch().0 as usize;
            if self.joins.len() <= branch {
                self.joins.resize(branch + 1, Vec::new());
            }
            insert_in_order(graph, &self.entries, &mut self.joins[branch], ix);
        }
        let of_author = &mut self.subjects[author.0 as usize].entries;
        insert_in_order(graph, &self.entries, of_author, ix);
    }

    /// The act of an appearance, if it is one.
    pub(super) fn act_at(&self, at: Appearance) -> Option<ActIx> {
        let entry = &self.entries[self.entry_at(at)?.0 as usize];
        entry.kind.is_act().then_some(ActIx(entry.detail))
    }

    /// Calls `each` with those of `list`, which is in order of branch and place, that lie beyond
    /// `marks`: a branch at a time, and nothing below its mark is looked at.
    pub(super) fn beyond(
        &self,
        graph: &Graph,
        list: &[EntryIx],
        marks: &Past,
        mut each: impl FnMut(EntryIx),
    ) {
        let of = |ix: &EntryIx| {
            let node = graph.node(self.entries[ix.0 as usize].node);
            (node.branch(), node.short_seq())
        };
        let mut rest = list;
        while let Some(first) = rest.first() {
            let (branch, _) = of(first);
            let (here, others) = rest.split_at(rest.partition_point(|ix| of(ix).0 <= branch));
            let below = here.partition_point(|ix| Graph::past_holds(marks, branch, of(ix).1));
            here[below..].iter().for_each(|ix| each(*ix));
            rest = others;
        }
    }

    fn add_act(&mut self, graph: &Graph, entry: EntryIx, mut act: Act) -> ActIx {
        let at = self.entries[entry.0 as usize].at();
        let node = graph.node(at.node);
        act.entry = Some(entry);
        (act.branch, act.seq, act.index) = (node.branch(), node.short_seq(), at.index);
        let ix = ActIx(u32::try_from(self.acts.len()).unwrap_or(u32::MAX));
        self.note_same(graph, act.event, at, ix);
        self.note_act_node(graph, at.node);
        for tip in &act.cut {
            if graph.ix(&tip.id).is_none() {
                let (_, waiting) = self
                    .awaiting_cut
                    .entry(tip.id)
                    .or_insert((*tip, Vec::new()));
                waiting.push(ix);
            }
        }
        let subject = &mut self.subjects[act.subject.0 as usize];
        match act.kind {
            Kind::Move => subject.moves.push(ix),
            Kind::Policy => {
                let (list, at) = if act.sets(Field::Posting) {
                    (&mut self.posting, at)
                } else {
                    (&mut self.settings, at)
                };
                let acts = &self.acts;
                let entries = &self.entries;
                let before = |other: &ActIx| {
                    let entry = acts[other.0 as usize].entry;
                    entry.is_some_and(|e| entries[e.0 as usize].at() < at)
                };
                let place = list.partition_point(before);
                list.insert(place, ix);
            }
            _ => subject.about.push(ix),
        }
        self.acts.push(act);
        self.unsettled.insert(ix);
        ix
    }

    /// Of an event that appears once nothing is kept: nearly all do.
    fn note_same(&mut self, graph: &Graph, event: EventId, at: Appearance, ix: ActIx) {
        if let Some(same) = self.same.get_mut(&event) {
            same.push(ix);
            return;
        }
        let others = graph.find_event(&event).filter(|other| *other != at);
        let mut same: Vec<ActIx> = others.filter_map(|other| self.act_at(other)).collect();
        if !same.is_empty() {
            same.push(ix);
            self.same.insert(event, same);
        }
    }

    fn note_act_node(&mut self, graph: &Graph, node: NodeIx) {
        let branch = graph.node(node).branch().0 as usize;
        if self.act_nodes.len() <= branch {
            self.act_nodes.resize(branch + 1, Vec::new());
        }
        let nodes = &mut self.act_nodes[branch];
        // Arrival in a branch is in the order of its chain; only late events insert in between.
        if let Err(place) = nodes.binary_search(&node) {
            nodes.insert(place, node);
        }
    }

    pub(super) fn entry_at(&self, at: Appearance) -> Option<EntryIx> {
        let first = *self.first.get(at.node.0 as usize)?;
        (first != u32::MAX).then(|| EntryIx(first + u32::from(at.index)))
    }

    /// What appears in a commit, as far as it was told of.
    pub(super) fn entries_of_node(
        &self,
        graph: &Graph,
        node: NodeIx,
    ) -> impl Iterator<Item = EntryIx> + use<> {
        let first = self.first.get(node.0 as usize).copied();
        let first = first.filter(|first| *first != u32::MAX);
        let count = u32::try_from(graph.node(node).events().len()).unwrap_or(0);
        first
            .into_iter()
            .flat_map(move |first| (first..first + count).map(EntryIx))
    }

    pub(super) fn all_entries(&self) -> impl Iterator<Item = EntryIx> + use<> {
        (0..u32::try_from(self.entries.len()).unwrap_or(u32::MAX)).map(EntryIx)
    }

    pub(super) fn level(&self, ix: EntryIx) -> u8 {
        let entry = &self.entries[ix.0 as usize];
        if entry.kind.is_act() {
            self.acts[entry.detail as usize].level
        } else {
            0
        }
    }

    pub(super) fn about(&self, subject: SubjectIx) -> &[ActIx] {
        self.subjects
            .get(subject.0 as usize)
            .map_or(&[], |s| &s.about)
    }

    pub(super) fn moves_of(&self, subject: SubjectIx) -> &[ActIx] {
        self.subjects
            .get(subject.0 as usize)
            .map_or(&[], |s| &s.moves)
    }

    pub(super) fn entries_of(&self, subject: SubjectIx) -> &[EntryIx] {
        self.subjects
            .get(subject.0 as usize)
            .map_or(&[], |s| &s.entries)
    }
}
