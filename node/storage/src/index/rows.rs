//! How rows are laid out in the store: whose they are, their checksum, and storage's own rows.
//!
//! A value is `crc32c(key, value)` and the value, so a value that was altered, or that belongs to
//! another key, is an error and never an answer. What no checksum of a row can tell is that a row
//! is missing; for that there are the mark, the savepoint and the self-test at open.

use std::ops::Bound;

use super::{KeyRange, StoreError};
use crate::record::ContentAt;

/// First byte of every key of storage itself.
const OWN: u8 = 0;
/// First byte of every key of the owner.
const USER: u8 = 1;

const MARK: u8 = b'm';
const PLACE: u8 = b'p';
const ERASE: u8 = b'e';
const DEAD: u8 = b'd';

pub(crate) fn user_key(key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(USER);
    full.extend_from_slice(key);
    full
}

/// The owner's range inside the store's.
pub(crate) fn user_range(low: Bound<&[u8]>, high: Bound<&[u8]>) -> KeyRange {
    let low = match low {
        Bound::Unbounded => Bound::Included(vec![USER]),
        bound => bound.map(user_key),
    };
    let high = match high {
        Bound::Unbounded => Bound::Excluded(vec![USER + 1]),
        bound => bound.map(user_key),
    };
    (low, high)
}

/// The owner's part of a key made by [`user_key`].
pub(crate) fn strip(mut key: Vec<u8>) -> Vec<u8> {
    key.remove(0);
    key
}

pub(crate) fn wrap(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(value.len() + 4);
    row.extend_from_slice(&checksum(key, value).to_be_bytes());
    row.extend_from_slice(value);
    row
}

pub(crate) fn unwrap(key: &[u8], mut row: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    if let Some((sum, value)) = row.split_first_chunk::<4>()
        && u32::from_be_bytes(*sum) == checksum(key, value)
    {
        row.drain(..4);
        return Ok(row);
    }
    Err(StoreError::Damaged(
        format!("a row of {} key bytes fails its checksum", key.len()).into(),
    ))
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// Where a record's frame is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) generation: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

pub(crate) fn place_key(number: u64) -> Vec<u8> {
    let mut key = vec![OWN, PLACE];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn place_number(key: &[u8]) -> Option<u64> {
    let number = key.strip_prefix(&[OWN, PLACE])?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

/// Places of the records `first..=last`.
pub(crate) fn place_range(first: u64, last: u64) -> KeyRange {
    (
        Bound::Included(place_key(first)),
        Bound::Included(place_key(last)),
    )
}

impl Place {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [self.file, self.generation, self.offset, self.len]
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut words = [0; 4];
        if bytes.len() != 16 {
            return Err(StoreError::Damaged("a place of the wrong length".into()));
        }
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = chunk
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        }
        let [file, generation, offset, len] = words;
        Ok(Self {
            file,
            generation,
            offset,
            len,
        })
    }
}

/// "Applied up to record n", written in every batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Mark {
    pub(crate) number: u64,
    pub(crate) format: u32,
    pub(crate) incarnation: [u8; 16],
}

pub(crate) fn mark_key() -> Vec<u8> {
    vec![OWN, MARK]
}

impl Mark {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.number.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.format.to_be_bytes());
        bytes.extend_from_slice(&self.incarnation);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (format, rest) = rest.split_first_chunk::<4>()?;
        Some(Self {
            number: u64::from_be_bytes(*number),
            format: u32::from_be_bytes(*format),
            incarnation: rest.try_into().ok()?,
        })
    }
}

/// An erasure that is decided and perhaps not on the disk yet.
pub(crate) fn erase_key(at: ContentAt) -> Vec<u8> {
    let mut key = vec![OWN, ERASE];
    key.extend_from_slice(&at.to_bytes());
    key
}

pub(crate) fn erase_place(key: &[u8]) -> Option<ContentAt> {
    Some(ContentAt::from_bytes(
        key.strip_prefix(&[OWN, ERASE])?.try_into().ok()?,
    ))
}

pub(crate) fn erase_range() -> KeyRange {
    (
        Bound::Included(vec![OWN, ERASE]),
        Bound::Excluded(vec![OWN, ERASE + 1]),
    )
}

/// Dead bytes of a log file: a hint for compaction, never counted on.
pub(crate) fn dead_key(file: u32) -> Vec<u8> {
    let mut key = vec![OWN, DEAD];
    key.extend_from_slice(&file.to_be_bytes());
    key
}
