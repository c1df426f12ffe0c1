//! Commits: what one home accepted, in chains. Source: `spec/02-events-and-commits.md`, section 4.

use serde::{Deserialize, Serialize};

use crate::{
    encoding::{self, DecodeError, strictly_increasing},
    event::Tip,
    ids::{Blob, CommitId, ConversationId, EventId, PublicKey, RootId, ServerId, Signature},
    limits::{AUTHORITY_TIPS_MAX, COMMIT_BYTES_MAX, COMMIT_EVENTS_MAX, COMMIT_PARENTS_MAX},
    signing::{self, Domain, SecretKey, WrongSignature},
    time::Hlc,
};

/// The newest root record a home knew.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RootRef {
    /// Record number.
    pub n: u64,
    /// Record id.
    pub id: RootId,
}

/// What changed in the authority a home knew, against the commit before in its chain.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityChange {
    /// New tips of chains, each a commit that holds an act. Strictly increasing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tips: Vec<Tip>,
    /// A newer root record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootRef>,
}

/// A commit's header.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Version: 1.
    pub v: u64,
    /// The conversation.
    pub conversation: ConversationId,
    /// The home that signs.
    pub origin: ServerId,
    /// The writer's epoch; never falls along a chain.
    pub epoch: u64,
    /// Place in the chain: one more than `prev`'s, 0 without.
    pub seq: u64,
    /// The commit before in the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<CommitId>,
    /// The origin's clock: greater than `prev`'s and than its parents'.
    pub hlc: Hlc,
    /// Newest commits of other homes that the origin held. Strictly increasing; never waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<CommitId>,
    /// Change of the known authority; absent when nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<AuthorityChange>,
    /// 1..=256 events, in the order they count.
    pub events: Vec<EventId>,
}

impl Commit {
    /// Canonical bytes; their BLAKE3 is the commit's id.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::encode(self)
    }

    /// Signs with the home's key of this epoch.
    #[must_use]
    pub fn sign(self, key: &SecretKey) -> SignedCommit {
        let bytes = self.to_bytes();
        let id = commit_id(&bytes);
        let signature = key.sign(Domain::Commit, id.as_bytes());
        SignedCommit {
            id,
            commit: self,
            bytes,
            signature,
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        if self.v != 1 {
            return Err(DecodeError::UnknownVersion(self.v));
        }
        if !(1..=COMMIT_EVENTS_MAX).contains(&self.events.len()) {
            return Err(DecodeError::Invalid("a commit holds 1 to 256 events"));
        }
        if self.parents.len() > COMMIT_PARENTS_MAX || !strictly_increasing(&self.parents) {
            return Err(DecodeError::Invalid("parents"));
        }
        if (self.seq == 0) != self.prev.is_none() {
            return Err(DecodeError::Invalid(
                "a chain begins at 0, and only there has no prev",
            ));
        }
        let mut events = self.events.clone();
        events.sort_unstable();
        if !strictly_increasing(&events) {
            return Err(DecodeError::Invalid("an event twice in one commit"));
        }
        let Some(authority) = &self.authority else {
            return if self.seq == 0 {
                Err(DecodeError::Invalid(
                    "the first commit of a chain states its authority",
                ))
            } else {
                Ok(())
            };
        };
        if authority.tips.len() > AUTHORITY_TIPS_MAX || !strictly_increasing(&authority.tips) {
            return Err(DecodeError::Invalid("authority tips"));
        }
        if authority.tips.is_empty() && authority.root.is_none() && self.seq != 0 {
            return Err(DecodeError::Invalid(
                "an authority change that changes nothing",
            ));
        }
        Ok(())
    }

    /// This commit as the end of its chain.
    #[must_use]
    pub const fn tip(&self, id: CommitId) -> Tip {
        Tip {
            home: self.origin,
            epoch: self.epoch,
            seq: self.seq,
            id,
        }
    }
}

fn commit_id(bytes: &[u8]) -> CommitId {
    CommitId::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// A commit's bytes and signature as they travel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawCommit {
    /// Canonical bytes of the header.
    pub commit: Blob,
    /// The home's signature over the commit's id.
    pub signature: Signature,
}

/// A commit decoded and shape-checked, its signature not yet verified: the verifier needs to know
/// the origin first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnverifiedCommit(SignedCommit);

/// A commit whose bytes, shape and signature were checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedCommit {
    id: CommitId,
    commit: Commit,
    bytes: Vec<u8>,
    signature: Signature,
}

impl UnverifiedCommit {
    /// Decodes bytes from outside.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are no commit within the limits.
    pub fn decode(raw: RawCommit) -> Result<Self, DecodeError> {
        let bytes = raw.commit.0;
        let commit: Commit = encoding::decode(&bytes, COMMIT_BYTES_MAX)?;
        commit.check()?;
        Ok(Self(SignedCommit {
            id: commit_id(&bytes),
            commit,
            bytes,
            signature: raw.signature,
        }))
    }

    /// The commit's id, which its bytes decide.
    #[must_use]
    pub const fn id(&self) -> CommitId {
        self.0.id
    }

    /// What the bytes claim.
    #[must_use]
    pub const fn commit(&self) -> &Commit {
        &self.0.commit
    }

    /// Checks the signature with the key of the origin's epoch.
    ///
    /// # Errors
    ///
    /// [`WrongSignature`].
    pub fn verify(self, key: &PublicKey) -> Result<SignedCommit, WrongSignature> {
        signing::verify(key, Domain::Commit, self.0.id.as_bytes(), &self.0.signature)?;
        Ok(self.0)
    }

    /// Takes a commit that this program verified before it stored it.
    #[must_use]
    pub fn trusted(self) -> SignedCommit {
        self.0
    }
}

impl SignedCommit {
    /// BLAKE3 of the canonical bytes.
    #[must_use]
    pub const fn id(&self) -> CommitId {
        self.id
    }

    /// What the bytes say.
    #[must_use]
    pub const fn commit(&self) -> &Commit {
        &self.commit
    }

    /// Canonical bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The form that travels.
    #[must_use]
    pub fn to_raw(&self) -> RawCommit {
        RawCommit {
            commit: Blob(self.bytes.clone()),
            signature: self.signature,
        }
    }

    /// This commit as the end of its chain.
    #[must_use]
    pub const fn tip(&self) -> Tip {
        self.commit.tip(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn commit() -> Commit {
        Commit {
            v: 1,
            conversation: ConversationId::from_bytes([1; 32]),
            origin: ServerId::from_bytes([2; 32]),
            epoch: 1,
            seq: 0,
            prev: None,
            hlc: Hlc::new(Timestamp(5), 0),
            parents: vec![],
            authority: Some(AuthorityChange {
                tips: vec![],
                root: Some(RootRef {
                    n: 0,
                    id: RootId::from_bytes([3; 32]),
                }),
            }),
            events: vec![EventId::from_bytes([4; 32])],
        }
    }

    fn decoded(commit: Commit) -> Result<UnverifiedCommit, DecodeError> {
        UnverifiedCommit::decode(commit.sign(&SecretKey::from_seed([9; 32])).to_raw())
    }

    #[test]
    fn commit_round_trips_under_its_homes_key_only() {
        let key = SecretKey::from_seed([9; 32]);
        let signed = commit().sign(&key);
        let read = UnverifiedCommit::decode(signed.to_raw()).unwrap();
        assert_eq!(read.clone().verify(&key.public()).unwrap(), signed);
        assert!(
            read.verify(&SecretKey::from_seed([8; 32]).public())
                .is_err()
        );
    }

    #[test]
    fn shapes_outside_the_rules_are_refused() {
        let event = EventId::from_bytes([4; 32]);
        let prev = Some(CommitId::from_bytes([7; 32]));
        assert!(decoded(commit()).is_ok());
        assert!(decoded(Commit { v: 2, ..commit() }).is_err());
        assert!(
            decoded(Commit {
                events: vec![],
                ..commit()
            })
            .is_err()
        );
        assert!(
            decoded(Commit {
                events: vec![event, event],
                ..commit()
            })
            .is_err()
        );
        assert!(decoded(Commit { seq: 1, ..commit() }).is_err());
        assert!(decoded(Commit { prev, ..commit() }).is_err());
        assert!(
            decoded(Commit {
                authority: None,
                ..commit()
            })
            .is_err()
        );
        assert!(
            decoded(Commit {
                authority: None,
                seq: 1,
                prev,
                ..commit()
            })
            .is_ok()
        );
        let parents = vec![CommitId::from_bytes([2; 32]), CommitId::from_bytes([1; 32])];
        assert!(
            decoded(Commit {
                parents,
                ..commit()
            })
            .is_err()
        );
        let events = (0..=256u16).map(|i| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&i.to_be_bytes());
            EventId::from_bytes(bytes)
        });
        assert!(
            decoded(Commit {
                events: events.collect(),
                ..commit()
            })
            .is_err()
        );
    }
}
