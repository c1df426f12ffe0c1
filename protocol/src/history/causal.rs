//! Causal pasts: the past with `parents`, which nothing waits for. They order and feed documents.
//!
//! A commit is *causally whole* when everything it names, transitively, is held; only then is its
//! causal past final. Vectors are kept for the newest commit of each branch and for every 64th, and
//! the others are found by walking back to those.

use std::collections::BTreeMap;

use super::{
    Graph, NodeIx,
    graph::{raise, raise_all},
};
use crate::ids::CommitId;

/// Every so many commits of a branch the causal past is kept.
const KEEP_EVERY: u32 = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Causal {
    /// Closed vectors of whole commits.
    kept: BTreeMap<NodeIx, Box<[u32]>>,
    /// Commits that are not whole: how many of the things they name are not.
    pending: BTreeMap<NodeIx, u32>,
    /// Who waits for a held commit to become whole.
    waiting: BTreeMap<NodeIx, Vec<NodeIx>>,
    /// Who named a parent that is not held.
    unheld: BTreeMap<CommitId, Vec<NodeIx>>,
}

/// The causal past of one commit, as far as it is held.
#[derive(Clone, Debug)]
pub struct CausalPast(Vec<u32>);

impl CausalPast {
    /// Whether `x` is in it.
    #[must_use]
    pub fn holds(&self, graph: &Graph, x: NodeIx) -> bool {
        let node = graph.node(x);
        let mark = self.0.get(node.branch().0 as usize);
        mark.is_some_and(|to| node.short_seq() < *to)
    }
}

impl Graph {
    /// Adds held parents to `links` and returns the others.
    pub(super) fn link_parents(
        &self,
        parents: &[CommitId],
        links: &mut Vec<NodeIx>,
    ) -> Vec<CommitId> {
        let mut unheld = Vec::new();
        for parent in parents {
            match self.ix(parent) {
                Some(held) if !links.contains(&held) => links.push(held),
                Some(_) => {}
                None => unheld.push(*parent),
            }
        }
        unheld
    }

    /// Records what a new commit waits for, and ends what others waited for it.
    pub(super) fn settle(&mut self, ix: NodeIx, unheld: &[CommitId]) {
        let node = self.node(ix);
        let named: Vec<NodeIx> = node
            .prev()
            .into_iter()
            .chain(node.links.iter().copied())
            .collect();
        let mut open = u32::try_from(unheld.len()).unwrap_or(u32::MAX);
        for parent in unheld {
            self.causal.unheld.entry(*parent).or_default().push(ix);
        }
        for dependency in named {
            if self.causal.pending.contains_key(&dependency) {
                self.causal.waiting.entry(dependency).or_default().push(ix);
                open += 1;
            }
        }
        for child in self
            .causal
            .unheld
            .remove(&self.node(ix).id())
            .unwrap_or_default()
        {
            let links = &mut self.nodes[child.0 as usize].links;
            *links = links.iter().copied().chain([ix]).collect();
            self.causal.waiting.entry(ix).or_default().push(child);
        }
        if open > 0 {
            self.causal.pending.insert(ix, open);
        } else {
            self.become_whole(ix);
        }
    }

    fn become_whole(&mut self, first: NodeIx) {
        let mut whole = vec![first];
        while let Some(ix) = whole.pop() {
            self.keep_vector(ix);
            for child in self.causal.waiting.remove(&ix).unwrap_or_default() {
                let Some(open) = self.causal.pending.get_mut(&child) else {
                    continue;
                };
                *open -= 1;
                if *open == 0 {
                    self.causal.pending.remove(&child);
                    whole.push(child);
                }
            }
        }
    }

    fn keep_vector(&mut self, ix: NodeIx) {
        let vector = self.causal_past(ix).0.into_boxed_slice();
        self.causal.kept.insert(ix, vector);
        let node = self.node(ix);
        if let Some(prev) = node.prev()
            && self.node(prev).branch() == node.branch()
            && !self.node(prev).short_seq().is_multiple_of(KEEP_EVERY)
        {
            self.causal.kept.remove(&prev);
        }
    }

    /// Whether everything a commit names, parents included, is held, transitively.
    #[must_use]
    pub fn causally_whole(&self, ix: NodeIx) -> bool {
        !self.causal.pending.contains_key(&ix)
    }

    /// Parents named by somebody and not held.
    pub fn unheld_parents(&self) -> impl Iterator<Item = CommitId> + '_ {
        self.causal.unheld.keys().copied()
    }

    /// Everything `ix` had seen: chain, authority and parents, closed over what is held. Final once
    /// [`Self::causally_whole`].
    #[must_use]
    pub fn causal_past(&self, ix: NodeIx) -> CausalPast {
        let mut past = Vec::new();
        let node = self.node(ix);
        let mut named: Vec<NodeIx> = node
            .prev()
            .into_iter()
            .chain(node.links.iter().copied())
            .collect();
        while let Some(next) = named.pop() {
            let branch = self.node(next).branch();
            let done = past.get(branch.0 as usize).copied().unwrap_or(0);
            let mut at = Some(next);
            // Down this branch to what is covered already, or to a kept vector, which covers all below.
            while let Some(here) = at.filter(|here| {
                let node = self.node(*here);
                node.branch() == branch && node.short_seq() >= done
            }) {
                let node = self.node(here);
                if let Some(kept) = self.causal.kept.get(&here) {
                    raise_all(&mut past, kept);
                    raise(&mut past, branch, node.short_seq() + 1);
                    at = None;
                    continue;
                }
                named.extend(node.links.iter().copied());
                at = node.prev();
            }
            raise(&mut past, branch, self.node(next).short_seq() + 1);
            // Where the branch left another one.
            named.extend(at.filter(|here| self.node(*here).branch() != branch));
        }
        CausalPast(past)
    }

    /// Whether `x` is in the causal past of `y`.
    #[must_use]
    pub fn causally_before(&self, x: NodeIx, y: NodeIx) -> bool {
        self.in_past(x, y) || self.causal_past(y).holds(self, x)
    }
}
