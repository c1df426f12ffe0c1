//! What waits for the committer, bounded in records and bytes.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
};

use crate::{
    error::SubmitError,
    limits::{
        CONTENTS_MAX, QUEUE_BYTES_MAX, QUEUE_RECORDS_MAX, RECORD_BYTES_MAX, SUBMISSION_BYTES_MAX,
        SUBMISSION_RECORDS_MAX,
    },
    log::frame,
    record::Record,
    shared::lock,
    storage::Done,
};

/// Records that stand or fall together.
pub(crate) struct Submission {
    pub(crate) records: Vec<Record>,
    pub(crate) done: Done,
    /// Bytes handed in.
    pub(crate) bytes: usize,
    /// Bytes they take in a log file.
    pub(crate) frame_bytes: usize,
}

impl Submission {
    pub(crate) fn new(records: Vec<Record>, done: Done) -> Self {
        let bytes = records.iter().map(record_bytes).sum();
        let frame_bytes = records.iter().map(frame::record_frame_len).sum();
        Self {
            records,
            done,
            bytes,
            frame_bytes,
        }
    }

    /// Whether it is within the limits of one submission.
    pub(crate) fn check(&self) -> Result<(), SubmitError> {
        let too_large = |limit, unit| Err(SubmitError::TooLarge { limit, unit });
        if self.records.len() > SUBMISSION_RECORDS_MAX {
            return too_large(SUBMISSION_RECORDS_MAX, "records");
        }
        if self
            .records
            .iter()
            .any(|record| record.contents.len() > CONTENTS_MAX)
        {
            return too_large(CONTENTS_MAX, "contents");
        }
        if self
            .records
            .iter()
            .any(|record| record_bytes(record) > RECORD_BYTES_MAX)
        {
            return too_large(RECORD_BYTES_MAX, "bytes of a record");
        }
        if self.bytes > SUBMISSION_BYTES_MAX {
            return too_large(SUBMISSION_BYTES_MAX, "bytes");
        }
        Ok(())
    }
}

fn record_bytes(record: &Record) -> usize {
    record.body.len() + record.contents.iter().map(Vec::len).sum::<usize>()
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Submission>,
    records: usize,
    bytes: usize,
    closed: bool,
    /// Whether the committer sleeps; it is only then worth a system call to wake it.
    idle: bool,
}

impl Queue {
    /// Appends a submission, or gives it back with the reason.
    pub(crate) fn push(&self, submission: Submission) -> Result<(), (Submission, SubmitError)> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err((submission, SubmitError::Closed));
        }
        if state.records + submission.records.len() > QUEUE_RECORDS_MAX
            || state.bytes + submission.bytes > QUEUE_BYTES_MAX
        {
            return Err((submission, SubmitError::QueueFull));
        }
        state.records += submission.records.len();
        state.bytes += submission.bytes;
        state.waiting.push_back(submission);
        if std::mem::take(&mut state.idle) {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// The oldest submission; waits for one. `None` once it is closed and empty.
    pub(crate) fn wait(&self) -> Option<Submission> {
        let mut state = lock(&self.state);
        loop {
            if let Some(submission) = state.pop() {
                return Some(submission);
            }
            if state.closed {
                return None;
            }
            state.idle = true;
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Moves to `group` what is waiting, oldest first, for as long as `fits` agrees.
    pub(crate) fn take_while(
        &self,
        group: &mut Vec<Submission>,
        mut fits: impl FnMut(&Submission) -> bool,
    ) {
        let mut state = lock(&self.state);
        while state.waiting.front().is_some_and(&mut fits) {
            group.extend(state.pop());
        }
    }

    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.filled.notify_all();
    }

    pub(crate) fn records(&self) -> usize {
        lock(&self.state).records
    }
}

impl QueueState {
    fn pop(&mut self) -> Option<Submission> {
        let submission = self.waiting.pop_front()?;
        self.records -= submission.records.len();
        self.bytes -= submission.bytes;
        Some(submission)
    }
}
