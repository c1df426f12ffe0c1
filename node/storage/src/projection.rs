//! The owner's part: what records mean in rows.

use crate::{reader::Reader, record::RecordView, tx::Tx};

/// `f(log)`: turns records into index rows.
///
/// It must be deterministic: the index is rebuilt by running it over the log again. A batch of
/// rows and the mark "applied up to record n" are written together or not at all, so a record is
/// not applied twice to the same rows; on a rebuild it starts from no rows, and contents erased
/// since are [`Gone`](crate::Content::Gone).
pub trait Projection: Send + 'static {
    /// Version of the rows. A change rebuilds the index at the next open.
    const FORMAT: u32;

    /// Writes the rows that follow from one record.
    ///
    /// A panic is caught: the storage turns read-only, and the record is tried again at the next
    /// open.
    fn apply(&mut self, number: u64, record: RecordView<'_>, tx: &mut Tx<'_>);

    /// Forgets what was learnt from rows: the index is empty, and the whole log follows.
    fn reset(&mut self) {}

    /// Says what compaction keeps of a record. `Drop` is right only if the rows would be the same
    /// without it. Called while submissions go on; it must not submit and wait.
    fn keep(&self, number: u64, record: RecordView<'_>, read: &Reader) -> Keep {
        let _ = (number, record, read);
        Keep::Whole
    }
}

/// What compaction keeps of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// Everything that was not erased.
    Whole,
    /// Kind and body; the contents become [`Gone`](crate::Content::Gone).
    WithoutContents,
    /// Nothing. The number stays known as dropped.
    Drop,
}
