//! The document of a pack: what happened to its messages.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Applied, Change, ChangeKind, DocumentError, DocumentKind, Heads, Seen,
    change::{id_key, reactions_prefix, shard_hash},
    engine::Map,
    merge::{Merge, last_first},
};
use crate::{
    event::ContentRef,
    ids::{EventId, UserId},
};

/// An edit of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edited {
    /// The edit.
    pub event: EventId,
    /// The content it puts in place of the message's.
    pub content: ContentRef,
    /// Who made it.
    pub author: UserId,
}

/// What happened to one message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MessageState {
    /// The edit that counts; none: the message reads as it was written.
    pub edit: Option<Edited>,
    /// Edits concurrent with it that lost, the last in the order first: their authors are told.
    pub lost: Vec<Edited>,
    /// A deletion: the one with the greatest id. The message has no edits or reactions then,
    /// whenever these were made.
    pub deleted_by: Option<EventId>,
    /// Who reacted, by emoji: both strictly increasing, and nobody without anybody.
    pub reactions: Vec<(String, Vec<UserId>)>,
    /// Those of them that were to another version than the one that is shown now: in the same
    /// order, and without emoji that nobody put on another one.
    pub older: Vec<(String, Vec<UserId>)>,
}

/// Edits, reactions and deletions of the messages of one pack.
#[derive(Debug)]
pub struct PackDocument(Merge);

fn target(kind: &ChangeKind) -> Option<EventId> {
    match kind {
        ChangeKind::Edit { target, .. }
        | ChangeKind::Delete { target, .. }
        | ChangeKind::React { target, .. } => Some(*target),
        ChangeKind::State { .. } | ChangeKind::Pin { .. } | ChangeKind::Name { .. } => None,
    }
}

impl Default for PackDocument {
    fn default() -> Self {
        Self::new()
    }
}

impl PackDocument {
    /// A document without changes.
    #[must_use]
    pub fn new() -> Self {
        Self(Merge::new(DocumentKind::Pack))
    }

    /// A document of these changes, in any order. Of more than it may hold it takes those with
    /// the lowest event ids.
    pub fn rebuild(
        changes: impl IntoIterator<Item = Change>,
        seen: &Seen<'_>,
    ) -> (Self, Applied<EventId>) {
        let (merge, applied) = Merge::rebuilt(DocumentKind::Pack, changes, seen, target);
        (Self(merge), applied)
    }

    /// Takes changes; the larger the batch, the less each costs. In causal order this is cheap;
    /// a change that comes after one that has seen it costs a rebuild, once for the batch.
    /// Deletions may come in any order. Returns the messages that may read otherwise now.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        seen: &Seen<'_>,
    ) -> Applied<EventId> {
        self.0.apply(changes, seen, target)
    }

    /// Forgets events that turned void: the document is as if they had never come.
    pub fn remove(&mut self, events: &[EventId], seen: &Seen<'_>) -> Applied<EventId> {
        self.0.remove(events, seen, target)
    }

    /// What happened to a message.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Engine`]; rebuild the document.
    pub fn message(&self, target: EventId) -> Result<MessageState, DocumentError> {
        let hash = shard_hash(target.as_bytes());
        let key = id_key(target.as_bytes());
        let deletions = self.0.part(hash, true).current(Map::Deletions, &key)?;
        if let Some(deletion) = deletions.into_iter().max() {
            // Edits and reactions stay in the document, and stay dead.
            return Ok(MessageState {
                deleted_by: Some(deletion),
                ..MessageState::default()
            });
        }
        let part = self.0.part(hash, false);
        let mut edits = self.0.resolve(part.current(Map::Edits, &key)?)?;
        last_first(&mut edits);
        let mut edits = edits.into_iter().filter_map(edited);
        let edit = edits.next();
        let lost = edits.collect();
        let shown = edit.map(|edit| edit.event);
        let mut reactions: BTreeMap<String, BTreeSet<UserId>> = BTreeMap::new();
        let mut older = reactions.clone();
        for events in part.current_under(Map::Reactions, &reactions_prefix(target))? {
            let standing = self.0.resolve(events)?;
            let on = standing.iter().filter_map(|change| match &change.kind {
                ChangeKind::React {
                    emoji,
                    user,
                    on: true,
                    version,
                    ..
                } => Some((emoji, *user, *version)),
                _ => None,
            });
            let on: Vec<_> = on.collect();
            // All are of one user and emoji: the key says so.
            let Some((emoji, user, _)) = on.first() else {
                continue;
            };
            let put = |among: &mut BTreeMap<String, BTreeSet<UserId>>| {
                among.entry((*emoji).clone()).or_default().insert(*user);
            };
            put(&mut reactions);
            if on.iter().all(|(_, _, version)| *version != shown) {
                put(&mut older);
            }
        }
        let listed = |among: BTreeMap<String, BTreeSet<UserId>>| {
            let listed = among.into_iter();
            listed
                .map(|(emoji, users)| (emoji, users.into_iter().collect()))
                .collect()
        };
        Ok(MessageState {
            edit,
            lost,
            deleted_by: None,
            reactions: listed(reactions),
            older: listed(older),
        })
    }

    /// The messages that something happened to.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<EventId> {
        self.0.changes().filter_map(|c| target(&c.kind)).collect()
    }

    /// Heads, for comparing documents.
    #[must_use]
    pub fn heads(&self) -> Heads {
        self.0.heads()
    }

    /// How many changes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Memory held, roughly, in bytes.
    #[must_use]
    pub fn bytes_estimate(&self) -> usize {
        self.0.bytes_estimate()
    }

    /// Whether it holds this event.
    #[must_use]
    pub fn contains(&self, event: EventId) -> bool {
        self.0.change(event).is_some()
    }

    /// A snapshot, which was loaded once and compared.
    ///
    /// # Errors
    ///
    /// [`DocumentError`]; keep the snapshot before, or none, and rebuild the document.
    pub fn save(&self) -> Result<Vec<u8>, DocumentError> {
        self.0.save()
    }

    /// Reads a snapshot that this program wrote of a document with these heads.
    ///
    /// # Errors
    ///
    /// [`DocumentError`]; rebuild from the changes instead.
    pub fn load(snapshot: &[u8], expected: &Heads) -> Result<Self, DocumentError> {
        Merge::load(DocumentKind::Pack, snapshot, expected).map(Self)
    }
}

fn edited(change: &Change) -> Option<Edited> {
    match change.kind {
        ChangeKind::Edit {
            content, author, ..
        } => Some(Edited {
            event: change.event,
            content,
            author,
        }),
        _ => None,
    }
}
