//! Authority: who may do what, and what stands after any merge. Source: `spec/04-authority.md`.
//!
//! Verdicts are functions of the set of commits alone. An event depends only on acts of strictly
//! higher level, so one pass from the owner down decides everything, and one more act re-judges only
//! what it can touch. [`Authority`] keeps verdicts up to date while commits arrive; the tests hold it
//! against a plain port of the rules.
//!
//! What a root record settled comes in where `Authority::decide` begins: a settled event's verdict is
//! that of the record's past, for ever.

mod cause;
mod direct;
mod judge;
mod members;
mod next;
mod settle;
mod sight;
mod table;

pub use cause::Cause;
pub use members::Member;
pub use settle::RecordOutcome;
pub use sight::{SWITCHES_MAX, Sight, Span, Switch};

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    commit::RootRef,
    event::{Event, Field, Tip},
    history::{Appearance, BranchIx, Graph, NodeIx, Past},
    ids::{CommitId, EventId, ServerId, UserId},
    role::Role,
    root::Genesis,
};
use settle::Record;
use table::{ANYONE, Act, ActIx, Entry, EntryIx, Kind, Subject, SubjectIx};

/// Why an event does not stand, or would not.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Its commit is on a branch that lost a fork; its home commits the event again.
    #[error("its commit is on a branch that lost")]
    LostBranch,
    /// A standing commit in its past holds the event already.
    #[error("the event counted before")]
    Repeated,
    /// Its claim is not what the act needs: above the role given, moderator, admin.
    #[error("the role claimed is too low for this act")]
    ClaimTooLow,
    /// The posting policy in its past asks for a higher claim.
    #[error("posting is restricted to higher roles")]
    PostingRestricted,
    /// Nobody edits another's message.
    #[error("not the author's own message")]
    NotOwn,
    /// What it is about is not a message.
    #[error("what it is about is not a message")]
    WrongTarget,
    /// What it is about is not held. Only for events not yet committed; others wait.
    #[error("what it is about is not known")]
    UnknownTarget,
    /// A policy value outside the field's range.
    #[error("no such policy value")]
    InvalidPolicy,
    /// A kind of event that direct conversations do not have.
    #[error("not in a direct conversation")]
    NotInDirect,
    /// Its target holds as high a role as it claims.
    #[error("the target's role is as high")]
    Outranked,
    /// Its past holds no grant of its author.
    #[error("not a member")]
    NotMember,
    /// Its past holds no open door that gives the role taken.
    #[error("no open door")]
    NoDoor,
    /// It claims more than any grant in its past gives.
    #[error("the role claimed is not held")]
    NotAllowed,
    /// Its commit is not of its author's home.
    #[error("not from its author's home")]
    WrongHome,
    /// The grant that would carry it is itself void.
    #[error("the grant that carried it is void")]
    GrantVoid,
    /// What carried it was taken away by an act that had not seen it.
    #[error("what carried it was taken away")]
    Removed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::LostBranch,
        Self::Repeated,
        Self::ClaimTooLow,
        Self::PostingRestricted,
        Self::NotOwn,
        Self::WrongTarget,
        Self::UnknownTarget,
        Self::InvalidPolicy,
        Self::NotInDirect,
        Self::Outranked,
        Self::NotMember,
        Self::NoDoor,
        Self::NotAllowed,
        Self::WrongHome,
        Self::GrantVoid,
        Self::Removed,
    ];

    /// Stable name, as clients and peers see it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::LostBranch => "lost_branch",
            Self::Repeated => "repeated",
            Self::ClaimTooLow => "claim_too_low",
            Self::PostingRestricted => "posting_restricted",
            Self::NotOwn => "not_own",
            Self::WrongTarget => "wrong_target",
            Self::UnknownTarget => "unknown_target",
            Self::InvalidPolicy => "invalid_policy",
            Self::NotInDirect => "not_in_direct",
            Self::Outranked => "outranked",
            Self::NotMember => "not_member",
            Self::NoDoor => "no_door",
            Self::NotAllowed => "not_allowed",
            Self::WrongHome => "wrong_home",
            Self::GrantVoid => "grant_void",
            Self::Removed => "removed",
        }
    }
}

/// What an event waits for before it can be judged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Awaited {
    /// The event itself, or its author's device key: only its id is known.
    Event,
    /// The event it is about.
    Target,
}

/// What an appearance of an event is worth, by the commits held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It counts.
    Stands,
    /// It does not.
    Void(Reason),
    /// It cannot be judged yet.
    Waits(Awaited),
}

impl Verdict {
    /// Whether it counts.
    #[must_use]
    pub const fn stands(self) -> bool {
        matches!(self, Self::Stands)
    }
}

/// An earlier event whose verdict is now another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VerdictChange {
    /// Where it appears.
    pub at: Appearance,
    /// Before.
    pub was: Verdict,
    /// Now.
    pub now: Verdict,
}

/// A user whose role is now another, or who has it at another home.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RoleChange {
    /// Who.
    pub user: UserId,
    /// Before; none = not a member.
    pub was: Role,
    /// Now.
    pub now: Role,
}

/// What one commit brought about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Effects {
    /// Verdicts of the commit's own events, one each, in their order.
    pub verdicts: Vec<Verdict>,
    /// Earlier events that became void, stand again, or were waited for. Sorted, unique.
    pub changed: Vec<VerdictChange>,
    /// Users with another role, or the same at another home. Sorted by user, unique.
    pub roles: Vec<RoleChange>,
    /// Users whose memberships may have begun or ended elsewhere in the order. Sorted, unique.
    pub sights: Vec<UserId>,
    /// Whether the policy `history` may have changed somewhere in the order.
    pub history: bool,
    /// Homes that take part from now on. Sorted.
    pub homes_began: Vec<ServerId>,
    /// Homes that no longer do. Sorted.
    pub homes_ceased: Vec<ServerId>,
}

#[derive(Clone, Debug)]
enum Mode {
    Group(RootRef),
    Direct([SubjectIx; 2]),
}

/// Verdicts, roles and policies of one conversation, kept beside its [`Graph`].
#[derive(Clone, Debug)]
pub struct Authority {
    mode: Mode,
    subjects: Vec<Subject>,
    subject_of: BTreeMap<UserId, SubjectIx>,
    entries: Vec<Entry>,
    /// First entry of each node; `u32::MAX` for nodes not yet told of.
    first: Vec<u32>,
    acts: Vec<Act>,
    /// Appearances of one authority event, where there are several.
    same: BTreeMap<EventId, Vec<ActIx>>,
    /// Posting policies, oldest node first.
    posting: Vec<ActIx>,
    /// The other policies, likewise.
    settings: Vec<ActIx>,
    /// Joins by branch, in the order of the chain.
    joins: Vec<Vec<EntryIx>>,
    /// What events without an act of their own are about.
    targets: Vec<EventId>,
    /// Commits that hold acts, by branch, in the order of the chain.
    act_nodes: Vec<Vec<NodeIx>>,
    /// Up to where each branch stood when last looked at.
    stood_to: Vec<Option<u32>>,
    awaiting_target: BTreeMap<EventId, BTreeSet<EntryIx>>,
    awaiting_cut: BTreeMap<CommitId, (Tip, Vec<ActIx>)>,
    /// Members at each home that takes part.
    homes: BTreeMap<ServerId, u32>,
    /// Root records from 1 on.
    records: Vec<Record>,
    /// Those that stand, oldest first: they have settled what lies in their pasts.
    settled: Vec<NodeIx>,
    /// What each of these did.
    settlements: Vec<settle::Settlement>,
    /// Acts that none of them has settled.
    unsettled: BTreeSet<ActIx>,
    /// What lies below them and could not be judged when they came.
    left_open: BTreeSet<EntryIx>,
    /// Judgements made.
    judged: u64,
}

/// What one insertion has yet to judge and has found out.
#[derive(Debug, Default)]
struct Pass {
    /// By level, highest first: nothing judged later can change what was judged before.
    queue: BTreeSet<(Reverse<u8>, EntryIx)>,
    /// Verdicts before this insertion of earlier entries that were judged again.
    was: BTreeMap<EntryIx, Verdict>,
    /// Entries whose event was learnt just now.
    new: BTreeSet<EntryIx>,
    /// Whether these lie in the past of entries that were there before.
    late: bool,
    /// Acts learnt late that have queued what they touch; they do so once.
    reached: BTreeSet<ActIx>,
    /// Users whose role or home may be another.
    touched: BTreeSet<SubjectIx>,
    /// Whether a policy `history` began or ceased to stand.
    history: bool,
}

/// How far an act reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reach {
    /// Nothing judged has it in its past: it can only take away.
    New,
    /// All that it could ever touch.
    All,
    /// All of it, and the reasons told for events that stay void: these name acts of any level.
    Late,
}

impl Authority {
    fn empty(mode: Mode) -> Self {
        Self {
            mode,
            // Index 0 stands for whoever comes through a door.
            subjects: vec![Subject::new(None)],
            subject_of: BTreeMap::new(),
            entries: Vec::new(),
            first: Vec::new(),
            acts: Vec::new(),
            same: BTreeMap::new(),
            posting: Vec::new(),
            settings: Vec::new(),
            joins: Vec::new(),
            targets: Vec::new(),
            act_nodes: Vec::new(),
            stood_to: Vec::new(),
            awaiting_target: BTreeMap::new(),
            awaiting_cut: BTreeMap::new(),
            homes: BTreeMap::new(),
            records: Vec::new(),
            settled: Vec::new(),
            settlements: Vec::new(),
            unsettled: BTreeSet::new(),
            left_open: BTreeSet::new(),
            judged: 0,
        }
    }

    /// The authority of a group: its record 0 makes one owner, and lies in everything's past.
    #[must_use]
    pub fn group(genesis: &Genesis) -> Self {
        let root = RootRef {
            n: 0,
            id: genesis.id(),
        };
        let mut authority = Self::empty(Mode::Group(root));
        let owner = authority.subject(&genesis.root().owner);
        authority
            .acts
            .push(Act::record(owner, genesis.root().home, genesis.id()));
        authority.subjects[owner.0 as usize].about.push(ActIx(0));
        authority.restand(owner, None, &mut BTreeMap::new());
        authority
    }

    /// The authority of a direct conversation: two members for ever, or one with himself.
    #[must_use]
    pub fn direct(a: UserId, b: UserId) -> Self {
        let mut authority = Self::empty(Mode::Direct([ANYONE, ANYONE]));
        let users = [authority.subject(&a), authority.subject(&b)];
        authority.mode = Mode::Direct(users);
        for user in users {
            authority.restand(user, None, &mut BTreeMap::new());
        }
        authority
    }

    fn subject(&mut self, user: &UserId) -> SubjectIx {
        if let Some(known) = self.subject_of.get(user) {
            return *known;
        }
        let ix = SubjectIx(u32::try_from(self.subjects.len()).unwrap_or(u32::MAX));
        self.subjects.push(Subject::new(Some(*user)));
        self.subject_of.insert(*user, ix);
        ix
    }

    /// Takes note of a commit that `graph` has just taken, and of those of its events that are held
    /// and verified. Call it once for each commit, dependencies first, and again with events of the
    /// commit that were not held the first time.
    ///
    /// # Panics
    ///
    /// If `node` is of another graph.
    pub fn insert(&mut self, graph: &Graph, node: NodeIx, events: &[(EventId, &Event)]) -> Effects {
        let mut pass = Pass::default();
        let known = self.reserve(graph, node);
        pass.late = known || self.first.len() > node.0 as usize + 1;
        self.learn(graph, node, events, &mut pass);
        self.follow_forks(graph, node, &mut pass);
        if let Some((_, waiting)) = self.awaiting_cut.remove(&graph.node(node).id()) {
            for act in waiting {
                self.touch(graph, act, Reach::All, &mut pass);
            }
        }
        self.judge_queue(graph, &mut pass);
        self.effects(graph, node, &pass)
    }

    /// Judges what is queued, highest level first.
    fn judge_queue(&mut self, graph: &Graph, pass: &mut Pass) {
        while let Some((_, ix)) = pass.queue.pop_first() {
            let was = self.entries[ix.0 as usize].verdict;
            let now = self.decide(graph, ix);
            self.judged += 1;
            let entry = &mut self.entries[ix.0 as usize];
            entry.verdict = now;
            let new = pass.new.contains(&ix);
            if !new {
                pass.was.entry(ix).or_insert(was);
            }
            if !entry.kind.is_act() || (was.stands() == now.stands() && !new) {
                continue;
            }
            let act = ActIx(entry.detail);
            self.touched_by(act, pass);
            if new && pass.late && pass.reached.insert(act) {
                self.touch(graph, act, Reach::Late, pass);
            } else if was.stands() != now.stands() {
                let event = &self.acts[act.0 as usize].event;
                // Another appearance of it may lie in the past of what was judged.
                let first = !self.same.contains_key(event);
                let reach = if new && first { Reach::New } else { Reach::All };
                self.touch(graph, act, reach, pass);
            }
        }
    }

    fn touched_by(&self, act: ActIx, pass: &mut Pass) {
        let act = &self.acts[act.0 as usize];
        match act.policy {
            Some((field, _)) => pass.history |= field == Field::History,
            None if act.subject == ANYONE => {}
            None => {
                pass.touched.insert(act.subject);
            }
        }
    }

    /// Queues whatever an act can touch, all of it of a lower level than the act.
    fn touch(&self, graph: &Graph, act: ActIx, reach: Reach, pass: &mut Pass) {
        let ix = act;
        let act = &self.acts[ix.0 as usize];
        let level = act.level;
        let mut queue = |ix: EntryIx| {
            let below = self.level(ix);
            if below < level || reach == Reach::Late {
                pass.queue.insert((Reverse(below), ix));
            }
        };
        match act.kind {
            Kind::Policy => {
                if act.sets(Field::Posting) && reach != Reach::New {
                    for ix in self.all_entries() {
                        if self.entries[ix.0 as usize].kind.is_posting() {
                            queue(ix);
                        }
                    }
                }
            }
            // A join gives, and nothing that was judged had seen it.
            Kind::Join if reach == Reach::New => {}
            Kind::Move => self
                .entries_of(act.subject)
                .iter()
                .for_each(|ix| queue(*ix)),
            // What only takes away lets stand whatever its cut holds, and takes only from claims
            // above what it leaves.
            _ if reach == Reach::New => {
                let lets_stand = self.lets_stand(graph, ix);
                for list in self.carried_by(act.subject) {
                    self.beyond(graph, list, &lets_stand, |ix| {
                        if self.needs(ix) > act.role {
                            queue(ix);
                        }
                    });
                }
            }
            _ => {
                let carried = self.carried_by(act.subject).iter().flatten();
                carried.for_each(|ix| queue(*ix));
                for other in self.about(act.subject) {
                    self.acts[other.0 as usize]
                        .entry
                        .iter()
                        .for_each(|e| queue(*e));
                }
            }
        }
    }

    /// What grants to `subject` carry: his own events, or joins; lists by branch and place.
    fn carried_by(&self, subject: SubjectIx) -> &[Vec<EntryIx>] {
        if subject == ANYONE {
            &self.joins
        } else {
            std::slice::from_ref(&self.subjects[subject.0 as usize].entries)
        }
    }

    /// The role that has to be given to whoever carries an event.
    fn needs(&self, ix: EntryIx) -> Role {
        let entry = &self.entries[ix.0 as usize];
        if entry.kind == Kind::Join {
            self.acts[entry.detail as usize].role
        } else {
            entry.claims
        }
    }

    /// What an act that takes away lets stand whatever it finds: what its cut holds, or, of one that
    /// closes a door, its past.
    fn lets_stand(&self, graph: &Graph, ix: ActIx) -> Past {
        let act = &self.acts[ix.0 as usize];
        if act.subject != ANYONE {
            return graph.chains_below(&act.cut);
        }
        let node = act.entry.map(|entry| self.entries[entry.0 as usize].node);
        node.map_or_else(Past::default, |node| graph.past_with_chain(node))
    }

    /// Queues what began or ceased to stand with its branch, and repeats of it.
    fn follow_forks(&mut self, graph: &Graph, node: NodeIx, pass: &mut Pass) {
        self.follow_branches(graph, graph.standing_of_home(node), pass);
    }

    /// The same for every home: a record settled branches.
    fn follow_all_forks(&mut self, graph: &Graph, pass: &mut Pass) {
        self.follow_branches(graph, graph.standing_of_all(), pass);
    }

    fn follow_branches(
        &mut self,
        graph: &Graph,
        standing: impl Iterator<Item = (BranchIx, u32)>,
        pass: &mut Pass,
    ) {
        let mut flipped = Vec::new();
        for (branch, stands_to) in standing {
            let at = branch.0 as usize;
            if self.stood_to.len() <= at {
                self.stood_to.resize(at + 1, None);
            }
            if let Some(stood_to) = self.stood_to[at].replace(stands_to) {
                let (low, high) = (stood_to.min(stands_to), stood_to.max(stands_to));
                flipped.extend(graph.nodes_between(branch, low, high));
            }
        }
        for node in flipped {
            for (index, event) in (0u16..).zip(graph.node(node).events()) {
                if let Some(ix) = self.entry_at(Appearance { node, index }) {
                    pass.queue.insert((Reverse(self.level(ix)), ix));
                }
                for at in graph.find_event(event) {
                    if let Some(ix) = self.entry_at(at) {
                        pass.queue.insert((Reverse(self.level(ix)), ix));
                    }
                }
            }
            self.follow_bindings(graph, node, pass);
        }
    }

    /// Sums up a pass.
    fn effects(&mut self, graph: &Graph, node: NodeIx, pass: &Pass) -> Effects {
        let mut effects = Effects {
            history: pass.history,
            ..Effects::default()
        };
        let count = graph.node(node).events().len();
        let first = self.first[node.0 as usize] as usize;
        let own = first..first + count;
        effects.verdicts = self.entries[own].iter().map(|e| e.verdict).collect();
        for (ix, was) in &pass.was {
            let entry = &self.entries[ix.0 as usize];
            let same = was.stands() == entry.verdict.stands()
                && matches!(was, Verdict::Waits(_)) == matches!(entry.verdict, Verdict::Waits(_));
            if !same {
                effects.changed.push(VerdictChange {
                    at: entry.at(),
                    was: *was,
                    now: entry.verdict,
                });
            }
        }
        effects.changed.sort_unstable_by_key(|change| change.at);
        let mut before = BTreeMap::new();
        for subject in &pass.touched {
            let was = self.subjects[subject.0 as usize].standing.role;
            let lived = self.member_at(*subject).and_then(|member| member.home);
            self.restand(*subject, Some(graph), &mut before);
            let lives = self.member_at(*subject).and_then(|member| member.home);
            let state = &self.subjects[subject.0 as usize];
            effects.sights.extend(state.id);
            if let (Some(user), now) = (state.id, state.standing.role)
                && (was != now || (lived.is_some() && lived != lives))
            {
                effects.roles.push(RoleChange { user, was, now });
            }
        }
        effects.roles.sort_unstable_by_key(|change| change.user);
        effects.sights.sort_unstable();
        for (home, took_part) in before {
            match (took_part, self.homes.contains_key(&home)) {
                (false, true) => effects.homes_began.push(home),
                (true, false) => effects.homes_ceased.push(home),
                _ => {}
            }
        }
        effects
    }

    /// How many judgements were made since this was new: what its commits and records cost, apart
    /// from the machine.
    #[must_use]
    pub const fn judged(&self) -> u64 {
        self.judged
    }

    /// What an appearance is worth; waits for the event if the commit was never told of.
    #[must_use]
    pub fn verdict(&self, at: Appearance) -> Verdict {
        self.entry_at(at)
            .map_or(Verdict::Waits(Awaited::Event), |ix| {
                self.entries[ix.0 as usize].verdict
            })
    }

    /// The appearance of an event that is shown: of the standing ones the first in the order.
    #[must_use]
    pub fn shown(&self, graph: &Graph, event: &EventId) -> Option<Appearance> {
        graph
            .find_event(event)
            .filter(|at| self.verdict(*at).stands())
            .min_by_key(|at| graph.place(*at))
    }

    /// Commits that cuts name and that are not held: until they are, nothing is inside there.
    pub fn unheld_cuts(&self) -> impl Iterator<Item = Tip> + '_ {
        self.awaiting_cut.values().map(|(tip, _)| *tip)
    }
}

#[cfg(test)]
mod tests;
