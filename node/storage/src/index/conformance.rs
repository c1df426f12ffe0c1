//! One suite for every store.

#![expect(clippy::cast_possible_truncation, reason = "bytes out of a generator")]

use std::{collections::BTreeMap, ops::Bound};

use super::{Batch, Direction, KeyRange, Store, memory::MemoryStore, sled::SledStore};

fn each_store(test: impl Fn(&dyn Store)) {
    test(&MemoryStore::default());
    let dir = tempfile::tempdir().unwrap();
    test(&SledStore::open(dir.path(), 1 << 20).unwrap());
}

fn key(byte: u8) -> Vec<u8> {
    vec![byte]
}

fn put(store: &dyn Store, rows: &[(u8, &[u8])]) {
    let batch: Batch = rows
        .iter()
        .map(|(byte, value)| (key(*byte), Some(value.to_vec())))
        .collect();
    store.apply(&batch).unwrap();
}

fn keys(store: &dyn Store, range: KeyRange, direction: Direction, limit: usize) -> Vec<u8> {
    let rows = store.scan(&range, direction, limit).unwrap();
    rows.into_iter().map(|(key, _)| key[0]).collect()
}

const ALL: KeyRange = (Bound::Unbounded, Bound::Unbounded);

#[test]
fn a_batch_is_read_back_at_once() {
    each_store(|store| {
        assert_eq!(store.get(b"a").unwrap(), None);
        let batch = Batch::from([
            (b"a".to_vec(), Some(b"1".to_vec())),
            (b"b".to_vec(), Some(vec![])),
        ]);
        store.apply(&batch).unwrap();
        assert_eq!(store.get(b"a").unwrap(), Some(b"1".to_vec()));
        assert_eq!(store.get(b"b").unwrap(), Some(vec![]));
        store
            .apply(&Batch::from([
                (b"a".to_vec(), None),
                (b"b".to_vec(), Some(b"2".to_vec())),
            ]))
            .unwrap();
        assert_eq!(store.get(b"a").unwrap(), None);
        assert_eq!(store.get(b"b").unwrap(), Some(b"2".to_vec()));
        store
            .apply(&Batch::from([(b"never".to_vec(), None)]))
            .unwrap();
        store.apply(&Batch::new()).unwrap();
        store.savepoint().unwrap();
    });
}

#[test]
fn scans_respect_bounds_direction_and_limit() {
    each_store(|store| {
        put(store, &[(1, b""), (3, b""), (5, b""), (7, b"")]);
        assert_eq!(keys(store, ALL, Direction::Forward, 9), [1, 3, 5, 7]);
        assert_eq!(keys(store, ALL, Direction::Reverse, 9), [7, 5, 3, 1]);
        assert_eq!(keys(store, ALL, Direction::Reverse, 2), [7, 5]);
        assert_eq!(keys(store, ALL, Direction::Forward, 0), [0u8; 0]);
        let range = (Bound::Excluded(key(1)), Bound::Included(key(5)));
        assert_eq!(keys(store, range.clone(), Direction::Forward, 9), [3, 5]);
        assert_eq!(keys(store, range, Direction::Reverse, 1), [5]);
        let range = (Bound::Included(key(2)), Bound::Excluded(key(7)));
        assert_eq!(keys(store, range, Direction::Forward, 9), [3, 5]);
    });
}

#[test]
fn a_range_that_is_empty_or_upside_down_has_no_rows() {
    each_store(|store| {
        put(store, &[(1, b""), (3, b"")]);
        for range in [
            (Bound::Included(key(3)), Bound::Included(key(1))),
            (Bound::Excluded(key(1)), Bound::Excluded(key(1))),
            (Bound::Included(key(1)), Bound::Excluded(key(1))),
            (Bound::Excluded(key(1)), Bound::Included(key(1))),
        ] {
            assert_eq!(keys(store, range, Direction::Forward, 9), [0u8; 0]);
        }
        let one = (Bound::Included(key(1)), Bound::Included(key(1)));
        assert_eq!(keys(store, one, Direction::Reverse, 9), [1]);
    });
}

#[test]
fn keys_sort_as_bytes_whatever_their_lengths() {
    each_store(|store| {
        let names: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"a", b"ab", b"\xff\xff"];
        let batch: Batch = names
            .iter()
            .rev()
            .map(|name| (name.to_vec(), Some(vec![])))
            .collect();
        store.apply(&batch).unwrap();
        let found = store.scan(&ALL, Direction::Forward, 9).unwrap();
        assert!(found.iter().map(|(key, _)| key.as_slice()).eq(names));
    });
}

#[test]
fn random_batches_agree_with_a_map() {
    each_store(|store| {
        let mut model = BTreeMap::new();
        let mut random = 0x9e37_79b9_u64;
        for _ in 0..200 {
            let mut batch = Batch::new();
            for _ in 0..20 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let key = vec![(random >> 40) as u8, (random >> 48) as u8 & 3];
                let value = (random >> 33 & 3 != 0)
                    .then(|| vec![(random >> 35) as u8; (random >> 56) as usize]);
                batch.insert(key, value);
            }
            store.apply(&batch).unwrap();
            for (key, value) in batch {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
        }
        let found: BTreeMap<_, _> = store
            .scan(&ALL, Direction::Forward, usize::MAX)
            .unwrap()
            .into_iter()
            .collect();
        assert_eq!(found, model);
    });
}

#[test]
fn sled_keeps_rows_over_a_savepoint_and_ignores_a_torn_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let large = vec![7; 300 << 10];
    let store = SledStore::open(dir.path(), 1 << 20).unwrap();
    put(&store, &[(1, b"small"), (2, &large)]);
    store.savepoint().unwrap();
    drop(store);
    std::fs::write(dir.path().join("snap.0000000000000FFF.generating"), b"torn").unwrap();
    let store = SledStore::open(dir.path(), 1 << 20).unwrap();
    assert_eq!(store.get(&[1]).unwrap(), Some(b"small".to_vec()));
    assert_eq!(store.get(&[2]).unwrap(), Some(large));
}
