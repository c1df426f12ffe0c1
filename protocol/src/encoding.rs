//! Canonical bytes: DAG-CBOR, one form per value, decoded strictly and within a size.
//! Source: `spec/01-encoding.md`.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes were refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// More bytes than this kind of value may have.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLarge {
        /// Bytes received.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not DAG-CBOR of the expected shape.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A value with another, shorter or differently ordered encoding.
    #[error("not the canonical encoding")]
    NotCanonical,
    /// A version this program does not know.
    #[error("unknown version {0}")]
    UnknownVersion(u64),
    /// Well-formed, but a field breaks a rule of its kind.
    #[error("invalid: {0}")]
    Invalid(&'static str),
}

/// Canonical bytes of `value`.
///
/// # Panics
///
/// Never for the types of this crate: they hold no map with non-string keys and no float.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).expect("protocol types have a DAG-CBOR form")
}

/// Reads a value of at most `max` bytes, refusing every encoding but the canonical one.
///
/// # Errors
///
/// Any [`DecodeError`]. What the input says about its own lengths is not believed: before the items
/// of a list were read at most 1 MiB is set aside for it, and nothing for bytes and texts.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    let value = decode_frame(bytes, max)?;
    // The decoder is strict already; comparing makes the promise independent of it, so that no
    // two servers can ever read one hash as two values.
    if encode(&value) == bytes {
        Ok(value)
    } else {
        Err(DecodeError::NotCanonical)
    }
}

/// Reads a transport frame, which nobody hashes or signs and whose exact form does not matter.
///
/// # Errors
///
/// [`DecodeError::TooLarge`] and [`DecodeError::Malformed`].
pub fn decode_frame<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLarge {
            len: bytes.len(),
            max,
        });
    }
    serde_ipld_dagcbor::from_slice(bytes).map_err(|e| DecodeError::Malformed(e.to_string()))
}

/// Whether `items` are strictly increasing, which is how sets travel.
pub(crate) fn strictly_increasing<T: Ord>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] < pair[1])
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        b: u64,
        aa: u64,
    }

    fn refused(bytes: &[u8]) -> bool {
        decode::<Pair>(bytes, 64).is_err()
    }

    #[test]
    fn keys_are_ordered_by_length_then_bytes() {
        let bytes = encode(&Pair { b: 1, aa: 2 });
        assert_eq!(bytes, [0xa2, 0x61, b'b', 1, 0x62, b'a', b'a', 2]);
        assert_eq!(decode::<Pair>(&bytes, 64).unwrap(), Pair { b: 1, aa: 2 });
    }

    #[test]
    fn every_other_encoding_of_a_value_is_refused() {
        assert!(
            refused(&[0xa2, 0x62, b'a', b'a', 2, 0x61, b'b', 1]),
            "key order"
        );
        assert!(
            refused(&[0xa2, 0x61, b'b', 0x18, 1, 0x62, b'a', b'a', 2]),
            "long integer"
        );
        assert!(
            refused(&[0xbf, 0x61, b'b', 1, 0x62, b'a', b'a', 2, 0xff]),
            "indefinite length"
        );
        assert!(
            refused(&[0xa3, 0x61, b'b', 1, 0x61, b'b', 1, 0x62, b'a', b'a', 2]),
            "twice"
        );
        assert!(
            refused(&[0xa3, 0x61, b'b', 1, 0x61, b'c', 1, 0x62, b'a', b'a', 2]),
            "unknown key"
        );
        assert!(
            refused(&[0xa2, 0x61, b'b', 1, 0x62, b'a', b'a', 2, 0]),
            "trailing byte"
        );
        assert!(
            refused(&[0xa2, 0x61, b'b', 0xf9, 0x7e, 0, 0x62, b'a', b'a', 2]),
            "NaN"
        );
        assert!(refused(&[0xa2, 0x61, b'b', 1, 0x62, b'a']), "truncated");
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let mut bytes = vec![0xa2, 0x61, b'c'];
        bytes.extend(std::iter::repeat_n(0x81, 1_000_000));
        assert!(decode::<Pair>(&bytes, 2_000_000).is_err());
    }

    #[test]
    fn size_is_checked_before_anything_is_read() {
        assert_eq!(
            decode::<Pair>(&[0xff; 65], 64),
            Err(DecodeError::TooLarge { len: 65, max: 64 })
        );
    }
}
