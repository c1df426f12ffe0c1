//! Documents: the merge of everything that can *change* after it was said.
//! Source: `spec/03-history-and-documents.md`, part "Documents".
//!
//! A document is a pure function of a set of typed, validated [`Change`]s and of the causal order
//! between them: arrival order, batching and restarts leave no trace. It is a cache that every
//! server builds for itself and never sends; equal [`Heads`] mean equal sets.
//!
//! Automerge does the merging. It is called from the private module `engine` only, is handed
//! nothing but changes built here from typed fields, and never sees a byte from outside.

mod change;
mod engine;
mod heads;
mod limits;
mod merge;
mod order;
mod pack;
mod part;
mod snapshot;
mod state;

pub use change::{Change, ChangeKind, DocumentKind};
pub use heads::Heads;
pub use limits::{
    CHANGES_MAX, DELETIONS_MAX, KEY_BYTES_MAX, LANES_MAX, QUARANTINE_MAX, SHARDS,
    SNAPSHOT_BYTES_MAX, SPLIT_ABOVE,
};
pub use pack::{Edited, MessageState, PackDocument};
pub use state::{Register, StateDocument, StateKey, StateView};

use std::collections::BTreeSet;

use crate::ids::EventId;

/// Whether the first event is causally before the second.
///
/// The answer must be a strict partial order, must not change while a document lives, must order
/// the changes of one home totally, and must be closed along that chain: who has seen an event has
/// seen the earlier ones there. Wrong answers give a wrong document, never a panic.
/// A caller asks a commit's events as if each had seen those before it in the same commit.
pub type Seen<'a> = dyn Fn(EventId, EventId) -> bool + 'a;

/// What a call changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied<T> {
    /// What may now read otherwise than before.
    pub touched: BTreeSet<T>,
    /// Changes that are not in the document, and why. Repeated ones are not listed.
    pub refused: Vec<Refused>,
}

impl<T> Default for Applied<T> {
    fn default() -> Self {
        Self {
            touched: BTreeSet::new(),
            refused: Vec::new(),
        }
    }
}

/// A change that was not taken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Refused {
    /// Its event.
    pub event: EventId,
    /// Why.
    pub why: Refusal,
}

/// Why a change was not taken. The document and all other changes are as if it never came.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A change of another kind of document.
    #[error("not a change of this kind of document")]
    OtherDocument,
    /// An emoji or a field's name outside its limits.
    #[error("a key outside the limits")]
    Key,
    /// The event is here already as another home, epoch or place accepted it.
    #[error("the event is here with another origin or place")]
    OtherAppearance,
    /// The document holds all the changes it may.
    #[error("the document is full")]
    Full,
    /// Changes of more homes than one part of a document tells apart.
    #[error("changes of more than {LANES_MAX} homes")]
    TooManyLanes,
    /// Automerge failed on this change; the document was rebuilt without it.
    #[error("the merge failed on this change")]
    Quarantined,
}

/// Why a document could not be read, saved or loaded. It is left as it was; the remedy is
/// to rebuild it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Automerge failed or panicked.
    #[error("the merge engine failed: {0}")]
    Engine(String),
    /// A snapshot that this program did not write, or not whole.
    #[error("damaged snapshot: {0}")]
    Snapshot(&'static str),
    /// A snapshot of another set of changes than expected.
    #[error("the snapshot's heads are not the expected ones")]
    OtherHeads,
}

#[cfg(test)]
mod tests;
