//! What callers hand in, and where its parts are found again.

/// One change of state.
///
/// The body stays readable for as long as the record is kept. Contents are stored only in the
/// log, and each can be erased by itself, without touching the body or the other contents.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Record {
    /// The owner's own tag; storage gives it no meaning.
    pub kind: u8,
    /// What is never erased by itself, at most [`RECORD_BYTES_MAX`](crate::RECORD_BYTES_MAX).
    pub body: Vec<u8>,
    /// Erasable parts, at most [`CONTENTS_MAX`](crate::CONTENTS_MAX).
    pub contents: Vec<Vec<u8>>,
}

/// Where a content is. Stays the same under compaction, rebuild and restart.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContentAt {
    /// Record number, contiguous from 1.
    pub record: u64,
    /// Index into [`Record::contents`].
    pub index: u16,
}

impl ContentAt {
    /// Bytes of the encoded form.
    pub const BYTES: usize = 10;

    /// Record number, then index, both big-endian: byte order is the order of places.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.record.to_be_bytes());
        bytes[8..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    /// Reads [`Self::to_bytes`] back; every pattern of bytes is some place.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        Self {
            record: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            index: u16::from_be_bytes([i, j]),
        }
    }
}

/// A content as it is found in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content<'a> {
    /// The bytes as they were submitted.
    Here(&'a [u8]),
    /// Erased on purpose: a known state, not a fault.
    Gone,
    /// The bytes no longer match their checksum; the rest of the record does.
    Damaged,
}

/// A record borrowed from the log or from a submission.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordView<'a> {
    /// The owner's tag.
    pub kind: u8,
    /// The body.
    pub body: &'a [u8],
    /// The contents, each with its state.
    pub contents: &'a [Content<'a>],
}

/// A record read back whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredRecord {
    /// Its number.
    pub number: u64,
    /// The owner's tag.
    pub kind: u8,
    /// The body.
    pub body: Vec<u8>,
    /// `None` where a content is gone or damaged.
    pub contents: Vec<Option<Vec<u8>>>,
}

#[cfg(test)]
mod tests {
    use super::ContentAt;

    #[test]
    fn places_survive_their_bytes_and_sort_like_them() {
        let places = [(1, 0), (1, 1), (1, u16::MAX), (256, 0), (u64::MAX, 7)]
            .map(|(record, index)| ContentAt { record, index });
        for place in places {
            assert_eq!(ContentAt::from_bytes(place.to_bytes()), place);
        }
        assert!(places.is_sorted_by_key(|place| place.to_bytes()));
        assert!(places.is_sorted());
    }
}
