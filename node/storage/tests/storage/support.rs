//! A projection whose rows say everything about the records, and ways to break files.

use std::{
    collections::BTreeMap,
    fs,
    ops::Bound,
    path::{Path, PathBuf},
};

use comity_storage::{
    Config, ContentAt, Direction, Keep, OpenReport, Projection, Reader, Record, RecordView,
    Storage, Tx,
};

/// `n`: how many records; `r<number>`: kind, body, lengths of contents; `d<number>`: released.
pub(crate) struct Journal;

pub(crate) const PLAIN: u8 = 1;
/// Body: place of the content to erase.
pub(crate) const ERASE: u8 = 2;
/// Body: number of the record not needed any more.
pub(crate) const RELEASE: u8 = 3;
/// Makes the projection panic.
pub(crate) const PANIC: u8 = 4;

impl Projection for Journal {
    const FORMAT: u32 = 1;

    fn apply(&mut self, number: u64, record: RecordView<'_>, tx: &mut Tx<'_>) {
        let count = tx
            .get(b"n")
            .map_or(0, |row| u64::from_be_bytes(row.try_into().unwrap()));
        tx.put(b"n", &(count + 1).to_be_bytes());
        match record.kind {
            ERASE => tx.erase(ContentAt::from_bytes(record.body.try_into().unwrap())),
            RELEASE => {
                let released = u64::from_be_bytes(record.body.try_into().unwrap());
                tx.release(released);
                tx.put(&key(b'd', released), b"");
                tx.delete(&key(b'r', released));
            }
            PANIC => panic!("a record the projection cannot bear"),
            _ => tx.put(
                &key(b'r', number),
                &row(record.kind, record.body, record.contents.len()),
            ),
        }
    }

    fn keep(&self, number: u64, record: RecordView<'_>, read: &Reader) -> Keep {
        if record.kind == PLAIN && read.get(&key(b'd', number)).unwrap().is_some() {
            return Keep::WithoutContents;
        }
        Keep::Whole
    }
}

pub(crate) fn key(prefix: u8, number: u64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn row(kind: u8, body: &[u8], contents: usize) -> Vec<u8> {
    let mut row = vec![kind, u8::try_from(contents).unwrap()];
    row.extend_from_slice(body);
    row
}

pub(crate) fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir, "boot 1");
    config.file_bytes = 16 << 10;
    config.cache_bytes = 4 << 20;
    config.min_free_bytes = 0;
    config.compact_at_percent = 101;
    config
}

pub(crate) fn open(config: Config) -> (Storage, OpenReport) {
    Storage::open(config, Journal).unwrap()
}

pub(crate) fn plain(body: &[u8], contents: &[&[u8]]) -> Record {
    let contents = contents.iter().map(|content| content.to_vec()).collect();
    Record {
        kind: PLAIN,
        body: body.to_vec(),
        contents,
    }
}

pub(crate) fn numbered(number: u64) -> Record {
    let content = vec![u8::try_from(number % 251).unwrap(); usize::try_from(number % 40).unwrap()];
    plain(format!("body {number}").as_bytes(), &[&content, b"second"])
}

pub(crate) fn erase(record: u64, index: u16) -> Record {
    Record {
        kind: ERASE,
        body: ContentAt { record, index }.to_bytes().to_vec(),
        contents: vec![],
    }
}

pub(crate) fn release(number: u64) -> Record {
    Record {
        kind: RELEASE,
        body: number.to_be_bytes().to_vec(),
        contents: vec![],
    }
}

pub(crate) fn rows(reader: &Reader) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let all = reader.scan(
        Bound::Unbounded,
        Bound::Unbounded,
        Direction::Forward,
        usize::MAX,
    );
    all.unwrap().into_iter().collect()
}

/// Asserts that exactly the plain records `numbered(1..=last)` are there, whole.
pub(crate) fn assert_numbered(storage: &Storage, last: u64) {
    let reader = storage.reader();
    assert_eq!(reader.newest(), last);
    let rows = rows(&reader);
    assert_eq!(rows.len() as u64, if last == 0 { 0 } else { last + 1 });
    for number in 1..=last {
        let expected = numbered(number);
        assert_eq!(rows[&key(b'r', number)], row(PLAIN, &expected.body, 2));
        for (index, content) in (0..).zip(&expected.contents) {
            assert_eq!(
                reader
                    .content(ContentAt {
                        record: number,
                        index
                    })
                    .unwrap(),
                *content
            );
        }
        assert_eq!(reader.record(number).unwrap().unwrap().body, expected.body);
    }
}

pub(crate) fn submit_numbered(storage: &Storage, count: u64) {
    for _ in 0..count {
        let next = storage.reader().newest() + 1;
        let durable = storage.submit_and_wait(vec![numbered(next)]).unwrap();
        assert_eq!((durable.first, durable.last), (next, next));
    }
}

/// Log files, oldest first.
pub(crate) fn log_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    files
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below a directory with its bytes.
pub(crate) fn contents_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.insert(path.clone(), Vec::new());
            all.extend(contents_of(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

/// Whether these bytes are in any log file.
pub(crate) fn is_on_disk(dir: &Path, needle: &[u8]) -> bool {
    let has = |path: &PathBuf| {
        fs::read(path)
            .unwrap()
            .windows(needle.len())
            .any(|part| part == needle)
    };
    log_files(dir).iter().any(has)
}

/// A small generator; seeds are printed by the tests that use it.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// `SEED` from the environment, else one from the clock; printed, so that a failure can be run
/// again.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs() << 20
    });
    println!("SEED={seed}");
    seed
}
