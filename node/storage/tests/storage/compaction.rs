//! Compaction gives space back and changes no answer.

use std::{fs, path::Path, sync::Arc};

use comity_storage::{Config, ContentAt, ContentError, Files, Storage, Survive};

use crate::support::*;

/// 400 records, every content of the first 300 released, the rest kept.
fn mostly_dead(config: Config) -> Storage {
    let (storage, _) = open(config);
    for number in 1..=400u64 {
        let text = format!("TEXT-{number:04}-{}", "x".repeat(100));
        storage
            .submit_and_wait(vec![plain(b"body", &[text.as_bytes()])])
            .unwrap();
    }
    for number in 1..=300 {
        storage.submit_and_wait(vec![release(number)]).unwrap();
    }
    storage
}

fn assert_compacted(storage: &Storage) {
    let reader = storage.reader();
    for number in 1..=400 {
        let read = reader.content(ContentAt {
            record: number,
            index: 0,
        });
        let record = reader.record(number).unwrap().unwrap();
        assert_eq!(record.body, b"body");
        if number <= 300 {
            assert!(matches!(read, Err(ContentError::Gone)), "{number}");
        } else {
            assert!(
                read.unwrap()
                    .starts_with(format!("TEXT-{number:04}").as_bytes())
            );
        }
    }
    let check = storage.check().unwrap();
    assert_eq!((check.damage, check.index_damage), (vec![], None));
}

fn bytes_of_log(dir: &Path) -> u64 {
    log_files(dir)
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum()
}

#[test]
fn compaction_removes_the_bytes_and_keeps_every_place() {
    let dir = tempfile::tempdir().unwrap();
    let storage = mostly_dead(config(dir.path()));
    let before = bytes_of_log(dir.path());
    let all_rows = rows(&storage.reader());
    assert!(is_on_disk(dir.path(), b"TEXT-0001"));
    let report = storage.compact(1).unwrap();
    assert!(
        report.files >= 3 && report.bytes_after < report.bytes_before / 2,
        "{report:?}"
    );
    assert!(!is_on_disk(dir.path(), b"TEXT-0001"));
    assert!(bytes_of_log(dir.path()) < before);
    assert_compacted(&storage);
    assert_eq!(storage.compact(1).unwrap().files, 0);
    storage.close().unwrap();

    let (storage, report) = open(config(dir.path()));
    assert_eq!((report.records, report.rebuilt), (700, None));
    assert_compacted(&storage);
    storage.close().unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (storage, report) = open(config(dir.path()));
    assert_eq!(
        (report.records, report.replayed, report.damage),
        (700, 700, vec![])
    );
    assert_eq!(rows(&storage.reader()), all_rows);
    assert_compacted(&storage);
}

#[test]
fn compaction_starts_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let storage = mostly_dead(Config {
        // Whatever is dead, also what died while its file was being rewritten.
        compact_at_percent: 0,
        ..config(dir.path())
    });
    // Every request is answered after whatever the thread has to do by itself.
    while storage.stats().dead_bytes > 0 {
        storage.compact(100).unwrap();
    }
    assert_compacted(&storage);
}

#[test]
fn readers_and_submitters_go_on_during_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(mostly_dead(config(dir.path())));
    let working = Arc::clone(&storage);
    let worker = std::thread::spawn(move || {
        for round in 0..200u64 {
            let number = 301 + round % 100;
            let read = working
                .reader()
                .content(ContentAt {
                    record: number,
                    index: 0,
                })
                .unwrap();
            assert!(read.starts_with(format!("TEXT-{number:04}").as_bytes()));
            working
                .submit_and_wait(vec![plain(b"more", &[b"content"])])
                .unwrap();
        }
    });
    for _ in 0..5 {
        storage.compact(0).unwrap();
    }
    worker.join().unwrap();
    assert_compacted(&storage);
    assert_eq!(storage.reader().newest(), 900);
}

#[test]
fn an_interrupted_compaction_is_ended_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let storage = mostly_dead(config(dir.path()));
    storage.close().unwrap();
    let before = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), before.path());
    let (storage, _) = open(config(dir.path()));
    assert!(storage.compact(1).unwrap().files >= 2);
    storage.close().unwrap();
    // As if the power went after the new files were named and before the index knew them.
    for path in log_files(dir.path()) {
        let target = before.path().join("log").join(path.file_name().unwrap());
        if !target.exists() {
            fs::copy(path, target).unwrap();
        }
    }
    fs::write(
        before.path().join("log/00000001-00000009.new"),
        b"unfinished",
    )
    .unwrap();
    let (storage, report) = open(config(before.path()));
    assert_eq!((report.records, report.rebuilt), (700, None));
    assert_compacted(&storage);
    assert!(!is_on_disk(before.path(), b"TEXT-0001"));
    drop(storage);
    let left = fs::read_dir(before.path().join("log")).unwrap();
    assert!(
        left.into_iter()
            .all(|entry| entry.unwrap().path().extension().unwrap() == "log")
    );
}

#[test]
fn damage_survives_compaction_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let storage = mostly_dead(config(dir.path()));
    storage.close().unwrap();
    let path = log_files(dir.path())[0].clone();
    let mut log = fs::read(&path).unwrap();
    let find = |log: &[u8], text: &[u8]| {
        log.windows(text.len())
            .position(|part| part == text)
            .unwrap()
    };
    // Record 5 whole, and one content of a record that is kept whole.
    let fifth = find(&log, b"TEXT-0005");
    log[fifth - 2] ^= 1;
    fs::write(&path, &log).unwrap();
    let kept = log_files(dir.path()).into_iter().find(|path| {
        fs::read(path)
            .unwrap()
            .windows(9)
            .any(|part| part == b"TEXT-0305")
    });
    let kept = kept.unwrap();
    let mut log = fs::read(&kept).unwrap();
    let text = find(&log, b"TEXT-0305");
    log[text] ^= 1;
    fs::write(&kept, &log).unwrap();
    let (storage, _) = open(config(dir.path()));
    let before = storage.check().unwrap();
    assert_eq!(before.damage.len(), 2, "{:?}", before.damage);
    storage.compact(0).unwrap();
    let reader = storage.reader();
    let damaged = reader.content(ContentAt {
        record: 305,
        index: 0,
    });
    assert!(matches!(damaged, Err(ContentError::Damaged)));
    let after = storage.check().unwrap();
    assert_eq!((after.lost, after.damage.len()), (1, 1));
    assert_eq!(after.records, 699);
}

#[test]
fn a_power_cut_during_compaction_loses_nothing() {
    let seed = seed();
    let mut random = Random(seed);
    for boot in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        mostly_dead(config(dir.path())).close().unwrap();
        let (files, control) = Files::lossy();
        let (storage, _) = open(Config {
            files,
            ..config(dir.path())
        });
        let storage = Arc::new(storage);
        let working = Arc::clone(&storage);
        // How it ends depends on the moment.
        let worker = std::thread::spawn(move || drop(working.compact(1)));
        let syncs = control.syncs() + random.below(14);
        while control.syncs() < syncs && !worker.is_finished() {
            std::thread::yield_now();
        }
        control
            .cut_power(Survive::SomeSectors(random.below(u64::MAX)))
            .unwrap();
        worker.join().unwrap();
        drop(storage);
        // Either the machine or only the process died.
        let boot_id = if boot % 2 == 0 { "boot 1" } else { "boot 2" };
        let (storage, report) = open(Config {
            boot_id: boot_id.to_owned(),
            ..config(dir.path())
        });
        assert_eq!((report.records, report.damage), (700, vec![]));
        storage.compact(1).unwrap();
        assert_compacted(&storage);
        assert!(!is_on_disk(dir.path(), b"TEXT-0001"));
    }
}
