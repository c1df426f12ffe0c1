//! Root records from 1 on: who has to sign which. Source: `spec/04-authority.md`, section 6.

use super::{RawRoot, Root, RootError, RootSignature, RootSigner, check_stewards, root_id};
use crate::{
    encoding::{self, DecodeError, strictly_increasing},
    ids::{Blob, PublicKey, RootId, ServerId},
    limits::{ROOT_BYTES_MAX, STEWARDS_MAX},
    signing::{self, Domain},
};

/// Who made a record, by its signatures. Stewards signed all of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Made {
    /// The previous owner, with this device. That the device is his is for the caller to ask of his
    /// identity log.
    ByOwner(PublicKey),
    /// The previous owner's home, with its key in his identity log, likewise for the caller to ask:
    /// a checkpoint, which leaves owner, home and stewards as they were.
    ByHome(PublicKey),
    /// The stewards alone: the owner is lost, and the heir follows.
    Succession,
}

/// Why a record did not become a [`SignedRoot`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotVerified {
    /// It never will.
    #[error(transparent)]
    Refused(#[from] RootError),
    /// The card of a steward that signed is not held: try again once it is.
    #[error("the card of steward {0} is not held")]
    Steward(ServerId),
}

impl From<DecodeError> for NotVerified {
    fn from(error: DecodeError) -> Self {
        Self::Refused(error.into())
    }
}

/// A root record from 1 on whose signatures were checked against the record before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedRoot {
    id: RootId,
    root: Root,
    raw: RawRoot,
    made: Made,
}

impl SignedRoot {
    /// Checks a record that follows `before`, whose id is `before_id`. `key_of` gives a server's
    /// key of an epoch, none while its card is not held or has no such epoch.
    ///
    /// What needs the history (the digest, the heir) is checked where the record is taken.
    ///
    /// # Errors
    ///
    /// [`NotVerified`].
    pub fn verify(
        raw: RawRoot,
        before_id: &RootId,
        before: &Root,
        key_of: impl Fn(&ServerId, u64) -> Option<PublicKey>,
    ) -> Result<Self, NotVerified> {
        let root = Self::decode(&raw)?;
        if root.prev != Some(*before_id) || root.n != before.n + 1 {
            return Err(DecodeError::Invalid("does not follow the record before").into());
        }
        let id = root_id(&raw.root.0);
        let made = made_by(&raw.signatures, &root, before)?;
        if signed_by_few(&raw.signatures, before) {
            return Err(DecodeError::Invalid("no majority of the stewards before").into());
        }
        let Some(ballot) = raw.ballot else {
            return Err(DecodeError::Invalid("no ballot").into());
        };
        for RootSignature { by, signature } in &raw.signatures {
            let checked = match by {
                RootSigner::Device(key) | RootSigner::Home(key) => {
                    signing::verify(key, Domain::Root, id.as_bytes(), signature)
                }
                RootSigner::Steward { server, epoch } => {
                    let key = key_of(server, *epoch).ok_or(NotVerified::Steward(*server))?;
                    ballot.check(&id, &key, signature)
                }
            };
            checked.map_err(RootError::from)?;
        }
        Ok(Self {
            id,
            root,
            raw,
            made,
        })
    }

    /// Checks what a steward is asked to sign: a record that follows `before`, whose id is
    /// `before_id`, with its maker's signature and none of a steward.
    ///
    /// # Errors
    ///
    /// [`RootError`].
    pub fn proposed(raw: RawRoot, before_id: &RootId, before: &Root) -> Result<Self, RootError> {
        let root = Self::decode(&raw)?;
        if root.prev != Some(*before_id) || root.n != before.n + 1 {
            return Err(DecodeError::Invalid("does not follow the record before").into());
        }
        if raw.ballot.is_some() || raw.signatures.len() > 1 {
            return Err(DecodeError::Invalid("a proposal is signed by its maker alone").into());
        }
        let id = root_id(&raw.root.0);
        let made = made_by(&raw.signatures, &root, before)?;
        for RootSignature { by, signature } in &raw.signatures {
            match by {
                RootSigner::Device(key) | RootSigner::Home(key) => {
                    signing::verify(key, Domain::Root, id.as_bytes(), signature)?;
                }
                RootSigner::Steward { .. } => {
                    return Err(DecodeError::Invalid("signed by a steward already").into());
                }
            }
        }
        Ok(Self {
            id,
            root,
            raw,
            made,
        })
    }

    /// The record in bytes from outside, before its signatures are looked at: for finding the one
    /// before it.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn decode(raw: &RawRoot) -> Result<Root, DecodeError> {
        let root: Root = encoding::decode(&raw.root.0, ROOT_BYTES_MAX)?;
        if root.v != 1 {
            return Err(DecodeError::UnknownVersion(root.v));
        }
        if root.n == 0 || root.prev.is_none() || root.digest.is_none() {
            return Err(DecodeError::Invalid("not a record from 1 on"));
        }
        check_stewards(&root)?;
        if raw.signatures.len() > STEWARDS_MAX + 1 {
            return Err(DecodeError::Invalid("too many signatures"));
        }
        let signers: Vec<_> = raw.signatures.iter().map(|s| s.by).collect();
        if !strictly_increasing(&signers) {
            return Err(DecodeError::Invalid("signatures in increasing order"));
        }
        Ok(root)
    }

    /// A record that this server stored itself, without judging its signatures again.
    ///
    /// # Errors
    ///
    /// [`RootError`], if the store is damaged.
    pub fn from_trusted(raw: RawRoot, before: &Root) -> Result<Self, RootError> {
        let root = Self::decode(&raw)?;
        let made = made_by(&raw.signatures, &root, before)?;
        Ok(Self {
            id: root_id(&raw.root.0),
            root,
            raw,
            made,
        })
    }

    /// A record without signatures: for tests of what follows from records.
    #[cfg(test)]
    pub(crate) fn unsigned(root: Root, made: Made) -> Self {
        let (id, bytes) = Self::encode(&root);
        Self {
            id,
            root,
            raw: RawRoot::unsigned(bytes),
            made,
        }
    }

    /// The bytes of a record and its id, over which its maker signs in [`Domain::Root`].
    #[must_use]
    pub fn encode(root: &Root) -> (RootId, Blob) {
        let bytes = encoding::encode(root);
        (root_id(&bytes), Blob(bytes))
    }

    /// The id of a record in bytes from outside, whatever they are.
    #[must_use]
    pub fn id_of(raw: &RawRoot) -> RootId {
        root_id(&raw.root.0)
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

    /// Who made it.
    #[must_use]
    pub const fn made(&self) -> Made {
        self.made
    }

    /// The form that travels.
    #[must_use]
    pub const fn raw(&self) -> &RawRoot {
        &self.raw
    }
}

/// Whether no majority of the stewards signed; each signed once, see [`made_by`].
fn signed_by_few(signatures: &[RootSignature], before: &Root) -> bool {
    let notes = signatures
        .iter()
        .filter(|signature| matches!(signature.by, RootSigner::Steward { .. }));
    notes.count() <= before.stewards.len() / 2
}

/// Who made a record, if it is one that its maker may make.
fn made_by(signatures: &[RootSignature], root: &Root, before: &Root) -> Result<Made, DecodeError> {
    let mut stewards = Vec::new();
    let mut maker = None;
    for signature in signatures {
        match signature.by {
            RootSigner::Device(key) if maker.is_none() => maker = Some(Made::ByOwner(key)),
            RootSigner::Home(key) if maker.is_none() => maker = Some(Made::ByHome(key)),
            RootSigner::Device(_) | RootSigner::Home(_) => {
                return Err(DecodeError::Invalid("signed by two makers"));
            }
            RootSigner::Steward { server, .. } => {
                if !before.stewards.contains(&server) || stewards.contains(&server) {
                    return Err(DecodeError::Invalid(
                        "each signer is one of the stewards before",
                    ));
                }
                stewards.push(server);
            }
        }
    }
    let same_stewards = root.stewards == before.stewards;
    let same_owner = root.owner == before.owner && root.home == before.home;
    match maker {
        Some(Made::ByHome(_)) if !(same_owner && same_stewards) => Err(DecodeError::Invalid(
            "a home signs checkpoints only, which change nobody",
        )),
        Some(maker) => Ok(maker),
        None if root.owner == before.owner || !same_stewards => Err(DecodeError::Invalid(
            "a succession changes the owner and nothing else",
        )),
        None => Ok(Made::Succession),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        commit::RootRef,
        event::Tip,
        ids::{CommitId, Digest, Nonce, Signature, UserId},
        root::{Ballot, Steward},
        signing::SecretKey,
        time::Timestamp,
    };

    fn server(n: u8) -> ServerId {
        ServerId::from_bytes([n; 32])
    }

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed([n; 32])
    }

    fn before() -> Root {
        Root {
            v: 1,
            n: 0,
            prev: None,
            owner: UserId::from_bytes([1; 32]),
            home: server(11),
            stewards: vec![server(11), server(12), server(13)],
            frontier: vec![],
            digest: None,
            nonce: Nonce::from_bytes([3; 16]),
            created_at: Timestamp(1),
        }
    }

    fn before_id() -> RootId {
        SignedRoot::encode(&before()).0
    }

    fn next() -> Root {
        Root {
            n: 1,
            prev: Some(before_id()),
            digest: Some(Digest::from_bytes([4; 32])),
            ..before()
        }
    }

    /// Signed with devices and home keys 1..=9, and stewards 11.. by keys of their number.
    fn signed(root: &Root, device: Option<u8>, home: Option<u8>, stewards: &[u8]) -> RawRoot {
        let (id, bytes) = SignedRoot::encode(root);
        let sign = |n: u8| key(n).sign(Domain::Root, id.as_bytes());
        let device = device.map(|n| (RootSigner::Device(key(n).public()), sign(n)));
        let home = home.map(|n| (RootSigner::Home(key(n).public()), sign(n)));
        let steward = |n: &u8| {
            let by = RootSigner::Steward {
                server: server(*n),
                epoch: 0,
            };
            (by, note(&id, root, *n))
        };
        let all = device
            .into_iter()
            .chain(home)
            .chain(stewards.iter().map(steward));
        let mut signatures: Vec<_> = all
            .map(|(by, signature)| RootSignature { by, signature })
            .collect();
        signatures.sort_by_key(|s| s.by);
        RawRoot {
            root: bytes,
            ballot: Some(BALLOT),
            signatures,
        }
    }

    const BALLOT: Ballot = Ballot {
        round: 3,
        by: ServerId::from_bytes([11; 32]),
    };

    fn note(id: &RootId, root: &Root, n: u8) -> Signature {
        let before = RootRef {
            n: root.n - 1,
            id: before_id(),
        };
        let mut steward = Steward::after(before);
        let now = Timestamp(0);
        steward.prepare(now, &before, BALLOT, Vec::new).unwrap();
        let raw = RawRoot::unsigned(SignedRoot::encode(root).1);
        let note = steward.propose(&before, BALLOT, &raw, (0, &key(n)), |_, _| Ok(()));
        let note = note.unwrap().signature;
        assert!(BALLOT.check(id, &key(n).public(), &note).is_ok());
        note
    }

    fn verify(raw: RawRoot) -> Result<Made, NotVerified> {
        let keys = |server: &ServerId, _| {
            let n = server.as_bytes()[0];
            (n != 13).then(|| key(n).public())
        };
        SignedRoot::verify(raw, &before_id(), &before(), keys).map(|signed| signed.made())
    }

    fn is_refused(raw: RawRoot) -> bool {
        matches!(verify(raw), Err(NotVerified::Refused(_)))
    }

    #[test]
    fn owner_and_majority_make_any_record_and_the_home_only_checkpoints() {
        let transfer = Root {
            owner: UserId::from_bytes([2; 32]),
            ..next()
        };
        let made = |root: &Root, device, home| verify(signed(root, device, home, &[11, 12]));
        assert_eq!(
            made(&transfer, Some(1), None),
            Ok(Made::ByOwner(key(1).public()))
        );
        assert_eq!(
            made(&next(), None, Some(2)),
            Ok(Made::ByHome(key(2).public()))
        );
        assert!(is_refused(signed(&transfer, None, Some(2), &[11, 12])));
        assert!(is_refused(signed(&next(), Some(1), Some(2), &[11, 12])));
    }

    #[test]
    fn stewards_alone_change_the_owner_and_nothing_else() {
        let heir = Root {
            owner: UserId::from_bytes([2; 32]),
            home: server(12),
            ..next()
        };
        assert_eq!(
            verify(signed(&heir, None, None, &[11, 12])),
            Ok(Made::Succession)
        );
        assert!(is_refused(signed(&next(), None, None, &[11, 12])));
        let stewards = vec![server(12)];
        let more = Root { stewards, ..heir };
        assert!(is_refused(signed(&more, None, None, &[11, 12])));
    }

    #[test]
    fn without_a_majority_of_the_stewards_before_nothing_is_made() {
        assert!(is_refused(signed(&next(), Some(1), None, &[11])));
        assert!(is_refused(signed(&next(), Some(1), None, &[11, 14])));
        let mut twice = signed(&next(), Some(1), None, &[11, 11]);
        assert!(is_refused(twice.clone()));
        if let RootSigner::Steward { epoch, .. } = &mut twice.signatures[2].by {
            *epoch = 1;
        }
        assert!(
            is_refused(twice),
            "one steward with two epochs is one steward"
        );
    }

    #[test]
    fn a_steward_without_card_is_waited_for_and_a_wrong_signature_is_refused() {
        let raw = signed(&next(), Some(1), None, &[11, 13]);
        assert_eq!(verify(raw), Err(NotVerified::Steward(server(13))));
        let mut raw = signed(&next(), Some(1), None, &[11, 12]);
        raw.signatures[2].signature = raw.signatures[1].signature;
        assert!(is_refused(raw));
        let mut other_ballot = signed(&next(), Some(1), None, &[11, 12]);
        other_ballot.ballot = Some(Ballot { round: 4, ..BALLOT });
        assert!(is_refused(other_ballot), "notes are of one ballot");
        let mut no_ballot = signed(&next(), Some(1), None, &[11, 12]);
        no_ballot.ballot = None;
        assert!(is_refused(no_ballot));
    }

    #[test]
    fn a_proposal_is_signed_by_its_maker_alone_and_follows_the_record_before() {
        let proposed = |root: &Root, device, home, stewards: &[u8], at: Option<Ballot>| {
            let mut raw = signed(root, device, home, stewards);
            raw.ballot = at;
            SignedRoot::proposed(raw, &before_id(), &before()).map(|signed| signed.made())
        };
        let owner = Made::ByOwner(key(1).public());
        assert_eq!(proposed(&next(), Some(1), None, &[], None), Ok(owner));
        let home = Made::ByHome(key(2).public());
        assert_eq!(proposed(&next(), None, Some(2), &[], None), Ok(home));
        let heir = Root {
            owner: UserId::from_bytes([2; 32]),
            ..next()
        };
        assert_eq!(proposed(&heir, None, None, &[], None), Ok(Made::Succession));
        assert!(proposed(&heir, None, Some(2), &[], None).is_err());
        assert!(proposed(&next(), Some(1), None, &[11], None).is_err());
        assert!(proposed(&heir, None, None, &[11], None).is_err());
        assert!(proposed(&next(), Some(1), None, &[], Some(BALLOT)).is_err());
        let skips = Root { n: 2, ..next() };
        assert!(proposed(&skips, Some(1), None, &[], None).is_err());
        let mut forged = signed(&next(), Some(1), None, &[]);
        forged.ballot = None;
        forged.signatures[0].signature = key(3).sign(Domain::Root, b"else");
        assert!(SignedRoot::proposed(forged, &before_id(), &before()).is_err());
    }

    #[test]
    fn a_record_that_does_not_follow_or_has_no_digest_is_refused() {
        let skips = Root { n: 2, ..next() };
        let other = Root {
            prev: Some(RootId::from_bytes([9; 32])),
            ..next()
        };
        let bare = Root {
            digest: None,
            ..next()
        };
        let tip = Tip {
            home: server(1),
            epoch: 0,
            seq: 0,
            id: CommitId::from_bytes([0; 32]),
        };
        let unordered = Root {
            frontier: vec![tip, tip],
            ..next()
        };
        for root in [skips, other, bare, unordered] {
            assert!(is_refused(signed(&root, Some(1), None, &[11, 12])));
        }
    }
}
