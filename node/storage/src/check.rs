//! Reading everything: is the log what was written, does the index agree with it.

use std::{io, ops::Bound, sync::atomic::Ordering};

use crate::{
    error::ContentError,
    index::{Direction, KeyRange, StoreError, rows},
    log::{
        file::FRAMES_AT,
        walk::{Step, Walk, WalkFile},
    },
    reader::Reader,
    record::{Content, ContentAt},
    report::{CheckReport, DamageKind},
    shared::Shared,
};

/// Rows read at once.
const PAGE: usize = 1_024;

/// The caller holds back maintenance meanwhile.
pub(crate) fn check(reader: &Reader) -> io::Result<CheckReport> {
    let shared = &reader.shared;
    let mut report = CheckReport::default();
    // Taken before the files' ends are: everything up to it is in them.
    let newest = shared.applied.load(Ordering::SeqCst);
    let mut walk = Walk::new(1);
    let mut placed = 0;
    for usage in shared.files.all() {
        let path = usage.id.path(&shared.log_dir);
        let file = shared.files.open(shared, usage.id)?;
        let end = if usage.full { file.len } else { usage.bytes };
        let file = WalkFile::Log { file, path, end };
        walk.file::<io::Error>(&file, FRAMES_AT, &mut |step| {
            match step {
                Step::Record { frame, .. } => {
                    report.records += 1;
                    placed += u64::from(frame.number <= newest);
                    report.gone += frame
                        .contents
                        .iter()
                        .filter(|content| **content == Content::Gone)
                        .count() as u64;
                }
                Step::Gap { first, last, lost } => {
                    let count = last - first + 1;
                    if lost {
                        report.lost += count
                    } else {
                        report.dropped += count
                    }
                }
            }
            Ok(())
        })?;
    }
    walk.finish();
    report.damage = walk.damage;
    // An erasure that went on meanwhile looks like damage for a moment.
    report.damage.retain(|damage| match damage.kind {
        DamageKind::Content(index) => {
            let at = ContentAt {
                record: damage.first,
                index,
            };
            matches!(reader.content(at), Err(ContentError::Damaged))
        }
        _ => true,
    });
    match rows(shared, newest, placed) {
        Ok(count) => report.rows = count,
        Err(error @ StoreError::Damaged(_)) => {
            shared.note_index_failure(&error);
            report.index_damage = Some(error.to_string());
        }
        Err(StoreError::Io(error)) => return Err(io::Error::new(error.kind(), error)),
    }
    Ok(report)
}

/// Verifies every row, and that every record up to `newest` has its place.
fn rows(shared: &Shared, newest: u64, records: u64) -> Result<u64, StoreError> {
    let all = each(shared, (Bound::Unbounded, Bound::Unbounded))?;
    let placed = each(shared, rows::place_range(1, newest))?;
    if placed != records {
        let text = format!("{placed} places for {records} records");
        return Err(StoreError::Damaged(text.into()));
    }
    Ok(all)
}

fn each(shared: &Shared, mut range: KeyRange) -> Result<u64, StoreError> {
    let mut count = 0;
    loop {
        let page = shared.store.scan(&range, Direction::Forward, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(count);
        };
        range.0 = Bound::Excluded(last.clone());
        for (key, row) in page {
            rows::unwrap(&key, row)?;
            count += 1;
        }
    }
}
