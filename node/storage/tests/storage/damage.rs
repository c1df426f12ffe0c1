//! A log that is not what was written: every damage is found, located and named, and everything
//! else comes back.

use std::{collections::BTreeMap, fs, path::Path};

use comity_storage::{
    Config, ContentAt, ContentError, Damage, DamageKind, IndexKind, OpenError, Storage,
};

use crate::support::*;

/// Frames start here.
const FRAMES_AT: usize = 1_024;

/// The whole log is read at every open.
fn memory(dir: &Path) -> Config {
    Config {
        index: IndexKind::Memory,
        ..config(dir)
    }
}

/// A closed directory with `numbered(1..=count)` in one log file.
fn small_log(dir: &Path, count: u64) -> (Vec<u8>, Vec<usize>) {
    let (storage, _) = open(memory(dir));
    let mut ends = vec![FRAMES_AT];
    for _ in 0..count {
        submit_numbered(&storage, 1);
        ends.push(usize::try_from(storage.stats().log_bytes).unwrap());
    }
    storage.close().unwrap();
    let log = fs::read(&log_files(dir)[0]).unwrap();
    (log, ends)
}

/// Opens a changed log without the savepoint, so that only the log itself can tell.
fn open_changed(dir: &Path, log: &[u8]) -> (Storage, comity_storage::OpenReport) {
    let path = log_files(dir)[0].clone();
    for other in log_files(dir).into_iter().skip(1) {
        fs::remove_file(other).unwrap();
    }
    fs::write(path, log).unwrap();
    let _ = fs::remove_file(dir.join("savepoint"));
    open(memory(dir))
}

/// Which of `numbered(1..=count)` are whole.
fn whole(storage: &Storage, count: u64) -> BTreeMap<u64, bool> {
    let reader = storage.reader();
    (1..=count)
        .filter_map(|number| {
            let record = reader.record(number).unwrap()?;
            let expected = numbered(number);
            assert_eq!((record.kind, &record.body), (expected.kind, &expected.body));
            let contents = expected.contents.into_iter().map(Some).collect::<Vec<_>>();
            for (index, content) in (0..).zip(&record.contents) {
                let read = reader.content(ContentAt {
                    record: number,
                    index,
                });
                match content {
                    Some(bytes) => assert_eq!(read.unwrap(), *bytes),
                    None => assert!(matches!(read, Err(ContentError::Damaged))),
                }
            }
            Some((number, record.contents == contents))
        })
        .collect()
}

#[test]
fn a_log_cut_anywhere_in_its_last_record_ends_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ends) = small_log(dir.path(), 4);
    for cut in ends[3]..ends[4] {
        for zeros_follow in [false, true] {
            let mut changed = log[..cut].to_vec();
            if zeros_follow {
                changed.resize(log.len(), 0);
            }
            let (storage, report) = open_changed(dir.path(), &changed);
            // Nothing but the padding may be missing from the last one.
            let complete = zeros_follow && changed == log;
            assert_eq!(report.records, if complete { 4 } else { 3 }, "cut at {cut}");
            assert_eq!(report.damage, []);
            submit_numbered(&storage, 1);
            assert_numbered(&storage, if complete { 5 } else { 4 });
        }
    }
}

#[test]
fn every_changed_byte_of_a_log_is_located_and_named_and_the_rest_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ends) = small_log(dir.path(), 5);
    let path = log_files(dir.path())[0].clone();
    for at in 0..ends[5] {
        // Of the header only what is written, and a little of what is not.
        if at < FRAMES_AT && at % 512 > 66 {
            continue;
        }
        for change in [0x01, if log[at] == 0 { 0xff } else { log[at] }] {
            let mut changed = log.clone();
            changed[at] ^= change;
            let (storage, report) = open_changed(dir.path(), &changed);
            let there = whole(&storage, 5);
            if at < FRAMES_AT {
                assert_eq!(there.len(), 5);
                assert!(there.values().all(|whole| *whole));
                let in_copy = at % 512 < 64;
                assert_eq!(report.damage.len(), usize::from(in_copy), "byte {at}");
                continue;
            }
            let hit = (1..=5)
                .find(|number| at < ends[usize::try_from(*number).unwrap()])
                .unwrap();
            for number in (1..=5).filter(|number| *number != hit) {
                assert_eq!(
                    there.get(&number),
                    Some(&true),
                    "byte {at} cost record {number}"
                );
            }
            if hit == 5 && !there.contains_key(&5) {
                // The end of the log, as after a power cut. What had been acknowledged is known
                // by the savepoint and the index, which this test took away.
                assert_eq!((report.records, report.damage.len()), (4, 0));
                continue;
            }
            let [damage] = &report.damage[..] else {
                panic!("byte {at}: {:?}", report.damage);
            };
            assert_eq!(damage.file.as_ref(), Some(&path));
            let range = damage.offset..damage.offset + damage.bytes;
            assert!(range.contains(&(at as u64)), "byte {at}: {damage:?}");
            match damage.kind {
                DamageKind::Records => {
                    assert_eq!((damage.first, damage.last), (hit, hit));
                    assert!(!there.contains_key(&hit));
                }
                DamageKind::Content(_) => {
                    assert_eq!((damage.first, damage.last), (hit, hit));
                    assert_eq!(there.get(&hit), Some(&false));
                }
                DamageKind::Padding => assert_eq!(there.get(&hit), Some(&true)),
                DamageKind::Header | DamageKind::Tail => panic!("byte {at}: {damage:?}"),
            }
        }
    }
}

#[test]
fn a_record_acknowledged_before_the_savepoint_is_missed_when_the_end_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    for index in [IndexKind::Memory, IndexKind::Sled] {
        let dir = dir.path().join(format!("{index:?}"));
        let config = Config {
            index,
            ..config(&dir)
        };
        let (storage, _) = open(config.clone());
        submit_numbered(&storage, 5);
        storage.close().unwrap();
        let path = log_files(&dir)[0].clone();
        let mut log = fs::read(&path).unwrap();
        let fifth = log.windows(6).position(|part| part == b"body 5").unwrap();
        log[fifth] ^= 1;
        fs::write(&path, &log).unwrap();
        let (storage, report) = open(config.clone());
        let [
            Damage {
                kind: DamageKind::Tail,
                first: 5,
                last: 5,
                ..
            },
        ] = report.damage[..]
        else {
            panic!("{:?}", report.damage);
        };
        assert!(report.rebuilt.is_some());
        // Its number is not given again.
        assert_eq!(storage.submit_and_wait(vec![numbered(6)]).unwrap().first, 6);
        assert!(storage.reader().record(5).unwrap().is_none());
        let check = storage.check().unwrap();
        assert_eq!((check.records, check.lost), (5, 1));
        assert_eq!((check.damage, check.index_damage), (vec![], None));
        storage.close().unwrap();
        let (storage, report) = open(config);
        assert_eq!((report.records, report.damage), (6, vec![]));
        drop(storage);
    }
}

#[test]
fn a_page_of_zeros_in_the_middle_costs_only_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, ends) = small_log(dir.path(), 40);
    log[ends[10] + 3..ends[20] - 3].fill(0);
    let (storage, report) = open_changed(dir.path(), &log);
    assert_eq!(report.records, 40);
    let [
        Damage {
            kind: DamageKind::Records,
            first: 11,
            last: 20,
            ..
        },
    ] = report.damage[..]
    else {
        panic!("{:?}", report.damage);
    };
    assert_eq!(whole(&storage, 40).len(), 30);
    assert_eq!(storage.check().unwrap().damage, report.damage);
}

#[test]
fn bytes_of_a_user_never_pass_for_a_record_after_damage() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (foreign, _) = small_log(other.path(), 3);
    let (storage, _) = open(memory(dir.path()));
    // A whole log in a content, at every alignment, in the record that will be damaged.
    for shift in 0..8 {
        let content = [vec![0; shift], foreign[..2_048].to_vec()].concat();
        storage
            .submit_and_wait(vec![plain(b"carrier", &[&content])])
            .unwrap();
    }
    storage.submit_and_wait(vec![plain(b"after", &[])]).unwrap();
    storage.close().unwrap();
    let mut log = fs::read(&log_files(dir.path())[0]).unwrap();
    let places: Vec<_> = (0..log.len() - 7)
        .filter(|at| &log[*at..at + 7] == b"carrier")
        .collect();
    let mut files = fs::read(&log_files(dir.path())[0]).unwrap();
    for place in places {
        files[place] ^= 1;
    }
    std::mem::swap(&mut log, &mut files);
    fs::write(&log_files(dir.path())[0], &log).unwrap();
    let (storage, report) = open(memory(dir.path()));
    let lost: u64 = report
        .damage
        .iter()
        .map(|damage| damage.last + 1 - damage.first)
        .sum();
    assert!(lost >= 6, "{:?}", report.damage);
    for number in 1..=report.records {
        if let Some(record) = storage.reader().record(number).unwrap() {
            assert!(record.body == b"carrier" || record.body == b"after");
        }
    }
}

#[test]
fn a_missing_log_file_is_named_by_the_numbers_it_held() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(memory(dir.path()));
    submit_numbered(&storage, 500);
    storage.close().unwrap();
    let files = log_files(dir.path());
    assert!(files.len() > 3);
    fs::remove_file(&files[1]).unwrap();
    let (storage, report) = open(memory(dir.path()));
    let [
        Damage {
            kind: DamageKind::Records,
            first,
            last,
            ..
        },
    ] = report.damage[..]
    else {
        panic!("{:?}", report.damage);
    };
    assert_eq!(report.records, 500);
    let there = whole(&storage, 500);
    assert!(
        (1..=500).all(|number| there.contains_key(&number) != (first..=last).contains(&number))
    );
}

#[test]
fn a_file_without_any_header_is_named_wherever_it_is() {
    for which in [0, 1, usize::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let (storage, _) = open(memory(dir.path()));
        submit_numbered(&storage, 300);
        let incarnation = storage.incarnation();
        storage.close().unwrap();
        let mut files = log_files(dir.path());
        // Not a file that was only made ahead.
        files.retain(|path| fs::read(path).unwrap()[FRAMES_AT] != 0);
        let which = which.min(files.len() - 1);
        let mut log = fs::read(&files[which]).unwrap();
        log[..FRAMES_AT].fill(0);
        fs::write(&files[which], &log).unwrap();
        let (storage, report) = open(memory(dir.path()));
        assert!(
            report
                .damage
                .iter()
                .any(|damage| damage.file.as_ref() == Some(&files[which])
                    || damage.kind == DamageKind::Tail)
        );
        assert_eq!(storage.incarnation(), incarnation);
        let there = whole(&storage, 300);
        let lost: Vec<_> = (1..=300)
            .filter(|number| !there.contains_key(number))
            .collect();
        for number in &lost {
            let named = |damage: &Damage| (damage.first..=damage.last).contains(number);
            assert!(
                report.damage.iter().any(named),
                "{number}: {:?}",
                report.damage
            );
        }
        // New records never take a number that was given.
        let next = storage.submit_and_wait(vec![numbered(0)]).unwrap().first;
        assert!(next > 300);
        storage.close().unwrap();
        let (storage, _) = open(memory(dir.path()));
        assert_eq!(
            storage.reader().record(next).unwrap().unwrap().body,
            numbered(0).body
        );
    }
}

#[test]
fn a_log_that_is_gone_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    submit_numbered(&storage, 50);
    let incarnation = storage.incarnation();
    storage.close().unwrap();
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    let (storage, report) = open(config(dir.path()));
    let [
        Damage {
            kind: DamageKind::Tail,
            first: 1,
            last: 50,
            ..
        },
    ] = report.damage[..]
    else {
        panic!("{:?}", report.damage);
    };
    assert_eq!(storage.incarnation(), incarnation);
    assert!(rows(&storage.reader()).is_empty());
    assert_eq!(
        storage.submit_and_wait(vec![numbered(51)]).unwrap().first,
        51
    );
}

#[test]
fn an_unknown_format_is_refused_and_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    submit_numbered(&storage, 20);
    storage.close().unwrap();
    let set_version = |bytes: &mut [u8], at: usize, end: usize| {
        bytes[at + 9] = 2;
        let sum = crc32c::crc32c(&bytes[at..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_be_bytes());
    };
    for target in ["log", "savepoint"] {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        fs::write(copy.path().join("log/00000009-00000000.new"), b"leftover").unwrap();
        let path = match target {
            "log" => log_files(copy.path())[0].clone(),
            _ => copy.path().join("savepoint"),
        };
        let mut bytes = fs::read(&path).unwrap();
        if target == "log" {
            set_version(&mut bytes, 0, 60);
            set_version(&mut bytes, 512, 572);
        } else {
            let end = bytes.len() - 4;
            set_version(&mut bytes, 0, end);
        }
        fs::write(&path, &bytes).unwrap();
        let before = contents_of(copy.path());
        let refused = Storage::open(config(copy.path()), Journal);
        let Err(OpenError::UnknownFormat { file, version: 2 }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(file, path);
        assert_eq!(contents_of(copy.path()), before);
    }
}

#[test]
fn a_log_file_of_another_storage_is_refused_and_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    small_log(dir.path(), 3);
    small_log(other.path(), 3);
    let stray = dir.path().join("log/00000002-00000000.log");
    let foreign = fs::read(&log_files(other.path())[0]).unwrap();
    // Renumbered, so that only the owner differs.
    let mut renamed = foreign;
    for at in [0, 512] {
        renamed[at + 15] = 2;
        let sum = crc32c::crc32c(&renamed[at..at + 60]);
        renamed[at + 60..at + 64].copy_from_slice(&sum.to_be_bytes());
    }
    fs::write(&stray, renamed).unwrap();
    let before = contents_of(dir.path());
    assert!(matches!(
        Storage::open(memory(dir.path()), Journal),
        Err(OpenError::Foreign(_))
    ));
    assert_eq!(contents_of(dir.path()), before);
}

#[test]
fn random_damage_never_gives_a_wrong_record_and_never_panics() {
    let seed = seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let (log, ends) = small_log(dir.path(), 30);
    let used = ends[30] as u64;
    for _ in 0..60 {
        let mut changed = log.clone();
        for _ in 0..=random.below(6) {
            let at = usize::try_from(random.below(used)).unwrap();
            let len = usize::try_from(random.below(300))
                .unwrap()
                .min(changed.len() - at);
            match random.below(4) {
                0 => changed[at] ^= 1 << random.below(8),
                1 => changed[at..at + len].fill(0),
                2 => changed[at..at + len]
                    .iter_mut()
                    .for_each(|byte| *byte = random.below(256) as u8),
                _ => {
                    let from = usize::try_from(random.below(used))
                        .unwrap()
                        .min(changed.len() - len);
                    let moved = changed[from..from + len].to_vec();
                    changed[at..at + len].copy_from_slice(&moved);
                }
            }
        }
        let (storage, report) = open_changed(dir.path(), &changed);
        let there = whole(&storage, report.records.min(30));
        for number in 1..=report.records.min(30) {
            if !there.contains_key(&number) {
                let named = |damage: &Damage| (damage.first..=damage.last).contains(&number);
                assert!(
                    report.damage.iter().any(named),
                    "{number}: {:?}",
                    report.damage
                );
            }
        }
        let next = storage.submit_and_wait(vec![numbered(999)]).unwrap().first;
        assert_eq!(
            storage.reader().record(next).unwrap().unwrap().body,
            numbered(999).body
        );
    }
}
