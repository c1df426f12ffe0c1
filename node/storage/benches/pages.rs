//! What a page of history costs to read, rows and contents, at three sizes of the history.

use std::ops::Bound;

use comity_storage::{
    Config, ContentAt, Direction, Projection, Reader, Record, RecordView, Storage, Tx,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [u64; 3] = [1_000, 10_000, 100_000];
/// Lines of a page: what a screen shows, and the most that may be asked for.
const PAGES: [usize; 2] = [50, 500];
/// Bytes of a line.
const LINE_BYTES: usize = 200;

/// A row for each line, in the order of lines.
struct Lines;

impl Projection for Lines {
    const FORMAT: u32 = 1;

    fn apply(&mut self, number: u64, _: RecordView<'_>, tx: &mut Tx<'_>) {
        let at = ContentAt {
            record: number,
            index: 0,
        };
        tx.put(&key(number), &at.to_bytes());
    }
}

fn key(number: u64) -> Vec<u8> {
    [b"v", number.to_be_bytes().as_slice()].concat()
}

/// The page before a line; gives the bytes of its contents.
fn page(reader: &Reader, before: u64, lines: usize) -> usize {
    let (low, high) = (key(0), key(before));
    let (low, high) = (Bound::Included(&low[..]), Bound::Excluded(&high[..]));
    let rows = reader
        .scan(low, high, Direction::Reverse, lines)
        .expect("the rows are sound");
    let content = |(_, value): &(Vec<u8>, Vec<u8>)| {
        let at = ContentAt::from_bytes(value.as_slice().try_into().expect("a place"));
        reader.content(at).expect("the content is there").len()
    };
    rows.iter().map(content).sum()
}

fn filled(dir: &std::path::Path, lines: u64) -> Storage {
    let (storage, _) =
        Storage::open(Config::new(dir, comity_storage::boot_id()), Lines).expect("a new directory");
    let record = |n: u64| Record {
        kind: 1,
        body: n.to_be_bytes().to_vec(),
        contents: vec![vec![7; LINE_BYTES]],
    };
    let mut written = 0;
    while written < lines {
        let some = (lines - written).min(1_000);
        storage
            .submit_and_wait((written..written + some).map(record).collect())
            .expect("room on the disk");
        written += some;
    }
    storage
}

fn pages(c: &mut Criterion) {
    let mut group = c.benchmark_group("read a page");
    group.sample_size(20);
    for size in SIZES {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let storage = filled(dir.path(), size);
        let reader = storage.reader();
        for lines in PAGES {
            group.throughput(Throughput::Elements(lines as u64));
            for (place, at) in [
                ("newest", size + 1),
                ("from the middle", size / 2 + lines as u64),
            ] {
                let id = BenchmarkId::new(format!("{lines} lines, {place}"), size);
                assert_eq!(page(&reader, at, lines), lines * LINE_BYTES, "a whole page");
                group.bench_function(id, |b| {
                    b.iter_batched(|| at, |at| page(&reader, at, lines), BatchSize::SmallInput);
                });
            }
        }
        storage.close().expect("nothing under way");
    }
    group.finish();
}

criterion_group!(benches, pages);
criterion_main!(benches);
