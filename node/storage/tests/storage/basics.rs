//! What holds while nothing goes wrong.

use std::{
    ops::Bound,
    sync::{Arc, mpsc},
};

use comity_storage::{
    Config, ContentAt, ContentError, Direction, IndexKind, OpenError, Projection,
    QUEUE_RECORDS_MAX, RECORD_BYTES_MAX, Record, RecordView, SUBMISSION_RECORDS_MAX, Storage,
    SubmitError, Tx,
};

use crate::support::*;

#[test]
fn acknowledged_records_are_read_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, report) = open(config(dir.path()));
    assert_eq!((report.records, report.rebuilt), (0, None));
    submit_numbered(&storage, 300);
    assert_numbered(&storage, 300);
    let incarnation = storage.incarnation();
    storage.close().unwrap();

    let (storage, report) = open(config(dir.path()));
    assert!(report.clean);
    assert_eq!(
        (report.records, report.replayed, report.rebuilt),
        (300, 0, None)
    );
    assert_numbered(&storage, 300);
    assert_eq!(storage.incarnation(), incarnation);
    submit_numbered(&storage, 10);
    drop(storage);

    let (storage, report) = open(config(dir.path()));
    assert!(!report.clean);
    assert_eq!((report.records, report.rebuilt), (310, None));
    assert_numbered(&storage, 310);
    assert!(log_files(dir.path()).len() > 1);
}

#[test]
fn the_memory_index_answers_like_sled() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    submit_numbered(&storage, 50);
    storage
        .submit_and_wait(vec![erase(7, 0), release(9)])
        .unwrap();
    let expected = rows(&storage.reader());
    storage.close().unwrap();
    let (storage, report) = open(Config {
        index: IndexKind::Memory,
        ..config(dir.path())
    });
    assert_eq!(report.replayed, 52);
    assert_eq!(rows(&storage.reader()), expected);
    assert!(matches!(
        storage.reader().content(ContentAt {
            record: 7,
            index: 0
        }),
        Err(ContentError::Gone)
    ));
}

#[test]
fn submitters_at_once_each_get_their_own_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    let storage = Arc::new(storage);
    let threads: Vec<_> = (0..8u8)
        .map(|thread| {
            let storage = Arc::clone(&storage);
            std::thread::spawn(move || {
                let mut numbers = Vec::new();
                for index in 0..100u8 {
                    let records =
                        vec![plain(&[thread, index], &[&[thread]]); usize::from(index % 3) + 1];
                    let count = records.len() as u64;
                    let durable = storage.submit_and_wait(records).unwrap();
                    assert_eq!(durable.last - durable.first + 1, count);
                    for number in durable.first..=durable.last {
                        let record = storage.reader().record(number).unwrap().unwrap();
                        assert_eq!(record.body, [thread, index]);
                        numbers.push(number);
                    }
                }
                numbers
            })
        })
        .collect();
    let mut numbers: Vec<_> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64));
    let stats = storage.stats();
    assert_eq!(stats.records, numbers.len() as u64);
    assert_eq!(stats.index_lag, 0);
    assert!(stats.groups > 0 && stats.sync_p99_us >= stats.sync_p50_us);
}

#[test]
fn limits_are_refused_and_what_fits_exactly_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    let body = vec![1; RECORD_BYTES_MAX];
    assert_eq!(
        storage
            .submit_and_wait(vec![plain(&body, &[])])
            .unwrap()
            .first,
        1
    );
    assert_eq!(storage.reader().record(1).unwrap().unwrap().body, body);
    let too_long = plain(&body, &[b"x"]);
    assert!(matches!(
        storage.submit_and_wait(vec![too_long]),
        Err(SubmitError::TooLarge { .. })
    ));
    let too_many = vec![Record::default(); SUBMISSION_RECORDS_MAX + 1];
    assert!(matches!(
        storage.submit_and_wait(too_many),
        Err(SubmitError::TooLarge { .. })
    ));
    let most = vec![Record::default(); SUBMISSION_RECORDS_MAX];
    assert_eq!(
        storage.submit_and_wait(most).unwrap().last,
        1 + SUBMISSION_RECORDS_MAX as u64
    );
    assert_eq!(
        storage.submit_and_wait(vec![]).unwrap().last,
        1 + SUBMISSION_RECORDS_MAX as u64
    );
}

#[test]
fn a_stalled_owner_costs_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    let (started, has_started) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let stall = Box::new(move |_| {
        started.send(()).unwrap();
        wait.recv().unwrap();
    });
    storage.submit(vec![Record::default()], stall);
    has_started.recv().unwrap();
    let (answers, answered) = mpsc::channel();
    for _ in 0..QUEUE_RECORDS_MAX + 5 {
        let answers = answers.clone();
        storage.submit(
            vec![Record::default()],
            Box::new(move |result| answers.send(result).unwrap()),
        );
    }
    for _ in 0..5 {
        assert!(matches!(
            answered.recv().unwrap(),
            Err(SubmitError::QueueFull)
        ));
    }
    go_on.send(()).unwrap();
    for _ in 0..QUEUE_RECORDS_MAX {
        answered.recv().unwrap().unwrap();
    }
    assert_eq!(storage.reader().newest(), 1 + QUEUE_RECORDS_MAX as u64);
}

#[test]
fn a_second_owner_is_refused_until_the_last_reader_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    let refused = Storage::open(config(dir.path()), Journal);
    assert!(matches!(refused, Err(OpenError::InUse(_))));
    let reader = storage.reader();
    storage.close().unwrap();
    assert!(matches!(
        Storage::open(config(dir.path()), Journal),
        Err(OpenError::InUse(_))
    ));
    drop(reader);
    open(config(dir.path()));
}

#[test]
fn scans_see_only_the_owners_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    submit_numbered(&storage, 5);
    let reader = storage.reader();
    let found = reader.scan_prefix(b"r", Direction::Reverse, 2).unwrap();
    assert_eq!(
        found.iter().map(|row| &row.0).collect::<Vec<_>>(),
        [&key(b'r', 5), &key(b'r', 4)]
    );
    let (low, high) = (key(b'r', 2), key(b'r', 4));
    let found = reader
        .scan(
            Bound::Excluded(&low),
            Bound::Included(&high),
            Direction::Forward,
            9,
        )
        .unwrap();
    assert_eq!(
        found.iter().map(|row| &row.0).collect::<Vec<_>>(),
        [&key(b'r', 3), &key(b'r', 4)]
    );
    assert_eq!(reader.get(b"absent").unwrap(), None);
}

#[test]
fn an_erased_content_is_gone_at_once_and_its_bytes_soon() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    storage
        .submit_and_wait(vec![plain(b"body", &[b"SECRET TEXT", b"other"])])
        .unwrap();
    assert!(is_on_disk(dir.path(), b"SECRET TEXT"));
    storage.submit_and_wait(vec![erase(1, 0)]).unwrap();
    let reader = storage.reader();
    let at = |index| ContentAt { record: 1, index };
    assert!(matches!(reader.content(at(0)), Err(ContentError::Gone)));
    assert_eq!(reader.content(at(1)).unwrap(), b"other");
    assert!(matches!(reader.content(at(2)), Err(ContentError::NotFound)));
    assert!(matches!(
        reader.content(ContentAt {
            record: 99,
            index: 0
        }),
        Err(ContentError::NotFound)
    ));
    assert_eq!(
        reader.record(1).unwrap().unwrap().contents,
        [None, Some(b"other".to_vec())]
    );
    drop(reader);
    storage.close().unwrap();
    assert!(!is_on_disk(dir.path(), b"SECRET TEXT"));
    let (storage, _) = open(config(dir.path()));
    assert!(matches!(
        storage.reader().content(at(0)),
        Err(ContentError::Gone)
    ));
    let check = storage.check().unwrap();
    assert_eq!((check.records, check.gone), (2, 1));
    assert_eq!((check.damage, check.index_damage), (vec![], None));
}

#[test]
fn an_erasure_cut_short_is_taken_up_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    storage
        .submit_and_wait(vec![plain(b"", &[b"SECRET TEXT"])])
        .unwrap();
    storage.close().unwrap();
    let before = std::fs::read(&log_files(dir.path())[0]).unwrap();
    let (storage, _) = open(config(dir.path()));
    storage.submit_and_wait(vec![erase(1, 0)]).unwrap();
    storage.close().unwrap();
    // The log as if the erasing record were durable and the overwrite were not.
    let path = &log_files(dir.path())[0];
    let mut log = std::fs::read(path).unwrap();
    let text = before
        .windows(11)
        .position(|part| part == b"SECRET TEXT")
        .unwrap();
    log[text..text + 11].copy_from_slice(b"SECRET TEXT");
    std::fs::write(path, &log).unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (storage, report) = open(config(dir.path()));
    assert!(report.rebuilt.is_some());
    assert!(!is_on_disk(dir.path(), b"SECRET TEXT"));
    drop(storage);
}

/// What comes erased has no place before its rows are written: whoever overwrites must not look for
/// it any sooner, and then forget it.
#[test]
fn a_content_erased_in_the_group_in_which_it_came_is_overwritten_without_another_start() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    for round in 0..400 {
        let (first, second) = (4 * round + 1, 4 * round + 2);
        let records = vec![
            plain(b"", &[b"SECRET TEXT"]),
            plain(b"", &[b"SECRET TEXT"]),
            erase(first, 0),
            erase(second, 0),
        ];
        storage.submit_and_wait(records).unwrap();
    }
    storage.close().unwrap();
    assert!(!is_on_disk(dir.path(), b"SECRET TEXT"));
}

#[test]
fn many_deletes_and_erasures_in_one_group_all_happen() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    submit_numbered(&storage, 400);
    let records: Vec<_> = (1..=400)
        .flat_map(|number| [erase(number, 1), release(number)])
        .collect();
    storage.submit_and_wait(records).unwrap();
    let reader = storage.reader();
    assert!(
        reader
            .scan_prefix(b"r", Direction::Forward, 9)
            .unwrap()
            .is_empty()
    );
    for number in 1..=400 {
        let read = reader.content(ContentAt {
            record: number,
            index: 1,
        });
        assert!(matches!(read, Err(ContentError::Gone)), "{number}");
    }
    let expected = rows(&reader);
    drop(reader);
    storage.close().unwrap();
    assert!(!is_on_disk(dir.path(), b"second"));
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (storage, _) = open(config(dir.path()));
    assert_eq!(rows(&storage.reader()), expected);
}

struct OtherFormat;

impl Projection for OtherFormat {
    const FORMAT: u32 = 2;

    fn apply(&mut self, number: u64, _: RecordView<'_>, tx: &mut Tx<'_>) {
        tx.put(b"newest", &number.to_be_bytes());
    }
}

#[test]
fn another_format_of_rows_rebuilds_them() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, _) = open(config(dir.path()));
    submit_numbered(&storage, 20);
    storage.close().unwrap();
    let (storage, report) = Storage::open(config(dir.path()), OtherFormat).unwrap();
    assert!(report.rebuilt.unwrap().contains("format"));
    assert_eq!(rows(&storage.reader()).len(), 1);
    storage.close().unwrap();
    let (storage, report) = Storage::open(config(dir.path()), OtherFormat).unwrap();
    assert_eq!((report.rebuilt, report.replayed), (None, 0));
    drop(storage);
}
