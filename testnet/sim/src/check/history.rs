//! The commits of one conversation as plain sets, read from signed bytes.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    commit::{Commit, RawCommit, UnverifiedCommit},
    event::{Event, RawEvent, SignedEvent},
    ids::{CommitId, EventId},
    place::Place,
};

/// A set of commits by number.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Set(Vec<u64>);

impl Set {
    pub(super) fn add(&mut self, n: usize) {
        if self.0.len() <= n / 64 {
            self.0.resize(n / 64 + 1, 0);
        }
        self.0[n / 64] |= 1 << (n % 64);
    }

    pub(super) fn has(&self, n: usize) -> bool {
        self.0
            .get(n / 64)
            .is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    pub(super) fn join(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }
}

/// A commit.
pub(super) struct Made {
    pub(super) id: CommitId,
    pub(super) commit: Commit,
    pub(super) events: Vec<(EventId, Event)>,
    pub(super) prev: Option<usize>,
    /// What `prev` and the authority frontier reach.
    pub(super) past: Set,
    /// Itself and its `prev` chain.
    pub(super) chain: Set,
    /// What `parents` reach, too; not itself.
    pub(super) causal: Set,
    /// Every parent below it is held.
    pub(super) whole: bool,
}

/// Where an event is.
pub(super) type At = (usize, usize);

/// All commits of a conversation that somebody holds, each after what it builds on.
#[derive(Default)]
pub(super) struct History {
    pub(super) made: Vec<Made>,
    pub(super) ix: BTreeMap<CommitId, usize>,
    /// Appearances of each event.
    pub(super) places: BTreeMap<EventId, Vec<At>>,
    live: Vec<bool>,
}

/// A commit as it is stored.
pub(super) type Raw<'a> = (&'a RawCommit, Vec<&'a RawEvent>);

impl History {
    /// Reads commits; those that build on what is not there are left out.
    pub(super) fn read(raw: &BTreeMap<CommitId, Raw<'_>>) -> Self {
        let mut history = Self::default();
        let mut left: BTreeMap<CommitId, Commit> = BTreeMap::new();
        for (id, (commit, _)) in raw {
            if let Ok(commit) = UnverifiedCommit::decode((*commit).clone()) {
                left.insert(*id, commit.commit().clone());
            }
        }
        let all: BTreeSet<CommitId> = left.keys().copied().collect();
        while !left.is_empty() {
            let ready = |commit: &Commit| {
                let parents = commit.parents.iter().filter(|id| all.contains(id));
                below(commit)
                    .iter()
                    .chain(parents)
                    .all(|id| history.ix.contains_key(id))
            };
            let next = left.iter().filter(|(_, commit)| ready(commit));
            let mut next: Vec<CommitId> = next.map(|(id, _)| *id).collect();
            next.sort_by_key(|id| (left[id].hlc, *id));
            if next.is_empty() {
                break;
            }
            for id in next {
                if let Some(commit) = left.remove(&id) {
                    history.add(id, commit, &raw[&id].1);
                }
            }
        }
        for c in 0..history.made.len() {
            // Those before it are known: each comes after what it builds on.
            let live = history.is_live(c);
            history.live.push(live);
        }
        history
    }

    fn add(&mut self, id: CommitId, commit: Commit, events: &[&RawEvent]) {
        let n = self.made.len();
        let (mut past, mut chain, mut causal) = (Set::default(), Set::default(), Set::default());
        let prev = commit.prev.and_then(|id| self.ix.get(&id).copied());
        if let Some(prev) = prev {
            chain = self.made[prev].chain.clone();
        }
        for id in below(&commit) {
            let below = self.ix[&id];
            past.join(&self.made[below].past);
            past.add(below);
        }
        causal.join(&past);
        let mut whole = true;
        for id in below(&commit).iter().chain(&commit.parents) {
            match self.ix.get(id) {
                Some(below) => {
                    causal.join(&self.made[*below].causal);
                    causal.add(*below);
                    whole &= self.made[*below].whole;
                }
                None => whole = false,
            }
        }
        chain.add(n);
        let events: Vec<(EventId, Event)> = events
            .iter()
            .filter_map(|raw| SignedEvent::from_trusted((*raw).clone()).ok())
            .map(|event| (event.id(), event.event().clone()))
            .collect();
        for (index, (event, _)) in events.iter().enumerate() {
            self.places.entry(*event).or_default().push((n, index));
        }
        self.ix.insert(id, n);
        self.made.push(Made {
            id,
            commit,
            events,
            prev,
            past,
            chain,
            causal,
            whole,
        });
    }

    pub(super) fn appearances(&self) -> impl Iterator<Item = At> + '_ {
        let of = |c: usize| (0..self.made[c].events.len()).map(move |i| (c, i));
        (0..self.made.len()).flat_map(of)
    }

    pub(super) fn id(&self, y: At) -> EventId {
        self.made[y.0].events[y.1].0
    }

    pub(super) fn event(&self, y: At) -> &Event {
        &self.made[y.0].events[y.1].1
    }

    pub(super) fn place(&self, y: At) -> Place {
        let made = &self.made[y.0];
        Place {
            hlc: made.commit.hlc,
            commit: made.id,
            index: u16::try_from(y.1).unwrap_or(u16::MAX),
        }
    }

    pub(super) fn live(&self, c: usize) -> bool {
        self.live[c]
    }

    /// On the branch that stands at every fork below it.
    fn is_live(&self, c: usize) -> bool {
        let made = &self.made[c];
        if made.prev.is_some_and(|prev| !self.live[prev]) {
            return false;
        }
        let rank = |made: &Made| (std::cmp::Reverse(made.commit.epoch), made.id);
        self.made.iter().all(|other| {
            let fork = (other.commit.origin, other.prev) == (made.commit.origin, made.prev);
            !fork || rank(made) <= rank(other)
        })
    }

    /// x is in the past of y, or before it in the same commit.
    pub(super) fn before(&self, x: At, y: At) -> bool {
        if x.0 == y.0 {
            return x.1 < y.1;
        }
        let made = &self.made[y.0];
        made.past.has(x.0) || made.chain.has(x.0)
    }

    /// As [`Self::before`], through parents too.
    pub(super) fn causally_before(&self, x: At, y: At) -> bool {
        if x.0 == y.0 {
            return x.1 < y.1;
        }
        self.made[y.0].causal.has(x.0)
    }
}

/// What a commit cannot be judged without.
fn below(commit: &Commit) -> Vec<CommitId> {
    let tips = commit.authority.iter().flat_map(|change| &change.tips);
    commit
        .prev
        .into_iter()
        .chain(tips.map(|tip| tip.id))
        .collect()
}
