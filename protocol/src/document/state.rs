//! The document of a conversation's state: its fields, pins and display names.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Applied, Change, ChangeKind, DocumentError, DocumentKind, Heads, Seen,
    merge::{Merge, last_first},
};
use crate::{
    event::ContentRef,
    ids::{EventId, UserId},
};

/// Something that the state has one value for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum StateKey {
    /// A field of the conversation.
    Field(String),
    /// Whether a message is pinned.
    Pin(EventId),
    /// A user's display name here.
    Name(UserId),
}

/// A value with those that lost against it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Register {
    /// The event that counts.
    pub event: EventId,
    /// Its value; none: cleared.
    pub value: Option<ContentRef>,
    /// Events concurrent with it that lost, and their values, the last in the order first.
    pub lost: Vec<(EventId, Option<ContentRef>)>,
}

/// The whole state.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StateView {
    /// Fields that were ever set, cleared ones included.
    pub fields: BTreeMap<String, Register>,
    /// Pinned messages.
    pub pins: BTreeSet<EventId>,
    /// Display names that were ever set, cleared ones included.
    pub names: BTreeMap<UserId, Register>,
}

/// Fields, pins and names of one conversation.
#[derive(Debug)]
pub struct StateDocument(Merge);

fn key(kind: &ChangeKind) -> Option<StateKey> {
    match kind {
        ChangeKind::State { field, .. } => Some(StateKey::Field(field.clone())),
        ChangeKind::Pin { target, .. } => Some(StateKey::Pin(*target)),
        ChangeKind::Name { user, .. } => Some(StateKey::Name(*user)),
        ChangeKind::Edit { .. } | ChangeKind::Delete { .. } | ChangeKind::React { .. } => None,
    }
}

impl Default for StateDocument {
    fn default() -> Self {
        Self::new()
    }
}

impl StateDocument {
    /// A document without changes.
    #[must_use]
    pub fn new() -> Self {
        Self(Merge::new(DocumentKind::State))
    }

    /// What a change is about; none if it belongs to another kind of document.
    #[must_use]
    pub fn key_of(kind: &ChangeKind) -> Option<StateKey> {
        key(kind)
    }

    /// A document of these changes, in any order. Of more than it may hold it takes those with
    /// the lowest event ids.
    pub fn rebuild(
        changes: impl IntoIterator<Item = Change>,
        seen: &Seen<'_>,
    ) -> (Self, Applied<StateKey>) {
        let (merge, applied) = Merge::rebuilt(DocumentKind::State, changes, seen, key);
        (Self(merge), applied)
    }

    /// Takes changes; see [`super::PackDocument::apply`].
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
        seen: &Seen<'_>,
    ) -> Applied<StateKey> {
        self.0.apply(changes, seen, key)
    }

    /// Forgets events that turned void: the document is as if they had never come.
    pub fn remove(&mut self, events: &[EventId], seen: &Seen<'_>) -> Applied<StateKey> {
        self.0.remove(events, seen, key)
    }

    /// The state.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Engine`]; rebuild the document.
    pub fn state(&self) -> Result<StateView, DocumentError> {
        let mut view = StateView::default();
        for (map, part) in self.0.parts().iter().flat_map(|part| {
            DocumentKind::State
                .maps()
                .into_iter()
                .map(move |map| (map, part))
        }) {
            for events in part.current_under(map, "")? {
                let mut standing = self.0.resolve(events)?;
                last_first(&mut standing);
                read(&standing, &mut view);
            }
        }
        Ok(view)
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
        Merge::load(DocumentKind::State, snapshot, expected).map(Self)
    }
}

/// Reads what stands on one key, the winner first.
fn read(standing: &[&Change], view: &mut StateView) {
    let Some(winner) = standing.first() else {
        return;
    };
    let register = || {
        let value = |change: &Change| match change.kind {
            ChangeKind::State { value, .. } | ChangeKind::Name { value, .. } => value,
            _ => None,
        };
        let lost = standing[1..].iter().map(|c| (c.event, value(c)));
        Register {
            event: winner.event,
            value: value(winner),
            lost: lost.collect(),
        }
    };
    match &winner.kind {
        ChangeKind::State { field, .. } => {
            view.fields.insert(field.clone(), register());
        }
        ChangeKind::Name { user, .. } => {
            view.names.insert(*user, register());
        }
        ChangeKind::Pin { target, .. } => {
            let pins = |change: &&Change| matches!(change.kind, ChangeKind::Pin { on: true, .. });
            if standing.iter().any(pins) {
                view.pins.insert(*target);
            }
        }
        ChangeKind::Edit { .. } | ChangeKind::Delete { .. } | ChangeKind::React { .. } => {}
    }
}
