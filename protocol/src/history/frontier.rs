//! Frontiers: a history named by the ends of its chains, compared and turned into ranges to fetch.

use super::{
    BranchIx, Graph, NodeIx,
    graph::{Past, raise},
};
use crate::{
    event::Tip,
    ids::{CommitId, ServerId},
    limits::{AHEAD_PARENT_MS, FORK_LOOKBACK},
    time::Timestamp,
};

/// A range of one chain: the `prev` chain ending in `tip`, from one seq to another, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// Whose chain.
    pub home: ServerId,
    /// The commit that names the chain, at `to` or above.
    pub tip: CommitId,
    /// First seq.
    pub from: u64,
    /// Last seq.
    pub to: u64,
}

impl Graph {
    fn leaf_of(&self, branch: BranchIx) -> Option<NodeIx> {
        self.branches[branch.0 as usize].nodes.last().copied()
    }

    pub(crate) fn base_of(&self, branch: BranchIx) -> Option<NodeIx> {
        self.branches[branch.0 as usize].base
    }

    /// The newest standing commit of a home.
    #[must_use]
    pub fn standing_tip(&self, home: &ServerId) -> Option<NodeIx> {
        let home = &self.homes[self.home_index(home)? as usize];
        self.leaf_of(home.standing)
    }

    /// A home's tips: the standing one, and where it forked the second best one.
    pub fn tips(&self, home: &ServerId) -> impl Iterator<Item = Tip> + '_ {
        let home = self.home_index(home).map(|home| &self.homes[home as usize]);
        home.into_iter()
            .flat_map(|home| [Some(home.standing), home.second])
            .filter_map(|branch| self.leaf_of(branch?))
            .map(|leaf| self.tip(leaf))
    }

    /// The frontier: one or two tips a home, sorted.
    #[must_use]
    pub fn frontier(&self) -> Vec<Tip> {
        let mut tips: Vec<Tip> = self
            .homes()
            .collect::<Vec<_>>()
            .iter()
            .flat_map(|home| self.tips(home))
            .collect();
        tips.sort_unstable();
        tips
    }

    /// The frontier in 16 bytes, under a key so that only who shares it can compare.
    #[must_use]
    pub fn fingerprint(&self, key: &[u8; 32]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(key);
        for tip in self.frontier() {
            hasher.update(tip.home.as_bytes());
            hasher.update(&tip.epoch.to_be_bytes());
            hasher.update(&tip.seq.to_be_bytes());
            hasher.update(tip.id.as_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        short
    }

    /// Every home that has committed here.
    pub fn homes(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.homes_in_order().map(|home| home.id)
    }

    /// The newest commit on the chain ending at `leaf` that is causally whole and at most a minute
    /// ahead of `now`: what may be named.
    pub(crate) fn newest_nameable(&self, leaf: NodeIx, now: Timestamp) -> Option<NodeIx> {
        let latest = now.plus_ms(AHEAD_PARENT_MS);
        let mut leaf = leaf;
        loop {
            let branch = &self.branches[self.node(leaf).branch().0 as usize];
            let upto = self.node(leaf).short_seq() - branch.start + 1;
            // Clocks rise and wholeness ends along a chain, so both are found by halving.
            let nameable = branch.nodes[..upto as usize].partition_point(|n| {
                self.node(*n).hlc().timestamp() <= latest && self.causally_whole(*n)
            });
            match nameable.checked_sub(1) {
                Some(last) => return Some(branch.nodes[last]),
                None => leaf = branch.base?,
            }
        }
    }

    /// Parents for the next commit of `home`: of each other home the newest standing commit that is
    /// causally whole and at most a minute ahead, unless the home's chain or another parent has seen
    /// it; the newest `max` of them, as a commit lists them.
    #[must_use]
    pub fn tips_for_parents(&self, now: Timestamp, home: &ServerId, max: usize) -> Vec<CommitId> {
        self.tips_for_parents_after(self.standing_tip(home), now, home, max)
    }

    /// The same for a commit of `home` whose `prev` is `own`.
    pub(crate) fn tips_for_parents_after(
        &self,
        own: Option<NodeIx>,
        now: Timestamp,
        home: &ServerId,
        max: usize,
    ) -> Vec<CommitId> {
        let seen = own.map(|own| self.causal_past(own));
        let mut candidates: Vec<NodeIx> = self
            .homes_in_order()
            .filter(|other| other.id != *home)
            .filter_map(|other| self.newest_nameable(self.leaf_of(other.standing)?, now))
            .filter(|tip| seen.as_ref().is_none_or(|seen| !seen.holds(self, *tip)))
            .collect();
        candidates.sort_unstable_by_key(|tip| {
            let node = self.node(*tip);
            std::cmp::Reverse((node.hlc(), node.id()))
        });
        candidates.truncate(max);
        let mut parents: Vec<CommitId> =
            candidates.iter().map(|tip| self.node(*tip).id()).collect();
        parents.sort_unstable();
        parents
    }

    /// Whether `node` is on the `prev` chain that ends in `tip`; false while `tip` is not held.
    #[must_use]
    pub fn on_chain(&self, tip: &CommitId, node: NodeIx) -> bool {
        self.ix(tip)
            .is_some_and(|tip| self.is_at_or_below(node, tip))
    }

    /// The same of a tip that is held.
    pub(crate) fn is_at_or_below(&self, node: NodeIx, tip: NodeIx) -> bool {
        tip == node || self.below(node, tip)
    }

    /// What lies on the `prev` chains that end in `tips`, as far as these are held.
    pub(crate) fn chains_below(&self, tips: &[Tip]) -> Past {
        let mut marks = Vec::new();
        for tip in tips {
            let mut at = self.ix(&tip.id);
            while let Some(node) = at {
                let (branch, seq) = (self.node(node).branch(), self.node(node).short_seq());
                raise(&mut marks, branch, seq + 1);
                at = self.base_of(branch);
            }
        }
        marks.into_boxed_slice()
    }

    /// Whether `x` is on the chain below `tip`. Branches have one base each, so this is a walk over
    /// branches, not commits.
    fn below(&self, x: NodeIx, tip: NodeIx) -> bool {
        let x = self.node(x);
        let mut at = tip;
        loop {
            let node = self.node(at);
            if node.branch() == x.branch() {
                return x.short_seq() <= node.short_seq();
            }
            let Some(base) = self.branches[node.branch().0 as usize].base else {
                return false;
            };
            at = base;
        }
    }

    /// The commit at `seq` of the chain that ends in `tip`.
    #[must_use]
    pub fn at_seq(&self, tip: NodeIx, seq: u64) -> Option<NodeIx> {
        let seq = u32::try_from(seq).ok()?;
        let mut at = tip;
        loop {
            let node = self.node(at);
            if seq > node.short_seq() {
                return None;
            }
            if let Some(found) = self.node_at(node.branch(), seq) {
                return Some(found);
            }
            at = self.branches[node.branch().0 as usize].base?;
        }
    }

    /// The commits of the chain ending in `tip` from one seq to another, oldest first; nothing if
    /// `tip` is not held or is not of `home`. As bounded as what the caller takes of it.
    pub fn range(
        &self,
        home: &ServerId,
        tip: &CommitId,
        seqs: std::ops::RangeInclusive<u64>,
    ) -> impl Iterator<Item = NodeIx> + '_ {
        let tip = self.ix(tip).filter(|tip| self.home(*tip) == *home);
        let last = tip.map_or(0, |tip| self.node(tip).seq());
        let (from, to) = (*seqs.start(), (*seqs.end()).min(last));
        (from..=to).map_while(move |seq| self.at_seq(tip?, seq))
    }

    /// What the holder of `other` has and this graph lacks, as far as can be told: above a fork that
    /// is not held the first range is a guess, and the missing `prev` leads on from there.
    #[must_use]
    pub fn missing_from(&self, other: &[Tip]) -> Vec<Span> {
        let lacking = other.iter().filter(|tip| self.ix(&tip.id).is_none());
        lacking
            .map(|tip| Span {
                home: tip.home,
                tip: tip.id,
                from: self.expected_from(tip),
                to: tip.seq,
            })
            .collect()
    }

    fn expected_from(&self, tip: &Tip) -> u64 {
        let Some(own) = self.standing_tip(&tip.home) else {
            return 0;
        };
        let next = self.node(own).seq() + 1;
        if next <= tip.seq {
            next
        } else {
            tip.seq.saturating_sub(FORK_LOOKBACK)
        }
    }

    /// What this graph has and the holder of `other` lacks, as far as can be told.
    #[must_use]
    pub fn missing_at(&self, other: &[Tip]) -> Vec<Span> {
        let mut spans = Vec::new();
        for own in self.frontier() {
            let Some(leaf) = self.ix(&own.id) else {
                continue;
            };
            let theirs = other.iter().filter(|tip| tip.home == own.home);
            let (mut from, mut known) = (0, 0);
            for tip in theirs {
                known = known.max(tip.seq + 1);
                // Their tip on our chain says all below is there; one of an unknown branch does not.
                match self.ix(&tip.id) {
                    Some(held) if held == leaf || self.below(leaf, held) => from = own.seq + 1,
                    Some(held) if self.below(held, leaf) => from = from.max(tip.seq + 1),
                    Some(held) => from = from.max(self.common_seq(held, leaf)),
                    None => {}
                }
            }
            // An unknown tip most likely continues this chain; if not, this much shows the fork.
            if from == 0 && known > 0 {
                from = known.min(own.seq);
            }
            if from <= own.seq {
                spans.push(Span {
                    home: own.home,
                    tip: own.id,
                    from,
                    to: own.seq,
                });
            }
        }
        spans
    }

    /// The first seq at which two chains of one home differ.
    fn common_seq(&self, a: NodeIx, b: NodeIx) -> u64 {
        let mut at = a;
        loop {
            let mut other = b;
            loop {
                let (x, y) = (self.node(at), self.node(other));
                if x.branch() == y.branch() {
                    return x.seq().min(y.seq()) + 1;
                }
                match self.branches[y.branch().0 as usize].base {
                    Some(base) => other = base,
                    None => break,
                }
            }
            match self.branches[self.node(at).branch().0 as usize].base {
                Some(base) => at = base,
                None => return 0,
            }
        }
    }
}
