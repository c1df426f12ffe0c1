//! Snapshots: a document as this program keeps it for itself. They never travel.
//!
//! DAG-CBOR followed by its BLAKE3, which finds what a disk did to it before Automerge sees it.
//! Loading builds every change again from its typed form and compares heads, so a snapshot that
//! loads is the document that the changes in it make.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Change, ChangeKind, DocumentError, DocumentKind, Heads,
    limits::{CHANGES_MAX, DELETIONS_MAX, SNAPSHOT_BYTES_MAX},
    merge::{Merge, entry},
    part::{Node, Part},
};
use crate::{
    encoding,
    event::ContentRef,
    ids::{Blob, CommitId, ContentHash, EventId, ServerId, UserId},
    session::Place,
    time::Hlc,
};

const VERSION: u8 = 2;
const SUM_BYTES: usize = 32;

#[derive(Deserialize, Serialize)]
struct Snapshot {
    v: u8,
    kind: u8,
    /// 32-byte ids that occur more than once, named by their index below.
    ids: Blob,
    parts: Vec<PartSnapshot>,
}

#[derive(Deserialize, Serialize)]
struct PartSnapshot {
    entries: Vec<EntrySnapshot>,
    document: Blob,
}

/// Event, home, epoch, what changes, and what was seen beyond the past of the lane's entry before:
/// `(lane, count)`.
#[derive(Deserialize, Serialize)]
struct EntrySnapshot(EventId, u32, u64, KindSnapshot, Vec<(u32, u32)>);

#[derive(Deserialize, Serialize)]
struct Content(ContentHash, u32);

#[derive(Deserialize, Serialize)]
struct At(u64, CommitId, u16);

#[derive(Deserialize, Serialize)]
enum KindSnapshot {
    #[serde(rename = "e")]
    Edit(u32, Content, u32, At),
    #[serde(rename = "d")]
    Delete(u32, u32),
    #[serde(rename = "r")]
    React(u32, String, u32, bool, Option<u32>),
    #[serde(rename = "s")]
    State(String, Option<Content>, At),
    #[serde(rename = "p")]
    Pin(u32, bool),
    #[serde(rename = "n")]
    Name(u32, Option<Content>, At),
}

impl From<ContentRef> for Content {
    fn from(content: ContentRef) -> Self {
        Self(content.hash, content.len)
    }
}

impl From<Content> for ContentRef {
    fn from(content: Content) -> Self {
        Self {
            hash: content.0,
            len: content.1,
        }
    }
}

impl From<Place> for At {
    fn from(place: Place) -> Self {
        Self(place.hlc.to_bits(), place.commit, place.index)
    }
}

impl From<At> for Place {
    fn from(at: At) -> Self {
        Self {
            hlc: Hlc::from_bits(at.0),
            commit: at.1,
            index: at.2,
        }
    }
}

/// Gives ids short names while writing.
#[derive(Default)]
struct Names {
    bytes: Vec<u8>,
    index: BTreeMap<[u8; 32], u32>,
}

impl Names {
    fn name(&mut self, id: &[u8; 32]) -> u32 {
        let next = u32::try_from(self.index.len()).expect("fewer ids than five times CHANGES_MAX");
        *self.index.entry(*id).or_insert_with(|| {
            self.bytes.extend_from_slice(id);
            next
        })
    }

    fn kind(&mut self, kind: &ChangeKind) -> KindSnapshot {
        match kind {
            ChangeKind::Edit {
                target,
                content,
                author,
                at,
            } => KindSnapshot::Edit(
                self.name(target.as_bytes()),
                (*content).into(),
                self.name(author.as_bytes()),
                (*at).into(),
            ),
            ChangeKind::Delete { target, by } => {
                KindSnapshot::Delete(self.name(target.as_bytes()), self.name(by.as_bytes()))
            }
            ChangeKind::React {
                target,
                emoji,
                user,
                on,
                version,
            } => KindSnapshot::React(
                self.name(target.as_bytes()),
                emoji.clone(),
                self.name(user.as_bytes()),
                *on,
                version.map(|version| self.name(version.as_bytes())),
            ),
            ChangeKind::State { field, value, at } => {
                KindSnapshot::State(field.clone(), value.map(Content::from), (*at).into())
            }
            ChangeKind::Pin { target, on } => KindSnapshot::Pin(self.name(target.as_bytes()), *on),
            ChangeKind::Name { user, value, at } => KindSnapshot::Name(
                self.name(user.as_bytes()),
                value.map(Content::from),
                (*at).into(),
            ),
        }
    }
}

/// Gives names their ids back while reading.
struct Ids<'a>(&'a [u8]);

impl Ids<'_> {
    fn id(&self, name: u32) -> Result<[u8; 32], DocumentError> {
        let (ids, _) = self.0.as_chunks::<32>();
        let id = ids.get(name as usize).copied();
        id.ok_or(DocumentError::Snapshot("an unknown id"))
    }

    fn event(&self, name: u32) -> Result<EventId, DocumentError> {
        self.id(name).map(EventId::from_bytes)
    }

    fn user(&self, name: u32) -> Result<UserId, DocumentError> {
        self.id(name).map(UserId::from_bytes)
    }

    fn kind(&self, kind: KindSnapshot) -> Result<ChangeKind, DocumentError> {
        Ok(match kind {
            KindSnapshot::Edit(target, content, author, at) => ChangeKind::Edit {
                target: self.event(target)?,
                content: content.into(),
                author: self.user(author)?,
                at: at.into(),
            },
            KindSnapshot::Delete(target, by) => ChangeKind::Delete {
                target: self.event(target)?,
                by: self.user(by)?,
            },
            KindSnapshot::React(target, emoji, user, on, version) => ChangeKind::React {
                target: self.event(target)?,
                emoji,
                user: self.user(user)?,
                on,
                version: version.map(|version| self.event(version)).transpose()?,
            },
            KindSnapshot::State(field, value, at) => ChangeKind::State {
                field,
                value: value.map(ContentRef::from),
                at: at.into(),
            },
            KindSnapshot::Pin(target, on) => ChangeKind::Pin {
                target: self.event(target)?,
                on,
            },
            KindSnapshot::Name(user, value, at) => ChangeKind::Name {
                user: self.user(user)?,
                value: value.map(ContentRef::from),
                at: at.into(),
            },
        })
    }
}

const fn kind_number(kind: DocumentKind) -> u8 {
    match kind {
        DocumentKind::Pack => 0,
        DocumentKind::State => 1,
    }
}

/// What a node has seen beyond the node before it in its lane.
fn news(part: &Part, node: &Node) -> Vec<(u32, u32)> {
    let base = part.lane_clock(node.lane, node.position);
    let lanes = (0u32..).zip(&node.clock);
    let more = lanes.filter(|(lane, count)| base.get(*lane as usize) != Some(count));
    more.filter(|(_, count)| **count > 0)
        .map(|(lane, count)| (lane, *count))
        .collect()
}

impl Merge {
    pub(super) fn save(&self) -> Result<Vec<u8>, DocumentError> {
        let mut names = Names::default();
        let mut parts = Vec::new();
        for part in self.parts() {
            let mut entries = Vec::new();
            for node in part.nodes() {
                let change = self
                    .change(node.event)
                    .ok_or_else(|| DocumentError::Engine("an event that is not here".to_owned()))?;
                let home = names.name(change.home.as_bytes());
                let kind = names.kind(&change.kind);
                let news = news(part, node);
                entries.push(EntrySnapshot(node.event, home, change.epoch, kind, news));
            }
            parts.push(PartSnapshot {
                entries,
                document: Blob(part.save()?),
            });
        }
        let mut bytes = encoding::encode(&Snapshot {
            v: VERSION,
            kind: kind_number(self.kind()),
            ids: Blob(names.bytes),
            parts,
        });
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        Ok(bytes)
    }

    pub(super) fn load(
        kind: DocumentKind,
        bytes: &[u8],
        expected: &Heads,
    ) -> Result<Self, DocumentError> {
        let damaged = DocumentError::Snapshot;
        let (body, sum) = bytes
            .split_last_chunk::<SUM_BYTES>()
            .ok_or(damaged("too short"))?;
        if blake3::hash(body).as_bytes() != sum {
            return Err(damaged("checksum"));
        }
        let snapshot: Snapshot = encoding::decode_frame(body, SNAPSHOT_BYTES_MAX)
            .map_err(|_| damaged("not the form of a snapshot"))?;
        if snapshot.v != VERSION || snapshot.kind != kind_number(kind) {
            return Err(damaged("another version or kind"));
        }
        let total: usize = snapshot.parts.iter().map(|part| part.entries.len()).sum();
        let count = Self::parts_for(total);
        if total > CHANGES_MAX + DELETIONS_MAX || snapshot.parts.len() != count {
            return Err(damaged("number of parts or changes"));
        }
        let ids = Ids(&snapshot.ids.0);
        let mut changes = Vec::with_capacity(total);
        let mut parts = Vec::with_capacity(count);
        for (at, saved) in snapshot.parts.into_iter().enumerate() {
            let mut part = Part::new(kind);
            for saved in saved.entries {
                let change = restore(&mut part, saved, &ids)?;
                if change.kind.document() != kind || Self::part_of(count, &change.kind) != at {
                    return Err(damaged("a change in another's place"));
                }
                changes.push(change);
            }
            part.adopt(&saved.document.0)?;
            parts.push(part);
        }
        let merge = Self::of_parts(kind, changes, parts);
        if merge.len() != total {
            return Err(damaged("an event twice"));
        }
        if merge.heads() != *expected {
            return Err(DocumentError::OtherHeads);
        }
        Ok(merge)
    }
}

/// Adds a saved entry to its part, as it was added the first time.
fn restore(
    part: &mut Part,
    EntrySnapshot(event, home, epoch, kind, news): EntrySnapshot,
    ids: &Ids<'_>,
) -> Result<Change, DocumentError> {
    let change = Change {
        event,
        home: ServerId::from_bytes(ids.id(home)?),
        epoch,
        kind: ids.kind(kind)?,
    };
    let refused = |_| DocumentError::Snapshot("a change outside the limits");
    change.kind.check().map_err(refused)?;
    let entry = entry(&change);
    let mut clock = match part.lane(&entry.actor) {
        Some((lane, len)) => part.lane_clock(lane, len),
        None => part.empty_clock(),
    };
    for (lane, count) in news {
        let seen = clock.get_mut(lane as usize);
        *seen.ok_or(DocumentError::Snapshot("an unknown lane"))? = count;
    }
    if !part.holds(&clock) {
        return Err(DocumentError::Snapshot("a past that is not here"));
    }
    part.add(&entry, clock).map_err(refused)?;
    Ok(change)
}
