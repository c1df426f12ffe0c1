//! Rows: an ordered map from bytes to bytes that may lose its newest writes, behind one narrow
//! trait. Nothing rests on it that the log could not give back.

pub(crate) mod memory;
pub(crate) mod rows;
pub(crate) mod sled;

#[cfg(test)]
mod conformance;

use std::{collections::BTreeMap, io, ops::Bound, sync::Arc};

/// Bounds of a scan over keys.
pub(crate) type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);
/// Changes of one batch: `None` deletes.
pub(crate) type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Key and value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From the lowest key up.
    Forward,
    /// From the highest key down.
    Reverse,
}

/// Why a store failed. It is not used further, except to read.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// It cannot be trusted: rebuild it.
    #[error("{0}")]
    Damaged(Arc<str>),
    /// The operating system refused.
    #[error(transparent)]
    Io(Arc<io::Error>),
}

/// An ordered map of bytes. Batches are atomic and read back at once; they are durable in order,
/// at the latest with the next savepoint.
pub(crate) trait Store: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Up to `limit` rows of the range, in the direction's order.
    fn scan(
        &self,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError>;
    /// Applies all changes or none.
    fn apply(&self, batch: &Batch) -> Result<(), StoreError>;
    /// Makes everything applied so far durable.
    fn savepoint(&self) -> Result<(), StoreError>;
    /// Bytes on disk.
    fn bytes(&self) -> u64;
}

/// Whether no key can lie in the range. A store may treat such a range as a fault of its caller.
pub(crate) fn is_empty_range((low, high): &KeyRange) -> bool {
    match (low, high) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
    }
}
