//! The policy `rate`: which messages are folded, because their home said more in one minute than the
//! conversation wants. Source: `spec/03-history-and-documents.md`, part "History", section 4.
//!
//! What counts is on one chain: the messages of the commits before, in the same minute of the commit's
//! clock, which rises along a chain. So no order of arrival matters, and a commit that comes late
//! comes behind its own chain like any other. The rate is that of the policies that the commit has
//! seen; if one of these ceases or begins to stand, what it decided is decided anew.

use std::collections::{BTreeMap, BTreeSet};

use super::Conversation;
use crate::{
    authority::{Authority, Effects},
    event::Field,
    history::{Appearance, Graph, NodeIx},
    ids::EventId,
    limits::RATE_WINDOW_MS,
    session::Place,
};

/// What is known of each commit and root record, by its place in the graph.
#[derive(Debug, Default)]
pub(super) struct Rates(Vec<Rated>);

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Rated {
    /// Messages on the chain before the commit, in its minute.
    before: u32,
    /// Of its own messages those that are not folded: the first so many.
    kept: u16,
}

impl Rates {
    /// Takes note of a commit or record, and of what it changed. Gives events that are folded now
    /// and were not, or the other way round; those of `node` itself are not among them.
    pub(super) fn take(
        &mut self,
        graph: &Graph,
        authority: &Authority,
        node: NodeIx,
        effects: &Effects,
    ) -> Vec<(EventId, bool)> {
        let mut changed = Vec::new();
        let is_rate = |at: &Appearance| authority.is_policy(*at, Field::Rate);
        // A policy that is committed once more may stand there, and was seen where it did not.
        let events = (0u16..).zip(graph.node(node).events());
        let own = events.map(|(index, _)| Appearance { node, index });
        let again = own.filter(|at| graph.find_event(&graph.event(*at)).nth(1).is_some());
        let flipped = effects.changed.iter().map(|change| change.at);
        let flipped: BTreeSet<EventId> = flipped
            .chain(again)
            .filter(is_rate)
            .map(|at| graph.event(at))
            .collect();
        // Whoever saw any appearance of it has seen it.
        let flipped: Vec<NodeIx> = flipped
            .iter()
            .flat_map(|policy| graph.find_event(policy))
            .map(|at| at.node)
            .collect();
        for node in graph.iter().take(self.0.len()) {
            if flipped.is_empty() {
                break;
            }
            if flipped.iter().any(|policy| graph.in_past(*policy, node)) {
                self.judge_again(graph, authority, node, &mut changed);
            }
        }
        // Records are nodes too, and are told of in the order of the graph.
        while self.0.len() <= node.0 as usize {
            let next = NodeIx(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
            let before = self.before(graph, authority, next);
            let kept = kept(graph, authority, next, before);
            self.0.push(Rated { before, kept });
        }
        changed
    }

    fn before(&self, graph: &Graph, authority: &Authority, node: NodeIx) -> u32 {
        let minute = |node: NodeIx| graph.node(node).hlc().timestamp().0 / RATE_WINDOW_MS;
        let prev = graph.node(node).prev();
        let Some(prev) = prev.filter(|prev| minute(*prev) == minute(node)) else {
            return 0;
        };
        let said = authority.messages_of(graph, prev).count();
        let before = self.0.get(prev.0 as usize).map_or(0, |rated| rated.before);
        before.saturating_add(u32::try_from(said).unwrap_or(u32::MAX))
    }

    fn judge_again(
        &mut self,
        graph: &Graph,
        authority: &Authority,
        node: NodeIx,
        changed: &mut Vec<(EventId, bool)>,
    ) {
        let rated = &mut self.0[node.0 as usize];
        let was = std::mem::replace(&mut rated.kept, kept(graph, authority, node, rated.before));
        let now = rated.kept;
        let (low, high) = (was.min(now), was.max(now));
        let others = usize::from(high - low);
        let between = authority.messages_of(graph, node);
        for at in between.skip(usize::from(low)).take(others) {
            let event = graph.event(at);
            // Of several appearances the one that is shown says it.
            if authority
                .shown(graph, &event)
                .is_none_or(|shown| shown == at)
            {
                changed.push((event, now < was));
            }
        }
    }

    /// Whether the message that appears there is folded; nothing else ever is.
    fn folds(&self, graph: &Graph, authority: &Authority, at: Appearance) -> bool {
        let Some(rated) = self.0.get(at.node.0 as usize) else {
            return false;
        };
        if rated.kept == u16::MAX {
            return false;
        }
        let mut messages = authority.messages_of(graph, at.node);
        let place = messages.position(|message| message == at);
        place.is_some_and(|place| place >= usize::from(rated.kept))
    }
}

/// How many of a commit's messages its rate leaves.
fn kept(graph: &Graph, authority: &Authority, node: NodeIx, before: u32) -> u16 {
    if !authority.has_policy(Field::Rate) {
        return u16::MAX;
    }
    match authority.policy_at(graph, node, Field::Rate) {
        None | Some(0) => u16::MAX,
        Some(rate) => {
            let left = rate.saturating_sub(u64::from(before));
            // The same for all commits of no more messages than are left.
            u16::try_from(left).unwrap_or(u16::MAX)
        }
    }
}

impl Conversation {
    /// Whether the appearance is of a message that its home said in excess of the policy `rate`.
    #[must_use]
    pub fn is_folded(&self, at: Appearance) -> bool {
        self.rates.folds(&self.graph, &self.authority, at)
    }

    /// `folded`, with what is to be said of events that are shown elsewhere now, or again: where that
    /// is, another rate may have held.
    pub(super) fn folded_again(
        &self,
        folded: Vec<(EventId, bool)>,
        stands_again: &[EventId],
        moved: &[(EventId, Place)],
    ) -> Vec<(EventId, bool)> {
        let mut all: BTreeMap<EventId, bool> = folded.into_iter().collect();
        if self.authority.has_policy(Field::Rate) {
            for event in stands_again
                .iter()
                .chain(moved.iter().map(|(event, _)| event))
            {
                let shown = self.authority.shown(&self.graph, event);
                let at =
                    shown.filter(|at| self.authority.line_of(&self.graph, *at) == Some(*event));
                all.extend(at.map(|at| (*event, self.is_folded(at))));
            }
        }
        all.into_iter().collect()
    }
}
