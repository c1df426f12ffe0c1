//! The end of the log: where it is, what is cut off, what is missing.

use super::{
    failed, log_dir,
    survey::{Survey, Surveyed},
};
use crate::{
    committer::Tail,
    config::Config,
    error::OpenError,
    log::{
        file::{FRAMES_AT, LogFile},
        frame::{self, HEAD_BYTES, Position},
        scan,
    },
    report::{Damage, DamageKind},
};

/// Finds the end, clears what lies behind it, and accounts for records up to `floor` that were
/// acknowledged and are not there. Returns the bytes cut off.
pub(super) fn mend(
    config: &Config,
    survey: &Survey,
    incarnation: [u8; 16],
    mut floor: u64,
    damage: &mut Vec<Damage>,
) -> Result<(Tail, u64), OpenError> {
    let dir = log_dir(config);
    let mut newest = 0;
    let mut current: Option<(LogFile, u64)> = None;
    let mut ready = None;
    let mut torn = 0;
    for surveyed in survey.files.iter().rev() {
        let file = match surveyed {
            Surveyed::Known { file, .. } => file,
            Surveyed::Broken { bytes, .. } => {
                if current.is_none() {
                    // Nobody can tell how many records it held. Numbers are plenty: none of them
                    // is given to another record.
                    floor = floor.max(newest_before(config, survey)? + bytes / HEAD_BYTES as u64);
                    break;
                }
                continue;
            }
        };
        let path = file.header.id.path(&dir);
        let end = scan::find_end(file, floor).map_err(failed("read", &path))?;
        if !end.has_frames && end.dirty.is_none() && current.is_none() {
            // Only the oldest of the empty files is next in order.
            if let Some(later) = ready.replace(file.clone()) {
                remove(config, &later)?;
            }
            continue;
        }
        if current.is_none() {
            if let Some((from, to)) = end.dirty {
                torn = to - from;
                scan::zero(file, from, to).map_err(failed("clear", &path))?;
            }
            current = Some((file.clone(), end.offset));
        }
        let is_current = current
            .as_ref()
            .is_some_and(|(at, _)| at.header.id == file.header.id);
        if let Some(number) = if is_current { end.newest } else { end.highest } {
            newest = number;
            break;
        }
    }
    if current.is_none() {
        newest = newest_before(config, survey)?;
    }
    let next_file = survey.next_file();
    let mut tail = match current {
        Some((file, at)) => Tail::new(file, at, newest, next_file, ready),
        // A file behind a broken one must not be older than it.
        None => {
            match ready.filter(|_| !matches!(survey.files.last(), Some(Surveyed::Broken { .. }))) {
                Some(file) => Tail::new(file, FRAMES_AT, newest, next_file, None),
                None => {
                    let file = prepare(config, next_file, incarnation)?;
                    Tail::new(file, FRAMES_AT, newest, next_file + 1, None)
                }
            }
        }
    };
    if floor > newest {
        let path = tail.file.header.id.path(&dir);
        damage.push(Damage {
            file: Some(path),
            offset: tail.at,
            bytes: torn,
            first: newest + 1,
            last: floor,
            kind: DamageKind::Tail,
        });
        skip_to(config, &mut tail, floor, incarnation)?;
        return Ok((tail, 0));
    }
    Ok((tail, torn))
}

/// Writes down that the numbers up to `floor` are lost, so that they are never given again.
fn skip_to(
    config: &Config,
    tail: &mut Tail,
    floor: u64,
    incarnation: [u8; 16],
) -> Result<(), OpenError> {
    let mut frame = Vec::new();
    let gap = |out: &mut Vec<u8>, file: &LogFile| {
        let number = tail.newest + 1;
        let at = Position {
            mark: file.header.mark,
            number,
            synced: tail.newest,
            last: true,
        };
        frame::append_gap(out, at, floor, true)
    };
    let len = gap(&mut frame, &tail.file) as u64;
    if tail.at + len > tail.file.len {
        let next = match tail.ready.take() {
            Some(next) => next,
            None => {
                tail.next_file += 1;
                prepare(config, tail.next_file - 1, incarnation)?
            }
        };
        frame.clear();
        let number = tail.newest + 1;
        let at = Position {
            mark: next.header.mark,
            number,
            synced: tail.newest,
            last: true,
        };
        frame::append_gap(&mut frame, at, floor, true);
        tail.file = next;
        tail.at = FRAMES_AT;
    }
    let path = tail.file.header.id.path(&log_dir(config));
    let written = tail.file.handle.write_at(&frame, tail.at);
    written
        .and_then(|()| tail.file.handle.sync())
        .map_err(failed("write", &path))?;
    tail.at += len;
    tail.newest = floor;
    Ok(())
}

/// The newest number in any file that can be read.
fn newest_before(config: &Config, survey: &Survey) -> Result<u64, OpenError> {
    for file in survey.known().rev() {
        let path = file.header.id.path(&log_dir(config));
        if let Some(newest) = scan::find_end(file, 0)
            .map_err(failed("read", &path))?
            .highest
        {
            return Ok(newest);
        }
    }
    Ok(0)
}

fn prepare(config: &Config, file: u32, incarnation: [u8; 16]) -> Result<LogFile, OpenError> {
    let dir = log_dir(config);
    LogFile::prepare(&config.files, &dir, file, incarnation, config.file_bytes)
        .map_err(failed("make a log file in", &dir))
}

fn remove(config: &Config, file: &LogFile) -> Result<(), OpenError> {
    let path = file.header.id.path(&log_dir(config));
    config
        .files
        .0
        .remove(&path)
        .map_err(failed("remove", &path))
}
