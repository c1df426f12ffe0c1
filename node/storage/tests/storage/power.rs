//! Power cuts: what was acknowledged is there, and the test would notice if it were not.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, mpsc},
};

use comity_storage::{Config, Files, Storage, Survive};

use crate::support::*;

/// Bodies of acknowledged records by number.
type Acked = BTreeMap<u64, Vec<u8>>;

/// Submits from several threads until the power goes; returns the acknowledged records.
fn round(dir: &Path, boot: u64, random: &mut Random, survive: Survive, honest: bool) -> Acked {
    let (files, control) = Files::lossy();
    let config = Config {
        files,
        boot_id: format!("boot {boot}"),
        ..config(dir)
    };
    let (storage, report) = Storage::open(config, Journal).unwrap();
    // The files made at open are there in any case: what is broken is the syncs of groups.
    control.disable_syncs(!honest);
    assert_eq!(report.damage, []);
    let storage = Arc::new(storage);
    let acked = Arc::new(Mutex::new(Acked::new()));
    let target = random.below(400);
    let (reached, has_reached) = mpsc::channel();
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let (storage, acked, reached) =
                (Arc::clone(&storage), Arc::clone(&acked), reached.clone());
            let mut random = Random(random.below(u64::MAX) ^ thread);
            std::thread::spawn(move || {
                loop {
                    let count = 1 + random.below(3);
                    let body = |index| format!("{boot}/{thread}/{index}/{}", random.0).into_bytes();
                    let bodies: Vec<_> = (0..count).map(body).collect();
                    let content = vec![7; usize::try_from(random.below(900)).unwrap()];
                    let records = bodies.iter().map(|body| plain(body, &[&content])).collect();
                    let Ok(durable) = storage.submit_and_wait(records) else {
                        return;
                    };
                    let mut acked = acked.lock().unwrap();
                    acked.extend((durable.first..).zip(bodies));
                    if acked.len() as u64 >= target {
                        let _ = reached.send(());
                    }
                }
            })
        })
        .collect();
    has_reached.recv().unwrap();
    control.cut_power(survive).unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    Arc::into_inner(acked).unwrap().into_inner().unwrap()
}

fn lost(dir: &Path, boot: u64, acked: &Acked) -> usize {
    let (storage, _) = open(Config {
        boot_id: format!("boot {boot}"),
        ..config(dir)
    });
    let reader = storage.reader();
    let is_there = |(number, body): &(&u64, &Vec<u8>)| {
        let row = reader.get(&key(b'r', **number)).unwrap();
        let record = reader.record(**number).unwrap();
        row.is_some_and(|row| row[2..] == ***body)
            && record.is_some_and(|record| record.body == **body)
    };
    let lost = acked.iter().filter(|entry| !is_there(entry)).count();
    let check = storage.check().unwrap();
    assert_eq!((check.damage, check.index_damage), (vec![], None));
    lost
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let seed = seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut acked = Acked::new();
    for boot in 0..16 {
        let survive = match random.below(2) {
            0 => Survive::None,
            _ => Survive::SomeSectors(random.below(u64::MAX)),
        };
        acked.extend(round(dir.path(), boot * 2, &mut random, survive, true));
        assert_eq!(
            lost(dir.path(), boot * 2 + 1, &acked),
            0,
            "after boot {boot}, {survive:?}"
        );
    }
    assert!(acked.len() > 500);
}

#[test]
fn without_syncs_a_power_cut_loses_acknowledged_records() {
    let seed = seed();
    let mut random = Random(seed);
    let mut lost_records = 0;
    for _ in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let acked = round(dir.path(), 1, &mut random, Survive::None, false);
        lost_records += lost(dir.path(), 2, &acked);
    }
    assert!(lost_records > 0);
}

#[test]
fn records_of_one_submission_survive_together_or_not_at_all() {
    let seed = seed();
    let mut random = Random(seed);
    for _ in 0..30 {
        let dir = tempfile::tempdir().unwrap();
        let (files, control) = Files::lossy();
        let (storage, _) = open(Config {
            files,
            ..config(dir.path())
        });
        submit_numbered(&storage, 3);
        control.disable_syncs(true);
        let large = vec![9; 700];
        let records: Vec<_> = (0..6u8).map(|index| plain(&[index], &[&large])).collect();
        storage.submit_and_wait(records).unwrap();
        control
            .cut_power(Survive::SomeSectors(random.below(u64::MAX)))
            .unwrap();
        drop(storage);
        let (storage, report) = open(Config {
            boot_id: "boot 2".to_owned(),
            ..config(dir.path())
        });
        assert!(
            report.records == 3 || report.records == 9,
            "{}",
            report.records
        );
        assert_eq!(report.damage, []);
        // Nothing of the cut comes back behind what is written now.
        storage
            .submit_and_wait(vec![numbered(report.records + 1)])
            .unwrap();
        drop(storage);
        let (storage, again) = open(Config {
            boot_id: "boot 3".to_owned(),
            ..config(dir.path())
        });
        assert_eq!((again.records, again.damage), (report.records + 1, vec![]));
        drop(storage);
    }
}
