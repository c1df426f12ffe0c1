//! Whether the index that is there can be trusted.

use std::{fs, io};

use super::survey::Survey;
use crate::{
    config::{Config, IndexKind},
    error::OpenError,
    index::{
        Batch, Direction, Store, StoreError,
        memory::MemoryStore,
        rows::{self, Mark, Place},
        sled::SledStore,
    },
    limits::SELF_TEST_RECORDS,
    log::{file::LogFile, frame::Frame},
    open::failed,
    projection::Projection,
    savepoint,
    shared::index_dir,
    tx,
};

pub(super) struct Chosen {
    pub(super) store: Box<dyn Store>,
    /// Applied up to here.
    pub(super) mark: u64,
}

/// The index that is there, unless `rebuild` has or gets a reason against it. Raises `floor` to
/// what the index knows to have been durable.
pub(super) fn open_old<P: Projection>(
    config: &Config,
    survey: &Survey,
    incarnation: [u8; 16],
    rebuild: &mut Option<String>,
    floor: &mut u64,
) -> Option<Chosen> {
    if rebuild.is_some() || survey.is_new() {
        return None;
    }
    let opened = examine::<P>(config, survey, incarnation, floor);
    opened.map_err(|reason| *rebuild = Some(reason)).ok()
}

/// An empty index in place of whatever is there.
pub(super) fn create(config: &Config) -> Result<Chosen, OpenError> {
    if config.index == IndexKind::Memory {
        return Ok(Chosen {
            store: Box::new(MemoryStore::default()),
            mark: 0,
        });
    }
    let dir = index_dir(config);
    // Without a savepoint whatever is left of the index after a crash here is not used.
    savepoint::remove(config).map_err(failed("remove", &savepoint::path(config)))?;
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &dir)(error));
        }
        _ => {}
    }
    let store = SledStore::open(&dir, config.cache_bytes)
        .map_err(|error| failed("make the index in", &dir)(io::Error::other(error)))?;
    config
        .files
        .0
        .sync_dir(&config.dir)
        .map_err(failed("sync", &config.dir))?;
    Ok(Chosen {
        store: Box::new(store),
        mark: 0,
    })
}

fn examine<P: Projection>(
    config: &Config,
    survey: &Survey,
    incarnation: [u8; 16],
    floor: &mut u64,
) -> Result<Chosen, String> {
    let store = SledStore::open(&index_dir(config), config.cache_bytes)
        .map_err(|error| format!("the index cannot be opened: {error}"))?;
    let failed = |error: StoreError| format!("the index cannot be read: {error}");
    let row = tx::get(&store, &Batch::new(), &rows::mark_key()).map_err(failed)?;
    let Some(mark) = row.and_then(|row| Mark::from_bytes(&row)) else {
        return Err("the index has no mark".to_owned());
    };
    if mark.incarnation != incarnation {
        return Err("the index is that of another storage".to_owned());
    }
    // Rows follow a sync, so what they speak of was durable once.
    *floor = (*floor).max(mark.number);
    if mark.format != P::FORMAT {
        return Err(format!(
            "rows have format {}, not {}",
            mark.format,
            P::FORMAT
        ));
    }
    if mark.number < survey.floor_of_index() {
        let floor = survey.floor_of_index();
        return Err(format!(
            "the index ends at record {}, its savepoint is {floor}",
            mark.number
        ));
    }
    self_test(&store, survey, mark.number)?;
    Ok(Chosen {
        store: Box::new(store),
        mark: mark.number,
    })
}

/// Compares the newest places with the log: every place must hold its record, and no record may
/// lie between two places without one of its own.
fn self_test(store: &SledStore, survey: &Survey, mark: u64) -> Result<(), String> {
    let failed = |error: StoreError| format!("the index cannot be read: {error}");
    let first = mark.saturating_sub(SELF_TEST_RECORDS).saturating_add(1);
    let limit = usize::try_from(SELF_TEST_RECORDS).unwrap_or(usize::MAX);
    let found = store
        .scan(&rows::place_range(first, mark), Direction::Reverse, limit)
        .map_err(failed)?;
    let mut next: Option<u64> = None;
    for (key, row) in found {
        let place = rows::unwrap(&key, row)
            .and_then(|row| Place::from_bytes(&row))
            .map_err(failed)?;
        let Some(number) = rows::place_number(&key) else {
            return Err("the index has a place without a number".to_owned());
        };
        let id = crate::log::file::FileId {
            file: place.file,
            generation: place.generation,
        };
        // A file that was compacted just before a crash is found again when its places are mended.
        if let Some(file) = survey.find(id) {
            let unread = |error: io::Error| format!("the log cannot be read: {error}");
            let wrong = next.is_some_and(|next| next != number + 1)
                && is_followed_by(file, number, place).map_err(unread)?;
            if wrong {
                return Err(format!("the index does not know record {}", number + 1));
            }
        }
        next = Some(number);
    }
    Ok(())
}

/// Whether the next record lies directly behind this one.
fn is_followed_by(file: &LogFile, number: u64, place: Place) -> io::Result<bool> {
    let after = u64::from(place.offset) + u64::from(place.len);
    let mut head = [0; crate::log::frame::HEAD_BYTES];
    let read = file.handle.read_at(&mut head, after)?;
    let next = crate::log::frame::Head::parse(&head, file.header.mark);
    Ok(read == head.len() && next.is_some_and(|next| next.is_record(number + 1)))
}

/// Whether the frame of this record is really there.
pub(super) fn is_at(file: &LogFile, number: u64, place: Place) -> io::Result<bool> {
    let mut bytes = vec![0; place.len as usize];
    let read = file.handle.read_at(&mut bytes, u64::from(place.offset))?;
    let frame = Frame::parse(&bytes[..read], file.header.mark);
    Ok(frame.is_some_and(|frame| frame.number == number))
}

/// The place in a row found by a scan.
pub(super) fn newest_place(
    found: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<Option<(u64, Place)>, StoreError> {
    let Some((key, row)) = found.into_iter().next() else {
        return Ok(None);
    };
    let place = Place::from_bytes(&rows::unwrap(&key, row)?)?;
    Ok(rows::place_number(&key).map(|number| (number, place)))
}
