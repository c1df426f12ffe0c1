//! Disks that are full and disks that fail.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use comity_storage::{Config, FaultControl, Files, Health, Storage, SubmitError};

use crate::support::*;

fn lossy(dir: &Path) -> (Storage, FaultControl) {
    let (files, control) = Files::lossy();
    let (storage, _) = open(Config {
        files,
        ..config(dir)
    });
    (storage, control)
}

#[test]
fn a_full_disk_refuses_reads_on_and_recovers_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, control) = lossy(dir.path());
    control.fill_disk(Some(0));
    let mut taken = 0;
    let refused = loop {
        match storage.submit_and_wait(vec![numbered(taken + 1)]) {
            Ok(durable) => taken = durable.last,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SubmitError::Full), "{refused}");
    assert_eq!(storage.health(), Health::Full);
    assert!(taken > 10);
    assert_numbered(&storage, taken);
    for _ in 0..100 {
        let refused = storage.submit_and_wait(vec![numbered(taken + 1)]);
        assert!(matches!(refused, Err(SubmitError::Full)));
    }
    control.fill_disk(None);
    let next = loop {
        match storage.submit_and_wait(vec![numbered(taken + 1)]) {
            Ok(durable) => break durable.first,
            Err(SubmitError::Full) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(next, taken + 1);
    assert_eq!(storage.health(), Health::Ok);
    submit_numbered(&storage, 200);
    drop(storage);
    let (storage, report) = open(config(dir.path()));
    assert_eq!(report.damage, []);
    assert_numbered(&storage, taken + 201);
}

#[test]
fn slowed_syncs_delay_every_answer_and_lose_nothing() {
    const DELAY: Duration = Duration::from_millis(20);
    let dir = tempfile::tempdir().unwrap();
    let (storage, control) = lossy(dir.path());
    control.slow_syncs(DELAY);
    let start = Instant::now();
    for number in 1..=3 {
        storage.submit_and_wait(vec![numbered(number)]).unwrap();
    }
    assert!(start.elapsed() >= 3 * DELAY);
    control.slow_syncs(Duration::ZERO);
    storage.submit_and_wait(vec![numbered(4)]).unwrap();
    drop(storage);
    let (storage, _) = open(config(dir.path()));
    assert_numbered(&storage, 4);
}

#[test]
fn too_little_free_space_refuses_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(Config {
        min_free_bytes: u64::MAX,
        ..config(dir.path())
    });
    let refused = storage.submit_and_wait(vec![numbered(1)]);
    assert!(matches!(refused, Err(SubmitError::Full)));
    assert_eq!(storage.stats().records, 0);
    drop(storage);
    let (storage, report) = open(config(dir.path()));
    assert_eq!((report.records, report.torn_bytes), (0, 0));
    submit_numbered(&storage, 1);
}

#[test]
fn a_failed_sync_stops_acknowledgements_until_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, control) = lossy(dir.path());
    submit_numbered(&storage, 5);
    control.fail_syncs(Some(0));
    assert!(matches!(
        storage.submit_and_wait(vec![numbered(6)]),
        Err(SubmitError::ReadOnly(_))
    ));
    // A later sync would succeed, and must not be believed.
    control.fail_syncs(None);
    assert!(matches!(
        storage.submit_and_wait(vec![numbered(6)]),
        Err(SubmitError::ReadOnly(_))
    ));
    assert!(matches!(storage.health(), Health::ReadOnly(_)));
    assert_numbered(&storage, 5);
    assert!(storage.close().is_err());
    let (storage, report) = open(config(dir.path()));
    assert!((5..=6).contains(&report.records));
    assert_numbered(&storage, report.records);
    submit_numbered(&storage, 1);
}

#[test]
fn a_failed_write_stops_acknowledgements_until_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, control) = lossy(dir.path());
    submit_numbered(&storage, 5);
    control.fail_writes(Some(0));
    assert!(matches!(
        storage.submit_and_wait(vec![numbered(6)]),
        Err(SubmitError::ReadOnly(_))
    ));
    control.fail_writes(None);
    assert!(matches!(
        storage.submit_and_wait(vec![numbered(6)]),
        Err(SubmitError::ReadOnly(_))
    ));
    assert_numbered(&storage, 5);
    drop(storage);
    let (storage, _) = open(config(dir.path()));
    assert_numbered(&storage, 5);
}

#[test]
fn a_sync_that_fails_at_any_moment_loses_nothing_acknowledged() {
    for after in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let (files, control) = Files::lossy();
        control.fail_syncs(Some(after));
        let mut taken = 0;
        if let Ok((storage, _)) = Storage::open(
            Config {
                files,
                ..config(dir.path())
            },
            Journal,
        ) {
            while let Ok(durable) = storage.submit_and_wait(vec![numbered(taken + 1)]) {
                taken = durable.last;
            }
            assert!(matches!(storage.health(), Health::ReadOnly(_)));
        }
        let (storage, report) = open(config(dir.path()));
        assert_eq!(report.damage, []);
        assert!(
            report.records >= taken,
            "{after}: {} of {taken}",
            report.records
        );
        assert_numbered(&storage, report.records);
    }
}
