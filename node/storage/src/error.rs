//! Why a call was refused, each with the state it leaves behind.

use std::{io, path::PathBuf, sync::Arc};

/// Why a storage could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another value in this one, holds the directory. Nothing was touched.
    #[error("the directory is in use: {}", .0.display())]
    InUse(PathBuf),
    /// A file of a version this build does not know. Nothing was touched.
    #[error("unknown format version {version} in {}", file.display())]
    UnknownFormat {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u16,
    },
    /// A log file that belongs to another storage. Nothing was touched.
    #[error("log file of another storage: {}", .0.display())]
    Foreign(PathBuf),
    /// A setting out of its range. Nothing was touched.
    #[error("setting out of range: {0}")]
    Config(&'static str),
    /// The projection panicked on this record, or the index failed twice. The log is as it was.
    #[error("cannot apply record {number} to the index: {reason}")]
    Apply {
        /// Record number.
        number: u64,
        /// What was reported.
        reason: String,
    },
    /// The files could not be read or written. The log is as it was.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Why records were not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// No room on the disk. Nothing was written; the same records are taken once there is room,
    /// without a restart.
    #[error("the disk is full")]
    Full,
    /// A write or a sync failed, or rows could not be applied. Records in flight at that moment
    /// may or may not be found after the restart that is needed; later ones were not written.
    #[error("read-only until restart: {0}")]
    ReadOnly(Arc<str>),
    /// Over one of the limits. Nothing was written.
    #[error("submission over the limit of {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// What it counts.
        unit: &'static str,
    },
    /// Too much is waiting already. Nothing was written; try again later.
    #[error("too many records are waiting")]
    QueueFull,
    /// The storage was closed. Nothing was written.
    #[error("the storage is closed")]
    Closed,
}

/// Why rows could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A row does not match its checksum, or the index cannot read its files. It is rebuilt at the
    /// next open.
    #[error("the index is damaged: {0}")]
    Damaged(Arc<str>),
    /// The operating system refused.
    #[error("cannot read the index")]
    Io(#[source] Arc<io::Error>),
}

/// Why a content could not be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Erased, or dropped by compaction.
    #[error("the content is gone")]
    Gone,
    /// No such record, or it has no content of that index.
    #[error("there is no such content")]
    NotFound,
    /// The bytes do not match their checksum: ask somebody else for them.
    #[error("the content is damaged")]
    Damaged,
    /// The index could not be read.
    #[error("cannot find the content")]
    Index(#[source] ReadError),
    /// The operating system refused.
    #[error("cannot read the content")]
    Io(#[source] Arc<io::Error>),
}
