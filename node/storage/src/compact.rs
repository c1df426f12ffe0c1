//! Compaction: a full file is written again without what is not needed any more.
//!
//! The new file takes the next generation of the same number. Only when its places are in the
//! index, durably, is the old one removed; a crash in between leaves both, and the next open ends
//! the work with the newer one.

use std::{
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::Ordering},
};

use crate::{
    erase::store_failed,
    guard,
    index::{
        Batch, Direction,
        rows::{self, Place},
    },
    limits::{BATCH_DELETES, BATCH_ROWS},
    log::{
        file::{FRAMES_AT, FileId, Header, LogFile, random_mark},
        frame::{self, Frame, FrameType, Position},
        scan::{Found, Scanner},
    },
    maintenance,
    projection::{Keep, Projection},
    reader::Reader,
    record::{Content, RecordView},
    shared::{Shared, Usage, lock},
};

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// Compacts one full file; returns its new size, or `None` if it was left alone because bytes at
/// its edge are damaged: which numbers they held is known only together with its neighbours.
pub(crate) fn file<P: Projection>(
    shared: &Arc<Shared>,
    projection: &Mutex<P>,
    usage: Usage,
) -> io::Result<Option<u64>> {
    let old = shared.files.open(shared, usage.id)?;
    let id = FileId {
        generation: usage.id.generation + 1,
        ..usage.id
    };
    let unfinished = id.unfinished_path(&shared.log_dir);
    let files = &shared.config.files.0;
    let header = Header {
        id,
        mark: random_mark()?,
        incarnation: shared.incarnation,
    };
    let rewritten = rewrite(shared, projection, &old, header);
    let Some(new) = rewritten.inspect_err(|_| drop(files.remove(&unfinished)))? else {
        files.remove(&unfinished)?;
        // Not tried again by itself before more of it is dead.
        shared.files.update(usage.id.file, |usage| usage.dead = 0);
        return Ok(None);
    };
    files.rename(&unfinished, &id.path(&shared.log_dir))?;
    files.sync_dir(&shared.log_dir)?;
    let bytes = new.len;
    adopt(shared, &new)?;
    // What died while the file was being rewritten is in the new one, or was left out of it just
    // in time: counted, it costs another look at most; forgotten, it would stay for ever.
    shared.files.update(usage.id.file, |now| {
        *now = Usage {
            id,
            bytes,
            dead: now.dead.saturating_sub(usage.dead),
            full: true,
        };
    });
    shared.files.remember(new);
    maintenance::savepoint(shared, false)?;
    shared.files.forget(usage.id);
    files.remove(&usage.id.path(&shared.log_dir))?;
    files.sync_dir(&shared.log_dir)?;
    shared.figures.compacted.fetch_add(1, Ordering::Relaxed);
    Ok(Some(bytes))
}

/// Numbers without a record that wait to be written as one frame.
#[derive(Clone, Copy)]
struct Gap {
    first: u64,
    last: u64,
    lost: bool,
}

struct Rewriter {
    file: LogFile,
    buffer: Vec<u8>,
    gap: Option<Gap>,
}

fn rewrite<P: Projection>(
    shared: &Arc<Shared>,
    projection: &Mutex<P>,
    old: &LogFile,
    header: Header,
) -> io::Result<Option<LogFile>> {
    let reader = Reader {
        shared: Arc::clone(shared),
    };
    let handle = shared
        .config
        .files
        .0
        .create(&header.id.unfinished_path(&shared.log_dir))?;
    let mut out = Rewriter {
        file: LogFile {
            header,
            handle,
            len: 0,
        },
        buffer: header.to_block(),
        gap: None,
    };
    let mut scanner = Scanner::new(old, FRAMES_AT, old.len);
    let mut expected = None;
    let mut hole = false;
    while let Some(found) = scanner.next()? {
        let frame = match found {
            Found::Hole { .. } => {
                hole = true;
                continue;
            }
            Found::Frame { frame, .. } => frame,
        };
        match expected {
            None if hole => return Ok(None),
            Some(first) if first < frame.number => {
                out.skip(Gap {
                    first,
                    last: frame.number - 1,
                    lost: true,
                })?;
            }
            _ => {}
        }
        hole = false;
        expected = Some(frame.last_number() + 1);
        match frame.frame_type {
            FrameType::Dropped { last } => out.skip(Gap {
                first: frame.number,
                last,
                lost: false,
            })?,
            FrameType::Lost { last } => out.skip(Gap {
                first: frame.number,
                last,
                lost: true,
            })?,
            FrameType::Record => match keep(projection, &frame, &reader)? {
                Keep::Whole => out.keep(&frame, true)?,
                Keep::WithoutContents => out.keep(&frame, false)?,
                Keep::Drop => {
                    let number = frame.number;
                    out.skip(Gap {
                        first: number,
                        last: number,
                        lost: false,
                    })?;
                }
            },
        }
    }
    if scanner.dirty().is_some() {
        return Ok(None);
    }
    out.finish().map(Some)
}

fn keep<P: Projection>(
    projection: &Mutex<P>,
    frame: &Frame<'_>,
    reader: &Reader,
) -> io::Result<Keep> {
    let view = RecordView {
        kind: frame.kind,
        body: frame.body,
        contents: &frame.contents,
    };
    // Locked for one record at a time: the committer needs it for every group.
    let projection = lock(projection);
    catch_unwind(AssertUnwindSafe(|| {
        projection.keep(frame.number, view, reader)
    }))
    .map_err(|panic| io::Error::other(guard::reason(&*panic)))
}

impl Rewriter {
    fn position(&self, number: u64) -> Position {
        // The file is synced whole before anybody sees it.
        Position {
            mark: self.file.header.mark,
            number,
            synced: number - 1,
            last: true,
        }
    }

    fn keep(&mut self, frame: &Frame<'_>, contents: bool) -> io::Result<()> {
        self.flush_gap();
        let at = self.position(frame.number);
        let kept = frame
            .contents
            .iter()
            .map(|content| if contents { *content } else { Content::Gone });
        frame::append_record(&mut self.buffer, at, frame.kind, frame.body, kept);
        self.write_if_large()
    }

    fn skip(&mut self, next: Gap) -> io::Result<()> {
        match &mut self.gap {
            Some(gap) if gap.lost == next.lost && gap.last + 1 == next.first => {
                gap.last = next.last
            }
            _ => {
                self.flush_gap();
                self.gap = Some(next);
            }
        }
        self.write_if_large()
    }

    fn flush_gap(&mut self) {
        if let Some(gap) = self.gap.take() {
            let at = self.position(gap.first);
            frame::append_gap(&mut self.buffer, at, gap.last, gap.lost);
        }
    }

    fn write_if_large(&mut self) -> io::Result<()> {
        if self.buffer.len() >= WRITE_BYTES {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.handle.write_at(&self.buffer, self.file.len)?;
        self.file.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<LogFile> {
        self.flush_gap();
        self.write()?;
        self.file.handle.sync()?;
        Ok(self.file)
    }
}

/// Points the index at a compacted file. Doing it twice is the same as once.
pub(crate) fn adopt(shared: &Shared, file: &LogFile) -> io::Result<()> {
    let id = file.header.id;
    let mut batch = Batch::new();
    let mut scanner = Scanner::new(file, FRAMES_AT, file.len);
    let newest = shared.applied.load(Ordering::SeqCst);
    while let Some(found) = scanner.next()? {
        let Found::Frame { offset, len, frame } = found else {
            continue;
        };
        if frame.number > newest {
            continue;
        }
        match frame.frame_type {
            FrameType::Record => {
                let offset = u32::try_from(offset).map_err(io::Error::other)?;
                let place = Place {
                    file: id.file,
                    generation: id.generation,
                    offset,
                    len,
                };
                let key = rows::place_key(frame.number);
                let row = rows::wrap(&key, &place.to_bytes());
                batch.insert(key, Some(row));
                if batch.len() >= BATCH_ROWS {
                    shared
                        .store
                        .apply(&batch)
                        .map_err(|error| store_failed(shared, error))?;
                    batch.clear();
                }
            }
            FrameType::Dropped { last } => forget_places(shared, frame.number, last)?,
            FrameType::Lost { .. } => {}
        }
    }
    let key = rows::dead_key(id.file);
    let row = rows::wrap(&key, &0u64.to_be_bytes());
    batch.insert(key, Some(row));
    shared
        .store
        .apply(&batch)
        .map_err(|error| store_failed(shared, error))
}

fn forget_places(shared: &Shared, first: u64, last: u64) -> io::Result<()> {
    let mut range = rows::place_range(first, last);
    loop {
        let found = shared
            .store
            .scan(&range, Direction::Forward, BATCH_DELETES)
            .map_err(|error| store_failed(shared, error))?;
        let Some((newest, _)) = found.last() else {
            return Ok(());
        };
        range.0 = Bound::Excluded(newest.clone());
        let batch: Batch = found.into_iter().map(|(key, _)| (key, None)).collect();
        shared
            .store
            .apply(&batch)
            .map_err(|error| store_failed(shared, error))?;
    }
}
