//! The root chain: who owns a conversation. Record 0 makes it. Direct conversations have none.
//! Source: `spec/04-authority.md`, section 6.

mod digest;
mod proposer;
mod record;
mod steward;

pub use digest::{MemberLeaf, Members, Proof, Tree};
pub use proposer::{Heard, Proposer, StewardMessage};
pub use record::{Made, NotVerified, SignedRoot};
pub use steward::{Ballot, Choice, Declined, Note, Promise, Proposal, Signed, Steward};

use serde::{Deserialize, Serialize};

use crate::{
    encoding::{self, DecodeError, strictly_increasing},
    event::Tip,
    ids::{
        Blob, ConversationId, DeviceKey, Digest, Nonce, PublicKey, RootId, ServerId, Signature,
        UserId,
    },
    limits::{AUTHORITY_TIPS_MAX, ROOT_BYTES_MAX, STEWARDS_MAX},
    signing::{self, Domain, SecretKey, WrongSignature},
    time::Timestamp,
};

/// A root record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Version: 1.
    pub v: u64,
    /// Number in the chain.
    pub n: u64,
    /// The record before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<RootId>,
    /// The owner from here on.
    pub owner: UserId,
    /// The owner's home, which signs his commits.
    pub home: ServerId,
    /// The servers that witness the next record: 1, 3, 5 or 7. Strictly increasing.
    pub stewards: Vec<ServerId>,
    /// Acts below are settled. Empty in record 0. Strictly increasing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frontier: Vec<Tip>,
    /// Root of the Merkle map of members at the frontier; absent in record 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Random: two conversations of one owner differ.
    pub nonce: Nonce,
    /// For display.
    pub created_at: Timestamp,
}

/// Who signs a root record.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RootSigner {
    /// A device of the previous owner, of the owner in record 0.
    Device(DeviceKey),
    /// The key by which the previous owner's home speaks for him in his identity log: for
    /// checkpoints only.
    Home(PublicKey),
    /// A steward of the previous record, with the key of this epoch.
    Steward {
        /// Who.
        server: ServerId,
        /// As for a commit.
        epoch: u64,
    },
}

/// One signature under a root record: over its id, a steward's over its id and the ballot.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RootSignature {
    /// Who.
    pub by: RootSigner,
    /// See [`Domain::Root`] and [`Domain::Note`].
    pub signature: Signature,
}

/// A root record with its signatures, as it travels.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawRoot {
    /// Canonical bytes.
    pub root: Blob,
    /// The ballot in which the stewards signed; absent in record 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ballot: Option<Ballot>,
    /// At most one by the device or home and one by each steward. In increasing order of `by`.
    pub signatures: Vec<RootSignature>,
}

impl RawRoot {
    /// A record that nobody signed: a succession, before its stewards note it.
    #[must_use]
    pub const fn unsigned(root: Blob) -> Self {
        Self {
            root,
            ballot: None,
            signatures: Vec::new(),
        }
    }

    /// A record as a device of the owner signs it, before any steward does.
    #[must_use]
    pub fn by_device(root: Blob, key: &SecretKey) -> Self {
        Self::made_by(RootSigner::Device(key.public()), root, key)
    }

    /// A record as the owner's home signs it, with the key by which it speaks for him.
    #[must_use]
    pub fn by_home(root: Blob, key: &SecretKey) -> Self {
        Self::made_by(RootSigner::Home(key.public()), root, key)
    }

    fn made_by(by: RootSigner, root: Blob, key: &SecretKey) -> Self {
        let id = root_id(&root.0);
        let signature = key.sign(Domain::Root, id.as_bytes());
        Self {
            signatures: vec![RootSignature { by, signature }],
            ..Self::unsigned(root)
        }
    }
}

/// Why a root record was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The bytes are no root record.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A signature is missing or wrong.
    #[error(transparent)]
    Signature(#[from] WrongSignature),
}

/// Record 0, checked: the birth of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Genesis {
    id: RootId,
    root: Root,
    raw: RawRoot,
    device: DeviceKey,
}

impl Genesis {
    /// Signs a new conversation into being with a device of its owner.
    #[must_use]
    pub fn sign(root: Root, key: &SecretKey) -> Self {
        let (id, bytes) = SignedRoot::encode(&root);
        Self {
            id,
            root,
            raw: RawRoot::by_device(bytes, key),
            device: key.public(),
        }
    }

    /// Checks bytes from outside. That the device is the owner's is for the caller to ask of the
    /// owner's identity log.
    ///
    /// # Errors
    ///
    /// [`RootError`].
    pub fn verify(raw: RawRoot) -> Result<Self, RootError> {
        let root: Root = encoding::decode(&raw.root.0, ROOT_BYTES_MAX)?;
        if root.v != 1 {
            return Err(DecodeError::UnknownVersion(root.v).into());
        }
        let first =
            root.n == 0 && root.prev.is_none() && root.frontier.is_empty() && root.digest.is_none();
        if !first {
            return Err(DecodeError::Invalid("not a record 0").into());
        }
        check_stewards(&root)?;
        let [
            RootSignature {
                by: RootSigner::Device(device),
                signature,
            },
        ] = raw.signatures[..]
        else {
            return Err(DecodeError::Invalid("record 0 is signed by one device").into());
        };
        if raw.ballot.is_some() {
            return Err(DecodeError::Invalid("record 0 has no ballot").into());
        }
        let id = root_id(&raw.root.0);
        signing::verify(&device, Domain::Root, id.as_bytes(), &signature)?;
        Ok(Self {
            id,
            root,
            raw,
            device,
        })
    }

    /// The conversation that this record makes.
    #[must_use]
    pub const fn conversation(&self) -> ConversationId {
        ConversationId::from_bytes(*self.id.as_bytes())
    }

    /// The record's id.
    #[must_use]
    pub const fn id(&self) -> RootId {
        self.id
    }

    /// The record.
    #[must_use]
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// The device that signed.
    #[must_use]
    pub const fn device(&self) -> PublicKey {
        self.device
    }

    /// The form that travels.
    #[must_use]
    pub const fn raw(&self) -> &RawRoot {
        &self.raw
    }
}

fn check_stewards(root: &Root) -> Result<(), DecodeError> {
    let n = root.stewards.len();
    if n > STEWARDS_MAX || n.is_multiple_of(2) || !strictly_increasing(&root.stewards) {
        return Err(DecodeError::Invalid(
            "stewards are 1, 3, 5 or 7 servers in order",
        ));
    }
    if root.frontier.len() > AUTHORITY_TIPS_MAX || !strictly_increasing(&root.frontier) {
        return Err(DecodeError::Invalid("frontier"));
    }
    Ok(())
}

fn root_id(bytes: &[u8]) -> RootId {
    RootId::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// The direct conversation of two users, or of one with himself. The order does not matter.
#[must_use]
pub fn direct_conversation(a: &UserId, b: &UserId) -> ConversationId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"comity direct v1");
    hasher.update(a.min(b).as_bytes());
    hasher.update(a.max(b).as_bytes());
    ConversationId::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        Root {
            v: 1,
            n: 0,
            prev: None,
            owner: UserId::from_bytes([1; 32]),
            home: ServerId::from_bytes([2; 32]),
            stewards: vec![ServerId::from_bytes([2; 32])],
            frontier: vec![],
            digest: None,
            nonce: Nonce::from_bytes([3; 16]),
            created_at: Timestamp(1),
        }
    }

    #[test]
    fn genesis_names_its_conversation_and_any_change_is_refused() {
        let genesis = Genesis::sign(root(), &SecretKey::from_seed([1; 32]));
        assert_eq!(Genesis::verify(genesis.raw().clone()).unwrap(), genesis);
        assert_eq!(genesis.conversation().as_bytes(), genesis.id().as_bytes());
        for i in 0..genesis.raw().root.0.len() {
            let mut raw = genesis.raw().clone();
            raw.root.0[i] ^= 1;
            assert!(Genesis::verify(raw).is_err(), "byte {i}");
        }
        let unsigned = RawRoot {
            signatures: vec![],
            ..genesis.raw().clone()
        };
        assert!(Genesis::verify(unsigned).is_err());
    }

    #[test]
    fn an_even_or_unordered_set_of_stewards_is_refused() {
        let key = SecretKey::from_seed([1; 32]);
        let with = |bytes: &[u8]| {
            let stewards = bytes
                .iter()
                .map(|b| ServerId::from_bytes([*b; 32]))
                .collect();
            Genesis::verify(
                Genesis::sign(Root { stewards, ..root() }, &key)
                    .raw()
                    .clone(),
            )
            .is_ok()
        };
        assert!(with(&[1]) && with(&[1, 2, 3]));
        assert!(!with(&[]) && !with(&[1, 2]) && !with(&[3, 2, 1]) && !with(&[1, 1, 2]));
    }

    #[test]
    fn direct_conversation_is_the_same_from_both_ends() {
        let (a, b) = (UserId::from_bytes([1; 32]), UserId::from_bytes([2; 32]));
        assert_eq!(direct_conversation(&a, &b), direct_conversation(&b, &a));
        assert_ne!(direct_conversation(&a, &b), direct_conversation(&a, &a));
    }
}
