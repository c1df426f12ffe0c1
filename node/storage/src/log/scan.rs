//! Reading one log file frame by frame, past damage.
//!
//! Where no frame verifies, the next one is looked for at every multiple of eight. That is linear:
//! only positions that hold the file's mark are looked at closer.

use std::io;

use super::{
    file::{FRAMES_AT, LogFile},
    frame::{ALIGN, FileMark, Frame, HEAD_BYTES, Head},
};
use crate::{files::FileHandle, record::Content};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Read one by one where a chunk cannot be read.
const PAGE_BYTES: usize = 4_096;

/// What lies at a position of a log file.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Frame {
        offset: u64,
        len: u32,
        frame: Frame<'a>,
    },
    /// No frame, but one follows.
    Hole { offset: u64, bytes: u64 },
}

/// Reads a range of a log file in order.
pub(crate) struct Scanner<'a> {
    window: Window<'a>,
    mark: FileMark,
    at: u64,
    end: u64,
    /// Set at the end: bytes after the last frame that are not zero.
    dirty: Option<(u64, u64)>,
}

impl<'a> Scanner<'a> {
    /// Reads the frames between two offsets; `from` must be where a frame starts.
    pub(crate) fn new(file: &'a LogFile, from: u64, to: u64) -> Self {
        Self {
            window: Window {
                handle: &*file.handle,
                buffer: Vec::new(),
                start: 0,
            },
            mark: file.header.mark,
            at: from.max(FRAMES_AT),
            end: to.min(file.len),
            dirty: None,
        }
    }

    /// The next frame or hole; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        let offset = self.at;
        if self.is_frame(offset)? {
            let len = self.frame_len(offset)?;
            self.at += len as u64;
            let bytes = self.window.bytes(offset, len)?;
            let frame =
                Frame::parse(bytes, self.mark).ok_or_else(|| io::Error::other("unsteady read"))?;
            let len = u32::try_from(len).map_err(io::Error::other)?;
            return Ok(Some(Found::Frame { offset, len, frame }));
        }
        match self.next_frame(offset)? {
            Some(next) => {
                self.at = next;
                Ok(Some(Found::Hole {
                    offset,
                    bytes: next - offset,
                }))
            }
            None => Ok(None),
        }
    }

    /// After the end: the range that holds bytes other than zero, if there are any.
    pub(crate) fn dirty(&self) -> Option<(u64, u64)> {
        self.dirty
    }

    /// Where the last frame ended.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    fn frame_len(&mut self, at: u64) -> io::Result<usize> {
        if self.end.saturating_sub(at) < HEAD_BYTES as u64 {
            return Ok(0);
        }
        let head = self.window.bytes(at, HEAD_BYTES)?;
        let head = head
            .first_chunk()
            .and_then(|head| Head::parse(head, self.mark));
        let len = head.map_or(0, |head| head.frame_len());
        Ok(if len as u64 <= self.end - at { len } else { 0 })
    }

    fn is_frame(&mut self, at: u64) -> io::Result<bool> {
        let len = self.frame_len(at)?;
        if len == 0 {
            return Ok(false);
        }
        let mark = self.mark;
        Ok(Frame::parse(self.window.bytes(at, len)?, mark).is_some())
    }

    fn next_frame(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at < self.end {
            let count =
                usize::try_from(self.end - at).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
            let mark = self.mark;
            let bytes = self.window.bytes(at, count)?;
            let mut candidates = Vec::new();
            for (index, word) in bytes.chunks(ALIGN).enumerate() {
                if word.iter().all(|byte| *byte == 0) {
                    continue;
                }
                let place = at + (index * ALIGN) as u64;
                let (low, _) = self.dirty.unwrap_or((place, place));
                self.dirty = Some((low, (place + ALIGN as u64).min(self.end)));
                if word == mark && place > from {
                    candidates.push(place);
                }
            }
            for candidate in candidates {
                if self.is_frame(candidate)? {
                    self.dirty = None;
                    return Ok(Some(candidate));
                }
            }
            at += count as u64;
        }
        Ok(None)
    }
}

/// A part of the file in memory.
struct Window<'a> {
    handle: &'a dyn FileHandle,
    buffer: Vec<u8>,
    start: u64,
}

impl Window<'_> {
    /// Bytes of a range inside the file.
    fn bytes(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let held = self.start + self.buffer.len() as u64;
        if at < self.start || at + count as u64 > held {
            self.buffer.resize(count.max(CHUNK_BYTES), 0);
            let len = read_what_can_be_read(self.handle, &mut self.buffer, at)?;
            self.buffer.truncate(len.max(count));
            self.start = at;
        }
        let skip = usize::try_from(at - self.start).map_err(io::Error::other)?;
        Ok(&self.buffer[skip..skip + count])
    }
}

/// A page the disk cannot give back reads as zeros: it is then found to be no frame, and what
/// follows it is read.
fn read_what_can_be_read(file: &dyn FileHandle, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    match file.read_at(buffer, at) {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
        read => return read,
    }
    let mut offset = at;
    for page in buffer.chunks_mut(PAGE_BYTES) {
        match file.read_at(page, offset) {
            Ok(len) => page[len..].fill(0),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => page.fill(0),
            Err(error) => return Err(error),
        }
        offset += page.len() as u64;
    }
    Ok(buffer.len())
}

/// Where a file that is still appended to ends.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct End {
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// Bytes after it that are not zero: a write that was never acknowledged.
    pub(crate) dirty: Option<(u64, u64)>,
    /// Whether the file holds frames before the end.
    pub(crate) has_frames: bool,
    /// The newest number before the end.
    pub(crate) newest: Option<u64>,
    /// The newest number in the file, damage or not.
    pub(crate) highest: Option<u64>,
}

/// Tells an unfinished last group from damage.
///
/// Every frame says up to which record all was durable when it was written. A hole is damage if a
/// later frame, or `floor` (a record known to have been acknowledged), says that what is missing
/// was durable; else it belongs to the one group that was under way when the power went, and the
/// log ends before it. So does a submission whose last record is missing, and a record with a content
/// that does not verify.
pub(crate) fn find_end(file: &LogFile, floor: u64) -> io::Result<End> {
    let mut scanner = Scanner::new(file, FRAMES_AT, file.len);
    // First number missing in each hole that may still be the unfinished group.
    let mut open_holes: Vec<u64> = Vec::new();
    let mut hole_before = false;
    let mut newest = None;
    let mut end = FRAMES_AT;
    let mut newest_before_end = None;
    while let Some(found) = scanner.next()? {
        match found {
            Found::Hole { .. } => hole_before = true,
            Found::Frame { offset, len, frame } => {
                if std::mem::take(&mut hole_before) {
                    let missing =
                        newest.map_or(frame.number.saturating_sub(1), |newest: u64| newest + 1);
                    open_holes.push(missing);
                }
                open_holes.retain(|missing| *missing > frame.synced.max(floor));
                // The frame may be on the disk and a part of its contents not.
                if frame.number > floor && frame.contents.contains(&Content::Damaged) {
                    open_holes.push(frame.number);
                }
                if open_holes.is_empty() {
                    if newest.is_none_or(|newest| newest <= frame.synced.max(floor)) {
                        end = offset;
                        newest_before_end = newest;
                    }
                    if frame.last || frame.last_number() <= floor {
                        end = offset + u64::from(len);
                        newest_before_end = Some(frame.last_number());
                    }
                }
                newest = Some(frame.last_number());
            }
        }
    }
    let stop = scanner.at();
    let dirty = match scanner.dirty() {
        Some((_, to)) => Some((end, to)),
        None if stop > end => Some((end, stop)),
        None => None,
    };
    Ok(End {
        offset: end,
        dirty,
        has_frames: end > FRAMES_AT,
        newest: newest_before_end,
        highest: newest,
    })
}

/// Overwrites a range with zeros, durably: what was cut off must never be found again behind
/// frames that are written later.
pub(crate) fn zero(file: &LogFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = from;
    while at < to {
        let count = usize::try_from(to - at).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
        file.handle.write_at(&zeros[..count], at)?;
        at += count as u64;
    }
    file.handle.sync()
}
