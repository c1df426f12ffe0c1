//! What a change costs in a document, one at a time and in batches, and what reading, saving and
//! loading cost.

use std::{hint::black_box, time::Duration};

use comity_protocol::{
    document::{Change, ChangeKind, PackDocument},
    event::ContentRef,
    ids::{CommitId, ContentHash, EventId, ServerId, UserId},
    session::Place,
    time::Hlc,
};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// 900, so that adding 100 does not reach the size at which a document is split.
const SIZES: [usize; 3] = [100, 900, 10_000];
const HOMES: u64 = 3;
/// Changes after which all homes have seen everything.
const SYNC: u64 = 30;

fn number(event: EventId) -> u64 {
    u64::from_be_bytes(*event.as_bytes().first_chunk().expect("8 of 32 bytes"))
}

fn seen(earlier: EventId, later: EventId) -> bool {
    let (a, b) = (number(earlier), number(later));
    a < b && (a % HOMES == b % HOMES || a / SYNC < b / SYNC)
}

fn hash(domain: u64, n: u64) -> [u8; 32] {
    *blake3::hash(&[domain.to_be_bytes(), n.to_be_bytes()].concat()).as_bytes()
}

/// Of ten changes eight are reactions, one an edit and one a deletion of a message that had none.
fn changes(from: usize, count: usize) -> Vec<Change> {
    let change = |n: u64| {
        let mut event = hash(0, n);
        event[..8].copy_from_slice(&n.to_be_bytes());
        let target = EventId::from_bytes(hash(1, n / 10));
        let user = UserId::from_bytes(hash(2, n % 200));
        let kind = match n % 10 {
            0 => ChangeKind::Edit {
                target,
                content: ContentRef {
                    hash: ContentHash::from_bytes(hash(3, n)),
                    len: 200,
                },
                author: user,
                at: Place {
                    hlc: Hlc::from_bits(n),
                    commit: CommitId::from_bytes(hash(4, n)),
                    index: 0,
                },
            },
            1 => ChangeKind::Delete {
                target: EventId::from_bytes(hash(5, n)),
                by: user,
            },
            _ => ChangeKind::React {
                target,
                emoji: "👍".to_owned(),
                user,
                on: true,
            },
        };
        Change {
            event: EventId::from_bytes(event),
            home: ServerId::from_bytes(hash(6, n % HOMES)),
            epoch: 1,
            kind,
        }
    };
    (from as u64..(from + count) as u64).map(change).collect()
}

fn built(size: usize) -> PackDocument {
    PackDocument::rebuild(changes(0, size), &seen).0
}

fn documents(c: &mut Criterion) {
    let mut group = c.benchmark_group("documents");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    for size in SIZES {
        let snapshot = built(size).save().expect("a sound document");
        let heads = built(size).heads();
        let load = || PackDocument::load(&snapshot, &heads).expect("a sound snapshot");

        group.throughput(Throughput::Elements(100));
        for batch in [100, 10, 1] {
            let more = changes(size, 100);
            group.bench_function(
                BenchmarkId::new(format!("apply 100 by {batch}"), size),
                |b| {
                    b.iter_batched_ref(
                        load,
                        |document| {
                            for batch in more.chunks(batch) {
                                black_box(document.apply(batch.to_vec(), &seen));
                            }
                        },
                        BatchSize::PerIteration,
                    );
                },
            );
        }

        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("rebuild", size), |b| {
            b.iter(|| built(size))
        });
        group.bench_function(BenchmarkId::new("save", size), |b| {
            let document = built(size);
            b.iter(|| document.save());
        });
        group.bench_function(BenchmarkId::new("load", size), |b| b.iter(load));

        group.throughput(Throughput::Elements(1));
        group.bench_function(
            BenchmarkId::new("read a message of 8 reactions", size),
            |b| {
                let document = built(size);
                let target = EventId::from_bytes(hash(1, 3));
                b.iter(|| document.message(target));
            },
        );
        println!(
            "{size} changes: snapshot {} B, memory estimate {} B",
            snapshot.len(),
            built(size).bytes_estimate()
        );
    }
    group.finish();
}

criterion_group!(benches, documents);
criterion_main!(benches);
