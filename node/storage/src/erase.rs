//! Erasing contents in place.
//!
//! That an erasure is decided is a row of the index, written in the same batch as the rows that
//! follow from it, and deleted once the bytes are overwritten: a crash in between repeats it.

use std::{collections::BTreeMap, io};

use crate::{
    index::{Batch, Direction, StoreError, rows},
    limits::BATCH_DELETES,
    log::{
        file::{FileId, Header, HeaderRead, LogFile},
        frame,
    },
    reader,
    record::ContentAt,
    shared::Shared,
};

/// Erases everything that is decided.
pub(crate) fn pending(shared: &Shared) -> io::Result<()> {
    loop {
        let places = shared.erasing.first(BATCH_DELETES);
        if places.is_empty() {
            return Ok(());
        }
        erase(shared, &places)?;
        let forget: Batch = places
            .iter()
            .map(|place| (rows::erase_key(*place), None))
            .collect();
        shared
            .store
            .apply(&forget)
            .map_err(|error| store_failed(shared, error))?;
        shared.erasing.remove(&places);
    }
}

/// Takes up what a crash interrupted.
pub(crate) fn resume(shared: &Shared) -> io::Result<()> {
    loop {
        let found = shared
            .store
            .scan(&rows::erase_range(), Direction::Forward, BATCH_DELETES)
            .map_err(|error| store_failed(shared, error))?;
        let places: Vec<_> = found
            .iter()
            .filter_map(|(key, _)| rows::erase_place(key))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        shared.erasing.written(places);
        pending(shared)?;
    }
}

fn erase(shared: &Shared, places: &[ContentAt]) -> io::Result<()> {
    if !shared.config.overwrite_erased {
        return Ok(());
    }
    let mut by_file: BTreeMap<FileId, Vec<(u32, u32, u16)>> = BTreeMap::new();
    for at in places {
        let place =
            reader::place(shared, at.record).map_err(|error| store_failed(shared, error))?;
        if let Some(place) = place {
            let id = FileId {
                file: place.file,
                generation: place.generation,
            };
            by_file
                .entry(id)
                .or_default()
                .push((place.offset, place.len, at.index));
        }
    }
    for (id, contents) in by_file {
        // A descriptor of its own: the kernel reports a failed write-back once to each, and the
        // committer must not miss it because this thread was told first.
        let handle = shared.config.files.0.open(&id.path(&shared.log_dir))?;
        let HeaderRead::Known { header, .. } = Header::read(&*handle)? else {
            return Err(io::Error::other("a log file without a header"));
        };
        let file = LogFile {
            header,
            len: handle.len()?,
            handle,
        };
        let plans = contents
            .into_iter()
            .map(|(offset, len, index)| plan(&file, u64::from(offset), len as usize, index))
            .collect::<io::Result<Vec<_>>>()?;
        let plans: Vec<_> = plans.into_iter().flatten().collect();
        if plans.is_empty() {
            continue;
        }
        // First that they are gone, durably, then the bytes: cut short in between, a content is
        // gone, and never one that looks damaged.
        for (offset, plan) in &plans {
            file.handle
                .write_at(&plan.entry, offset + plan.entry_at as u64)?;
        }
        file.handle.sync()?;
        let mut dead = 0;
        for (offset, plan) in &plans {
            file.handle
                .write_at(&vec![0; plan.bytes_len], offset + plan.bytes_at as u64)?;
            dead += plan.bytes_len as u64;
        }
        file.handle.sync()?;
        note_dead(shared, id.file, dead)?;
    }
    Ok(())
}

/// The overwrite of one content with its frame's offset; `None` if there is nothing left to do.
fn plan(
    file: &LogFile,
    offset: u64,
    len: usize,
    index: u16,
) -> io::Result<Option<(u64, frame::Erasure)>> {
    let mut bytes = vec![0; len];
    let read = file.handle.read_at(&mut bytes, offset)?;
    let plan = frame::plan_erasure(&bytes[..read], file.header.mark, index);
    Ok(plan.map(|plan| (offset, plan)))
}

fn note_dead(shared: &Shared, file: u32, dead: u64) -> io::Result<()> {
    if dead == 0 {
        return Ok(());
    }
    if let Some(usage) = shared.files.update(file, |usage| usage.dead += dead) {
        let key = rows::dead_key(file);
        let row = rows::wrap(&key, &usage.dead.to_be_bytes());
        let batch = Batch::from([(key, Some(row))]);
        shared
            .store
            .apply(&batch)
            .map_err(|error| store_failed(shared, error))?;
    }
    Ok(())
}

pub(crate) fn store_failed(shared: &Shared, error: StoreError) -> io::Error {
    shared.note_index_failure(&error);
    match error {
        StoreError::Io(error) => io::Error::new(error.kind(), error),
        StoreError::Damaged(_) => io::Error::other(error),
    }
}
