//! What the owner decides when a storage is opened.

use std::{path::PathBuf, time::Duration};

use crate::files::Files;

/// Settings of one storage. Nothing is read from the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; created if it is missing. One process at a time may hold it.
    pub dir: PathBuf,
    /// Names this boot of the machine, see [`boot_id`]. A change without a clean close in between
    /// means a crash of the machine: the index is then rebuilt.
    pub boot_id: String,
    /// Bytes of a log file, within [`FILE_BYTES_RANGE`](crate::FILE_BYTES_RANGE).
    pub file_bytes: u64,
    /// Bytes of the index's cache; the process needs two to seven times as much.
    pub cache_bytes: u64,
    /// Time between two savepoints while records arrive.
    pub savepoint_every: Duration,
    /// Records between two savepoints.
    pub savepoint_records: u64,
    /// Free bytes below which submissions are refused with
    /// [`Full`](crate::SubmitError::Full): the index needs room for what the log has promised.
    pub min_free_bytes: u64,
    /// Share of dead bytes, in percent, from which a full log file is compacted by itself. Above
    /// 100: never.
    pub compact_at_percent: u8,
    /// Whether the bytes of erased contents are overwritten. Off it is a store that deletes rows and
    /// nothing else: for tests that must notice the difference.
    pub overwrite_erased: bool,
    /// Where rows are kept.
    pub index: IndexKind,
    /// How files are reached.
    pub files: Files,
}

/// Where index rows are kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IndexKind {
    /// In sled, under `index/`.
    #[default]
    Sled,
    /// In memory: rebuilt from the log at every open. For tests and tools.
    Memory,
}

impl Config {
    /// Defaults for a server: 64 MiB files, 64 MiB cache, a savepoint every 30 s.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, boot_id: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            boot_id: boot_id.into(),
            file_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            savepoint_every: Duration::from_secs(30),
            savepoint_records: 500_000,
            min_free_bytes: 256 << 20,
            compact_at_percent: 60,
            overwrite_erased: true,
            index: IndexKind::Sled,
            files: Files::real(),
        }
    }
}

/// The kernel's name for this boot of the machine; empty where there is none, which is taken as a
/// crash at every start that no clean close went before.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
