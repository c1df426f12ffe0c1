//! Which contents a peer may have. Source: `spec/04-authority.md`, section 10.
//!
//! Headers go to everybody who takes part. Contents go to a home of which some member sees the
//! place where they are; what a state field says is for every member, since it is how the
//! conversation is now.

use super::{Store, open::Open};
use crate::{
    authority::{Sight, Span},
    conversation::Changes,
    event::{Act, SignedEvent},
    history::{Appearance, NodeIx},
    ids::{CommitId, ServerId},
    link::{Bundle, ContentSlot},
    place::Place,
    replication::ForPeers,
};

impl Open {
    /// What members at a home see together.
    pub(super) fn sight_of(&mut self, peer: &ServerId) -> &Sight {
        let machine = &self.machine;
        self.sights.entry(*peer).or_insert_with(|| {
            let (authority, graph) = (machine.authority(), machine.graph());
            authority.sight_of_home(graph, peer)
        })
    }

    /// Takes note of what a commit or record changed of memberships and of the policy.
    pub(super) fn note_sights(
        &mut self,
        me: &ServerId,
        commit: Option<&CommitId>,
        changes: &Changes,
    ) {
        if changes.history.is_some() {
            self.looks.widened(Span::ALL.from);
            self.sights.clear();
        }
        for change in &changes.sights {
            // Who came with this very commit can only add: in a large group that is what happens
            // all the time, and looking at all members each time would be too much.
            match change.spans.as_slice() {
                [span] if span.to.is_none() && Some(&span.from.commit) == commit => {
                    if change.home == *me {
                        self.looks.widened(span.from);
                    }
                    if let Some(sight) = self.sights.get_mut(&change.home) {
                        sight.add(*span);
                    }
                }
                _ => {
                    if change.home == *me {
                        self.looks.widened(Span::ALL.from);
                    }
                    self.sights.clear();
                }
            }
        }
    }

    /// Whether every home that takes part may have all contents of a commit.
    pub(super) fn is_for_all(&mut self, node: NodeIx) -> bool {
        let peers: Vec<ServerId> = self.peers.iter().copied().collect();
        peers.iter().all(|peer| self.is_for(peer, node))
    }

    fn is_for(&mut self, peer: &ServerId, node: NodeIx) -> bool {
        let place = |index| self.machine.graph().place(Appearance { node, index });
        let (first, last) = (place(0), place(u16::MAX));
        self.sight_of(peer).sees_all(first, last)
    }

    /// A stored commit as a peer that takes part may have it; `None` if it cannot be read.
    pub(super) fn given(
        &mut self,
        peer: &ServerId,
        node: NodeIx,
        store: &dyn Store,
    ) -> Option<ForPeers> {
        let id = self.machine.id();
        let commit = self.machine.graph().node(node).id();
        let (mut bundle, users) = store.bundle(&id, &commit, true)?;
        if !self.is_for(peer, node) {
            let place = self.machine.graph().place(Appearance { node, index: 0 });
            withhold(&mut bundle, place, self.sight_of(peer))?;
        }
        Some((bundle, users))
    }
}

/// Takes out the contents that are not seen. `None` if an event cannot be read.
fn withhold(bundle: &mut Bundle, first: Place, sight: &Sight) -> Option<()> {
    let mut slots = bundle.contents.iter_mut();
    for (index, raw) in (0u16..).zip(&bundle.events) {
        let event = SignedEvent::from_trusted(raw.clone()).ok()?;
        let act = &event.event().act;
        if act.content().is_none() {
            continue;
        }
        let slot = slots.next()?;
        let seen = sight.sees(Place { index, ..first });
        if !seen && !matches!(act, Act::State { .. }) {
            *slot = ContentSlot::Withheld;
        }
    }
    Some(())
}
