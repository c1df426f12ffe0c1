//! What an identity log says after one of its entries.

use std::collections::BTreeMap;

use super::{Genesis, IdentityError, Op};
use crate::{
    ids::{DeviceKey, EntryId, PublicKey, ServerId},
    name::Handle,
    time::Timestamp,
};

/// A device as the log describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Its key.
    pub key: DeviceKey,
    /// What its user calls it.
    pub name: String,
    /// When the entry that added it was made, by that entry.
    pub added_at: Timestamp,
}

/// Fold of one chain of entries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct State {
    pub(super) handle: Handle,
    pub(super) home: ServerId,
    pub(super) home_key: PublicKey,
    pub(super) recovery: Option<PublicKey>,
    /// Every device that the chain added, by the entry that did; none once revoked.
    devices: BTreeMap<DeviceKey, Option<EntryId>>,
}

impl State {
    pub(super) fn new(genesis: &Genesis) -> Self {
        Self {
            handle: genesis.handle.clone(),
            home: genesis.home,
            home_key: genesis.home_key,
            recovery: genesis.recovery,
            devices: BTreeMap::new(),
        }
    }

    /// Whether an entry may follow this state.
    pub(super) fn check(&self, op: &Op) -> Result<(), IdentityError> {
        match op {
            Op::Genesis(_) => Err(IdentityError::OtherGenesis),
            // A key once revoked stays revoked: it may be in other hands.
            Op::AddDevice { device, .. } if self.devices.contains_key(device) => {
                Err(IdentityError::DeviceAgain)
            }
            Op::RevokeDevice { device } if !self.is_current(device) => {
                Err(IdentityError::NoSuchDevice)
            }
            _ => Ok(()),
        }
    }

    /// Applies an entry that passed [`Self::check`].
    pub(super) fn apply(&mut self, id: EntryId, op: &Op) {
        match op {
            Op::Genesis(_) => {}
            Op::AddDevice { device, .. } => {
                self.devices.insert(*device, Some(id));
            }
            Op::RevokeDevice { device } => {
                self.devices.insert(*device, None);
            }
            Op::SetHandle { handle } => self.handle = handle.clone(),
        }
    }

    /// The entries that added what are devices now, by device.
    pub(super) fn current(&self) -> impl Iterator<Item = EntryId> {
        self.devices.values().filter_map(|by| *by)
    }

    pub(super) fn is_current(&self, device: &DeviceKey) -> bool {
        matches!(self.devices.get(device), Some(Some(_)))
    }
}
