//! One entry of an identity log and its bytes. Source: `spec/08-identity.md`, section 1.

use serde::{Deserialize, Serialize};

use crate::{
    encoding::{self, DecodeError},
    ids::{Blob, DeviceKey, EntryId, Nonce, PublicKey, ServerId, Signature},
    limits::{DEVICE_NAME_BYTES_MAX, ENTRY_BYTES_MAX},
    name::Handle,
    signing::{Domain, SecretKey},
    time::Timestamp,
};

/// Which key of the key set signs an entry. It is part of the signed bytes, so that one id never
/// has two ranks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signer {
    /// The key that the home holds for its user; of a server, its operational key.
    Home,
    /// The recovery key, which outranks the other.
    Recovery,
}

/// What an identity begins with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Genesis {
    /// The name at the home.
    pub handle: Handle,
    /// The home server, by its own claim: the server confirms it by knowing the handle.
    pub home: ServerId,
    /// The key that the home holds for this user.
    pub home_key: PublicKey,
    /// The key that the user keeps offline.
    pub recovery: Option<PublicKey>,
    /// Random: two users of one name differ, and the home derives `home_key` from it.
    pub nonce: Nonce,
}

/// What an entry does.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Op {
    /// Entry 0, and only that.
    Genesis(Genesis),
    /// Lets a device sign for the user.
    AddDevice {
        /// Its key, never in this log before.
        device: DeviceKey,
        /// What its user calls it: at most 128 bytes without control characters.
        name: String,
    },
    /// Takes that right away, for good.
    RevokeDevice {
        /// A device that has it.
        device: DeviceKey,
    },
    /// Changes the name at the home.
    SetHandle {
        /// The new one.
        handle: Handle,
    },
}

/// An entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Place in the chain, from 0.
    pub n: u64,
    /// The entry before; none in entry 0.
    pub prev: Option<EntryId>,
    /// Who signs.
    pub by: Signer,
    /// What it does.
    pub op: Op,
    /// For display.
    pub created_at: Timestamp,
}

/// An entry's bytes and signature as they travel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawEntry {
    /// Canonical bytes of the entry.
    pub entry: Blob,
    /// Over the entry's id.
    pub signature: Signature,
}

impl RawEntry {
    /// The entry's id: BLAKE3 of its bytes, whatever they are.
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId::from_bytes(*blake3::hash(self.entry.as_ref()).as_bytes())
    }
}

impl Entry {
    /// Canonical bytes; their BLAKE3 is the entry's id.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::encode(&WireEntry::from(self))
    }

    /// Reads an entry. No signature is checked.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are no entry within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        encoding::decode::<WireEntry>(bytes, ENTRY_BYTES_MAX)?.try_into()
    }

    pub(super) fn sign(&self, key: &SecretKey) -> RawEntry {
        let mut raw = RawEntry {
            entry: Blob(self.to_bytes()),
            signature: Signature::from_bytes([0; 64]),
        };
        raw.signature = key.sign(Domain::Identity, raw.id().as_bytes());
        raw
    }
}

/// One flat map: the fields of its kind and no others.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireEntry {
    v: u64,
    n: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prev: Option<EntryId>,
    by: Signer,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handle: Option<Handle>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    home: Option<ServerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    home_key: Option<PublicKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovery: Option<PublicKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<Nonce>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<DeviceKey>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    created_at: Timestamp,
}

impl From<&Entry> for WireEntry {
    fn from(entry: &Entry) -> Self {
        let mut wire = Self {
            v: 1,
            n: entry.n,
            prev: entry.prev,
            by: entry.by,
            kind: String::new(),
            handle: None,
            home: None,
            home_key: None,
            recovery: None,
            nonce: None,
            device: None,
            name: None,
            created_at: entry.created_at,
        };
        let kind = match &entry.op {
            Op::Genesis(genesis) => {
                wire.handle = Some(genesis.handle.clone());
                wire.home = Some(genesis.home);
                wire.home_key = Some(genesis.home_key);
                wire.recovery = genesis.recovery;
                wire.nonce = Some(genesis.nonce);
                "genesis"
            }
            Op::AddDevice { device, name } => {
                wire.device = Some(*device);
                wire.name = Some(name.clone());
                "add_device"
            }
            Op::RevokeDevice { device } => {
                wire.device = Some(*device);
                "revoke_device"
            }
            Op::SetHandle { handle } => {
                wire.handle = Some(handle.clone());
                "set_handle"
            }
        };
        kind.clone_into(&mut wire.kind);
        wire
    }
}

fn need<T>(field: &mut Option<T>, name: &'static str) -> Result<T, DecodeError> {
    field.take().ok_or(DecodeError::Invalid(name))
}

impl TryFrom<WireEntry> for Entry {
    type Error = DecodeError;

    fn try_from(mut wire: WireEntry) -> Result<Self, DecodeError> {
        if wire.v != 1 {
            return Err(DecodeError::UnknownVersion(wire.v));
        }
        let op = op(&mut wire)?;
        // What a kind does not take is still there.
        let left = wire.handle.is_some()
            || wire.home.is_some()
            || wire.home_key.is_some()
            || wire.recovery.is_some()
            || wire.nonce.is_some()
            || wire.device.is_some()
            || wire.name.is_some();
        if left {
            return Err(DecodeError::Invalid(
                "a field that this kind of entry does not have",
            ));
        }
        let genesis = matches!(op, Op::Genesis(_));
        if genesis != (wire.n == 0) || genesis != wire.prev.is_none() {
            return Err(DecodeError::Invalid(
                "entry 0 is the genesis, and only that has no prev",
            ));
        }
        if genesis && wire.by != Signer::Home {
            return Err(DecodeError::Invalid("the home signs the genesis"));
        }
        Ok(Self {
            n: wire.n,
            prev: wire.prev,
            by: wire.by,
            op,
            created_at: wire.created_at,
        })
    }
}

fn op(wire: &mut WireEntry) -> Result<Op, DecodeError> {
    Ok(match wire.kind.as_str() {
        "genesis" => Op::Genesis(Genesis {
            handle: need(&mut wire.handle, "genesis without handle")?,
            home: need(&mut wire.home, "genesis without home")?,
            home_key: need(&mut wire.home_key, "genesis without home_key")?,
            recovery: wire.recovery.take(),
            nonce: need(&mut wire.nonce, "genesis without nonce")?,
        }),
        "add_device" => Op::AddDevice {
            device: need(&mut wire.device, "add_device without device")?,
            name: device_name(need(&mut wire.name, "add_device without name")?)?,
        },
        "revoke_device" => Op::RevokeDevice {
            device: need(&mut wire.device, "revoke_device without device")?,
        },
        "set_handle" => Op::SetHandle {
            handle: need(&mut wire.handle, "set_handle without handle")?,
        },
        _ => return Err(DecodeError::Invalid("unknown kind of entry")),
    })
}

fn device_name(name: String) -> Result<String, DecodeError> {
    if name.len() > DEVICE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(DecodeError::Invalid("device name"));
    }
    Ok(name)
}
