//! The chain of records that settle, and what changes it: one more record, or a twin that comes late.
//! Source: `spec/04-authority.md`, section 6.

use super::{
    super::{
        Authority, Pass, Verdict,
        table::{ActIx, EntryIx},
    },
    View,
};
use crate::history::{Graph, NodeIx, Past, SettledBefore};

/// What a record that stands settled, as far as taking that back needs it: the rest are all the
/// entries of its past that lie in none before.
#[derive(Clone, Debug)]
pub(in super::super) struct Settlement {
    /// What records before had left open.
    closed: Vec<EntryIx>,
    branches: Vec<SettledBefore>,
}

#[cfg(test)]
thread_local! {
    /// Records that late twins had this thread settle.
    pub(in super::super) static SETTLED_LATE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Authority {
    /// The record at `node`, which follows the newest that settled, settles what one made of its
    /// past: for ever, unless a twin comes. Queues what that changes; what still waits stays open.
    pub(super) fn settle(
        &mut self,
        graph: &mut Graph,
        node: NodeIx,
        past: &Past,
        view: &View,
        pass: &mut Pass,
    ) {
        let branches = graph.settle_branches(past);
        let mut closed = Vec::new();
        for (ix, verdict) in &view.verdicts {
            let entry = &mut self.entries[ix.0 as usize];
            if matches!(verdict, Verdict::Waits(_)) {
                self.left_open.insert(*ix);
                continue;
            }
            if self.left_open.remove(ix) {
                closed.push(*ix);
            }
            entry.settled = Some(*verdict);
            if entry.kind.is_act() {
                self.unsettled.remove(&ActIx(entry.detail));
            }
            if entry.verdict != *verdict {
                pass.queue_at(self.level(*ix), *ix);
            }
        }
        self.settled.push(node);
        self.settlements.push(Settlement { closed, branches });
    }

    /// Has the records of `chain` settle, and nothing else: from where it leaves the chain of those
    /// that do now. Verdicts are left as they were.
    pub(super) fn settle_chain(&mut self, graph: &mut Graph, chain: &[NodeIx]) {
        let both = self.settled.iter().zip(chain);
        let common = both.take_while(|(a, b)| a == b).count();
        self.unsettle_to(graph, common);
        for node in &chain[common..] {
            #[cfg(test)]
            SETTLED_LATE.set(SETTLED_LATE.get() + 1);
            let past = graph.past(*node).clone();
            let view = self.view_of_copy(graph, &past);
            self.settle(graph, *node, &past, &view, &mut Pass::default());
        }
    }

    /// Takes back what all records but the first `kept` settled.
    fn unsettle_to(&mut self, graph: &mut Graph, kept: usize) {
        let mut branches = Vec::new();
        while self.settled.len() > kept
            && let (Some(node), Some(of)) = (self.settled.pop(), self.settlements.pop())
        {
            let before = self.settled.last().map(|before| graph.past(*before));
            let own = graph.nodes_beyond(graph.past(node), before).into_iter();
            let own: Vec<_> = own
                .flat_map(|node| self.entries_of_node(graph, node))
                .collect();
            for ix in own {
                self.left_open.remove(&ix);
                self.unsettle(ix);
            }
            for ix in of.closed {
                self.unsettle(ix);
                self.left_open.insert(ix);
            }
            // One record may have settled a branch in several steps.
            branches.extend(of.branches.into_iter().rev());
        }
        graph.unsettle_branches(branches);
    }

    fn unsettle(&mut self, ix: EntryIx) {
        let entry = &mut self.entries[ix.0 as usize];
        if entry.settled.take().is_some() && entry.kind.is_act() {
            self.unsettled.insert(ActIx(entry.detail));
        }
    }

    /// All that the records in `chain` settle, worked out from nothing: what [`Self::settle_chain`]
    /// has to agree with.
    #[cfg(test)]
    pub(in super::super) fn settled_anew(&self, graph: &Graph, chain: &[NodeIx]) -> (Graph, Self) {
        let (mut graph, mut anew) = (graph.clone(), self.clone());
        graph.forget_settled();
        for entry in &mut anew.entries {
            if entry.settled.take().is_some() && entry.kind.is_act() {
                anew.unsettled.insert(ActIx(entry.detail));
            }
        }
        anew.settled.clear();
        anew.settlements.clear();
        anew.left_open.clear();
        anew.settle_chain(&mut graph, chain);
        (graph, anew)
    }

    /// Nothing that a late twin may leave behind differs from all of it settled anew.
    #[cfg(test)]
    pub(in super::super) fn assert_settled_as_anew(&self, graph: &Graph) {
        let (anew_graph, anew) = self.settled_anew(graph, &graph.standing_records());
        assert_eq!(self.settled, anew.settled);
        let closed = |of: &Self| -> Vec<Vec<EntryIx>> {
            let all = of.settlements.iter();
            all.map(|settlement| settlement.closed.clone()).collect()
        };
        assert_eq!(closed(self), closed(&anew));
        assert_eq!(self.left_open, anew.left_open);
        assert_eq!(self.unsettled, anew.unsettled);
        for (now, anew) in self.entries.iter().zip(&anew.entries) {
            assert_eq!(now.settled, anew.settled);
        }
        graph.assert_branches_as(&anew_graph);
    }
}
