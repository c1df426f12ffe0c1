//! Ed25519 with domain separation: a signature made for one kind of object never verifies as
//! another, nor as one of libp2p's or TLS's. Source: `spec/01-encoding.md`, section 5.

use std::fmt;

use ed25519_dalek::{Signer, VerifyingKey};

use crate::ids::{PublicKey, Signature};

/// What a signature is about. Its text and a zero byte precede the signed bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Domain {
    /// An event, signed by a device over the event id.
    Event,
    /// A commit, signed by a home over the commit id.
    Commit,
    /// A root record, signed over its id.
    Root,
    /// A steward's note on a root record, signed over its id and the ballot.
    Note,
    /// An entry of an identity log, signed over its id.
    Identity,
    /// A server card, signed over its id.
    Card,
    /// A session, signed by a device over the server's challenge.
    Session,
    /// A link, signed by a server over the peer's challenge.
    Link,
}

impl Domain {
    const fn context(self) -> &'static [u8] {
        match self {
            Self::Event => b"comity event v1\0",
            Self::Commit => b"comity commit v1\0",
            Self::Root => b"comity root v1\0",
            Self::Note => b"comity note v1\0",
            Self::Identity => b"comity identity v1\0",
            Self::Card => b"comity card v1\0",
            Self::Session => b"comity session v1\0",
            Self::Link => b"comity link v1\0",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.context(), bytes].concat()
    }
}

/// A signature that does not verify, or a key that is no curve point.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("wrong signature")]
pub struct WrongSignature;

/// A secret key. Its seed is shown by no `Debug` and wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// The key of a 32-byte seed, which the caller draws from a secure source.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// A key derived from this one for a named purpose; the same inputs give the same key.
    #[must_use]
    pub fn derive(&self, purpose: &'static str, of: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(self.0.as_bytes());
        hasher.update(of);
        Self::from_seed(*hasher.finalize().as_bytes())
    }

    /// The seed, for writing to a key file.
    #[must_use]
    pub fn to_seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs `bytes` for one domain.
    #[must_use]
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Signature {
        Signature::from_bytes(self.0.sign(&domain.message(bytes)).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

/// Checks one signature by the strict rules (no small-order keys, canonical points): every server
/// must reach the same verdict, so batch verification, which accepts more, is not used.
///
/// # Errors
///
/// [`WrongSignature`].
pub fn verify(
    key: &PublicKey,
    domain: Domain,
    bytes: &[u8],
    signature: &Signature,
) -> Result<(), WrongSignature> {
    let key = VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| WrongSignature)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    key.verify_strict(&domain.message(bytes), &signature)
        .map_err(|_| WrongSignature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_holds_only_in_its_domain_for_its_bytes_and_key() {
        let key = SecretKey::from_seed([1; 32]);
        let signature = key.sign(Domain::Event, b"x");
        assert!(verify(&key.public(), Domain::Event, b"x", &signature).is_ok());
        assert!(verify(&key.public(), Domain::Commit, b"x", &signature).is_err());
        assert!(verify(&key.public(), Domain::Event, b"y", &signature).is_err());
        let other = SecretKey::from_seed([2; 32]).public();
        assert!(verify(&other, Domain::Event, b"x", &signature).is_err());
    }

    #[test]
    fn small_order_keys_are_refused() {
        let zero = PublicKey::from_bytes([0; 32]);
        assert!(verify(&zero, Domain::Event, b"x", &Signature::from_bytes([0; 64])).is_err());
    }
}
