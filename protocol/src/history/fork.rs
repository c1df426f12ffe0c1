//! Forks: which of a home's branches stands. Source: `spec/04-authority.md`, section 2.

use std::cmp::Reverse;

use super::{BranchIx, Graph, NodeIx};
use crate::ids::{CommitId, ServerId};

/// Proof that a home forked: two commits on one `prev`, or two beginnings. The headers themselves
/// are in storage.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Fork {
    /// The home.
    pub home: ServerId,
    /// The branch that wins this fork.
    pub stands: CommitId,
    /// The best of those that lose.
    pub loses: CommitId,
}

/// What decides between the first commits of branches; the lowest wins: what a root record settled,
/// then the higher epoch, then the lower id.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Rank(Reverse<bool>, Reverse<u64>, CommitId);

impl Rank {
    pub(super) const fn new(settled: bool, epoch: u64, id: CommitId) -> Self {
        Self(Reverse(settled), Reverse(epoch), id)
    }
}

impl Graph {
    pub(super) fn rank(&self, node: NodeIx) -> Rank {
        let node = self.node(node);
        let settled = node.short_seq() < self.branches[node.branch().0 as usize].settled_to;
        Rank::new(settled, node.epoch(), node.id())
    }

    /// The commits of a home that follow `prev` (or begin its chains), one a branch.
    pub(super) fn heads_at(&self, home: u32, prev: Option<NodeIx>) -> Vec<NodeIx> {
        let known = &self.homes[home as usize];
        let mut heads = Vec::new();
        let begun = match prev {
            None => &known.roots,
            Some(prev) => {
                let node = self.node(prev);
                heads.extend(self.node_at(node.branch(), node.short_seq() + 1));
                let at = (node.branch(), node.short_seq());
                known.leaving.get(&at).unwrap_or(const { &Vec::new() })
            }
        };
        let first = |branch: &BranchIx| self.branches[branch.0 as usize].nodes.first().copied();
        heads.extend(begun.iter().filter_map(first));
        heads
    }

    /// Decides the standing chain of a home anew; needed only when it began a branch.
    pub(super) fn choose_standing(&mut self, home: u32) {
        for branch in self.homes[home as usize].branches.clone() {
            let branch = &mut self.branches[branch.0 as usize];
            branch.stands_to = branch.start;
        }
        let mut second = None;
        let mut at = self.best_two(home, None);
        let mut standing = None;
        while let Some((head, runner_up)) = at {
            second = runner_up.or(second);
            let (branch, next_fork) = self.next_fork(home, head);
            let stands_to = next_fork.map_or(u32::MAX, |fork| self.node(fork).short_seq() + 1);
            self.branches[branch.0 as usize].stands_to = stands_to;
            standing = Some(branch);
            at = next_fork.and_then(|fork| self.best_two(home, Some(fork)));
        }
        let second = second.map(|head| self.leaf(home, head));
        if let Some(standing) = standing {
            let home = &mut self.homes[home as usize];
            (home.standing, home.second) = (standing, second);
        }
    }

    /// Best and second best of the commits that follow `prev`.
    fn best_two(&self, home: u32, prev: Option<NodeIx>) -> Option<(NodeIx, Option<NodeIx>)> {
        let mut heads = self.heads_at(home, prev);
        heads.sort_by_key(|head| self.rank(*head));
        Some((*heads.first()?, heads.get(1).copied()))
    }

    /// `head`'s branch, and the first commit in it, from `head` on, where others leave it.
    fn next_fork(&self, home: u32, head: NodeIx) -> (BranchIx, Option<NodeIx>) {
        let (branch, from) = (self.node(head).branch(), self.node(head).short_seq());
        let leaving = &self.homes[home as usize].leaving;
        let first = leaving.range((branch, from)..=(branch, u32::MAX)).next();
        let fork = first.and_then(|((branch, seq), _)| self.node_at(*branch, *seq));
        (branch, fork)
    }

    /// The branch that ends the best chain from `head` on.
    fn leaf(&self, home: u32, mut head: NodeIx) -> BranchIx {
        loop {
            let (branch, fork) = self.next_fork(home, head);
            match fork.and_then(|fork| self.best_two(home, Some(fork))) {
                Some((next, _)) => head = next,
                None => return branch,
            }
        }
    }

    /// Whether a commit is on its home's standing chain.
    #[must_use]
    pub fn is_standing(&self, ix: NodeIx) -> bool {
        let node = self.node(ix);
        node.short_seq() < self.branches[node.branch().0 as usize].stands_to
    }

    /// Whether a root record settled that a commit stands: no other branch takes its place.
    pub(crate) fn is_settled(&self, ix: NodeIx) -> bool {
        let node = self.node(ix);
        node.short_seq() < self.branches[node.branch().0 as usize].settled_to
    }

    /// The branches of the home that signed `node`, each with the seq below which it stands.
    pub(crate) fn standing_of_home(
        &self,
        node: NodeIx,
    ) -> impl Iterator<Item = (BranchIx, u32)> + '_ {
        let home = self.branches[self.node(node).branch().0 as usize].home;
        let branches = self.homes[home as usize].branches.iter();
        branches.map(|branch| (*branch, self.branches[branch.0 as usize].stands_to))
    }

    /// The commits of a branch from one seq up to, without, another.
    pub(crate) fn nodes_between(&self, branch: BranchIx, low: u32, high: u32) -> &[NodeIx] {
        let branch = &self.branches[branch.0 as usize];
        let offset = |seq: u32| (seq.saturating_sub(branch.start) as usize).min(branch.nodes.len());
        &branch.nodes[offset(low)..offset(high)]
    }

    /// Proven forks, by home: each home's newest one on its standing chain.
    pub fn forks(&self) -> impl Iterator<Item = Fork> + '_ {
        self.homes_in_order().filter_map(|home| {
            let loser = self.branches[home.second?.0 as usize].nodes.last()?;
            self.fork_between(
                *self.branches[home.standing.0 as usize].nodes.last()?,
                *loser,
            )
        })
    }

    /// The proof that a commit makes by being held: if it is the first of a branch.
    #[must_use]
    pub fn fork_at(&self, ix: NodeIx) -> Option<Fork> {
        let node = self.node(ix);
        let home = self.branches[node.branch().0 as usize].home;
        let (best, second) = self.best_two(home, node.prev())?;
        let second = second?;
        // `ix` itself, if it is neither of the two best, is still proof together with the best.
        let loses = if best == ix || second == ix {
            second
        } else {
            ix
        };
        Some(self.fork(best, loses))
    }

    fn fork(&self, stands: NodeIx, loses: NodeIx) -> Fork {
        Fork {
            home: self.home(stands),
            stands: self.node(stands).id(),
            loses: self.node(loses).id(),
        }
    }

    /// The two commits at which the chains of `a` and `b` part.
    fn fork_between(&self, a: NodeIx, b: NodeIx) -> Option<Fork> {
        let line = |mut at: NodeIx| {
            let mut heads = Vec::new();
            // One step a branch: the chain below a branch's first commit leaves from its base.
            loop {
                heads.push(at);
                let branch = &self.branches[self.node(at).branch().0 as usize];
                let Some(base) = branch.base else { break };
                at = base;
            }
            heads
        };
        let (a, b) = (line(a), line(b));
        let common = a.iter().find_map(|x| {
            let y = b
                .iter()
                .find(|y| self.node(**y).branch() == self.node(*x).branch())?;
            let (x, y) = (self.node(*x), self.node(*y));
            Some((x.branch(), x.short_seq().min(y.short_seq())))
        });
        let child = |line: &[NodeIx]| -> Option<NodeIx> {
            let Some((branch, seq)) = common else {
                let first = line.last()?;
                return self.branches[self.node(*first).branch().0 as usize]
                    .nodes
                    .first()
                    .copied();
            };
            let on_common = line.iter().position(|n| self.node(*n).branch() == branch)?;
            if self.node(line[on_common]).short_seq() > seq {
                return self.node_at(branch, seq + 1);
            }
            let above = line.get(on_common.checked_sub(1)?)?;
            self.branches[self.node(*above).branch().0 as usize]
                .nodes
                .first()
                .copied()
        };
        Some(self.fork(child(&a)?, child(&b)?))
    }
}
