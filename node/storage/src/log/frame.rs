//! A frame: one record in a log file, byte by byte as in `spec/07-storage.md`, section 3.
//!
//! The frame's checksum covers everything but the states and bytes of contents, and each content
//! has its own: overwriting one leaves the frame, and the other contents, as they were.

use crate::{
    limits::{CONTENTS_MAX, RECORD_BYTES_MAX},
    record::{Content, Record},
};

/// Bytes before the table of contents.
pub(crate) const HEAD_BYTES: usize = 40;
/// Bytes of one entry of the table.
pub(crate) const ENTRY_BYTES: usize = 8;
/// Frames start and end at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// Version written in every frame.
pub(crate) const VERSION: u8 = 1;

const TYPE_RECORD: u8 = 1;
const TYPE_DROPPED: u8 = 2;
const TYPE_LOST: u8 = 3;
const FLAG_LAST: u8 = 1;
const CHECKSUM_AT: usize = 36;

/// States of a content, four bits apart from each other and from an untouched disk.
const PRESENT: u8 = 0x5a;
const GONE: u8 = 0xa5;

/// Random bytes that start every frame of one file. No submission can contain them but by chance,
/// so bytes from users never look like a frame after damage.
pub(crate) type FileMark = [u8; 8];

/// What a frame stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FrameType {
    Record,
    /// The numbers up to `last` were dropped by compaction.
    Dropped {
        last: u64,
    },
    /// The numbers up to `last` were lost to damage that has been reported.
    Lost {
        last: u64,
    },
}

/// The fixed part, not verified yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    kind_of_frame: u8,
    kind: u8,
    flags: u8,
    contents: usize,
    pub(crate) number: u64,
    body_len: usize,
    contents_len: usize,
    since_sync: u32,
    checksum: u32,
}

impl Head {
    /// `None` if this cannot be the head of a frame in the file with this mark.
    pub(crate) fn parse(bytes: &[u8; HEAD_BYTES], mark: FileMark) -> Option<Self> {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let (start, rest) = bytes.split_first_chunk::<8>()?;
        if *start != mark || rest[0] != VERSION || bytes[14..16] != [0, 0] {
            return None;
        }
        let head = Self {
            kind_of_frame: bytes[9],
            kind: bytes[10],
            flags: bytes[11],
            contents: usize::from(u16::from_be_bytes([bytes[12], bytes[13]])),
            number: u64::from(word(16)) << 32 | u64::from(word(20)),
            body_len: word(24) as usize,
            contents_len: word(28) as usize,
            since_sync: word(32),
            checksum: word(CHECKSUM_AT),
        };
        let fits = head.number > 0
            && head.contents <= CONTENTS_MAX
            && head.body_len <= RECORD_BYTES_MAX
            && head.contents_len <= RECORD_BYTES_MAX;
        fits.then_some(head)
    }

    /// Whether it says it is this record's.
    pub(crate) fn is_record(&self, number: u64) -> bool {
        self.kind_of_frame == TYPE_RECORD && self.number == number
    }

    fn used_len(&self) -> usize {
        HEAD_BYTES + self.contents * ENTRY_BYTES + self.body_len + self.contents_len
    }

    /// Bytes of the frame with its padding.
    pub(crate) fn frame_len(&self) -> usize {
        self.used_len().next_multiple_of(ALIGN)
    }
}

/// A frame whose checksum is right.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) number: u64,
    pub(crate) frame_type: FrameType,
    pub(crate) kind: u8,
    /// Whether it ends its submission.
    pub(crate) last: bool,
    /// All records up to this number were durable when this one was written.
    pub(crate) synced: u64,
    pub(crate) body: &'a [u8],
    pub(crate) contents: Vec<Content<'a>>,
    /// Whether the padding is zero.
    pub(crate) padding_is_zero: bool,
    /// Bytes of contents that are gone but still take room.
    pub(crate) gone_bytes: u64,
}

impl<'a> Frame<'a> {
    /// Verifies the frame that `bytes` start with; they may be longer.
    pub(crate) fn parse(bytes: &'a [u8], mark: FileMark) -> Option<Self> {
        let head = Head::parse(bytes.first_chunk::<HEAD_BYTES>()?, mark)?;
        let frame = bytes.get(..head.frame_len())?;
        let (table, rest) = frame[HEAD_BYTES..].split_at(head.contents * ENTRY_BYTES);
        let (body, rest) = rest.split_at(head.body_len);
        let (mut stored, padding) = rest.split_at(head.contents_len);
        if checksum(&frame[..CHECKSUM_AT], table, body) != head.checksum {
            return None;
        }
        let mut contents = Vec::with_capacity(head.contents);
        let mut gone_bytes = 0;
        for entry in table.chunks_exact(ENTRY_BYTES) {
            let len = entry_len(entry);
            // The lengths are under the checksum, so a mismatch is a frame nobody wrote.
            let (content, after) = stored.split_at_checked(len)?;
            stored = after;
            let sum = u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]]);
            contents.push(match entry[0] {
                PRESENT if content_sum(content) == sum => Content::Here(content),
                GONE if sum == 0 => {
                    gone_bytes += len as u64;
                    Content::Gone
                }
                _ => Content::Damaged,
            });
        }
        if !stored.is_empty() {
            return None;
        }
        let frame_type = match head.kind_of_frame {
            TYPE_RECORD => FrameType::Record,
            TYPE_DROPPED => FrameType::Dropped {
                last: gap_end(head.number, body)?,
            },
            TYPE_LOST => FrameType::Lost {
                last: gap_end(head.number, body)?,
            },
            _ => return None,
        };
        Some(Self {
            number: head.number,
            frame_type,
            kind: head.kind,
            last: head.flags & FLAG_LAST != 0,
            synced: head.number.checked_sub(u64::from(head.since_sync))?,
            body,
            contents,
            padding_is_zero: padding.iter().all(|byte| *byte == 0),
            gone_bytes,
        })
    }

    /// The last number the frame stands for.
    pub(crate) fn last_number(&self) -> u64 {
        match self.frame_type {
            FrameType::Record => self.number,
            FrameType::Dropped { last } | FrameType::Lost { last } => last,
        }
    }
}

fn gap_end(first: u64, body: &[u8]) -> Option<u64> {
    let last = u64::from_be_bytes(body.try_into().ok()?);
    (last >= first).then_some(last)
}

fn entry_len(entry: &[u8]) -> usize {
    usize::from(entry[1]) << 16 | usize::from(entry[2]) << 8 | usize::from(entry[3])
}

/// Inverted, so that no changed state turns a content of no bytes into one that is gone.
fn content_sum(content: &[u8]) -> u32 {
    !crc32c::crc32c(content)
}

/// States and checksums of contents are left out: erasing changes them in place.
fn checksum(head: &[u8], table: &[u8], body: &[u8]) -> u32 {
    let mut sum = crc32c::crc32c(head);
    for entry in table.chunks_exact(ENTRY_BYTES) {
        sum = crc32c::crc32c_append(sum, &[0, entry[1], entry[2], entry[3]]);
    }
    crc32c::crc32c_append(sum, body)
}

/// Bytes a record takes in the log.
pub(crate) fn record_frame_len(record: &Record) -> usize {
    let contents: usize = record
        .contents
        .iter()
        .map(|content| content.len() + ENTRY_BYTES)
        .sum();
    (HEAD_BYTES + contents + record.body.len()).next_multiple_of(ALIGN)
}

/// Where a frame is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) mark: FileMark,
    pub(crate) number: u64,
    /// Newest record known to be durable.
    pub(crate) synced: u64,
    /// Whether it ends its submission.
    pub(crate) last: bool,
}

/// Appends a record's frame; contents that are gone or damaged stay so and take no room. Returns
/// the frame's length.
pub(crate) fn append_record<'a>(
    out: &mut Vec<u8>,
    at: Position,
    kind: u8,
    body: &[u8],
    contents: impl ExactSizeIterator<Item = Content<'a>> + Clone,
) -> usize {
    append(out, at, TYPE_RECORD, kind, body, contents)
}

/// Appends a frame that stands for the numbers from `at.number` to `last`.
pub(crate) fn append_gap(out: &mut Vec<u8>, at: Position, last: u64, lost: bool) -> usize {
    let frame_type = if lost { TYPE_LOST } else { TYPE_DROPPED };
    append(
        out,
        at,
        frame_type,
        0,
        &last.to_be_bytes(),
        std::iter::empty(),
    )
}

fn append<'a>(
    out: &mut Vec<u8>,
    at: Position,
    frame_type: u8,
    kind: u8,
    body: &[u8],
    contents: impl ExactSizeIterator<Item = Content<'a>> + Clone,
) -> usize {
    let start = out.len();
    let since_sync = at.number.saturating_sub(at.synced);
    let contents_len: usize = contents
        .clone()
        .map(|content| bytes_of(content).len())
        .sum();
    out.extend_from_slice(&at.mark);
    out.extend_from_slice(&[
        VERSION,
        frame_type,
        kind,
        if at.last { FLAG_LAST } else { 0 },
    ]);
    out.extend_from_slice(&small(contents.len()).to_be_bytes()[2..]);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&at.number.to_be_bytes());
    out.extend_from_slice(&small(body.len()).to_be_bytes());
    out.extend_from_slice(&small(contents_len).to_be_bytes());
    out.extend_from_slice(&u32::try_from(since_sync).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    for content in contents.clone() {
        let (state, sum) = match content {
            Content::Here(bytes) => (PRESENT, content_sum(bytes)),
            Content::Gone => (GONE, 0),
            // Not the checksum of no bytes.
            Content::Damaged => (PRESENT, 1),
        };
        out.push(state);
        out.extend_from_slice(&small(bytes_of(content).len()).to_be_bytes()[1..]);
        out.extend_from_slice(&sum.to_be_bytes());
    }
    let table_end = out.len();
    out.extend_from_slice(body);
    let frame = &out[start..];
    let table = &frame[HEAD_BYTES..table_end - start];
    let sum = checksum(&frame[..CHECKSUM_AT], table, &frame[table_end - start..]);
    out[start + CHECKSUM_AT..start + HEAD_BYTES].copy_from_slice(&sum.to_be_bytes());
    for content in contents {
        out.extend_from_slice(bytes_of(content));
    }
    let len = (out.len() - start).next_multiple_of(ALIGN);
    out.resize(start + len, 0);
    len
}

fn bytes_of(content: Content<'_>) -> &[u8] {
    match content {
        Content::Here(bytes) => bytes,
        Content::Gone | Content::Damaged => &[],
    }
}

/// Lengths are checked against the limits of a record before anything is framed.
fn small(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The overwrite that erases a content: two places in the frame, and the bytes that go there.
#[derive(Debug)]
pub(crate) struct Erasure {
    pub(crate) entry_at: usize,
    pub(crate) entry: [u8; ENTRY_BYTES],
    pub(crate) bytes_at: usize,
    pub(crate) bytes_len: usize,
}

/// Plans the erasure of a content in a whole frame; `None` if there is nothing left to erase.
/// A content that is damaged is erased too.
pub(crate) fn plan_erasure(frame: &[u8], mark: FileMark, index: u16) -> Option<Erasure> {
    Frame::parse(frame, mark)?;
    let head = Head::parse(frame.first_chunk::<HEAD_BYTES>()?, mark)?;
    let index = usize::from(index);
    let table = &frame[HEAD_BYTES..HEAD_BYTES + head.contents * ENTRY_BYTES];
    let entry = table.chunks_exact(ENTRY_BYTES).nth(index)?;
    let before: usize = table
        .chunks_exact(ENTRY_BYTES)
        .take(index)
        .map(entry_len)
        .sum();
    let bytes_at = HEAD_BYTES + table.len() + head.body_len + before;
    let bytes_len = entry_len(entry);
    let erased = [GONE, entry[1], entry[2], entry[3], 0, 0, 0, 0];
    let bytes = &frame[bytes_at..bytes_at + bytes_len];
    // An erasure cut short by a power cut may have left either half undone.
    if *entry == erased && bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    Some(Erasure {
        entry_at: HEAD_BYTES + index * ENTRY_BYTES,
        entry: erased,
        bytes_at,
        bytes_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: FileMark = *b"\x91abcdefg";

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let contents = [
            Content::Here(b"hello"),
            Content::Here(b""),
            Content::Gone,
            Content::Here(&[7; 100]),
        ];
        let at = Position {
            mark: MARK,
            number: 9,
            synced: 7,
            last: true,
        };
        append_record(&mut out, at, 3, b"body", contents.into_iter());
        out
    }

    #[test]
    fn a_frame_reads_back_as_written() {
        let bytes = sample();
        let frame = Frame::parse(&bytes, MARK).unwrap();
        assert_eq!(
            (frame.number, frame.synced, frame.kind, frame.last),
            (9, 7, 3, true)
        );
        assert_eq!(frame.body, b"body");
        let expected = [
            Content::Here(b"hello"),
            Content::Here(b""),
            Content::Gone,
            Content::Here(&[7; 100]),
        ];
        assert_eq!(frame.contents, expected);
        assert_eq!(bytes.len() % ALIGN, 0);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = sample();
        for at in 0..bytes.len() {
            for change in 1..=255u8 {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let noticed = Frame::parse(&changed, MARK).is_none_or(|frame| {
                    !frame.padding_is_zero || frame.contents.contains(&Content::Damaged)
                });
                assert!(noticed, "byte {at} xor {change}");
            }
        }
    }

    #[test]
    fn a_damaged_content_stays_damaged_when_it_is_copied() {
        let mut out = Vec::new();
        let at = Position {
            mark: MARK,
            number: 1,
            synced: 0,
            last: true,
        };
        append_record(&mut out, at, 0, b"", [Content::Damaged].into_iter());
        assert_eq!(
            Frame::parse(&out, MARK).unwrap().contents,
            [Content::Damaged]
        );
    }

    #[test]
    fn a_cut_frame_is_no_frame() {
        let bytes = sample();
        for len in 0..bytes.len() {
            assert!(Frame::parse(&bytes[..len], MARK).is_none());
        }
    }

    #[test]
    fn erasing_a_content_leaves_the_frame_and_the_others_whole() {
        let mut bytes = sample();
        let plan = plan_erasure(&bytes, MARK, 0).unwrap();
        bytes[plan.entry_at..plan.entry_at + ENTRY_BYTES].copy_from_slice(&plan.entry);
        bytes[plan.bytes_at..plan.bytes_at + plan.bytes_len].fill(0);
        let frame = Frame::parse(&bytes, MARK).unwrap();
        assert_eq!(frame.contents[0], Content::Gone);
        assert_eq!(frame.contents[3], Content::Here(&[7; 100]));
        assert!(!bytes.windows(5).any(|window| window == b"hello"));
        assert!(plan_erasure(&bytes, MARK, 0).is_none());
        assert!(plan_erasure(&bytes, MARK, 4).is_none());
    }

    #[test]
    fn half_of_an_erasure_is_never_read_as_a_content() {
        let bytes = sample();
        let plan = plan_erasure(&bytes, MARK, 3).unwrap();
        let mut entry_only = bytes.clone();
        entry_only[plan.entry_at..plan.entry_at + ENTRY_BYTES].copy_from_slice(&plan.entry);
        assert_eq!(
            Frame::parse(&entry_only, MARK).unwrap().contents[3],
            Content::Gone
        );
        assert!(plan_erasure(&entry_only, MARK, 3).is_some());
        let mut bytes_only = bytes.clone();
        bytes_only[plan.bytes_at..plan.bytes_at + 50].fill(0);
        assert_eq!(
            Frame::parse(&bytes_only, MARK).unwrap().contents[3],
            Content::Damaged
        );
        assert!(plan_erasure(&bytes_only, MARK, 3).is_some());
    }
}
