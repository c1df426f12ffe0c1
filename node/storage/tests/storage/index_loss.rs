//! An index that is gone, cut or garbled comes back whole from the log, with the reason told.

use std::{fs, path::Path};

use comity_storage::{Config, Storage};

use crate::support::*;

fn filled(dir: &Path) {
    let (storage, _) = open(config(dir));
    submit_numbered(&storage, 200);
    storage.close().unwrap();
}

fn assert_whole_after_rebuild(dir: &Path, word: &str) {
    let (storage, report) = open(config(dir));
    let reason = report.rebuilt.expect("rebuilt");
    assert!(reason.contains(word), "{reason}");
    assert_eq!(
        (report.records, report.replayed, report.damage),
        (200, 200, vec![])
    );
    assert_numbered(&storage, 200);
    let check = storage.check().unwrap();
    assert_eq!(
        (check.records, check.damage, check.index_damage),
        (200, vec![], None)
    );
}

#[test]
fn a_deleted_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    assert_whole_after_rebuild(dir.path(), "no index");
}

#[test]
fn an_emptied_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    fs::create_dir(dir.path().join("index")).unwrap();
    assert_whole_after_rebuild(dir.path(), "no mark");
}

#[test]
fn a_missing_or_garbled_savepoint_rebuilds_the_index() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::remove_file(dir.path().join("savepoint")).unwrap();
    assert_whole_after_rebuild(dir.path(), "no savepoint");
    fs::write(dir.path().join("savepoint"), b"nonsense").unwrap();
    assert_whole_after_rebuild(dir.path(), "savepoint is damaged");
}

#[test]
fn an_index_older_than_its_savepoint_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let old = tempfile::tempdir().unwrap();
    copy_dir(&dir.path().join("index"), old.path());
    let (storage, _) = open(config(dir.path()));
    submit_numbered(&storage, 5);
    storage.close().unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    copy_dir(old.path(), &dir.path().join("index"));
    let (storage, report) = open(config(dir.path()));
    assert!(report.rebuilt.unwrap().contains("ends at record 200"));
    assert_numbered(&storage, 205);
}

#[test]
fn a_crash_of_the_machine_rebuilds_the_index_and_a_clean_close_does_not() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let next_boot = |boot: &str| Config {
        boot_id: boot.to_owned(),
        ..config(dir.path())
    };
    let (storage, report) = open(next_boot("boot 2"));
    assert_eq!((report.clean, report.rebuilt), (true, None));
    drop(storage);
    let (storage, report) = open(next_boot("boot 2"));
    assert_eq!((report.clean, report.rebuilt), (false, None));
    drop(storage);
    let (storage, report) = open(next_boot("boot 3"));
    assert!(report.rebuilt.unwrap().contains("machine"));
    assert_numbered(&storage, 200);
}

#[test]
fn an_index_of_another_storage_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    filled(dir.path());
    filled(other.path());
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    copy_dir(&other.path().join("index"), &dir.path().join("index"));
    assert_whole_after_rebuild(dir.path(), "another storage");
}

#[test]
fn an_index_cut_anywhere_never_gives_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let len = fs::metadata(dir.path().join("index/db")).unwrap().len();
    for part in 0..8 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let db = fs::OpenOptions::new()
            .write(true)
            .open(copy.path().join("index/db"))
            .unwrap();
        db.set_len(len * part / 8 + part).unwrap();
        let (storage, _) = open(config(copy.path()));
        assert_numbered(&storage, 200);
    }
}

#[test]
fn random_bytes_in_the_index_never_give_a_wrong_answer() {
    let seed = seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let expected = {
        let (storage, _) = open(config(dir.path()));
        let expected = rows(&storage.reader());
        storage.close().unwrap();
        expected
    };
    let mut rebuilt = 0;
    for round in 0..40 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let files: Vec<_> = contents_of(&copy.path().join("index"))
            .into_iter()
            .filter(|(path, bytes)| path.is_file() && !bytes.is_empty())
            .collect();
        let (path, mut bytes) =
            files[usize::try_from(random.below(files.len() as u64)).unwrap()].clone();
        // sled reserves whole segments: aim at what was written.
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(1, |last| last + 1) as u64;
        for _ in 0..=random.below(20) {
            bytes[usize::try_from(random.below(used)).unwrap()] ^= 1 + random.below(255) as u8;
        }
        fs::write(&path, &bytes).unwrap();
        let (storage, report) = open(config(copy.path()));
        rebuilt += u32::from(report.rebuilt.is_some());
        let reader = storage.reader();
        for (key, value) in &expected {
            match reader.get(key) {
                Ok(found) => assert_eq!(
                    found.as_ref(),
                    Some(value),
                    "round {round}, {}",
                    path.display()
                ),
                Err(error) => println!("round {round}: told: {error}"),
            }
        }
        let told = storage.check().unwrap().index_damage.is_some();
        drop(reader);
        drop(storage);
        if told {
            let (storage, report) = open(config(copy.path()));
            assert!(report.rebuilt.is_some());
            assert_eq!(rows(&storage.reader()), expected);
        }
    }
    assert!(rebuilt > 0);
}

#[test]
fn a_torn_snapshot_of_sled_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    fs::write(
        dir.path().join("index/snap.00000000000FFFFF.generating"),
        b"torn",
    )
    .unwrap();
    let (storage, report) = open(config(dir.path()));
    assert_eq!(report.rebuilt, None);
    assert_numbered(&storage, 200);
}

#[test]
fn a_projection_that_panics_turns_the_storage_read_only_and_is_told_at_open() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    submit_numbered(&storage, 3);
    let record = comity_storage::Record {
        kind: PANIC,
        ..Default::default()
    };
    let refused = storage.submit_and_wait(vec![record]);
    assert!(matches!(
        refused,
        Err(comity_storage::SubmitError::ReadOnly(_))
    ));
    assert!(storage.submit_and_wait(vec![numbered(5)]).is_err());
    assert_eq!(
        storage
            .reader()
            .get(&key(b'r', 3))
            .unwrap()
            .map(|row| row.len()),
        Some(8)
    );
    drop(storage);
    let refused = Storage::open(config(dir.path()), Journal);
    assert!(matches!(
        refused,
        Err(comity_storage::OpenError::Apply { number: 4, .. })
    ));
}
