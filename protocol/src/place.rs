//! Places: the one order of everything. Source: `spec/02-events-and-commits.md`, section 5.

use serde::{Deserialize, Serialize};

use crate::{ids::CommitId, time::Hlc};

/// Where an event is shown: by clock, then commit, then index. The order is the same on every
/// server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The commit's clock.
    pub hlc: Hlc,
    /// The commit.
    pub commit: CommitId,
    /// Index in the commit.
    pub index: u16,
}

impl Place {
    /// Bytes whose order is the place's: 8 + 32 + 2, big-endian.
    #[must_use]
    pub fn to_key(self) -> [u8; 42] {
        let mut key = [0; 42];
        key[..8].copy_from_slice(&self.hlc.to_bits().to_be_bytes());
        key[8..40].copy_from_slice(self.commit.as_bytes());
        key[40..].copy_from_slice(&self.index.to_be_bytes());
        key
    }

    /// Reads what [`Self::to_key`] wrote.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        Some(Self {
            hlc: Hlc::from_bits(u64::from_be_bytes(key.get(..8)?.try_into().ok()?)),
            commit: CommitId::from_slice(key.get(8..40)?)?,
            index: u16::from_be_bytes(key.get(40..)?.try_into().ok()?),
        })
    }
}
