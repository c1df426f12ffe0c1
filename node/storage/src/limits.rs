//! Every bound of this crate, in one place (`spec/07-storage.md`, section 9).

use std::time::Duration;

/// Contents of one record.
pub const CONTENTS_MAX: usize = 4_096;
/// Bytes of one record, body and contents together.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Records of one submission.
pub const SUBMISSION_RECORDS_MAX: usize = 1_024;
/// Bytes of one submission, bodies and contents together.
pub const SUBMISSION_BYTES_MAX: usize = 4 << 20;
/// Records the committer takes behind one `fdatasync`; a larger submission goes alone.
pub const GROUP_RECORDS_MAX: usize = 2_048;
/// Bytes the committer takes behind one `fdatasync`.
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// Records waiting for the committer.
pub const QUEUE_RECORDS_MAX: usize = 16_384;
/// Bytes waiting for the committer.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Smallest and largest log file that may be configured; places hold 32-bit offsets.
pub const FILE_BYTES_RANGE: std::ops::RangeInclusive<u64> = 4_096..=1 << 30;
/// Index rows one batch may change before it is closed at the next record boundary.
pub(crate) const BATCH_ROWS: usize = 512;
/// Index rows one batch may delete before it is closed at the next record boundary: sled needs
/// gigabytes of memory for large batches of deletes.
pub(crate) const BATCH_DELETES: usize = 100;
/// Records of one replay batch.
pub(crate) const REPLAY_RECORDS: usize = 256;
/// Bytes of one replay batch.
pub(crate) const REPLAY_BYTES: usize = 1 << 20;
/// Replayed records between two savepoints: they bound what the store has yet to write, and a
/// crash during a long rebuild goes on from there.
pub(crate) const REPLAY_SAVEPOINT: u64 = 16_384;
/// Newest places compared with the log when the index is opened.
pub(crate) const SELF_TEST_RECORDS: u64 = 1_024;
/// Erasures decided and not done, above which the committer waits for them.
pub(crate) const ERASING_MAX: usize = 65_536;
/// Log files readers keep open.
pub(crate) const OPEN_FILES_MAX: usize = 128;
/// Damages held in a report; the count goes on.
pub const DAMAGES_MAX: usize = 10_000;
/// Syncs over which the percentiles are taken.
pub(crate) const SYNC_WINDOW: usize = 1_024;
/// Pause between two attempts to prepare a log file on a full disk.
pub(crate) const FULL_RETRY: Duration = Duration::from_millis(100);
/// Bytes written between two looks at the free space.
pub(crate) const SPACE_CHECK_BYTES: u64 = 1 << 20;
