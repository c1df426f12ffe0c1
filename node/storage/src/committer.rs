//! The one thread that writes: take what waits, write it, one sync, rows, acknowledge.
//!
//! There is no timer: while one group is synced the next one gathers.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Instant,
};

use crate::{
    apply::Applier,
    error::SubmitError,
    guard,
    index::rows::Place,
    limits::{FULL_RETRY, GROUP_BYTES_MAX, GROUP_RECORDS_MAX, SPACE_CHECK_BYTES},
    log::{
        file::{FRAMES_AT, LogFile},
        frame::{self, Position},
    },
    maintenance::Bell,
    projection::Projection,
    queue::{Queue, Submission},
    record::{Content, RecordView},
    report::{Durable, Health},
    shared::{Shared, Usage},
    storage::Done,
};

pub(crate) struct Committer<P> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) applier: Applier<P>,
    pub(crate) tail: Tail,
}

/// Where the log goes on.
pub(crate) struct Tail {
    pub(crate) file: LogFile,
    pub(crate) at: u64,
    /// Newest record written.
    pub(crate) newest: u64,
    /// The file after this one, if it is made already.
    pub(crate) ready: Option<LogFile>,
    pub(crate) next_file: u32,
    pub(crate) preparing: Option<JoinHandle<io::Result<LogFile>>>,
    pub(crate) unchecked_bytes: u64,
    pub(crate) refused_at: Option<Instant>,
    pub(crate) buffer: Vec<u8>,
}

impl Tail {
    pub(crate) fn new(
        file: LogFile,
        at: u64,
        newest: u64,
        next_file: u32,
        ready: Option<LogFile>,
    ) -> Self {
        Self {
            file,
            at,
            newest,
            ready,
            next_file,
            preparing: None,
            // The space is looked at before the first group.
            unchecked_bytes: SPACE_CHECK_BYTES,
            refused_at: None,
            buffer: Vec::new(),
        }
    }
}

/// Why a group has no room.
enum NoRoom {
    Full,
    Broken(Arc<str>),
}

impl<P: Projection> Committer<P> {
    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let mut group = Vec::new();
        while let Some(first) = self.queue.wait() {
            // Erasing is slower than deciding it: whoever decides too much waits here.
            while !self.shared.erasing.wait() && !self.is_read_only() {
                self.bell.ring();
            }
            let need = first.frame_bytes as u64;
            group.push(first);
            let refusal = match self.shared.health() {
                Health::ReadOnly(reason) => Some(SubmitError::ReadOnly(reason)),
                Health::Ok | Health::Full => match self.make_room(need) {
                    Ok(()) => None,
                    Err(NoRoom::Full) => Some(SubmitError::Full),
                    Err(NoRoom::Broken(reason)) => Some(SubmitError::ReadOnly(reason)),
                },
            };
            if let Some(error) = refusal {
                self.queue.take_while(&mut group, |_| true);
                refuse(&mut group, &error);
                continue;
            }
            self.gather(&mut group);
            match self.write(&group) {
                Ok(first) => acknowledge(&mut group, first),
                Err(reason) => refuse(&mut group, &SubmitError::ReadOnly(reason)),
            }
            self.look_ahead();
        }
        if let Some(preparing) = self.tail.preparing.take() {
            // Joined only so that nothing of this storage runs on after it is closed.
            let _ = preparing.join();
        }
    }

    fn is_read_only(&self) -> bool {
        matches!(self.shared.health(), Health::ReadOnly(_))
    }

    fn gather(&self, group: &mut Vec<Submission>) {
        let mut records: usize = group
            .iter()
            .map(|submission| submission.records.len())
            .sum();
        let mut bytes: usize = group.iter().map(|submission| submission.frame_bytes).sum();
        let room = usize::try_from(self.tail.file.len - self.tail.at).unwrap_or(usize::MAX);
        let limit = room.min(GROUP_BYTES_MAX);
        self.queue.take_while(group, |next| {
            let fits = records + next.records.len() <= GROUP_RECORDS_MAX
                && bytes + next.frame_bytes <= limit;
            if fits {
                records += next.records.len();
                bytes += next.frame_bytes;
            }
            fits
        });
    }

    /// Writes, syncs and applies a group; returns its first number.
    fn write(&mut self, group: &[Submission]) -> Result<u64, Arc<str>> {
        let synced = self.tail.newest;
        let mut buffer = std::mem::take(&mut self.tail.buffer);
        buffer.clear();
        let mut lens = Vec::new();
        let mut number = synced;
        for submission in group {
            for (index, record) in submission.records.iter().enumerate() {
                number += 1;
                let at = Position {
                    mark: self.tail.file.header.mark,
                    number,
                    synced,
                    last: index + 1 == submission.records.len(),
                };
                let contents = record.contents.iter().map(|content| Content::Here(content));
                lens.push(frame::append_record(
                    &mut buffer,
                    at,
                    record.kind,
                    &record.body,
                    contents,
                ));
            }
        }
        if lens.is_empty() {
            self.tail.buffer = buffer;
            return Ok(synced + 1);
        }
        let handle = &self.tail.file.handle;
        let start = self.tail.at;
        let written = handle.write_at(&buffer, start);
        let before_sync = Instant::now();
        let durable = written.and_then(|()| handle.sync());
        let sync_us = u64::try_from(before_sync.elapsed().as_micros()).unwrap_or(u64::MAX);
        // After a failed sync the kernel may have dropped the pages and called them clean: a
        // second sync would succeed and mean nothing.
        durable.map_err(|error| {
            self.shared
                .turn_read_only(&format!("the log cannot be written: {error}"))
        })?;
        self.tail.at += buffer.len() as u64;
        self.tail.newest = number;
        self.tail.unchecked_bytes += buffer.len() as u64;
        self.tail.buffer = buffer;
        if self.tail.buffer.capacity() > 2 * GROUP_BYTES_MAX {
            self.tail.buffer = Vec::new();
        }
        self.shared.durable.store(number, Ordering::SeqCst);
        self.shared.figures.group(lens.len() as u64, sync_us);
        let end = self.tail.at;
        self.shared
            .files
            .update(self.tail.file.header.id.file, |usage| usage.bytes = end);
        self.apply(group, synced + 1, start, &lens)
            .map_err(|error| self.shared.turn_read_only(&error.to_string()))?;
        Ok(synced + 1)
    }

    fn apply(
        &mut self,
        group: &[Submission],
        first: u64,
        start: u64,
        lens: &[usize],
    ) -> Result<(), crate::apply::ApplyError> {
        let id = self.tail.file.header.id;
        let mut offset = start;
        let records = group.iter().flat_map(|submission| &submission.records);
        for ((record, len), number) in records.zip(lens).zip(first..) {
            let contents: Vec<_> = record
                .contents
                .iter()
                .map(|content| Content::Here(content))
                .collect();
            let view = RecordView {
                kind: record.kind,
                body: &record.body,
                contents: &contents,
            };
            // Files and frames are bounded far below 4 GiB.
            let place = Place {
                file: id.file,
                generation: id.generation,
                offset: u32::try_from(offset).map_err(io::Error::other)?,
                len: u32::try_from(*len).map_err(io::Error::other)?,
            };
            offset += *len as u64;
            self.applier
                .record(number, view, place, 0)
                .inspect_err(|error| self.note(error))?;
        }
        self.applier
            .finish()
            .inspect_err(|error| self.note(error))?;
        self.bell.after_group(&self.shared);
        Ok(())
    }

    fn note(&self, error: &crate::apply::ApplyError) {
        if let crate::apply::ApplyError::Store(error) = error {
            self.shared.note_index_failure(error);
        }
    }

    /// Finds room for `need` bytes of frames in one file.
    fn make_room(&mut self, need: u64) -> Result<(), NoRoom> {
        let was_full = matches!(self.shared.health(), Health::Full);
        if was_full
            && self
                .tail
                .refused_at
                .is_some_and(|at| at.elapsed() < FULL_RETRY)
        {
            return Err(NoRoom::Full);
        }
        let room = self.check_space(was_full).and_then(|()| {
            if self.tail.at + need > self.tail.file.len {
                self.rotate(need)
            } else {
                Ok(())
            }
        });
        match room {
            Ok(()) => {
                self.shared.set_full(false);
                self.tail.refused_at = None;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.shared.set_full(true);
                self.tail.refused_at = Some(Instant::now());
                Err(NoRoom::Full)
            }
            Err(error) => {
                let reason = format!("a log file cannot be made: {error}");
                Err(NoRoom::Broken(self.shared.turn_read_only(&reason)))
            }
        }
    }

    fn check_space(&mut self, now: bool) -> io::Result<()> {
        if !now && self.tail.unchecked_bytes < SPACE_CHECK_BYTES {
            return Ok(());
        }
        let free = self
            .shared
            .config
            .files
            .0
            .free_bytes(&self.shared.config.dir)?;
        if free < self.shared.config.min_free_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.tail.unchecked_bytes = 0;
        Ok(())
    }

    fn rotate(&mut self, need: u64) -> io::Result<()> {
        let mut next = self.tail.ready.take();
        if let Some(preparing) = self.tail.preparing.take() {
            // A failure in the background is tried again here, where it can be answered.
            next = preparing.join().ok().and_then(Result::ok);
        }
        if let Some(small) = next.take_if(|next| next.len < FRAMES_AT + need) {
            self.shared
                .config
                .files
                .0
                .remove(&small.header.id.path(&self.shared.log_dir))?;
        }
        let next = match next {
            Some(next) => next,
            None => {
                let len = self.shared.config.file_bytes.max(FRAMES_AT + need);
                let made = LogFile::prepare(
                    &self.shared.config.files,
                    &self.shared.log_dir,
                    self.tail.next_file,
                    self.shared.incarnation,
                    len,
                )?;
                self.tail.next_file += 1;
                made
            }
        };
        self.shared
            .files
            .update(self.tail.file.header.id.file, |usage| {
                usage.full = true;
                usage.bytes = self.tail.file.len;
            });
        self.shared.files.set(Usage {
            id: next.header.id,
            bytes: FRAMES_AT,
            dead: 0,
            full: false,
        });
        self.shared.files.remember(next.clone());
        self.tail.file = next;
        self.tail.at = FRAMES_AT;
        self.bell.ring();
        Ok(())
    }

    /// Has the next file made while this one is half full, so that no group waits for it.
    fn look_ahead(&mut self) {
        let tail = &mut self.tail;
        if tail.ready.is_some() || tail.preparing.is_some() || tail.at < tail.file.len / 2 {
            return;
        }
        let shared = &self.shared;
        let (files, dir) = (shared.config.files.clone(), shared.log_dir.clone());
        let (file, incarnation, len) =
            (tail.next_file, shared.incarnation, shared.config.file_bytes);
        let made = std::thread::Builder::new()
            .name("storage-prepare".to_owned())
            .spawn(move || LogFile::prepare(&files, &dir, file, incarnation, len));
        // Without a thread the file is made when it is needed.
        if let Ok(preparing) = made {
            tail.next_file += 1;
            tail.preparing = Some(preparing);
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn acknowledge(group: &mut Vec<Submission>, mut first: u64) {
    for submission in group.drain(..) {
        let next = first + submission.records.len() as u64;
        answer(
            submission.done,
            Ok(Durable {
                first,
                last: next - 1,
            }),
        );
        first = next;
    }
}

fn refuse(group: &mut Vec<Submission>, error: &SubmitError) {
    for submission in group.drain(..) {
        answer(submission.done, Err(error.clone()));
    }
}

/// A callback that panics is its owner's trouble, not that of everybody who waits.
fn answer(done: Done, result: Result<Durable, SubmitError>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| done(result))) {
        tracing::error!(
            reason = guard::reason(&*panic),
            "a submission's callback panicked"
        );
    }
}
