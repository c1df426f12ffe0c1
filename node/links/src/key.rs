//! A server's public key and its libp2p name.

use std::fmt;

use libp2p::PeerId;

/// An identity multihash of the protobuf `{type: ed25519, data: 32 bytes}`. The key is the rest,
/// so key and peer id are the same thing in two spellings.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The ed25519 public key of a server, 32 bytes. Shown as 64 lowercase hex digits.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerKey(pub [u8; 32]);

impl PeerKey {
    /// The public key that belongs to an ed25519 seed.
    #[must_use]
    pub fn of_seed(seed: [u8; 32]) -> Self {
        Self::of_keypair(&keypair(seed))
    }

    pub(crate) fn of_keypair(keypair: &libp2p::identity::ed25519::Keypair) -> Self {
        Self(keypair.public().to_bytes())
    }

    pub(crate) fn of_peer_id(peer: &PeerId) -> Option<Self> {
        let bytes = peer.to_bytes();
        let key = bytes.strip_prefix(PEER_ID_PREFIX.as_slice())?;
        Some(Self(key.try_into().ok()?))
    }

    pub(crate) fn peer_id(self) -> PeerId {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        PeerId::from_bytes(&bytes).expect("an identity multihash of 36 bytes is a peer id")
    }
}

/// The key pair of a seed. Every 32 bytes are a valid ed25519 seed.
pub(crate) fn keypair(mut seed: [u8; 32]) -> libp2p::identity::ed25519::Keypair {
    libp2p::identity::ed25519::SecretKey::try_from_bytes(&mut seed)
        .expect("32 bytes are an ed25519 seed")
        .into()
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_peer_id_are_the_same_thing() {
        let pair = keypair([7; 32]);
        let libp2p_name = libp2p::identity::Keypair::from(pair.clone())
            .public()
            .to_peer_id();
        let key = PeerKey::of_keypair(&pair);
        assert_eq!(key.peer_id(), libp2p_name);
        assert_eq!(PeerKey::of_peer_id(&libp2p_name), Some(key));
        assert_eq!(key.to_string().len(), 64);
    }

    #[test]
    fn peer_id_of_another_kind_of_key_is_nobody() {
        assert_eq!(PeerKey::of_peer_id(&PeerId::random()), None);
    }

    #[test]
    fn any_32_bytes_have_a_peer_id() {
        for bytes in [[0; 32], [255; 32]] {
            assert_eq!(
                PeerKey::of_peer_id(&PeerKey(bytes).peer_id()),
                Some(PeerKey(bytes))
            );
        }
    }
}
