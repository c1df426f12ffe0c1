//! What a change costs in a document, one at a time and in batches, and what reading, saving and
//! loading cost.

use std::{hint::black_box, time::Duration};

use comity_fuzz::work::{changes, message_of, seen};
use comity_protocol::document::PackDocument;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// 900, so that adding 100 does not reach the size at which a document is split.
const SIZES: [usize; 3] = [100, 900, 10_000];

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
                let target = message_of(3);
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
