//! What storage tells about itself, as data.

use std::{path::PathBuf, sync::Arc, time::Duration};

/// A group of records that is durable and whose rows can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Durable {
    /// Number of the first record of the submission.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
}

/// Whether submissions are taken. Reads go on in every state.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Health {
    /// Yes.
    #[default]
    Ok,
    /// No, until there is room on the disk.
    Full,
    /// No, until restart.
    ReadOnly(Arc<str>),
}

/// One place where the log is not what was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Damage {
    /// The log file; where a whole file is missing, the one that follows the gap, if any.
    pub file: Option<PathBuf>,
    /// Where in the file it starts, in bytes.
    pub offset: u64,
    /// Bytes that cannot be used.
    pub bytes: u64,
    /// First record number concerned.
    pub first: u64,
    /// Last record number concerned; below `first` if no record is lost.
    pub last: u64,
    /// What is wrong.
    pub kind: DamageKind,
}

/// What is wrong at a [`Damage`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DamageKind {
    /// The records are lost.
    Records,
    /// The record is there, this content of it is not.
    Content(u16),
    /// The file's header; its records were read by the copy of the header.
    Header,
    /// Bytes that belong to no record and should be zero. Nothing is lost.
    Padding,
    /// The index had applied records that the log does not hold.
    Tail,
}

/// What opening found and did.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// Number of the newest record; the next one gets the number after it.
    pub records: u64,
    /// Records applied to the index at this open.
    pub replayed: u64,
    /// Why the index was rebuilt from the whole log, if it was.
    pub rebuilt: Option<String>,
    /// Damage in what was read: the whole log on a rebuild, else what came after the savepoint.
    pub damage: Vec<Damage>,
    /// Whether the last owner closed it.
    pub clean: bool,
    /// Bytes of an unfinished, never acknowledged write that were cut off.
    pub torn_bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

/// Result of reading everything.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Records read.
    pub records: u64,
    /// Numbers whose records compaction dropped.
    pub dropped: u64,
    /// Numbers whose records were lost, and reported as damage, before.
    pub lost: u64,
    /// Contents erased.
    pub gone: u64,
    /// What is wrong in the log, at most [`DAMAGES_MAX`](crate::DAMAGES_MAX).
    pub damage: Vec<Damage>,
    /// Index rows read.
    pub rows: u64,
    /// What is wrong in the index; it is then rebuilt at the next open.
    pub index_damage: Option<String>,
}

/// Figures of a running storage.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Number of the newest durable record.
    pub records: u64,
    /// Log files, the prepared one not counted.
    pub files: u64,
    /// Bytes written to log files.
    pub log_bytes: u64,
    /// Of these, bytes known to be erased or released.
    pub dead_bytes: u64,
    /// Groups written since opening.
    pub groups: u64,
    /// Records in the newest group.
    pub last_group_records: u64,
    /// Mean records in a group since opening.
    pub mean_group_records: f64,
    /// Median `fdatasync` of the newest 1,024, in microseconds.
    pub sync_p50_us: u64,
    /// 99th percentile of the same.
    pub sync_p99_us: u64,
    /// Durable records whose rows cannot be read yet.
    pub index_lag: u64,
    /// Bytes of the index on disk.
    pub index_bytes: u64,
    /// Record number of the newest savepoint.
    pub savepoint: u64,
    /// Records waiting to be written.
    pub queued_records: u64,
    /// Contents whose erasure is decided but not yet on the disk.
    pub pending_erasures: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Files compacted since opening.
    pub compacted_files: u64,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CompactionReport {
    /// Files replaced.
    pub files: u64,
    /// Their bytes before.
    pub bytes_before: u64,
    /// Their bytes after.
    pub bytes_after: u64,
}
