//! Heads: what two servers compare to learn whether their documents are the same.

use std::collections::BTreeSet;

use crate::ids::Digest;

/// Heads of a document: hashes of its changes that no other change depends on, ordered.
///
/// Equal for two documents exactly if these hold the same changes with the same causal order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Heads(pub(super) BTreeSet<[u8; 32]>);

impl Heads {
    /// How many there are; none in a document without changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the document has no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// BLAKE3 of the heads one after the other, in order: 32 bytes to store or compare.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for head in &self.0 {
            hasher.update(head);
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }
}
