//! What all documents share: the set of changes, its division into parts, and rebuilding.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Applied, Change, ChangeKind, DocumentError, DocumentKind, Heads, Refusal, Refused, Seen,
    engine::{Actor, actor},
    limits::{CHANGES_MAX, DELETIONS_MAX, QUARANTINE_MAX, SHARDS, SPLIT_ABOVE},
    part::{Entry, Part},
};
use crate::ids::EventId;

/// Domain of the actor of a home.
const ACTOR: &[u8] = b"comity actor v1";
/// Domain of the one actor of all deletions.
const DELETION_ACTOR: &[u8] = b"comity actor v1 deletion";

/// A set of changes, merged.
#[derive(Debug)]
pub(super) struct Merge {
    kind: DocumentKind,
    changes: BTreeMap<EventId, Change>,
    deletions: usize,
    /// Two for each shard: its deletions are apart from the rest.
    parts: Vec<Part>,
    quarantined: BTreeSet<EventId>,
}

/// Deletions are ordered by their ids and by nothing else: they depend on no other change, so
/// none ever waits, and a home that forked has no say in it.
fn by_id(earlier: EventId, later: EventId) -> bool {
    earlier < later
}

pub(super) const fn is_deletions(part: usize) -> bool {
    part % 2 == 1
}

fn shards_for(changes: usize) -> usize {
    if changes > SPLIT_ABOVE { SHARDS } else { 1 }
}

/// The actor of a change. Not of the epoch: what stands of a home is one chain over all epochs,
/// sequence numbers are counted here and never received, and actors are what a document has room
/// for few of: a home that began epoch after epoch would crowd out all others.
fn actor_of(change: &Change) -> Actor {
    if change.kind.is_deletion() {
        actor(&[DELETION_ACTOR])
    } else {
        actor(&[ACTOR, change.home.as_bytes()])
    }
}

pub(super) fn entry(change: &Change) -> Entry {
    let (map, key) = change.kind.slot();
    Entry {
        event: change.event,
        actor: actor_of(change),
        map,
        key,
    }
}

impl Merge {
    pub(super) fn new(kind: DocumentKind) -> Self {
        Self {
            kind,
            changes: BTreeMap::new(),
            deletions: 0,
            parts: vec![Part::new(kind), Part::new(kind)],
            quarantined: BTreeSet::new(),
        }
    }

    /// A merge without Automerge documents yet, for [`super::snapshot`].
    pub(super) fn of_parts(kind: DocumentKind, changes: Vec<Change>, parts: Vec<Part>) -> Self {
        let deletions = changes.iter().filter(|c| c.kind.is_deletion()).count();
        Self {
            kind,
            changes: changes.into_iter().map(|c| (c.event, c)).collect(),
            deletions,
            parts,
            quarantined: BTreeSet::new(),
        }
    }

    /// How many parts hold so many changes.
    pub(super) fn parts_for(changes: usize) -> usize {
        2 * shards_for(changes)
    }

    /// Which of `parts` parts takes a change.
    pub(super) fn part_of(parts: usize, kind: &ChangeKind) -> usize {
        Self::part_at(parts, kind.shard_hash(), kind.is_deletion())
    }

    fn part_at(parts: usize, hash: u8, deletions: bool) -> usize {
        let shard = if parts > 2 {
            usize::from(hash) % SHARDS
        } else {
            0
        };
        2 * shard + usize::from(deletions)
    }

    pub(super) fn apply<T: Ord>(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        seen: &Seen<'_>,
        touch: impl Fn(&ChangeKind) -> Option<T>,
    ) -> Applied<T> {
        let mut applied = Applied::default();
        let mut fresh = Vec::new();
        for change in changes {
            match self.admit(&change) {
                Ok(true) => {
                    fresh.push(change.event);
                    self.insert(change);
                }
                Ok(false) => {}
                Err(why) => applied.refused.push(Refused {
                    event: change.event,
                    why,
                }),
            }
        }
        if Self::parts_for(self.changes.len()) != self.parts.len() {
            self.rebuild_all(seen, &mut applied, &touch);
        } else {
            self.extend(&fresh, seen, &mut applied, &touch);
        }
        let taken = fresh.iter().filter_map(|event| self.changes.get(event));
        applied.touched.extend(taken.filter_map(|c| touch(&c.kind)));
        applied
    }

    /// Whether a change is to be taken: `false` if it is here already.
    fn admit(&self, change: &Change) -> Result<bool, Refusal> {
        if let Some(held) = self.changes.get(&change.event) {
            return if held == change {
                Ok(false)
            } else {
                Err(Refusal::OtherAppearance)
            };
        }
        if change.kind.document() != self.kind {
            return Err(Refusal::OtherDocument);
        }
        change.kind.check()?;
        if self.quarantined.contains(&change.event) {
            return Err(Refusal::Quarantined);
        }
        let full = if change.kind.is_deletion() {
            self.deletions >= DELETIONS_MAX
        } else {
            self.changes.len() - self.deletions >= CHANGES_MAX
        };
        if full { Err(Refusal::Full) } else { Ok(true) }
    }

    fn insert(&mut self, change: Change) {
        self.deletions += usize::from(change.kind.is_deletion());
        self.changes.insert(change.event, change);
    }

    fn take_out(&mut self, event: EventId) -> Option<Change> {
        let change = self.changes.remove(&event)?;
        self.deletions -= usize::from(change.kind.is_deletion());
        Some(change)
    }

    /// Adds changes that are in the set already to the parts.
    fn extend<T: Ord>(
        &mut self,
        fresh: &[EventId],
        seen: &Seen<'_>,
        applied: &mut Applied<T>,
        touch: &impl Fn(&ChangeKind) -> Option<T>,
    ) {
        let mut dirty = BTreeSet::new();
        let mut grown = BTreeSet::new();
        for event in fresh {
            let Some(change) = self.changes.get(event) else {
                continue;
            };
            let at = Self::part_of(self.parts.len(), &change.kind);
            if dirty.contains(&at) {
                continue;
            }
            let entry = entry(change);
            let seen = if is_deletions(at) { &by_id } else { seen };
            let (clock, late) = self.parts[at].observe(&entry, seen);
            if late {
                dirty.insert(at);
            } else if let Err(why) = self.parts[at].add(&entry, clock) {
                self.refuse(*event, why, applied, touch);
            } else {
                grown.insert(at);
            }
        }
        for at in grown {
            if !dirty.contains(&at) && self.parts[at].flush().is_err() {
                dirty.insert(at);
            }
        }
        self.rebuild(&dirty, seen, applied, touch);
    }

    fn refuse<T: Ord>(
        &mut self,
        event: EventId,
        why: Refusal,
        applied: &mut Applied<T>,
        touch: &impl Fn(&ChangeKind) -> Option<T>,
    ) {
        if let Some(change) = self.take_out(event) {
            applied.touched.extend(touch(&change.kind));
            applied.refused.push(Refused { event, why });
        }
        if why == Refusal::Quarantined && self.quarantined.len() < QUARANTINE_MAX {
            self.quarantined.insert(event);
        }
    }

    fn rebuild_all<T: Ord>(
        &mut self,
        seen: &Seen<'_>,
        applied: &mut Applied<T>,
        touch: &impl Fn(&ChangeKind) -> Option<T>,
    ) {
        let parts = Self::parts_for(self.changes.len());
        self.parts = (0..parts).map(|_| Part::new(self.kind)).collect();
        self.rebuild(&(0..parts).collect(), seen, applied, touch);
        // Refusals may have taken the set below the limit again; once is enough to settle that,
        // for with the number of parts only the number of lanes in each can shrink.
        if Self::parts_for(self.changes.len()) < parts {
            let parts = Self::parts_for(self.changes.len());
            self.parts = (0..parts).map(|_| Part::new(self.kind)).collect();
            self.rebuild(&(0..parts).collect(), seen, applied, touch);
        }
    }

    /// Builds some parts anew from the set.
    fn rebuild<T: Ord>(
        &mut self,
        parts: &BTreeSet<usize>,
        seen: &Seen<'_>,
        applied: &mut Applied<T>,
        touch: &impl Fn(&ChangeKind) -> Option<T>,
    ) {
        if parts.is_empty() {
            return;
        }
        let mut entries: BTreeMap<usize, Vec<Entry>> = BTreeMap::new();
        for change in self.changes.values() {
            let at = Self::part_of(self.parts.len(), &change.kind);
            if parts.contains(&at) {
                entries.entry(at).or_default().push(entry(change));
            }
        }
        for at in parts {
            let seen = if is_deletions(*at) { &by_id } else { seen };
            let entries = entries.remove(at).unwrap_or_default();
            let (part, refused) = Part::rebuilt(self.kind, entries, seen);
            self.parts[*at] = part;
            for (event, why) in refused {
                self.refuse(event, why, applied, touch);
            }
        }
    }

    pub(super) fn remove<T: Ord>(
        &mut self,
        events: &[EventId],
        seen: &Seen<'_>,
        touch: impl Fn(&ChangeKind) -> Option<T>,
    ) -> Applied<T> {
        let mut applied = Applied::default();
        let mut dirty = BTreeSet::new();
        for event in events {
            self.quarantined.remove(event);
            if let Some(change) = self.take_out(*event) {
                dirty.insert(Self::part_of(self.parts.len(), &change.kind));
                applied.touched.extend(touch(&change.kind));
            }
        }
        if Self::parts_for(self.changes.len()) != self.parts.len() {
            self.rebuild_all(seen, &mut applied, &touch);
        } else {
            self.rebuild(&dirty, seen, &mut applied, &touch);
        }
        applied
    }

    /// A document of these changes: of more than it may hold, those with the lowest event ids.
    pub(super) fn rebuilt<T: Ord>(
        kind: DocumentKind,
        changes: impl IntoIterator<Item = Change>,
        seen: &Seen<'_>,
        touch: impl Fn(&ChangeKind) -> Option<T>,
    ) -> (Self, Applied<T>) {
        let changes: BTreeSet<Change> = changes.into_iter().collect();
        let mut merge = Self::new(kind);
        let applied = merge.apply(changes, seen, touch);
        (merge, applied)
    }

    pub(super) fn change(&self, event: EventId) -> Option<&Change> {
        self.changes.get(&event)
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.values()
    }

    pub(super) const fn kind(&self) -> DocumentKind {
        self.kind
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn heads(&self) -> Heads {
        Heads(
            self.parts
                .iter()
                .flat_map(|part| part.heads())
                .copied()
                .collect(),
        )
    }

    pub(super) fn bytes_estimate(&self) -> usize {
        let change = size_of::<EventId>() + size_of::<Change>() + 16;
        let parts: usize = self.parts.iter().map(Part::bytes_estimate).sum();
        size_of::<Self>() + self.changes.len() * change + parts
    }

    /// The part that holds what is known by this hash, either its deletions or the rest.
    pub(super) fn part(&self, hash: u8, deletions: bool) -> &Part {
        &self.parts[Self::part_at(self.parts.len(), hash, deletions)]
    }

    /// Events that Automerge holds, as the changes they are.
    pub(super) fn resolve(&self, events: Vec<EventId>) -> Result<Vec<&Change>, DocumentError> {
        let change = |event| self.changes.get(&event);
        let found: Option<Vec<&Change>> = events.into_iter().map(change).collect();
        found.ok_or_else(|| DocumentError::Engine("an event that is not here".to_owned()))
    }
}

/// Of concurrent changes the last in the order first, then the others backwards.
pub(super) fn last_first(changes: &mut [&Change]) {
    changes.sort_unstable_by_key(|change| Reverse((change.kind.place(), change.event)));
}
