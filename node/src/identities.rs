//! Identity logs held here, of local and remote users, bounded in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use comity_protocol::{
    encoding,
    identity::{IdentityError, IdentityLog, RawEntry},
    ids::{Blob, DeviceKey, UserId},
    limits::ENTRY_BYTES_MAX,
    link::Identity,
};
use comity_storage::{ReadError, Record};

use crate::{
    records::{IdentityRecord, kind, record},
    rows::Rows,
};

/// Logs kept in memory; the others are read again when needed.
const CACHED_LOGS: usize = 50_000;

/// A signed entry with its framing.
const RAW_ENTRY_BYTES_MAX: usize = ENTRY_BYTES_MAX + 256;

/// The form in which logs travel and are stored.
pub(crate) fn to_blobs(log: &IdentityLog) -> Identity {
    log.entries()
        .map(|entry| Blob(encoding::encode(entry)))
        .collect()
}

/// Reads that form; entries that cannot be read are refused with the log.
pub(crate) fn from_blobs(blobs: &[Blob]) -> Option<Vec<RawEntry>> {
    blobs
        .iter()
        .map(|blob| encoding::decode(&blob.0, RAW_ENTRY_BYTES_MAX).ok())
        .collect()
}

/// All identity logs, behind a cache.
#[derive(Debug)]
pub(crate) struct Identities {
    rows: Rows,
    cache: Mutex<BTreeMap<UserId, Arc<IdentityLog>>>,
}

impl Identities {
    pub(crate) fn new(rows: Rows) -> Self {
        Self {
            rows,
            cache: Mutex::default(),
        }
    }

    fn cache(&self) -> MutexGuard<'_, BTreeMap<UserId, Arc<IdentityLog>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of a user, if held.
    pub(crate) fn get(&self, user: &UserId) -> Result<Option<Arc<IdentityLog>>, ReadError> {
        if let Some(log) = self.cache().get(user) {
            return Ok(Some(Arc::clone(log)));
        }
        let Some(blobs) = self.rows.identity(user)? else {
            return Ok(None);
        };
        let log = from_blobs(&blobs).and_then(|raw| IdentityLog::from_trusted(&raw).ok());
        Ok(log.map(|log| self.keep(log)))
    }

    /// Takes a log that is durable, or about to be.
    pub(crate) fn keep(&self, log: IdentityLog) -> Arc<IdentityLog> {
        let log = Arc::new(log);
        let mut cache = self.cache();
        if cache.len() >= CACHED_LOGS {
            cache.pop_first();
        }
        cache.insert(log.user(), Arc::clone(&log));
        log
    }

    /// Takes no note any more of logs that could not be stored: what is stored is read again.
    pub(crate) fn forget(&self, users: &[UserId]) {
        let mut cache = self.cache();
        for user in users {
            cache.remove(user);
        }
    }

    /// Whether a device's key occurs in a user's log; `None` while the log is not held.
    pub(crate) fn had_device(
        &self,
        user: &UserId,
        device: &DeviceKey,
    ) -> Result<Option<bool>, ReadError> {
        Ok(self.get(user)?.map(|log| log.had_device(device)))
    }

    /// Verifies a log from a peer, merges it with what is held and gives the record that makes the
    /// news durable. `None` if nothing is new.
    pub(crate) fn learn(&self, blobs: &[Blob]) -> Result<Option<(UserId, Record)>, IdentityError> {
        let entries = from_blobs(blobs).ok_or(IdentityError::NotGenesis)?;
        let held = entries
            .first()
            .map(|genesis| UserId::from_bytes(*genesis.id().as_bytes()))
            .and_then(|user| self.get(&user).ok().flatten());
        let log = match held {
            None => IdentityLog::verify(&entries)?,
            Some(held) => {
                if entries.iter().all(|entry| held.contains(&entry.id())) {
                    return Ok(None);
                }
                let mut log = (*held).clone();
                for entry in &entries[1..] {
                    log.extend(entry)?;
                }
                log
            }
        };
        let body = IdentityRecord {
            user: log.user(),
            entries: to_blobs(&log),
        };
        let record = record(kind::IDENTITY, &body, Vec::new());
        let user = log.user();
        self.keep(log);
        Ok(Some((user, record)))
    }
}
