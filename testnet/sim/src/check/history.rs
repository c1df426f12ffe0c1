//! The commits and root records of one conversation as plain sets, read from signed bytes.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    commit::{Commit, RawCommit, UnverifiedCommit},
    event::{Event, RawEvent, SignedEvent},
    ids::{CommitId, EventId, RootId},
    place::Place,
    root::{RawRoot, Root, SignedRoot},
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
    /// What `prev`, the authority frontier and the root records it names reach.
    pub(super) past: Set,
    /// The root records among that.
    pub(super) records: Set,
    /// Itself and its `prev` chain.
    pub(super) chain: Set,
    /// What `parents` reach, too; not itself.
    pub(super) causal: Set,
    /// Every parent below it is held.
    pub(super) whole: bool,
}

/// A root record from 1 on.
pub(super) struct Recorded {
    pub(super) id: RootId,
    pub(super) root: Root,
    /// The record before; none if that is record 0.
    pub(super) prev: Option<usize>,
    /// Commits that the record before and the frontier reach.
    pub(super) past: Set,
    /// Records among that.
    pub(super) records: Set,
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
    pub(super) records: Vec<Recorded>,
    pub(super) record_ix: BTreeMap<RootId, usize>,
}

/// A commit as it is stored.
pub(super) type Raw<'a> = (&'a RawCommit, Vec<&'a RawEvent>);

/// What somebody holds of a conversation, as it is stored.
#[derive(Default)]
pub(super) struct Held<'a> {
    pub(super) commits: BTreeMap<CommitId, Raw<'a>>,
    pub(super) records: BTreeMap<RootId, &'a RawRoot>,
}

impl History {
    /// Reads commits and records; those that build on what is not there are left out.
    pub(super) fn read(held: &Held<'_>) -> Self {
        let mut history = Self::default();
        let mut left: BTreeMap<CommitId, Commit> = BTreeMap::new();
        for (id, (commit, _)) in &held.commits {
            if let Ok(commit) = UnverifiedCommit::decode((*commit).clone()) {
                left.insert(*id, commit.commit().clone());
            }
        }
        let roots = held.records.iter();
        let roots = roots.filter_map(|(id, raw)| Some((*id, SignedRoot::decode(raw).ok()?)));
        let mut roots: BTreeMap<RootId, Root> = roots.collect();
        let all: BTreeSet<CommitId> = left.keys().copied().collect();
        loop {
            let ready: Vec<RootId> = roots
                .iter()
                .filter(|(_, root)| history.is_founded(root))
                .map(|(id, _)| *id)
                .collect();
            for id in &ready {
                if let Some(root) = roots.remove(id) {
                    history.add_record(*id, root);
                }
            }
            let founded = |commit: &Commit| {
                let parents = commit.parents.iter().filter(|id| all.contains(id));
                below(commit)
                    .iter()
                    .chain(parents)
                    .all(|id| history.ix.contains_key(id))
                    && record_below(commit).is_none_or(|id| history.record_ix.contains_key(&id))
            };
            let next = left.iter().filter(|(_, commit)| founded(commit));
            let mut next: Vec<CommitId> = next.map(|(id, _)| *id).collect();
            next.sort_by_key(|id| (left[id].hlc, *id));
            if next.is_empty() && ready.is_empty() {
                break;
            }
            for id in next {
                if let Some(commit) = left.remove(&id) {
                    history.add(id, commit, &held.commits[&id].1);
                }
            }
        }
        history
    }

    fn is_founded(&self, root: &Root) -> bool {
        let before = root.n == 1 || root.prev.is_some_and(|id| self.record_ix.contains_key(&id));
        before
            && root
                .frontier
                .iter()
                .all(|tip| self.ix.contains_key(&tip.id))
    }

    fn add_record(&mut self, id: RootId, root: Root) {
        let (mut past, mut records) = (Set::default(), Set::default());
        let prev = root.prev.and_then(|id| self.record_ix.get(&id).copied());
        if let Some(prev) = prev {
            past.join(&self.records[prev].past);
            records.join(&self.records[prev].records);
            records.add(prev);
        }
        for tip in &root.frontier {
            let below = self.ix[&tip.id];
            past.join(&self.made[below].past);
            past.add(below);
            records.join(&self.made[below].records);
        }
        self.record_ix.insert(id, self.records.len());
        self.records.push(Recorded {
            id,
            root,
            prev,
            past,
            records,
        });
    }

    fn add(&mut self, id: CommitId, commit: Commit, events: &[&RawEvent]) {
        let n = self.made.len();
        let (mut past, mut chain, mut causal) = (Set::default(), Set::default(), Set::default());
        let mut records = Set::default();
        let prev = commit.prev.and_then(|id| self.ix.get(&id).copied());
        if let Some(prev) = prev {
            chain = self.made[prev].chain.clone();
        }
        for id in below(&commit) {
            let below = self.ix[&id];
            past.join(&self.made[below].past);
            past.add(below);
            records.join(&self.made[below].records);
        }
        if let Some(record) = record_below(&commit) {
            let below = self.record_ix[&record];
            past.join(&self.records[below].past);
            records.join(&self.records[below].records);
            records.add(below);
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
            records,
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

/// The same, of records; record 0 is there from the beginning.
fn record_below(commit: &Commit) -> Option<RootId> {
    let record = commit.authority.as_ref()?.root?;
    (record.n > 0).then_some(record.id)
}
