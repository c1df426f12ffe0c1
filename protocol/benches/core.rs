//! The core at three sizes: validating and appending, resolving, changing documents, catching up.
//! `comity-testnet prove core-speed` holds the same work to its limits.

use comity_fuzz::work;
use comity_protocol::document::PackDocument;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// Events appended to a history.
const APPENDED: usize = 1_000;
/// Changes applied to a document.
const CHANGES: usize = 100;

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("validate and append");
    group.sample_size(10);
    group.throughput(Throughput::Elements(APPENDED as u64));
    for size in SIZES {
        let mut history = work::talk(size);
        for batch in [1, 256] {
            let sent = work::sent(&mut history.world, APPENDED);
            group.bench_function(BenchmarkId::new(format!("by {batch}"), size), |b| {
                b.iter_batched(
                    || (work::machine(&history), sent.clone()),
                    |(mut machine, sent)| {
                        work::append(&mut machine, &history.world, sent, batch);
                        machine
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn resolve(c: &mut Criterion) {
    let mut group = c.benchmark_group("resolve acts");
    group.sample_size(10);
    for size in SIZES {
        let history = work::acts(size + 1);
        let log = work::verified(&history);
        let (first, last) = log.split_at(log.len() - 1);
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(BenchmarkId::new("cold", size), |b| {
            b.iter_with_large_drop(|| work::resolve(&history.world, first));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("one more", size), |b| {
            b.iter_batched_ref(
                || work::resolve(&history.world, first),
                |(graph, authority)| work::resolve_one(graph, authority, &last[0]),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn documents(c: &mut Criterion) {
    let mut group = c.benchmark_group("document apply");
    group.sample_size(10);
    group.throughput(Throughput::Elements(CHANGES as u64));
    for size in SIZES {
        let (built, _) = PackDocument::rebuild(work::changes(0, size), &work::seen);
        let snapshot = built.save().expect("a sound document");
        let more = work::changes(size, CHANGES);
        for batch in [1, CHANGES] {
            group.bench_function(BenchmarkId::new(format!("by {batch}"), size), |b| {
                b.iter_batched_ref(
                    || {
                        let loaded = PackDocument::load(&snapshot, &built.heads());
                        (loaded.expect("a sound snapshot"), more.clone())
                    },
                    |(document, more)| work::apply(document, std::mem::take(more), batch),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

fn catch_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("catch up");
    group.sample_size(10);
    for size in SIZES {
        let history = work::talk(size);
        let frames = work::frames(&history);
        group.throughput(Throughput::Elements(frames.len() as u64));
        group.bench_function(BenchmarkId::new("commits", size), |b| {
            b.iter_with_large_drop(|| work::catch_up(&history.world, &frames));
        });
    }
    group.finish();
}

criterion_group!(benches, append, resolve, documents, catch_up);
criterion_main!(benches);
