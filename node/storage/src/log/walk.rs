//! Reading the whole log, file after file, with every number accounted for.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    file::{FRAMES_AT, LogFile},
    frame::{Frame, FrameType},
    scan::{Found, Scanner},
};
use crate::{
    index::rows::Place,
    limits::DAMAGES_MAX,
    record::Content,
    report::{Damage, DamageKind},
};

/// One file of the walk.
#[derive(Clone)]
pub(crate) enum WalkFile {
    /// Read up to this offset.
    Log {
        file: LogFile,
        path: PathBuf,
        end: u64,
    },
    /// Both headers are damaged: without the mark no frame can be told.
    Broken { path: PathBuf, bytes: u64 },
}

/// What the walk meets, in the order of numbers.
pub(crate) enum Step<'a> {
    Record { place: Place, frame: &'a Frame<'a> },
    Gap { first: u64, last: u64, lost: bool },
}

/// State of a walk over the log.
pub(crate) struct Walk {
    /// The number that comes next.
    pub(crate) expected: u64,
    pub(crate) damage: Vec<Damage>,
    /// Where bytes are missing, until the next frame tells which numbers these were.
    holes: Vec<(PathBuf, u64, u64)>,
}

impl Walk {
    pub(crate) fn new(expected: u64) -> Self {
        Self {
            expected,
            damage: Vec::new(),
            holes: Vec::new(),
        }
    }

    /// Walks one file from an offset. A failure of `step` ends the walk and is handed on.
    pub(crate) fn file<E: From<io::Error>>(
        &mut self,
        file: &WalkFile,
        from: u64,
        step: &mut dyn FnMut(Step<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (log, path, end) = match file {
            WalkFile::Broken { path, bytes } => {
                self.holes.push((path.clone(), 0, *bytes));
                return Ok(());
            }
            WalkFile::Log { file, path, end } => (file, path, *end),
        };
        let mut scanner = Scanner::new(log, from.max(FRAMES_AT), end);
        while let Some(found) = scanner.next()? {
            match found {
                Found::Hole { offset, bytes } => self.holes.push((path.clone(), offset, bytes)),
                Found::Frame { offset, len, frame } => {
                    if frame.number < self.expected {
                        // Nobody writes a number twice; the first one counts.
                        self.holes.push((path.clone(), offset, u64::from(len)));
                        continue;
                    }
                    self.settle(path, offset, frame.number);
                    self.contents(path, offset, len, &frame);
                    self.expected = frame.last_number().saturating_add(1);
                    let id = log.header.id;
                    step(match frame.frame_type {
                        FrameType::Record => Step::Record {
                            place: Place {
                                file: id.file,
                                generation: id.generation,
                                offset: u32::try_from(offset).map_err(io::Error::other)?,
                                len,
                            },
                            frame: &frame,
                        },
                        FrameType::Dropped { last } => Step::Gap {
                            first: frame.number,
                            last,
                            lost: false,
                        },
                        FrameType::Lost { last } => Step::Gap {
                            first: frame.number,
                            last,
                            lost: true,
                        },
                    })?;
                }
            }
        }
        if let Some((low, high)) = scanner.dirty() {
            self.holes.push((path.clone(), low, high - low));
        }
        Ok(())
    }

    /// Closes the walk: holes at the very end have no frame after them to tell their numbers.
    pub(crate) fn finish(&mut self) {
        let next = self.expected;
        self.name_holes(next);
    }

    /// Names what is missing before `number`.
    fn settle(&mut self, path: &Path, offset: u64, number: u64) {
        if self.holes.is_empty() && number > self.expected {
            self.holes.push((path.to_owned(), offset, 0));
        }
        self.name_holes(number);
    }

    fn name_holes(&mut self, next: u64) {
        for (path, offset, bytes) in std::mem::take(&mut self.holes) {
            let lost = next > self.expected;
            self.push(Damage {
                file: Some(path),
                offset,
                bytes,
                first: self.expected,
                last: next - 1,
                kind: if lost {
                    DamageKind::Records
                } else {
                    DamageKind::Padding
                },
            });
        }
    }

    fn contents(&mut self, path: &Path, offset: u64, len: u32, frame: &Frame<'_>) {
        let here = |first: u64, last: u64, kind: DamageKind| Damage {
            file: Some(path.to_owned()),
            offset,
            bytes: u64::from(len),
            first,
            last,
            kind,
        };
        let number = frame.number;
        for (index, content) in frame.contents.iter().enumerate() {
            if *content == Content::Damaged {
                let index = u16::try_from(index).unwrap_or(u16::MAX);
                self.push(here(number, number, DamageKind::Content(index)));
            }
        }
        if !frame.padding_is_zero {
            self.push(here(number, number - 1, DamageKind::Padding));
        }
    }

    pub(crate) fn push(&mut self, damage: Damage) {
        if self.damage.len() < DAMAGES_MAX {
            self.damage.push(damage);
        }
    }
}
