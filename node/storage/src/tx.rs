//! What a projection sees while it turns a group of records into rows.

use std::{collections::BTreeMap, ops::Bound};

use crate::{
    index::{Batch, Direction, KeyRange, Row, Store, StoreError, rows},
    record::ContentAt,
};

/// Rows under construction: earlier writes of the same group are seen, nobody else sees them yet.
///
/// If the index cannot be read, reads answer `None`, and what is written is thrown away: the
/// storage turns read-only instead of building on a wrong answer.
pub struct Tx<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) changes: &'a mut Changes,
}

/// Changes of one batch.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) rows: Batch,
    pub(crate) deletes: usize,
    pub(crate) erasures: Vec<ContentAt>,
    pub(crate) released: Vec<u64>,
    /// Found while the batch was made; it must not be applied.
    pub(crate) failed: Option<StoreError>,
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tx")
            .field("rows", &self.changes.rows.len())
            .finish_non_exhaustive()
    }
}

impl Tx<'_> {
    /// The value of a key.
    #[must_use]
    pub fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let read = get(self.store, &self.changes.rows, &rows::user_key(key));
        self.keep_failure(read).flatten()
    }

    /// Up to `limit` rows between the bounds, in the direction's order.
    #[must_use]
    pub fn scan(
        &mut self,
        low: Bound<&[u8]>,
        high: Bound<&[u8]>,
        direction: Direction,
        limit: usize,
    ) -> Vec<Row> {
        let read = scan(
            self.store,
            &self.changes.rows,
            &rows::user_range(low, high),
            direction,
            limit,
        );
        let found = self.keep_failure(read).unwrap_or_default();
        found
            .into_iter()
            .map(|(key, value)| (rows::strip(key), value))
            .collect()
    }

    /// Writes a row. Values are best below 64 KiB: contents belong into the log.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let key = rows::user_key(key);
        let row = rows::wrap(&key, value);
        self.changes.rows.insert(key, Some(row));
    }

    /// Deletes a row, if it is there. Retention should spread its deletes over records of at most
    /// 100 each.
    pub fn delete(&mut self, key: &[u8]) {
        self.changes.deletes += 1;
        self.changes.rows.insert(rows::user_key(key), None);
    }

    /// Erases a content: it reads as gone as soon as this group's rows can be read, and its bytes
    /// are overwritten on the disk soon after. Erasing what is gone or unknown does nothing.
    pub fn erase(&mut self, at: ContentAt) {
        let key = rows::erase_key(at);
        let row = rows::wrap(&key, &[]);
        self.changes.rows.insert(key, Some(row));
        self.changes.erasures.push(at);
    }

    /// Tells that a record is not needed any more, so that compaction knows where it pays.
    pub fn release(&mut self, number: u64) {
        self.changes.released.push(number);
    }

    fn keep_failure<T>(&mut self, read: Result<T, StoreError>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                self.changes.failed.get_or_insert(error);
                None
            }
        }
    }
}

/// A verified value, the batch's own writes first.
pub(crate) fn get(
    store: &dyn Store,
    batch: &Batch,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = match batch.get(key) {
        Some(change) => change.clone(),
        None => store.get(key)?,
    };
    row.map(|row| rows::unwrap(key, row)).transpose()
}

fn scan(
    store: &dyn Store,
    batch: &Batch,
    range: &KeyRange,
    direction: Direction,
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    if crate::index::is_empty_range(range) || limit == 0 {
        return Ok(Vec::new());
    }
    let mut own: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
    for (key, change) in batch.range::<Vec<u8>, _>((range.0.as_ref(), range.1.as_ref())) {
        own.insert(key, change.as_deref());
    }
    // Every own change hides at most one stored row.
    let stored = store.scan(range, direction, limit.saturating_add(own.len()))?;
    let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let cut_off = stored.len() == limit.saturating_add(own.len());
    let edge = stored
        .last()
        .filter(|_| cut_off)
        .map(|(key, _)| key.clone());
    for (key, row) in stored {
        if !own.contains_key(key.as_slice()) {
            merged.insert(key, row);
        }
    }
    for (key, change) in own {
        // Beyond the edge there may be stored rows that were not read.
        let seen = edge.as_deref().is_none_or(|edge| match direction {
            Direction::Forward => key <= edge,
            Direction::Reverse => key >= edge,
        });
        if let (true, Some(row)) = (seen, change) {
            merged.insert(key.to_vec(), row.to_vec());
        }
    }
    let verify = |(key, row): (Vec<u8>, Vec<u8>)| {
        let value = rows::unwrap(&key, row)?;
        Ok((key, value))
    };
    match direction {
        Direction::Forward => merged.into_iter().take(limit).map(verify).collect(),
        Direction::Reverse => merged.into_iter().rev().take(limit).map(verify).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::memory::MemoryStore;

    fn changes(puts: &[u8], deletes: &[u8]) -> Batch {
        let put = |byte: &u8| {
            let key = rows::user_key(&[*byte]);
            let row = rows::wrap(&key, &[*byte]);
            (key, Some(row))
        };
        let delete = |byte: &u8| (rows::user_key(&[*byte]), None);
        puts.iter()
            .map(put)
            .chain(deletes.iter().map(delete))
            .collect()
    }

    #[test]
    fn a_scan_merges_own_changes_in_both_directions_at_every_limit() {
        let store = MemoryStore::default();
        store
            .apply(&changes(&[10, 20, 30, 40, 50, 60], &[]))
            .unwrap();
        let mut own = Changes {
            rows: changes(&[5, 25, 55, 70], &[10, 30, 60]),
            ..Changes::default()
        };
        let all = [5u8, 20, 25, 40, 50, 55, 70];
        let mut tx = Tx {
            store: &store,
            changes: &mut own,
        };
        for limit in 0..=8 {
            let keys =
                |rows: Vec<(Vec<u8>, Vec<u8>)>| rows.iter().map(|row| row.0[0]).collect::<Vec<_>>();
            let up = tx.scan(
                Bound::Unbounded,
                Bound::Unbounded,
                Direction::Forward,
                limit,
            );
            assert_eq!(
                keys(up),
                all.iter().copied().take(limit).collect::<Vec<_>>()
            );
            let down = tx.scan(
                Bound::Unbounded,
                Bound::Unbounded,
                Direction::Reverse,
                limit,
            );
            assert_eq!(
                keys(down),
                all.iter().rev().copied().take(limit).collect::<Vec<_>>()
            );
        }
        assert!(own.failed.is_none());
    }
}
