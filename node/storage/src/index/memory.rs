//! The store in memory: lost at every close.

use std::sync::{PoisonError, RwLock};

use super::{Batch, Direction, KeyRange, Row, Store, StoreError, is_empty_range};

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    rows: RwLock<std::collections::BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(key).cloned())
    }

    fn scan(
        &self,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        if is_empty_range(range) {
            return Ok(Vec::new());
        }
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let found = rows.range::<Vec<u8>, _>((range.0.as_ref(), range.1.as_ref()));
        let copy = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match direction {
            Direction::Forward => found.take(limit).map(copy).collect(),
            Direction::Reverse => found.rev().take(limit).map(copy).collect(),
        })
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(())
    }

    fn savepoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn bytes(&self) -> u64 {
        0
    }
}
