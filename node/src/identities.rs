//! Identity logs held here, of local and remote users, bounded in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use comity_protocol::{
    identity::IdentityLog,
    ids::{DeviceKey, UserId},
};
use comity_storage::{ReadError, Record};

use crate::{
    records::{IdentityRecord, kind, record},
    rows::Rows,
};

/// Logs kept in memory; the others are read again when needed.
const CACHED_LOGS: usize = 50_000;

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
        let log =
            IdentityLog::read_travel(&blobs).and_then(|raw| IdentityLog::from_trusted(&raw).ok());
        Ok(log.map(|log| self.keep(log)))
    }

    /// Takes a log that is durable, or about to be.
    pub(crate) fn keep(&self, log: impl Into<Arc<IdentityLog>>) -> Arc<IdentityLog> {
        let log = log.into();
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
}

/// The record that makes a log durable.
pub(crate) fn record_of(log: &IdentityLog) -> Record {
    let body = IdentityRecord {
        user: log.user(),
        entries: log.to_travel(),
    };
    record(kind::IDENTITY, &body, Vec::new())
}
