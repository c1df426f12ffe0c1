//! Root records from 1 on in the graph, and what they settle. Source: `spec/04-authority.md`,
//! section 6.
//!
//! A record is a node without events on a chain of its own; what its frontier names is its past. So
//! *a commit has seen a record*, and *a record has seen a commit*, are asked as among commits.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    BranchIx, Graph, Invalid, NodeIx,
    causal::Causal,
    fork::Rank,
    graph::{Node, Past},
};
use crate::{
    event::Tip,
    ids::{CommitId, RootId, ServerId},
    limits::BRANCHES_MAX,
    root::SignedRoot,
    time::Hlc,
};

/// Why a root record has no ground to stand on; nothing was kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum NoGround {
    /// It is held.
    Held,
    /// The record before it or commits of its frontier are not held.
    Missing {
        record: Option<RootId>,
        commits: Vec<CommitId>,
    },
    /// It can never have.
    Invalid(Invalid),
}

/// Two records of one number on one record before: proof against the stewards that signed both.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Twins {
    /// Number of both.
    pub n: u64,
    /// The one that stands: the lower id.
    pub stands: RootId,
    /// The other, or the best of the others.
    pub loses: RootId,
}

/// What a record builds on, once all of it is held.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    prev: Option<NodeIx>,
    links: Vec<NodeIx>,
    /// The past it will have.
    pub(crate) past: Past,
}

/// Up to where a branch was settled before a record settled more of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SettledBefore(BranchIx, u32);

impl Graph {
    /// Where a root record is held; record 0 is nowhere.
    #[must_use]
    pub fn record(&self, id: &RootId) -> Option<NodeIx> {
        self.records.get(id).copied()
    }

    /// The commits that the record at `ix` names, and the record before it.
    pub(crate) fn named_by_record(&self, ix: NodeIx) -> &[NodeIx] {
        &self.node(ix).links
    }

    /// The id of the record at `ix`.
    pub(crate) fn record_id(&self, ix: NodeIx) -> RootId {
        RootId::from_bytes(*self.node(ix).id().as_bytes())
    }

    /// What `record` builds on.
    ///
    /// # Errors
    ///
    /// [`NoGround`].
    pub(crate) fn ground(&self, record: &SignedRoot) -> Result<Ground, NoGround> {
        let root = record.root();
        if self.record(&record.id()).is_some() {
            return Err(NoGround::Held);
        }
        let genesis = RootId::from_bytes(*self.conversation().as_bytes());
        let (Some(before), true) = (root.prev, root.n > 0) else {
            return Err(NoGround::Invalid(Invalid::Root));
        };
        let prev = self.record(&before);
        let follows = match prev {
            Some(prev) => self.node(prev).seq() + 1 == root.n,
            None => before == genesis,
        };
        if prev.is_none() && before != genesis {
            return Err(NoGround::Missing {
                record: Some(before),
                commits: Vec::new(),
            });
        }
        if !follows || (prev.is_none() && root.n != 1) {
            return Err(NoGround::Invalid(Invalid::Root));
        }
        let mut commits = Vec::new();
        let mut links: Vec<NodeIx> = root
            .frontier
            .iter()
            .filter_map(|tip| self.find(&tip.id, &mut commits))
            .collect();
        if !commits.is_empty() {
            return Err(NoGround::Missing {
                record: None,
                commits,
            });
        }
        let differs = |(tip, held): (&Tip, &NodeIx)| self.tip(*held) != *tip;
        if root.frontier.iter().zip(&links).any(differs) {
            return Err(NoGround::Invalid(Invalid::Tip));
        }
        links.extend(prev);
        let past = self.hypothetical_past(None, &links);
        Ok(Ground { prev, links, past })
    }

    /// Takes a record whose `ground` was just asked for; none if it is one more twin where
    /// [`BRANCHES_MAX`] are held, and does not stand.
    pub(crate) fn insert_record(&mut self, record: &SignedRoot, ground: Ground) -> Option<NodeIx> {
        let Ground { prev, links, .. } = ground;
        let (Ok(seq), Ok(ix)) = (
            u32::try_from(record.root().n),
            u32::try_from(self.nodes.len()),
        ) else {
            return None;
        };
        let ix = NodeIx(ix);
        let id = CommitId::from_bytes(*record.id().as_bytes());
        let chain = match self.record_chain {
            Some(chain) => chain,
            None => {
                let chain = self.add_home(ServerId::from_bytes([0; 32]));
                self.record_chain = Some(chain);
                chain
            }
        };
        let appends = prev.is_some_and(|prev| self.is_last_of_branch(prev));
        // Each twin takes a majority of stewards that lie, and commits may have named any of them.
        let twins = self.homes[chain as usize].branches.len();
        let wins = || {
            let rank = Rank::new(false, 0, id);
            let heads = self.heads_at(chain, prev);
            heads.iter().all(|head| rank < self.rank(*head))
        };
        if !appends && twins >= BRANCHES_MAX && !wins() {
            return None;
        }
        let branch = match prev {
            Some(prev) if appends => self.node(prev).branch(),
            _ => self.add_branch(chain, prev, seq),
        };
        let past = self.past_of(prev, appends, &links);
        self.nodes.push(Node {
            id,
            hlc: Hlc::default(),
            epoch: 0,
            events: Box::default(),
            links: links.into_boxed_slice(),
            seq,
            branch,
            prev,
            past,
        });
        self.branches[branch.0 as usize].nodes.push(ix);
        self.records.insert(record.id(), ix);
        if !appends {
            self.choose_standing(chain);
        }
        self.settle(ix, &[]);
        Some(ix)
    }

    /// The records that stand, oldest first.
    pub(crate) fn standing_records(&self) -> Vec<NodeIx> {
        let leaf = self
            .record_chain
            .and_then(|chain| {
                let standing = self.homes[chain as usize].standing;
                self.branches.get(standing.0 as usize)?.nodes.last()
            })
            .copied();
        self.records_to(leaf)
    }

    /// The records up to and with `last`, oldest first.
    pub(crate) fn records_to(&self, last: Option<NodeIx>) -> Vec<NodeIx> {
        let mut chain: Vec<NodeIx> =
            std::iter::successors(last, |at| self.node(*at).prev()).collect();
        chain.reverse();
        chain
    }

    /// Proven twins, oldest first.
    #[must_use]
    pub fn twins(&self) -> Vec<Twins> {
        let mut followers: BTreeMap<Option<NodeIx>, BTreeSet<CommitId>> = BTreeMap::new();
        for ix in self.records.values() {
            let node = self.node(*ix);
            followers.entry(node.prev()).or_default().insert(node.id());
        }
        let root = |id: &CommitId| RootId::from_bytes(*id.as_bytes());
        let mut twins: Vec<Twins> = followers
            .into_iter()
            .filter_map(|(prev, ids)| {
                let mut ids = ids.iter().map(root);
                Some(Twins {
                    n: prev.map_or(1, |prev| self.node(prev).seq() + 1),
                    stands: ids.next()?,
                    loses: ids.next()?,
                })
            })
            .collect();
        twins.sort_unstable();
        twins
    }

    /// Settles the branches that stand among what lies in `past`, for ever, and chooses anew. Gives
    /// what [`Self::unsettle_branches`] needs.
    pub(crate) fn settle_branches(&mut self, past: &Past) -> Vec<SettledBefore> {
        let homes: Vec<u32> = self.home_indices().collect();
        let mut before = Vec::new();
        for home in &homes {
            for (branch, to) in self.standing_within(*home, past) {
                let settled = &mut self.branches[branch.0 as usize].settled_to;
                if to > *settled {
                    before.push(SettledBefore(branch, *settled));
                    *settled = to;
                }
            }
        }
        for home in homes {
            self.choose_standing(home);
        }
        before
    }

    /// Takes back what was settled last, in the other order: another record stands than was thought.
    pub(crate) fn unsettle_branches(&mut self, before: impl IntoIterator<Item = SettledBefore>) {
        for SettledBefore(branch, to) in before {
            self.branches[branch.0 as usize].settled_to = to;
        }
        let homes: Vec<u32> = self.home_indices().collect();
        for home in homes {
            self.choose_standing(home);
        }
    }

    /// As if no record had ever settled anything.
    #[cfg(test)]
    pub(crate) fn forget_settled(&mut self) {
        for branch in &mut self.branches {
            branch.settled_to = branch.start;
        }
        self.unsettle_branches([]);
    }

    /// The same branches stand and are settled in both.
    #[cfg(test)]
    pub(crate) fn assert_branches_as(&self, other: &Self) {
        for (one, other) in self.branches.iter().zip(&other.branches) {
            let ends = |branch: &super::graph::Branch| (branch.settled_to, branch.stands_to);
            assert_eq!(ends(one), ends(other));
        }
    }

    /// The standing chain of a home among what lies in `past`: branches, and up to where each.
    fn standing_within(&self, home: u32, past: &Past) -> Vec<(BranchIx, u32)> {
        let mark = |branch: BranchIx| past.get(branch.0 as usize).copied().unwrap_or(0);
        let (mut path, mut prev) = (Vec::new(), None);
        loop {
            let within = |head: &NodeIx| {
                let node = self.node(*head);
                node.short_seq() < mark(node.branch())
            };
            let heads = self.heads_at(home, prev).into_iter().filter(within);
            let Some(head) = heads.min_by_key(|head| self.rank(*head)) else {
                return path;
            };
            let (branch, from) = (self.node(head).branch(), self.node(head).short_seq());
            let to = mark(branch);
            let leaving = &self.homes[home as usize].leaving;
            let fork = leaving.range((branch, from)..(branch, to)).next();
            let Some(((_, seq), _)) = fork else {
                path.push((branch, to));
                return path;
            };
            path.push((branch, seq + 1));
            prev = self.node_at(branch, *seq);
        }
    }

    /// Whether of what lies in `past` the same stands as where nothing else is held. Where no home
    /// forked it does.
    pub(crate) fn stands_alike_within(&self, past: &Past) -> bool {
        let forked = |home: &u32| self.homes[*home as usize].branches.len() > 1;
        self.home_indices().filter(forked).all(|home| {
            let within = self.standing_within(home, past);
            self.homes[home as usize].branches.iter().all(|branch| {
                let held = &self.branches[branch.0 as usize];
                let now = held.stands_to.min(Self::mark(past, *branch));
                let here = within.iter().filter(|(other, _)| other == branch);
                let there = here.map(|(_, to)| *to).max().unwrap_or(0);
                now.max(held.start) == there.max(held.start)
            })
        })
    }

    /// The commits that lie in `past` and not in `before`, by branch.
    pub(crate) fn nodes_beyond(&self, past: &Past, before: Option<&Past>) -> Vec<NodeIx> {
        let branches = (0u32..).zip(past).map(|(ix, to)| (BranchIx(ix), *to));
        branches
            .flat_map(|(branch, to)| {
                let from = before.map_or(0, |before| Self::mark(before, branch));
                self.nodes_between(branch, from.min(to), to)
            })
            .copied()
            .collect()
    }

    /// Every branch of a commit's home, with the seq below which it stands.
    pub(crate) fn standing_of_all(&self) -> impl Iterator<Item = (BranchIx, u32)> + '_ {
        let records = self.record_chain;
        (0u32..)
            .zip(&self.branches)
            .filter(move |(_, branch)| Some(branch.home) != records)
            .map(|(ix, branch)| (BranchIx(ix), branch.stands_to))
    }

    /// The same places, but only what lies in `past` is held: what a record judges by. Parents are
    /// not followed there. Branches settled by earlier records stay settled.
    pub(crate) fn restricted(&self, past: &Past) -> Self {
        let mut graph = self.clone();
        graph.causal = Causal::default();
        for (ix, branch) in (0u32..).zip(&mut graph.branches) {
            let to = Self::mark(past, BranchIx(ix));
            let kept = to.saturating_sub(branch.start) as usize;
            branch.nodes.truncate(kept);
        }
        let held = |ix: &NodeIx| self.lies_in(*ix, past);
        graph.by_id.retain(|(_, ix)| held(ix));
        graph.by_event.retain(|(_, ix, _)| held(ix));
        graph.records.retain(|_, ix| held(ix));
        let homes: Vec<u32> = graph.home_indices().chain(graph.record_chain).collect();
        for home in homes {
            graph.choose_standing(home);
        }
        graph
    }

    fn mark(past: &Past, branch: BranchIx) -> u32 {
        past.get(branch.0 as usize).copied().unwrap_or(0)
    }

    /// The homes of commits, without the chain of records.
    fn home_indices(&self) -> impl Iterator<Item = u32> + use<> {
        let records = self.record_chain;
        let count = u32::try_from(self.homes.len()).unwrap_or(u32::MAX);
        (0..count).filter(move |home| Some(*home) != records)
    }
}
