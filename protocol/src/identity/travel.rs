//! Identity logs as servers hand them to each other and store them.

use super::{IdentityError, IdentityLog, RawEntry};
use crate::{
    encoding,
    ids::{Blob, UserId},
    limits::ENTRY_BYTES_MAX,
};

/// A signed entry with its framing.
const RAW_ENTRY_BYTES_MAX: usize = ENTRY_BYTES_MAX + 256;

impl IdentityLog {
    /// The form that travels: canonical DAG-CBOR of each signed entry, genesis first.
    #[must_use]
    pub fn to_travel(&self) -> Vec<Blob> {
        self.entries()
            .map(|entry| Blob(encoding::encode(entry)))
            .collect()
    }

    /// Reads that form without judging it; `None` if an entry cannot be read.
    #[must_use]
    pub fn read_travel(log: &[Blob]) -> Option<Vec<RawEntry>> {
        log.iter()
            .map(|blob| encoding::decode(&blob.0, RAW_ENTRY_BYTES_MAX).ok())
            .collect()
    }

    /// Whose log it claims to be.
    #[must_use]
    pub fn user_of_travel(log: &[Blob]) -> Option<UserId> {
        let genesis = Self::read_travel(log)?.first()?.id();
        Some(UserId::from_bytes(*genesis.as_bytes()))
    }

    /// Verifies a log that came and merges it with what is held of the same user: the log to be
    /// held from now on, or `None` if nothing is new.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]; what is held stays.
    pub fn merge_travel(held: Option<&Self>, log: &[Blob]) -> Result<Option<Self>, IdentityError> {
        let entries = Self::read_travel(log).ok_or(IdentityError::NotGenesis)?;
        let Some(held) = held else {
            return Self::verify(&entries).map(Some);
        };
        if entries.iter().all(|entry| held.contains(&entry.id())) {
            return Ok(None);
        }
        let mut merged = held.clone();
        for entry in entries.iter().skip(1) {
            merged.extend(entry)?;
        }
        Ok(Some(merged))
    }
}
