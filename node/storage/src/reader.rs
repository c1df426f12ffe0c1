//! Reading rows, contents and records while submissions go on.

use std::{io, ops::Bound, sync::Arc};

pub use crate::index::{Direction, Row};
use crate::{
    error::{ContentError, ReadError},
    index::{StoreError, rows},
    log::{
        file::{FileId, LogFile},
        frame::{Frame, FrameType},
    },
    record::{Content, ContentAt, StoredRecord},
    shared::Shared,
    tx,
};

/// Reads one storage. Cheap to clone; calls may block on the disk.
///
/// There are no snapshots: two calls may see different groups, one scan may see a part of a group
/// that is being applied. The directory stays in use until the last reader is dropped.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reader")
            .field("dir", &self.shared.config.dir)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; never a wrong value.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let key = rows::user_key(key);
        self.noting(self.own_row(&key))
    }

    /// Up to `limit` rows between the bounds, in the direction's order. The next page starts
    /// behind the last key.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; never a wrong row.
    pub fn scan(
        &self,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Row>, ReadError> {
        let found = self
            .shared
            .store
            .scan(&rows::user_range(low, high), direction, limit);
        let verify = |(key, row): (Vec<u8>, Vec<u8>)| {
            let value = rows::unwrap(&key, row)?;
            Ok((rows::strip(key), value))
        };
        self.noting(found.and_then(|found| found.into_iter().map(verify).collect()))
    }

    /// Up to `limit` rows whose keys start with `prefix`.
    ///
    /// # Errors
    ///
    /// As [`Self::scan`].
    pub fn scan_prefix(
        &self,
        prefix: &[u8],
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Row>, ReadError> {
        let end = after_prefix(prefix);
        let high = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.scan(Bound::Included(prefix), high, direction, limit)
    }

    /// A content.
    ///
    /// # Errors
    ///
    /// [`ContentError`]; never other bytes than were submitted.
    pub fn content(&self, at: ContentAt) -> Result<Vec<u8>, ContentError> {
        if self.shared.erasing.contains(at) {
            return Err(ContentError::Gone);
        }
        let index = usize::from(at.index);
        let read = self.with_frame(at.record, |frame| match frame.contents.get(index) {
            None => Err(ContentError::NotFound),
            Some(Content::Here(bytes)) => Ok(bytes.to_vec()),
            Some(Content::Gone) => Err(ContentError::Gone),
            Some(Content::Damaged) => Err(ContentError::Damaged),
        })?;
        match read {
            None if at.record
                <= self
                    .shared
                    .applied
                    .load(std::sync::atomic::Ordering::SeqCst) =>
            {
                Err(ContentError::Gone)
            }
            None => Err(ContentError::NotFound),
            Some(content) => content,
        }
    }

    /// A whole record; `None` if there is none of this number, or not any more.
    ///
    /// # Errors
    ///
    /// [`ContentError::Damaged`] if the log no longer holds it whole, and the other causes.
    pub fn record(&self, number: u64) -> Result<Option<StoredRecord>, ContentError> {
        self.with_frame(number, |frame| {
            let stored = |(index, content): (usize, &Content<'_>)| match content {
                Content::Here(bytes) => {
                    let at = ContentAt {
                        record: number,
                        index: u16::try_from(index).ok()?,
                    };
                    (!self.shared.erasing.contains(at)).then(|| bytes.to_vec())
                }
                Content::Gone | Content::Damaged => None,
            };
            StoredRecord {
                number,
                kind: frame.kind,
                body: frame.body.to_vec(),
                contents: frame.contents.iter().enumerate().map(stored).collect(),
            }
        })
    }

    /// Number of the newest record whose rows can be read.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.shared
            .applied
            .load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Compaction may replace the file between the look-up and the read, and an erasure may be
    /// under way: a frame that does not verify is looked up once more.
    fn with_frame<T>(
        &self,
        number: u64,
        mut read: impl FnMut(&Frame<'_>) -> T,
    ) -> Result<Option<T>, ContentError> {
        for attempt in 0..3 {
            let Some(place) = self.place(number).map_err(ContentError::Index)? else {
                return Ok(None);
            };
            let id = FileId {
                file: place.file,
                generation: place.generation,
            };
            let bytes = match self.frame_bytes(id, place) {
                Ok((file, bytes)) => (file, bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < 2 => continue,
                Err(error) => return Err(ContentError::Io(Arc::new(error))),
            };
            let frame = Frame::parse(&bytes.1, bytes.0.header.mark)
                .filter(|frame| frame.number == number && frame.frame_type == FrameType::Record);
            match frame {
                Some(frame) if attempt == 2 || !frame.contents.contains(&Content::Damaged) => {
                    return Ok(Some(read(&frame)));
                }
                _ => {}
            }
        }
        Err(ContentError::Damaged)
    }

    fn frame_bytes(&self, id: FileId, place: rows::Place) -> io::Result<(LogFile, Vec<u8>)> {
        let file = self.shared.files.open(&self.shared, id)?;
        let mut bytes = vec![0; place.len as usize];
        let len = file.handle.read_at(&mut bytes, u64::from(place.offset))?;
        bytes.truncate(len);
        Ok((file, bytes))
    }

    fn place(&self, number: u64) -> Result<Option<rows::Place>, ReadError> {
        self.noting(place(&self.shared, number))
    }

    fn own_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        tx::get(&*self.shared.store, &crate::index::Batch::new(), key)
    }

    fn noting<T>(&self, read: Result<T, StoreError>) -> Result<T, ReadError> {
        read.map_err(|error| {
            self.shared.note_index_failure(&error);
            match error {
                StoreError::Damaged(reason) => ReadError::Damaged(reason),
                StoreError::Io(error) => ReadError::Io(error),
            }
        })
    }
}

pub(crate) fn place(shared: &Shared, number: u64) -> Result<Option<rows::Place>, StoreError> {
    let row = tx::get(
        &*shared.store,
        &crate::index::Batch::new(),
        &rows::place_key(number),
    )?;
    row.map(|row| rows::Place::from_bytes(&row)).transpose()
}

/// The lowest key above all keys with this prefix; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn the_end_of_a_prefix_carries_over() {
        assert_eq!(after_prefix(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(after_prefix(&[1, 255]), Some(vec![2]));
        assert_eq!(after_prefix(&[255, 255]), None);
        assert_eq!(after_prefix(&[]), None);
    }
}
