//! Identifiers: fixed-length byte strings, each with a type of its own.
//! Source: `spec/01-encoding.md`, section 4.
//!
//! In DAG-CBOR an identifier is a byte string of exactly its length; in JSON and on screens it is
//! lower-case hexadecimal of twice that length.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that is not the hexadecimal form of an identifier.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected {expected} lower-case hexadecimal characters")]
pub struct ParseIdError {
    expected: usize,
}

struct FixedBytes<const N: usize>;

impl<const N: usize> de::Visitor<'_> for FixedBytes<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes
            .try_into()
            .map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; N], E> {
        parse_hex(text).map_err(E::custom)
    }
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let mut bytes = [0; N];
    // The length is compared first: decode_mut panics when the output does not fit.
    if text.len() != 2 * N || HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_err() {
        return Err(ParseIdError { expected: 2 * N });
    }
    Ok(bytes)
}

macro_rules! fixed_bytes {
    ($($(#[$doc:meta])* $name:ident: $len:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Reads the bytes from a slice; `None` if its length is another.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}…)", stringify!($name), HEXLOWER.encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(FixedBytes::<$len>).map(Self)
                } else {
                    deserializer.deserialize_bytes(FixedBytes::<$len>).map(Self)
                }
            }
        }
    )*};
}

fixed_bytes! {
    /// A person or bot: BLAKE3 of the genesis entry of an identity log.
    UserId: 32;
    /// A home server: BLAKE3 of its genesis card. As the origin of commits also called *home*.
    ServerId: 32;
    /// A conversation: BLAKE3 of root record 0, or derived from two users when direct.
    ConversationId: 32;
    /// An event: BLAKE3 of its canonical bytes, without the signature.
    EventId: 32;
    /// A commit: BLAKE3 of its canonical bytes, without the signature.
    CommitId: 32;
    /// A root record: BLAKE3 of its canonical bytes, without signatures.
    RootId: 32;
    /// A content: BLAKE3 of its canonical bytes, which begin with a random salt.
    ContentHash: 32;
    /// An entry of an identity log or of a chain of server cards.
    EntryId: 32;
    /// Root of a Merkle map.
    Digest: 32;
    /// A media file: BLAKE3 of its bytes.
    BlobId: 32;
    /// An ed25519 public key: of a device, of a home server, or for recovery.
    PublicKey: 32;
    /// An ed25519 signature.
    Signature: 64;
    /// Made once when the user pressed send; makes a retry recognisable.
    Nonce: 16;
    /// Random bytes that keep a content's hash from telling its text.
    Salt: 16;
}

/// A device is known by its public key.
pub type DeviceKey = PublicKey;

/// Bytes of any length: a byte string in DAG-CBOR, base64 (RFC 4648, section 4) in JSON.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&data_encoding::BASE64.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                data_encoding::BASE64
                    .decode(text.as_bytes())
                    .map(Blob)
                    .map_err(E::custom)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_byte_buf(Visitor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trips_and_rejects_other_forms() {
        let id = UserId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse::<UserId>().unwrap(), id);
        for bad in [
            "",
            "ab",
            &"AB".repeat(32),
            &"ab".repeat(33),
            &"zz".repeat(32),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<UserId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn binary_form_is_a_byte_string_of_exactly_the_length() {
        let bytes = serde_ipld_dagcbor::to_vec(&Nonce::from_bytes([7; 16])).unwrap();
        assert_eq!(bytes[0], 0x50);
        assert!(serde_ipld_dagcbor::from_slice::<Salt>(&bytes).is_ok());
        assert!(serde_ipld_dagcbor::from_slice::<UserId>(&bytes).is_err());
    }
}
