//! The set itself: inserting commits, pasts, look-ups.

use std::collections::{BTreeMap, BTreeSet};

use super::{Appearance, BranchIx, Invalid, NodeIx, Place, causal::Causal, fork::Rank};
use crate::{
    commit::{RootRef, SignedCommit},
    event::Tip,
    ids::{CommitId, ConversationId, EventId, RootId, ServerId},
    limits::BRANCHES_MAX,
    time::Hlc,
};

/// What became of a commit offered to a [`Graph`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Inserted {
    /// It is in.
    New(NodeIx),
    /// It was in already.
    Duplicate(NodeIx),
    /// Its `prev` or tips of its authority are not held: nothing was kept, offer it again once
    /// these are.
    Missing(Vec<CommitId>),
    /// It can never be in, nor anything built on it.
    Invalid(Invalid),
    /// The root record that it names is not held: nothing was kept, offer it again once it is.
    MissingRecord(RootRef),
    /// One more branch of a fork that is proven already and that it does not win. Nothing was kept;
    /// [`Graph::insert_named`] takes it once a commit of another home builds on it.
    Surplus,
}

/// A commit as the graph keeps it. Bytes and signature are the storage's.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) id: CommitId,
    pub(super) hlc: Hlc,
    pub(super) epoch: u64,
    pub(super) events: Box<[EventId]>,
    /// Held commits that `authority` and `parents` name.
    pub(super) links: Box<[NodeIx]>,
    pub(super) seq: u32,
    pub(super) branch: BranchIx,
    pub(super) prev: Option<NodeIx>,
    /// Index of the past that its authority gives it; its own chain is not repeated there.
    pub(super) past: u32,
}

impl Node {
    /// The commit's id.
    #[must_use]
    pub const fn id(&self) -> CommitId {
        self.id
    }

    /// The commit's clock.
    #[must_use]
    pub const fn hlc(&self) -> Hlc {
        self.hlc
    }

    /// The writer's epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Place in the chain.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq as u64
    }

    /// The commit before in the chain.
    #[must_use]
    pub const fn prev(&self) -> Option<NodeIx> {
        self.prev
    }

    /// Its events, in the order they count.
    #[must_use]
    pub fn events(&self) -> &[EventId] {
        &self.events
    }

    pub(crate) const fn branch(&self) -> BranchIx {
        self.branch
    }

    pub(crate) const fn short_seq(&self) -> u32 {
        self.seq
    }
}

#[derive(Clone, Debug)]
pub(super) struct Branch {
    pub(super) home: u32,
    /// The commit it leaves another branch at; none if it begins a chain.
    pub(super) base: Option<NodeIx>,
    /// Seq of its first commit.
    pub(super) start: u32,
    pub(super) nodes: Vec<NodeIx>,
    /// Commits below this seq stand; `u32::MAX` on the branch that ends the standing chain.
    pub(super) stands_to: u32,
    /// Commits below this seq stand for ever: a root record settled that.
    pub(super) settled_to: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) id: ServerId,
    pub(super) branches: Vec<BranchIx>,
    /// Branches that begin a chain.
    pub(super) roots: Vec<BranchIx>,
    /// Branches that leave another one, by where they do.
    pub(super) leaving: BTreeMap<(BranchIx, u32), Vec<BranchIx>>,
    /// The branch that ends the standing chain.
    pub(super) standing: BranchIx,
    /// The branch that ends the second best chain at the newest fork of the standing one.
    pub(super) second: Option<BranchIx>,
}

/// Per branch: one more than the greatest seq in the past, 0 for none. A past is closed, so this
/// is all there is to it.
pub(crate) type Past = Box<[u32]>;

/// The commits of one conversation whose `prev` and authority frontier are held and whole.
#[derive(Clone, Debug)]
pub struct Graph {
    conversation: ConversationId,
    pub(super) nodes: Vec<Node>,
    pub(super) branches: Vec<Branch>,
    pub(super) homes: Vec<Home>,
    home_of: BTreeMap<ServerId, u32>,
    /// Root records from 1 on. They are nodes without events, on a chain of their own.
    pub(super) records: BTreeMap<RootId, NodeIx>,
    /// The home that stands for that chain; not among `home_of`.
    pub(super) record_chain: Option<u32>,
    // Keyed by the first 8 bytes and resolved by the whole id: a quarter of the memory, and ids that
    // were ground to collide there cost their maker 2^32 hashes for one more comparison.
    pub(super) by_id: BTreeSet<(u64, NodeIx)>,
    pub(super) by_event: BTreeSet<(u64, NodeIx, u16)>,
    pasts: Vec<Past>,
    pub(super) causal: Causal,
}

fn prefix(id: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Graph {
    /// The empty history of a conversation.
    #[must_use]
    pub fn new(conversation: ConversationId) -> Self {
        Self {
            conversation,
            nodes: Vec::new(),
            branches: Vec::new(),
            homes: Vec::new(),
            home_of: BTreeMap::new(),
            records: BTreeMap::new(),
            record_chain: None,
            by_id: BTreeSet::new(),
            by_event: BTreeSet::new(),
            pasts: Vec::new(),
            causal: Causal::default(),
        }
    }

    /// The conversation.
    #[must_use]
    pub const fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// How many commits are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len() - self.records.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a commit. Its signature was checked by whoever made it a [`SignedCommit`].
    pub fn insert(&mut self, commit: &SignedCommit) -> Inserted {
        self.take(commit, false)
    }

    /// Takes a commit that a waiting commit of *another home* needs, branches beyond the second
    /// included: what others built on counts in their pasts. The waiting home pays for each.
    pub fn insert_named(&mut self, commit: &SignedCommit) -> Inserted {
        self.take(commit, true)
    }

    fn take(&mut self, signed: &SignedCommit, named: bool) -> Inserted {
        let commit = signed.commit();
        if commit.conversation != self.conversation {
            return Inserted::Invalid(Invalid::Conversation);
        }
        if let Some(held) = self.ix(&signed.id()) {
            return Inserted::Duplicate(held);
        }
        let tips = commit.authority.as_ref().map_or(&[][..], |a| &a.tips);
        let mut missing = Vec::new();
        let prev = commit.prev.and_then(|id| self.find(&id, &mut missing));
        let tip_nodes: Vec<NodeIx> = tips
            .iter()
            .filter_map(|tip| self.find(&tip.id, &mut missing))
            .collect();
        if !missing.is_empty() {
            return Inserted::Missing(missing);
        }
        let root = commit.authority.as_ref().and_then(|a| a.root);
        let record = match root.filter(|root| root.n > 0) {
            Some(root) => match self.records.get(&root.id) {
                Some(held) => Some(*held),
                None => return Inserted::MissingRecord(root),
            },
            None => None,
        };
        let checked = self
            .check(signed, prev, tips, &tip_nodes)
            .and_then(|()| self.check_root(root, prev));
        if let Err(invalid) = checked {
            return Inserted::Invalid(invalid);
        }
        // Every held chain is whole from 0, and a node index is 32 bits.
        let (Ok(seq), Ok(ix)) = (u32::try_from(commit.seq), u32::try_from(self.nodes.len())) else {
            return Inserted::Surplus;
        };
        let ix = NodeIx(ix);
        let home = self.home_of.get(&commit.origin).copied();
        let appends = prev.is_some_and(|p| self.is_last_of_branch(p));
        if !appends && let Some(home) = home {
            let rank = Rank::new(false, commit.epoch, signed.id());
            if !named && !self.takes_branch(home, prev, rank) {
                return Inserted::Surplus;
            }
        }
        let branch = match prev {
            Some(prev) if appends => self.nodes[prev.0 as usize].branch,
            _ => {
                let home = self.home_or_new(commit.origin);
                self.add_branch(home, prev, seq)
            }
        };
        let mut links = tip_nodes;
        links.extend(record);
        let past = self.past_of(prev, appends, &links);
        let unheld = self.link_parents(&commit.parents, &mut links);
        self.nodes.push(Node {
            id: signed.id(),
            hlc: commit.hlc,
            epoch: commit.epoch,
            events: commit.events.as_slice().into(),
            links: links.into_boxed_slice(),
            seq,
            branch,
            prev,
            past,
        });
        self.branches[branch.0 as usize].nodes.push(ix);
        self.by_id.insert((prefix(signed.id().as_bytes()), ix));
        for (index, event) in (0u16..).zip(&commit.events) {
            self.by_event.insert((prefix(event.as_bytes()), ix, index));
        }
        if !appends {
            self.choose_standing(self.branches[branch.0 as usize].home);
        }
        self.settle(ix, &unheld);
        Inserted::New(ix)
    }

    /// A root record that a commit names is of its conversation, has the number named, and is news.
    fn check_root(&self, root: Option<RootRef>, prev: Option<NodeIx>) -> Result<(), Invalid> {
        let Some(root) = root else {
            return Ok(());
        };
        if root.n == 0 {
            // Record 0 lies in the past of everything; only who begins a chain names it.
            return match prev {
                Some(_) => Err(Invalid::Frontier),
                None if root.id.as_bytes() == self.conversation.as_bytes() => Ok(()),
                None => Err(Invalid::Root),
            };
        }
        let record = self.records.get(&root.id).copied();
        let record = record
            .filter(|record| self.node(*record).seq() == root.n)
            .ok_or(Invalid::Root)?;
        if prev.is_some_and(|prev| self.in_past(record, prev)) {
            return Err(Invalid::Frontier);
        }
        Ok(())
    }

    pub(super) fn find(&self, id: &CommitId, missing: &mut Vec<CommitId>) -> Option<NodeIx> {
        let found = self.ix(id);
        if found.is_none() {
            missing.push(*id);
        }
        found
    }

    fn check(
        &self,
        signed: &SignedCommit,
        prev: Option<NodeIx>,
        tips: &[Tip],
        tip_nodes: &[NodeIx],
    ) -> Result<(), Invalid> {
        let commit = signed.commit();
        if let Some(prev) = prev {
            let node = &self.nodes[prev.0 as usize];
            if self.home(prev) != commit.origin {
                return Err(Invalid::Home);
            }
            if commit.seq != node.seq() + 1 {
                return Err(Invalid::Seq);
            }
            if commit.epoch < node.epoch {
                return Err(Invalid::Epoch);
            }
            if commit.hlc <= node.hlc {
                return Err(Invalid::Clock);
            }
        }
        for (tip, named) in tips.iter().zip(tip_nodes) {
            if self.tip(*named) != *tip {
                return Err(Invalid::Tip);
            }
            if prev.is_some_and(|prev| *named == prev || self.in_past(*named, prev)) {
                return Err(Invalid::Frontier);
            }
        }
        Ok(())
    }

    pub(super) fn is_last_of_branch(&self, node: NodeIx) -> bool {
        let branch = self.nodes[node.0 as usize].branch;
        self.branches[branch.0 as usize].nodes.last() == Some(&node)
    }

    /// Whether an unasked commit may begin a branch: if it then stands, or is the second branch of
    /// its fork and its home has not begun too many.
    fn takes_branch(&self, home: u32, prev: Option<NodeIx>, rank: Rank) -> bool {
        let heads = self.heads_at(home, prev);
        let better = heads.iter().filter(|head| self.rank(**head) < rank).count();
        let on_standing_chain = prev.is_none_or(|prev| self.is_standing(prev));
        (better == 0 && on_standing_chain)
            || (better <= 1 && self.homes[home as usize].branches.len() < BRANCHES_MAX)
    }

    fn home_or_new(&mut self, origin: ServerId) -> u32 {
        let next = u32::try_from(self.homes.len()).unwrap_or(u32::MAX);
        let home = *self.home_of.entry(origin).or_insert(next);
        if home == next {
            self.add_home(origin);
        }
        home
    }

    /// A home without branches: give it one before anything is asked of it.
    pub(super) fn add_home(&mut self, id: ServerId) -> u32 {
        self.homes.push(Home {
            id,
            branches: Vec::new(),
            roots: Vec::new(),
            leaving: BTreeMap::new(),
            standing: BranchIx(u32::MAX),
            second: None,
        });
        u32::try_from(self.homes.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn add_branch(&mut self, home: u32, base: Option<NodeIx>, start: u32) -> BranchIx {
        // Branches are fewer than nodes, which are counted in 32 bits.
        let branch = BranchIx(u32::try_from(self.branches.len()).unwrap_or(u32::MAX));
        let from = base.map(|base| {
            let node = &self.nodes[base.0 as usize];
            (node.branch, node.seq)
        });
        let known = &mut self.homes[home as usize];
        if known.branches.is_empty() {
            known.standing = branch;
        }
        known.branches.push(branch);
        match from {
            Some(from) => known.leaving.entry(from).or_default().push(branch),
            None => known.roots.push(branch),
        }
        self.branches.push(Branch {
            home,
            base,
            start,
            nodes: Vec::new(),
            stands_to: start,
            settled_to: start,
        });
        branch
    }

    /// The past of a commit on `prev` that names `tips`; shared with `prev`'s when they are equal.
    pub(super) fn past_of(&mut self, prev: Option<NodeIx>, appends: bool, tips: &[NodeIx]) -> u32 {
        let shared = prev.map(|prev| self.nodes[prev.0 as usize].past);
        if let Some(shared) = shared
            && appends
            && tips.is_empty()
        {
            return shared;
        }
        let base = if appends { None } else { prev };
        let merged = self.merged_past(shared, base.iter().chain(tips));
        self.pasts.push(merged);
        u32::try_from(self.pasts.len() - 1).unwrap_or(u32::MAX)
    }

    fn merged_past<'a>(&self, start: Option<u32>, named: impl Iterator<Item = &'a NodeIx>) -> Past {
        let mut merged = start.map_or_else(Vec::new, |past| self.pasts[past as usize].to_vec());
        for named in named {
            let node = &self.nodes[named.0 as usize];
            raise_all(&mut merged, &self.pasts[node.past as usize]);
            raise(&mut merged, node.branch, node.seq + 1);
        }
        merged.into_boxed_slice()
    }

    /// The past that the next commit on `prev` would have if it named `tips`.
    pub(crate) fn hypothetical_past(&self, prev: Option<NodeIx>, tips: &[NodeIx]) -> Past {
        self.merged_past(
            prev.map(|prev| self.nodes[prev.0 as usize].past),
            tips.iter(),
        )
    }

    /// The place a commit of this past would see: whether `branch`'s commit at `seq` is in it.
    pub(crate) fn past_holds(past: &Past, branch: BranchIx, seq: u32) -> bool {
        past.get(branch.0 as usize).is_some_and(|to| seq < *to)
    }

    /// Whether a commit or record lies in a past.
    pub(crate) fn lies_in(&self, node: NodeIx, past: &Past) -> bool {
        let node = self.node(node);
        Self::past_holds(past, node.branch, node.seq)
    }

    pub(crate) fn past(&self, node: NodeIx) -> &Past {
        &self.pasts[self.nodes[node.0 as usize].past as usize]
    }

    /// The past of `node`, with its own chain below it.
    pub(crate) fn past_with_chain(&self, node: NodeIx) -> Past {
        let mut past = self.past(node).to_vec();
        let at = self.node(node);
        raise(&mut past, at.branch(), at.short_seq());
        past.into_boxed_slice()
    }

    /// Whether `x` is in the past of `y`: its chain and the authority it named, closed.
    #[must_use]
    pub fn in_past(&self, x: NodeIx, y: NodeIx) -> bool {
        let (a, b) = (&self.nodes[x.0 as usize], &self.nodes[y.0 as usize]);
        if a.branch == b.branch {
            a.seq < b.seq
        } else {
            Self::past_holds(&self.pasts[b.past as usize], a.branch, a.seq)
        }
    }

    /// The commit at `ix`.
    ///
    /// # Panics
    ///
    /// If `ix` is of another graph.
    #[must_use]
    pub fn node(&self, ix: NodeIx) -> &Node {
        &self.nodes[ix.0 as usize]
    }

    /// The home that signed the commit at `ix`.
    #[must_use]
    pub fn home(&self, ix: NodeIx) -> ServerId {
        let branch = self.nodes[ix.0 as usize].branch;
        self.homes[self.branches[branch.0 as usize].home as usize].id
    }

    /// The commit at `ix` as the end of its chain.
    #[must_use]
    pub fn tip(&self, ix: NodeIx) -> Tip {
        let node = self.node(ix);
        Tip {
            home: self.home(ix),
            epoch: node.epoch,
            seq: node.seq(),
            id: node.id,
        }
    }

    /// Where a commit is held.
    #[must_use]
    pub fn ix(&self, id: &CommitId) -> Option<NodeIx> {
        let key = prefix(id.as_bytes());
        self.by_id
            .range((key, NodeIx(0))..=(key, NodeIx(u32::MAX)))
            .map(|(_, ix)| *ix)
            .find(|ix| self.nodes[ix.0 as usize].id == *id)
    }

    /// Every appearance of an event, in order of arrival.
    pub fn find_event(&self, event: &EventId) -> impl Iterator<Item = Appearance> + '_ {
        let (key, event) = (prefix(event.as_bytes()), *event);
        self.by_event
            .range((key, NodeIx(0), 0)..=(key, NodeIx(u32::MAX), u16::MAX))
            .map(|(_, node, index)| Appearance {
                node: *node,
                index: *index,
            })
            .filter(move |at| self.event(*at) == event)
    }

    /// The event that appears there.
    ///
    /// # Panics
    ///
    /// If the appearance is of another graph.
    #[must_use]
    pub fn event(&self, at: Appearance) -> EventId {
        self.nodes[at.node.0 as usize].events[usize::from(at.index)]
    }

    /// Its place in the order of everything.
    #[must_use]
    pub fn place(&self, at: Appearance) -> Place {
        let node = self.node(at.node);
        Place {
            hlc: node.hlc,
            commit: node.id,
            index: at.index,
        }
    }

    /// All commits and root records, dependencies first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = NodeIx> + use<> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).map(NodeIx)
    }

    pub(super) fn home_index(&self, home: &ServerId) -> Option<u32> {
        self.home_of.get(home).copied()
    }

    pub(super) fn homes_in_order(&self) -> impl Iterator<Item = &Home> {
        self.home_of
            .values()
            .map(|home| &self.homes[*home as usize])
    }

    pub(crate) fn node_at(&self, branch: BranchIx, seq: u32) -> Option<NodeIx> {
        let branch = &self.branches[branch.0 as usize];
        let offset = seq.checked_sub(branch.start)?;
        branch.nodes.get(offset as usize).copied()
    }
}

/// Raises one branch's mark to at least `to`.
pub(super) fn raise(past: &mut Vec<u32>, branch: BranchIx, to: u32) {
    let at = branch.0 as usize;
    if past.len() <= at {
        past.resize(at + 1, 0);
    }
    past[at] = past[at].max(to);
}

/// Union of two closed sets.
pub(super) fn raise_all(past: &mut Vec<u32>, other: &[u32]) {
    if past.len() < other.len() {
        past.resize(other.len(), 0);
    }
    for (mark, to) in past.iter_mut().zip(other) {
        *mark = (*mark).max(*to);
    }
}
