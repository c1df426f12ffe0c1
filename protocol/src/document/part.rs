//! One Automerge document with what is needed to build its next change: who has seen what, and
//! which operations stand on which key.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    DocumentError, DocumentKind, Refusal, Seen,
    engine::{Actor, Built, FIRST_OP, Hash, Map, Put, Replica, build, genesis_hash},
    limits::{LANES_MAX, QUARANTINE_ROUNDS},
    order,
};
use crate::ids::EventId;

/// A change, as far as the merge is concerned.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) event: EventId,
    pub(super) actor: Actor,
    pub(super) map: Map,
    pub(super) key: String,
}

/// How many entries of each lane are in somebody's past; lanes beyond its end: none.
pub(super) type Clock = Vec<u32>;

/// An entry that is in the document.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) event: EventId,
    pub(super) lane: u32,
    /// Place in the lane, from 0.
    pub(super) position: u32,
    op: u64,
    hash: Hash,
    /// The past, this node not included. Closed: it holds the past of everything in it.
    pub(super) clock: Clock,
    /// The nodes on the same key that this one replaced.
    replaces: Vec<u32>,
}

/// The entries of one actor, each after those before it.
#[derive(Debug)]
struct Lane {
    actor: Actor,
    nodes: Vec<u32>,
}

/// What was written on one key.
#[derive(Debug, Default)]
struct Slot {
    nodes: Vec<u32>,
    /// Those that none replaced.
    current: Vec<u32>,
}

/// One Automerge document and its bookkeeping.
#[derive(Debug)]
pub(super) struct Part {
    kind: DocumentKind,
    /// Made with the first change: an empty instance costs 10 KB.
    replica: Option<Replica>,
    nodes: Vec<Node>,
    lanes: Vec<Lane>,
    lane_of: BTreeMap<Actor, u32>,
    slots: BTreeMap<(Map, String), Slot>,
    heads: BTreeSet<Hash>,
    pending: Vec<Built>,
    /// See [`Self::bytes_estimate`].
    bytes: usize,
}

/// Bytes of an Automerge document without changes, and of one of its changes, as measured.
const REPLICA_BYTES: usize = 10_000;
const CHANGE_BYTES: usize = 400;

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("a part holds at most CHANGES_MAX changes")
}

fn join(clock: &mut [u32], other: &[u32]) {
    for (mine, theirs) in clock.iter_mut().zip(other) {
        *mine = (*mine).max(*theirs);
    }
}

impl Part {
    pub(super) const fn new(kind: DocumentKind) -> Self {
        Self {
            kind,
            replica: None,
            nodes: Vec::new(),
            lanes: Vec::new(),
            lane_of: BTreeMap::new(),
            slots: BTreeMap::new(),
            heads: BTreeSet::new(),
            pending: Vec::new(),
            bytes: 0,
        }
    }

    /// The part that holds `entries`, a function of these and of `seen` alone; with the entries
    /// that could not be taken.
    pub(super) fn rebuilt(
        kind: DocumentKind,
        entries: Vec<Entry>,
        seen: &Seen<'_>,
    ) -> (Self, Vec<(EventId, Refusal)>) {
        let mut entries = order::causal(entries, seen);
        let mut refused = Vec::new();
        for _ in 0..=QUARANTINE_ROUNDS {
            let mut part = Self::new(kind);
            entries.retain(|entry| match part.add(entry, part.observe(entry, seen).0) {
                Ok(()) => true,
                Err(why) => {
                    refused.push((entry.event, why));
                    false
                }
            });
            if part.flush().is_ok() {
                return (part, refused);
            }
            let Some(offender) = Self::first_failing(kind, &entries, seen) else {
                // One at a time works where all at once did not: fall through to the next round,
                // and in the end give the part up rather than keep an instance that failed.
                continue;
            };
            refused.push((entries.remove(offender).event, Refusal::Quarantined));
        }
        let given_up = entries.iter().map(|e| (e.event, Refusal::Quarantined));
        refused.extend(given_up);
        (Self::new(kind), refused)
    }

    /// Index of the first entry that fails when they are applied one by one.
    fn first_failing(kind: DocumentKind, entries: &[Entry], seen: &Seen<'_>) -> Option<usize> {
        let mut part = Self::new(kind);
        entries.iter().position(|entry| {
            let clock = part.observe(entry, seen).0;
            part.add(entry, clock).is_err() || part.flush().is_err()
        })
    }

    /// What `entry` has seen of this part, and whether something here has seen `entry`: then it
    /// is late, and the part has to be rebuilt to hold it.
    pub(super) fn observe(&self, entry: &Entry, seen: &Seen<'_>) -> (Clock, bool) {
        let mut clock = vec![0; self.lanes.len()];
        let mut late = false;
        let own = self.lane_of.get(&entry.actor).map(|lane| *lane as usize);
        if let Some(own) = own {
            // An actor's changes must depend on each other whatever `seen` says: Automerge takes
            // a second change with one sequence number for a fault of the whole batch.
            let last = self.take_in(&mut clock, own, self.lanes[own].nodes.len());
            late = !seen(last, entry.event) && seen(entry.event, last);
        }
        for (lane, nodes) in self.lanes.iter().map(|lane| &lane.nodes).enumerate() {
            let known = clock[lane] as usize;
            let Some((last, rest)) = nodes.split_last() else {
                continue;
            };
            if known == nodes.len() {
                continue;
            }
            let has_seen = |node: &u32| seen(self.nodes[*node as usize].event, entry.event);
            let count = if has_seen(last) {
                nodes.len()
            } else {
                late |= seen(entry.event, self.nodes[*last as usize].event);
                known + rest[known..].partition_point(has_seen)
            };
            if count > known {
                self.take_in(&mut clock, lane, count);
            }
        }
        (clock, late)
    }

    /// Adds the first `count > 0` entries of a lane, and all they have seen, to a clock.
    fn take_in(&self, clock: &mut [u32], lane: usize, count: usize) -> EventId {
        let last = &self.nodes[self.lanes[lane].nodes[count - 1] as usize];
        join(clock, &last.clock);
        clock[lane] = clock[lane].max(index(count));
        last.event
    }

    /// Adds an entry whose past is `clock`; [`Self::flush`] hands it to Automerge. After an error
    /// nothing has changed.
    pub(super) fn add(&mut self, entry: &Entry, clock: Clock) -> Result<(), Refusal> {
        let known = self.lane_of.get(&entry.actor).copied();
        let lane = match known {
            Some(lane) => lane,
            None if self.lanes.len() < LANES_MAX => index(self.lanes.len()),
            None => return Err(Refusal::TooManyLanes),
        };
        let position = known.map_or(0, |lane| index(self.lanes[lane as usize].nodes.len()));
        let (op, deps) = self.dependencies(&clock)?;
        let slot = (entry.map, entry.key.clone());
        let replaces = self.visible(&slot, &clock);
        let operation = |node: &u32| {
            let node = &self.nodes[*node as usize];
            (node.op, self.lanes[node.lane as usize].actor)
        };
        let built = build(&Put {
            kind: self.kind,
            actor: entry.actor,
            seq: u64::from(position) + 1,
            op,
            deps: &deps,
            map: entry.map,
            key: &entry.key,
            event: entry.event,
            replaces: replaces.iter().map(operation).collect(),
        })
        .map_err(|_| Refusal::Quarantined)?;

        let node = index(self.nodes.len());
        let hash = built.hash();
        if node == 0 {
            self.bytes += REPLICA_BYTES;
        }
        if !self.slots.contains_key(&slot) {
            self.bytes += 2 * slot.1.len() + size_of::<Slot>();
        }
        // Twice in its key's slot, once in its lane; vectors grow by doubling.
        let lists = 4 * (clock.len() + replaces.len() + 2 * 3);
        self.bytes += size_of::<Node>() + lists + CHANGE_BYTES;
        self.heads.retain(|head| !deps.contains(head));
        self.heads.insert(hash);
        let slot = self.slots.entry(slot).or_default();
        slot.current.retain(|old| !replaces.contains(old));
        slot.current.push(node);
        slot.nodes.push(node);
        if known.is_none() {
            self.lane_of.insert(entry.actor, lane);
            self.lanes.push(Lane {
                actor: entry.actor,
                nodes: Vec::new(),
            });
        }
        self.lanes[lane as usize].nodes.push(node);
        self.nodes.push(Node {
            event: entry.event,
            lane,
            position,
            op,
            hash,
            clock,
            replaces,
        });
        self.pending.push(built);
        Ok(())
    }

    /// Operation number and dependencies of a change with this past.
    fn dependencies(&self, clock: &[u32]) -> Result<(u64, BTreeSet<Hash>), Refusal> {
        let newest = |(lane, count): (usize, &u32)| {
            let position = (*count as usize).checked_sub(1)?;
            Some((lane, &self.nodes[self.lanes[lane].nodes[position] as usize]))
        };
        let newest: Vec<(usize, &Node)> = clock.iter().enumerate().filter_map(newest).collect();
        let mut covered = vec![0; self.lanes.len()];
        for (_, node) in &newest {
            join(&mut covered, &node.clock);
        }
        // Only what no other dependency has seen; from the past alone, never from what else
        // happens to be in the document, so that every server computes the same.
        let mut op = FIRST_OP;
        let mut deps = BTreeSet::new();
        for (lane, node) in &newest {
            if covered[*lane] <= node.position {
                deps.insert(node.hash);
                op = op.max(node.op + 1);
            }
        }
        if deps.is_empty() {
            deps.insert(genesis_hash(self.kind).map_err(|_| Refusal::Quarantined)?);
        }
        Ok((op, deps))
    }

    /// The nodes on a key that somebody with this past sees there.
    fn visible(&self, slot: &(Map, String), clock: &[u32]) -> Vec<u32> {
        let Some(slot) = self.slots.get(slot) else {
            return Vec::new();
        };
        let in_past = |node: &u32| {
            let node = &self.nodes[*node as usize];
            clock
                .get(node.lane as usize)
                .is_some_and(|count| node.position < *count)
        };
        // The usual case, which keeps a storm on one key linear: whatever replaced something has
        // seen it, so if all current ones are in the past, these are all that is visible there.
        if slot.current.iter().all(in_past) {
            return slot.current.clone();
        }
        let past: Vec<u32> = slot.nodes.iter().copied().filter(in_past).collect();
        let replaced = past
            .iter()
            .flat_map(|node| &self.nodes[*node as usize].replaces);
        let replaced: BTreeSet<u32> = replaced.copied().collect();
        let standing = past.into_iter().filter(|node| !replaced.contains(node));
        standing.collect()
    }

    /// Hands what was added to Automerge. After an error the part must be rebuilt.
    pub(super) fn flush(&mut self) -> Result<(), DocumentError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let replica = match self.replica.take() {
            Some(replica) => replica,
            None => Replica::new(self.kind)?,
        };
        // Put back only when it is known to be sound.
        let replica = {
            let mut replica = replica;
            replica.apply(pending)?;
            replica
        };
        // Automerge answers Ok also for changes that it only queues.
        if replica.heads()? != self.heads {
            return Err(DocumentError::OtherHeads);
        }
        self.replica = Some(replica);
        Ok(())
    }

    pub(super) fn current(&self, map: Map, key: &str) -> Result<Vec<EventId>, DocumentError> {
        let read = |replica: &Replica| replica.current(map, key);
        self.replica.as_ref().map_or(Ok(Vec::new()), read)
    }

    pub(super) fn current_under(
        &self,
        map: Map,
        prefix: &str,
    ) -> Result<Vec<Vec<EventId>>, DocumentError> {
        let read = |replica: &Replica| replica.current_under(map, prefix);
        self.replica.as_ref().map_or(Ok(Vec::new()), read)
    }

    pub(super) const fn heads(&self) -> &BTreeSet<Hash> {
        &self.heads
    }

    /// The nodes, each after those in its past.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The clock that a lane's next entry has at least: its last one's, and that one.
    pub(super) fn lane_clock(&self, lane: u32, before: u32) -> Clock {
        let mut clock = vec![0; self.lanes.len()];
        if before > 0 {
            self.take_in(&mut clock, lane as usize, before as usize);
        }
        clock
    }

    pub(super) fn empty_clock(&self) -> Clock {
        vec![0; self.lanes.len()]
    }

    pub(super) fn lane(&self, actor: &Actor) -> Option<(u32, u32)> {
        let lane = *self.lane_of.get(actor)?;
        Some((lane, index(self.lanes[lane as usize].nodes.len())))
    }

    /// Whether a clock names only entries that are here.
    pub(super) fn holds(&self, clock: &[u32]) -> bool {
        clock.len() <= self.lanes.len()
            && clock
                .iter()
                .zip(&self.lanes)
                .all(|(count, lane)| *count as usize <= lane.nodes.len())
    }

    /// Bytes of the Automerge document; none if nothing was ever written.
    pub(super) fn save(&self) -> Result<Vec<u8>, DocumentError> {
        let save = |replica: &Replica| replica.save(self.kind);
        self.replica.as_ref().map_or(Ok(Vec::new()), save)
    }

    /// Takes an Automerge document in place of applying what was added.
    pub(super) fn adopt(&mut self, bytes: &[u8]) -> Result<(), DocumentError> {
        self.pending.clear();
        if self.nodes.is_empty() {
            return Ok(());
        }
        let replica = Replica::load(self.kind, bytes)?;
        if replica.heads()? != self.heads {
            return Err(DocumentError::OtherHeads);
        }
        self.replica = Some(replica);
        Ok(())
    }

    /// Memory held, roughly: measured costs of Automerge, and the bookkeeping's own sizes.
    pub(super) const fn bytes_estimate(&self) -> usize {
        self.bytes
    }
}
