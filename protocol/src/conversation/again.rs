//! Events of the home's own chain that count no more because of the chain itself: they are on a
//! branch that lost a fork. The home commits them again, in a new epoch; and so it does with those
//! that its clock, put right since, stamped too far ahead for anybody to build on.
//! Source: `spec/03-history-and-documents.md`, part "History", section 3.
//!
//! Which ones these are is a function of what is held, so a home that crashed in between goes on
//! where it was.

use std::collections::BTreeSet;

use super::{CheckedBundle, CheckedEvent, Conversation, Inserted, Taken};
use crate::{
    history::NodeIx,
    ids::{CommitId, EventId},
    limits::{AGAIN_WAIT_MS, AHEAD_PARENT_MS, COMMIT_EVENTS_MAX, COMMIT_TOTAL_BYTES_MAX},
    signing::SecretKey,
    time::Timestamp,
};

/// What a conversation knows of its own lost events.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// There may be some: a commit of the own chain came from outside, or from the store.
    maybe: bool,
    /// When the last one came from outside. More of its branch may follow.
    came: Option<Timestamp>,
    /// Lost events that the driver cannot read.
    unreadable: BTreeSet<EventId>,
    /// No other branch is taken: the chain goes on where it is.
    stays: bool,
}

impl Conversation {
    /// Takes note of a commit of the own chain that this machine did not make.
    pub(super) fn note_own(&mut self, now: Option<Timestamp>) {
        self.again.maybe = true;
        self.again.came = now.or(self.again.came);
    }

    /// Whether events of the own chain are to be committed again before anything else is: soon,
    /// see [`Self::lost`].
    #[must_use]
    pub const fn has_lost(&self) -> bool {
        self.again.maybe
    }

    /// Whether the end of the own chain is more than `AHEAD_PARENT_MS` ahead of the clock, which was
    /// set back: nobody builds on it, and everything that follows would be as far ahead. Its events
    /// are to be committed again.
    #[must_use]
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        let last = self.last_not_ahead(now);
        last.is_some_and(|last| !self.events_ahead(last).is_empty())
    }

    /// Where the own chain is to go on, if its end is ahead and another branch would be taken: after
    /// this commit, or from its beginning.
    fn last_not_ahead(&self, now: Timestamp) -> Option<Option<NodeIx>> {
        if self.again.stays {
            return None;
        }
        let latest = now.plus_ms(AHEAD_PARENT_MS);
        let tip = self.graph.standing_tip(&self.me)?;
        let is_ahead = |at: &NodeIx| self.graph.node(*at).hlc().timestamp() > latest;
        let mut chain = std::iter::successors(Some(tip), |at| self.graph.node(*at).prev());
        let last = chain.find(|at| !is_ahead(at) || self.graph.is_settled(*at));
        // What a root record settled stays, however far ahead it is, and what follows it is as far
        // ahead again: then only time helps.
        let helps = last != Some(tip) && !last.is_some_and(|last| is_ahead(&last));
        helps.then_some(last)
    }

    /// Events of the end of the own chain that is ahead, the first first.
    fn events_ahead(&self, last: Option<NodeIx>) -> Vec<(EventId, CommitId)> {
        let tip = self.graph.standing_tip(&self.me);
        let chain = std::iter::successors(tip, |at| self.graph.node(*at).prev());
        let mut ahead: Vec<_> = chain.take_while(|at| Some(*at) != last).collect();
        ahead.reverse();
        let nodes = ahead.into_iter().map(|at| self.graph.node(at));
        let events = nodes.flat_map(|node| node.events().iter().map(|event| (*event, node.id())));
        let readable = events.filter(|(event, _)| !self.again.unreadable.contains(event));
        readable.take(COMMIT_EVENTS_MAX).collect()
    }

    /// Events of own commits that do not stand any more, or are ahead, each with a commit that holds
    /// it, the first in the order first, and at most as many as one commit takes: to be handed to
    /// [`Self::commit_again`]. Empty while more of a branch may be on its way here.
    pub fn lost(&mut self, now: Timestamp) -> Vec<(EventId, CommitId)> {
        if self.in_flight.is_some() {
            return Vec::new();
        }
        let last = self.last_not_ahead(now);
        let ahead = last.map_or_else(Vec::new, |last| self.events_ahead(last));
        if !ahead.is_empty() {
            return ahead;
        }
        let waits = self.again.came.is_some_and(|came| {
            // A clock that was set back must not make this wait for ever.
            came <= now && now.0 < came.plus_ms(AGAIN_WAIT_MS).0
        });
        if waits || !self.again.maybe {
            return Vec::new();
        }
        let lost = self.lost_events();
        if lost.is_empty() {
            self.again.maybe = false;
        }
        lost
    }

    /// The driver has no bytes for a lost event: it is left out from now on.
    pub fn cannot_read_lost(&mut self, event: EventId) {
        self.again.unreadable.insert(event);
    }

    /// Commits lost events again, in a new epoch, on the last standing commit that is not ahead: as
    /// many as fit, the others stay lost until the next time. Whether they count is judged like any
    /// event's. `None` if a commit is on its way to the disk, or there are none.
    pub fn commit_again(
        &mut self,
        now: Timestamp,
        key: &SecretKey,
        mut events: Vec<CheckedEvent>,
    ) -> Option<Taken> {
        if self.in_flight.is_some() || events.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let fits = |event: &&CheckedEvent| {
            bytes += event.size();
            bytes <= COMMIT_TOTAL_BYTES_MAX
        };
        let count = events.iter().take_while(fits).count();
        events.truncate(count.max(1));
        // Behind the tip no commit may be on its way that would win.
        let new_epoch = self
            .own_epoch()
            .map_or(self.epoch, |newest| newest.saturating_add(1))
            .max(self.epoch);
        let tip = self.graph.standing_tip(&self.me);
        let prev = self.last_not_ahead(now).unwrap_or(tip);
        let commit = self.commit_of(now, prev, new_epoch, &events);
        let bundle = CheckedBundle {
            commit: commit.sign(key),
            events,
        };
        match self.graph.insert(&bundle.commit) {
            Inserted::New(node) => {
                self.again.maybe = true;
                self.in_flight = Some(bundle.commit.id());
                Some(self.taken(node, bundle))
            }
            // More branches than are kept of one home: it goes on where it is.
            _ => {
                (self.again.maybe, self.again.stays) = (false, true);
                None
            }
        }
    }

    /// The greatest epoch of the own commits held.
    fn own_epoch(&self) -> Option<u64> {
        let any = self.graph.standing_tip(&self.me)?;
        let branches = self.graph.standing_of_home(any);
        let ends =
            branches.filter_map(|(branch, _)| self.graph.nodes_between(branch, 0, u32::MAX).last());
        ends.map(|end| self.graph.node(*end).epoch()).max()
    }

    fn lost_events(&self) -> Vec<(EventId, CommitId)> {
        let Some(tip) = self.graph.standing_tip(&self.me) else {
            return Vec::new();
        };
        let branches = self.graph.standing_of_home(tip);
        let mut nodes: Vec<NodeIx> = branches
            .flat_map(|(branch, _)| self.graph.nodes_between(branch, 0, u32::MAX))
            .copied()
            .filter(|node| !self.graph.is_standing(*node))
            .collect();
        nodes.sort_unstable_by_key(|node| {
            let node = self.graph.node(*node);
            (node.hlc(), node.id())
        });
        let nodes = nodes.iter().map(|node| self.graph.node(*node));
        let events = nodes.flat_map(|node| node.events().iter().map(|event| (event, node.id())));
        let (mut lost, mut listed) = (Vec::new(), BTreeSet::new());
        for (event, commit) in events {
            // Committed again already, whether it counts there or not; or by the home its author
            // moved to, where it does count.
            let is_had = self.graph.find_event(event).any(|at| {
                self.graph.is_standing(at.node)
                    && (self.graph.home(at.node) == self.me || self.authority.verdict(at).stands())
            });
            let is_had = is_had || self.again.unreadable.contains(event) || listed.contains(event);
            if !is_had && !self.is_queued(event) {
                listed.insert(*event);
                lost.push((*event, commit));
                if lost.len() == COMMIT_EVENTS_MAX {
                    break;
                }
            }
        }
        lost
    }
}
