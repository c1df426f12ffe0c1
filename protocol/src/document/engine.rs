//! The only module that calls Automerge.
//!
//! Version 0.12 panics, hangs or writes unreadable files when it is given changes that nobody
//! checked. So it is given only what [`build`] made: one `put` of one event id on one key of one
//! map of the genesis, with dependencies and predecessors that are known to be present. Every call
//! is guarded all the same; after a failure the instance is not used again.

use std::{
    collections::BTreeSet,
    num::NonZeroU64,
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{
    ActorId, Automerge, Change, ChangeHash, ExpandedChange, ObjId, ObjType, ROOT, ReadDoc,
    ScalarValue, Value,
    legacy::{Key, ObjectId, Op, OpId, OpType, SortedVec},
};

use super::{DocumentError, DocumentKind};
use crate::ids::EventId;

/// Domain of the actor that writes the genesis.
const GENESIS_ACTOR: &[u8] = b"comity genesis v1";

/// An actor's name: the first 16 bytes of a hash.
pub(super) type Actor = [u8; 16];
/// A change's hash.
pub(super) type Hash = [u8; 32];

/// A map of a document.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Map {
    Edits,
    Reactions,
    Deletions,
    Fields,
    Pins,
    Names,
}

impl Map {
    const fn name(self) -> &'static str {
        match self {
            Self::Edits => "edits",
            Self::Reactions => "reactions",
            Self::Deletions => "deletions",
            Self::Fields => "fields",
            Self::Pins => "pins",
            Self::Names => "names",
        }
    }
}

impl DocumentKind {
    /// The maps of a document, in the order in which its genesis makes them. The n-th one is
    /// operation n, from 1.
    pub(super) const fn maps(self) -> [Map; 3] {
        match self {
            Self::Pack => [Map::Edits, Map::Reactions, Map::Deletions],
            Self::State => [Map::Fields, Map::Pins, Map::Names],
        }
    }
}

/// The operation number after the genesis.
pub(super) const FIRST_OP: u64 = 4;

/// First 16 bytes of BLAKE3 over the parts one after the other.
pub(super) fn actor(parts: &[&[u8]]) -> Actor {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// Runs `call`, turning a panic into an error.
fn guarded<T>(
    call: impl FnOnce() -> Result<T, automerge::AutomergeError>,
) -> Result<T, DocumentError> {
    // Whatever the call left half-changed is dropped by the caller: see `Part`.
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(DocumentError::Engine(error.to_string())),
        Err(_) => Err(DocumentError::Engine("panic".to_owned())),
    }
}

/// One `put`, all of its fields decided.
#[derive(Debug)]
pub(super) struct Put<'a> {
    pub(super) kind: DocumentKind,
    pub(super) actor: Actor,
    /// From 1.
    pub(super) seq: u64,
    pub(super) op: u64,
    /// Strictly increasing.
    pub(super) deps: &'a BTreeSet<Hash>,
    pub(super) map: Map,
    pub(super) key: &'a str,
    pub(super) event: EventId,
    /// The operations on this key that the put replaces.
    pub(super) replaces: Vec<(u64, Actor)>,
}

/// A change as Automerge takes it.
#[derive(Clone, Debug)]
pub(super) struct Built {
    change: Change,
    #[cfg(test)]
    event: EventId,
}

impl Built {
    pub(super) fn hash(&self) -> Hash {
        self.change.hash().0
    }
}

fn expanded(actor: Actor, seq: u64, op: u64, deps: &BTreeSet<Hash>, ops: Vec<Op>) -> Change {
    Change::from(ExpandedChange {
        operations: ops,
        actor_id: ActorId::from(actor),
        hash: None,
        seq,
        start_op: NonZeroU64::new(op).unwrap_or(NonZeroU64::MIN),
        time: 0,
        message: None,
        deps: deps.iter().copied().map(ChangeHash).collect(),
        extra_bytes: Vec::new(),
        author: None,
    })
}

/// The change that every document of this kind begins with.
fn genesis(kind: DocumentKind) -> Change {
    let make = |map: Map| Op {
        action: OpType::Make(ObjType::Map),
        obj: ObjectId::Root,
        key: Key::Map(map.name().into()),
        pred: SortedVec::new(),
        insert: false,
    };
    let ops = kind.maps().into_iter().map(make).collect();
    expanded(actor(&[GENESIS_ACTOR]), 1, 1, &BTreeSet::new(), ops)
}

/// Hash of the genesis.
pub(super) fn genesis_hash(kind: DocumentKind) -> Result<Hash, DocumentError> {
    guarded(|| Ok(genesis(kind).hash().0))
}

/// Builds the change of one event.
pub(super) fn build(put: &Put<'_>) -> Result<Built, DocumentError> {
    let position = put.kind.maps().iter().position(|map| *map == put.map);
    let Some(object) = position.and_then(|n| u64::try_from(n + 1).ok()) else {
        return Err(DocumentError::Engine(
            "a map of another document".to_owned(),
        ));
    };
    guarded(|| {
        let replaces = put.replaces.iter();
        let op = Op {
            action: OpType::Put(ScalarValue::Bytes(put.event.as_bytes().to_vec())),
            obj: ObjectId::Id(OpId::new(object, &ActorId::from(actor(&[GENESIS_ACTOR])))),
            key: Key::Map(put.key.into()),
            pred: replaces
                .map(|(op, actor)| OpId::new(*op, &ActorId::from(*actor)))
                .collect(),
            insert: false,
        };
        Ok(Built {
            change: expanded(put.actor, put.seq, put.op, put.deps, vec![op]),
            #[cfg(test)]
            event: put.event,
        })
    })
}

/// One Automerge document.
pub(super) struct Replica {
    document: Automerge,
    maps: [(Map, ObjId); 3],
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").finish_non_exhaustive()
    }
}

impl Replica {
    /// A document that holds its genesis only.
    pub(super) fn new(kind: DocumentKind) -> Result<Self, DocumentError> {
        let document = guarded(|| {
            // The instance's own actor never writes; a fixed one keeps chance out of the core.
            let mut document = Automerge::new().with_actor(ActorId::from([0; 16]));
            document.apply_changes([genesis(kind)])?;
            Ok(document)
        })?;
        Self::around(document, kind)
    }

    fn around(document: Automerge, kind: DocumentKind) -> Result<Self, DocumentError> {
        let object = |map: Map| match guarded(|| document.get(ROOT, map.name()))? {
            Some((Value::Object(ObjType::Map), id)) => Ok((map, id)),
            _ => Err(DocumentError::Engine("no genesis".to_owned())),
        };
        let [a, b, c] = kind.maps();
        let maps = [object(a)?, object(b)?, object(c)?];
        Ok(Self { document, maps })
    }

    /// Applies changes whose dependencies are present or earlier in the list. After an error the
    /// instance must be dropped.
    pub(super) fn apply(&mut self, changes: Vec<Built>) -> Result<(), DocumentError> {
        #[cfg(test)]
        let poisoned = changes.iter().any(|built| poison::holds(built.event));
        guarded(|| {
            #[cfg(test)]
            assert!(!poisoned, "poisoned by a test");
            let changes: Vec<Change> = changes.into_iter().map(|built| built.change).collect();
            self.document.apply_changes(changes)
        })
    }

    pub(super) fn heads(&self) -> Result<BTreeSet<Hash>, DocumentError> {
        guarded(|| Ok(self.document.get_heads().into_iter().map(|h| h.0).collect()))
    }

    fn object(&self, map: Map) -> Result<&ObjId, DocumentError> {
        let found = self.maps.iter().find(|(name, _)| *name == map);
        found
            .map(|(_, id)| id)
            .ok_or_else(|| DocumentError::Engine("a map of another document".to_owned()))
    }

    /// The events whose values on `key` no later one replaced: more than one if concurrent.
    pub(super) fn current(&self, map: Map, key: &str) -> Result<Vec<EventId>, DocumentError> {
        let object = self.object(map)?;
        let values = guarded(|| self.document.get_all(object, key))?;
        values.iter().map(|(value, _)| event_of(value)).collect()
    }

    /// The same for every key of `map` that begins with `prefix`, in the keys' order.
    pub(super) fn current_under(
        &self,
        map: Map,
        prefix: &str,
    ) -> Result<Vec<Vec<EventId>>, DocumentError> {
        let object = self.object(map)?;
        let keys: Vec<String> = guarded(|| {
            let range = self.document.map_range(object, prefix.to_owned()..);
            let keys = range.map(|item| item.key.into_owned());
            Ok(keys.take_while(|key| key.starts_with(prefix)).collect())
        })?;
        keys.iter().map(|key| self.current(map, key)).collect()
    }

    /// Bytes for [`Self::load`]; they were loaded once and have the same heads.
    pub(super) fn save(&self, kind: DocumentKind) -> Result<Vec<u8>, DocumentError> {
        let bytes = guarded(|| Ok(self.document.save()))?;
        if Self::load(kind, &bytes)?.heads()? == self.heads()? {
            Ok(bytes)
        } else {
            Err(DocumentError::OtherHeads)
        }
    }

    /// Loads bytes that this program wrote; the caller has checked that nothing changed them.
    pub(super) fn load(kind: DocumentKind, bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = guarded(|| Automerge::load(bytes))?;
        Self::around(document.with_actor(ActorId::from([0; 16])), kind)
    }
}

fn event_of(value: &Value<'_>) -> Result<EventId, DocumentError> {
    let bytes = match value {
        Value::Scalar(scalar) => match scalar.as_ref() {
            ScalarValue::Bytes(bytes) => EventId::from_slice(bytes),
            _ => None,
        },
        Value::Object(_) => None,
    };
    bytes.ok_or_else(|| DocumentError::Engine("a value that is no event".to_owned()))
}

/// Lets a test choose events on which applying panics.
#[cfg(test)]
pub(super) mod poison {
    use std::{cell::RefCell, collections::BTreeSet};

    use crate::ids::EventId;

    thread_local! {
        static POISON: RefCell<BTreeSet<EventId>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(in crate::document) fn set(events: &[EventId]) {
        POISON.with_borrow_mut(|poison| *poison = events.iter().copied().collect());
    }

    pub(super) fn holds(event: EventId) -> bool {
        POISON.with_borrow(|poison| poison.contains(&event))
    }
}
