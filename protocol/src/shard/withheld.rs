//! Contents that came withheld and that this home may have: they are asked for again.
//! Source: `spec/05-links.md`, section 6.
//!
//! What is held as withheld is in the store, by place; what the members here see is a function of the
//! commits held. Only where these meet something is asked for, and only once either changed: a pass
//! goes through the places, batch by batch, and asks one peer after the other for each commit.

use std::collections::{BTreeMap, BTreeSet};

use super::{Output, Shard, Store, What, open::Open, work::Work};
use crate::{
    authority::{Sight, Span},
    conversation::{Came, CheckedBundle, Slot, Taken},
    event::Act,
    history::{Appearance, NodeIx},
    ids::{CommitId, ConversationId, EventId, ServerId},
    link::Range,
    place::Place,
    replication::Ticket,
    time::Timestamp,
};

/// Commits that are asked for at once in one conversation.
const BATCH: usize = 128;
/// Places read from the store at once.
const READ: usize = 256;
/// A peer that gave no answer for this long is not asked again in this pass: a want is given up a
/// little earlier.
const PATIENCE_MS: u64 = 25_000;
/// Passes in which a peer answers and still withholds, before it is not asked again until more may
/// be had here.
const PASSES_MAX: u32 = 6;
/// Pause after the first pass that left something; each further one is four times as long.
const PAUSE_MS: u64 = 5_000;
/// The longest pause.
const PAUSE_MAX_MS: u64 = 600_000;
/// Conversations in which a step is made each second.
const STEPS: usize = 16;

/// From which places on something may be had here, once a submission is durable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks {
    widened: Option<Place>,
    lacks: Option<Place>,
}

impl Looks {
    /// Members here may see what they did not, from a place on.
    pub(super) fn widened(&mut self, from: Place) {
        self.widened = Some(self.widened.map_or(from, |before| before.min(from)));
    }

    /// What the members here see came withheld at this place.
    pub(super) fn lacks(&mut self, at: Option<Place>) {
        self.lacks = self.lacks.into_iter().chain(at).min();
    }

    /// Each with whether members here may see more than before.
    pub(super) fn all(self) -> impl Iterator<Item = (Place, bool)> {
        let widened = self.widened.map(|from| (from, true));
        widened.into_iter().chain(self.lacks.map(|at| (at, false)))
    }
}

/// A commit with contents that are lacking.
#[derive(Debug)]
struct Wanted {
    commit: CommitId,
    first: Place,
    /// Peers that answered and did not give all, or cannot be asked.
    tried: BTreeSet<ServerId>,
    /// Who is asked, since when.
    asked: Option<(ServerId, Timestamp)>,
}

/// What is asked for in one conversation.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    /// Where reading goes on in this pass; none: all was read.
    from: Option<Place>,
    /// Nothing is done until this long after this time.
    pause: Option<(Timestamp, u64)>,
    batch: Vec<Wanted>,
    /// Peers that gave no answer in this pass.
    silent: BTreeSet<ServerId>,
    /// Peers that answered in this pass and did not give all.
    withhold: BTreeSet<ServerId>,
    /// The first place that this pass left.
    left: Option<Place>,
    /// In how many passes peers answered and did not give all.
    passes: BTreeMap<ServerId, u32>,
    pause_ms: u64,
}

/// Whether a time is within so many milliseconds after another. A clock that was set back ends every
/// pause.
fn within(now: Timestamp, since: Timestamp, ms: u64) -> bool {
    (since..since.plus_ms(ms)).contains(&now)
}

impl Lacking {
    /// Contents at places from here on may be had now. `anew`: members here may see what they did
    /// not, so what peers answered before counts no more.
    pub(super) fn look(&mut self, from: Place, anew: bool) {
        self.from = Some(self.from.map_or(from, |before| before.min(from)));
        if anew {
            // What is under way may be answered as it would have been before.
            let under_way = self.batch.drain(..).map(|wanted| wanted.first);
            self.from = self.from.into_iter().chain(under_way).min();
            self.passes.clear();
            self.silent.clear();
            self.pause_ms = 0;
            self.pause = None;
        } else if self.pause_ms > PAUSE_MS {
            self.pause_ms = PAUSE_MS;
            self.pause = self.pause.map(|(since, ms)| (since, ms.min(PAUSE_MS)));
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.pause.is_none_or(|(since, ms)| !within(now, since, ms))
    }

    /// Goes on: gives what is to be asked of whom, and whether there is more to do, now or later.
    fn step(
        &mut self,
        now: Timestamp,
        open: &mut Open,
        me: &ServerId,
        store: &dyn Store,
    ) -> (Vec<(ServerId, Range)>, bool) {
        self.pause = None;
        for wanted in &mut self.batch {
            if let Some((peer, _)) = wanted
                .asked
                .take_if(|(_, since)| !within(now, *since, PATIENCE_MS))
            {
                self.silent.insert(peer);
            }
        }
        if open.peers.is_empty() {
            return (Vec::new(), false);
        }
        self.read_on(open, me, store);
        let mut asks = Vec::new();
        for mut wanted in std::mem::take(&mut self.batch) {
            if wanted.asked.is_none() {
                let node = open.machine.graph().ix(&wanted.commit);
                let peer = node.and_then(|node| self.next_peer(&wanted, node, open));
                let (Some(node), Some(peer)) = (node, peer) else {
                    self.left = Some(self.left.map_or(wanted.first, |l| l.min(wanted.first)));
                    continue;
                };
                wanted.asked = Some((peer, now));
                ask(&mut asks, peer, node, open);
            }
            self.batch.push(wanted);
        }
        if !self.batch.is_empty() {
            self.pause = Some((now, PATIENCE_MS));
            return (asks, true);
        }
        let more = self.from.is_some() || self.end_pass(now, open);
        (asks, more)
    }

    /// Takes the next commits into the batch.
    fn read_on(&mut self, open: &mut Open, me: &ServerId, store: &dyn Store) {
        let id = open.machine.id();
        for _ in 0..BATCH {
            let Some(from) = self.from.filter(|_| self.batch.len() < BATCH) else {
                return;
            };
            let found = lacking(&id, open.sight_of(me), from, store);
            for place in &found {
                if self
                    .batch
                    .iter()
                    .any(|wanted| wanted.commit == place.commit)
                {
                    continue;
                }
                if self.batch.len() == BATCH {
                    self.from = Some(*place);
                    return;
                }
                self.batch.push(Wanted {
                    commit: place.commit,
                    first: *place,
                    tried: BTreeSet::new(),
                    asked: None,
                });
            }
            // A commit is asked for whole: what else it lacks is not read.
            let end = found.last().filter(|_| found.len() >= READ);
            self.from = end.map(|last| Place {
                index: u16::MAX,
                ..*last
            });
        }
    }

    /// Its own home first, which has all of it unless it was erased.
    fn next_peer(&self, wanted: &Wanted, node: NodeIx, open: &Open) -> Option<ServerId> {
        let asks = |peer: &&ServerId| {
            let passes = self.passes.get(*peer).copied().unwrap_or(0);
            passes < PASSES_MAX && !self.silent.contains(*peer) && !wanted.tried.contains(*peer)
        };
        let origin = open.machine.graph().home(node);
        let origin = open.peers.get(&origin).filter(asks);
        origin.or_else(|| open.peers.iter().find(asks)).copied()
    }

    /// Everything was read and asked for. Whether what is left is asked for once more, later.
    fn end_pass(&mut self, now: Timestamp, open: &Open) -> bool {
        for peer in std::mem::take(&mut self.withhold) {
            *self.passes.entry(peer).or_default() += 1;
        }
        self.silent.clear();
        let asked_again =
            |peer: &ServerId| self.passes.get(peer).copied().unwrap_or(0) < PASSES_MAX;
        let left = self.left.take();
        if left.is_none() || !open.peers.iter().any(asked_again) {
            return false;
        }
        self.from = left;
        self.pause_ms = (self.pause_ms * 4).clamp(PAUSE_MS, PAUSE_MAX_MS);
        self.pause = Some((now, self.pause_ms));
        true
    }

    /// A peer gave what it gives of a commit; `all`: everything that was lacking.
    fn given(&mut self, peer: ServerId, commit: &CommitId, all: bool) {
        let Some(at) = self.batch.iter().position(|w| w.commit == *commit) else {
            return;
        };
        if all {
            self.batch.remove(at);
        } else {
            let wanted = &mut self.batch[at];
            if wanted.asked.is_none_or(|(asked, _)| asked != peer) {
                return;
            }
            wanted.asked = None;
            wanted.tried.insert(peer);
            self.withhold.insert(peer);
        }
        // What is to be asked next need not wait for those that do not answer.
        self.pause = None;
    }
}

/// Places of contents that are withheld here and that the members here see, in the order from one
/// on: at most [`READ`].
fn lacking(id: &ConversationId, sight: &Sight, from: Place, store: &dyn Store) -> Vec<Place> {
    let mut found = Vec::new();
    for span in sight.spans() {
        if found.len() < READ && span.to.is_none_or(|to| from <= to) {
            let within = Span {
                from: span.from.max(from),
                to: span.to,
            };
            found.extend(store.withheld(id, &within, READ - found.len()));
        }
    }
    found
}

/// Adds a commit to what is asked for: to the range before, if it follows that in its chain.
fn ask(asks: &mut Vec<(ServerId, Range)>, peer: ServerId, node: NodeIx, open: &Open) {
    let graph = open.machine.graph();
    let (home, at) = (graph.home(node), graph.node(node));
    let (tip, seq) = (at.id(), at.seq());
    if let Some((asked, range)) = asks.last_mut()
        && (*asked, range.home, range.to + 1) == (peer, home, seq)
        && graph.at_seq(node, range.to) == graph.ix(&range.tip)
    {
        (range.tip, range.to) = (tip, seq);
        return;
    }
    let range = Range {
        conversation: open.machine.id(),
        home,
        tip,
        from: seq,
        to: seq,
    };
    asks.push((peer, range));
}

impl Open {
    /// Whether a commit came with contents withheld that the members here see: who gave it had not
    /// heard of them.
    pub(super) fn lacks_of(&mut self, me: &ServerId, taken: &Taken) -> Option<Place> {
        let node = self.machine.graph().ix(&taken.commit.id())?;
        let withheld = |event: &crate::conversation::TakenEvent| event.slot == Slot::Withheld;
        let mut events = (0u16..).zip(&taken.events).filter(|(_, e)| withheld(e));
        events.find_map(|(index, _)| {
            let place = self.machine.graph().place(Appearance { node, index });
            self.sight_of(me).sees(place).then_some(place)
        })
    }
}

impl Shard {
    /// Conversations in which contents are held as withheld: what of these may be had is asked for.
    /// To be called once, with all of them, after the start.
    pub fn lacks_in(&mut self, ids: impl IntoIterator<Item = ConversationId>) {
        for id in ids {
            self.look(id, Span::ALL.from, false);
        }
    }

    pub(super) fn look(&mut self, id: ConversationId, from: Place, anew: bool) {
        self.lacking.entry(id).or_default().look(from, anew);
    }

    /// Asks for contents that this home may have. Costs nothing where nothing changed.
    pub(super) fn ask_for_withheld(
        &mut self,
        now: Timestamp,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let me = self.me;
        let due = self.lacking.iter().filter(|(_, of)| of.is_due(now));
        // Who waits for nobody's answer first, so that no conversation waits for the others.
        let mut due: Vec<_> = due.map(|(id, of)| (!of.batch.is_empty(), *id)).collect();
        due.sort_unstable();
        for (_, id) in due.into_iter().take(STEPS) {
            let Some(mut lacking) = self.lacking.remove(&id) else {
                continue;
            };
            let more = match self.opened(&id, store) {
                Ok(Some(open)) => {
                    let (asks, more) = lacking.step(now, open, &me, store);
                    let ask = |(peer, range)| Output::Ask(peer, range);
                    out.extend(asks.into_iter().map(ask));
                    more
                }
                Ok(None) => false,
                // It is being read back.
                Err(_) => true,
            };
            if more {
                self.lacking.insert(id, lacking);
            }
        }
    }

    /// Takes what a peer gave of contents that are held as withheld and that the members here see.
    /// That the commit's own home says gone is believed, and nobody else.
    pub(super) fn fill(
        &mut self,
        now: Timestamp,
        bundle: &CheckedBundle,
        ticket: Ticket,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let (me, peer) = (self.me, ticket.peer());
        let (id, commit) = (bundle.conversation(), bundle.commit.id());
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let Some(node) = open.machine.graph().ix(&commit) else {
            return;
        };
        let place = |index| open.machine.graph().place(Appearance { node, index });
        let whole = Span {
            from: place(0),
            to: Some(place(u16::MAX)),
        };
        let mut lacks: BTreeSet<u16> = store
            .withheld(&id, &whole, bundle.events.len())
            .into_iter()
            .map(|place| place.index)
            .collect();
        if lacks.is_empty() {
            return self.given(&id, peer, &commit, true);
        }
        let sight = open.sight_of(&me);
        let of = |index: &u16| bundle.events.get(usize::from(*index));
        lacks.retain(|index| {
            let is_state =
                of(index).is_some_and(|e| matches!(e.event.event().act, Act::State { .. }));
            let index = *index;
            is_state
                || sight.sees(Place {
                    index,
                    ..whole.from
                })
        });
        lacks.retain(|index| of(index).is_some_and(|e| !self.filling.contains(&e.event.id())));
        let is_own = bundle.commit.commit().origin == peer;
        let came: Vec<Came> = open
            .machine
            .came(now, bundle, &lacks)
            .into_iter()
            .filter(|came| is_own || came.slot != Slot::Gone)
            .collect();
        let all = came.len() == lacks.len();
        self.given(&id, peer, &commit, all);
        if came.is_empty() || store.cannot_store().is_some() {
            return;
        }
        let events: Vec<EventId> = came.iter().map(|came| came.event).collect();
        self.filling.extend(&events);
        let locals = self.open.get(&id).map(Open::locals).unwrap_or_default();
        let work = Work::Contents(events);
        self.submit(id, What::Contents(came), locals, None, work, out);
    }

    fn given(&mut self, id: &ConversationId, peer: ServerId, commit: &CommitId, all: bool) {
        if let Some(lacking) = self.lacking.get_mut(id) {
            lacking.given(peer, commit, all);
        }
    }
}
