//! What a group costs by its number of members: resolving it, one act more of every kind, its digest
//! and a checkpoint. `comity-testnet prove members` holds the same work to limits.

use std::{cell::RefCell, hint::black_box};

use comity_fuzz::work::{self, Crowd, One};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// Acts between two checkpoints.
const ACTS: usize = 100;

fn one_more(c: &mut Criterion, size: usize, crowd: &mut Crowd) {
    let log = work::verified(&crowd.history);
    let world = &crowd.history.world;
    let mut group = c.benchmark_group("members");
    group.sample_size(10);
    group.throughput(Throughput::Elements(size as u64));
    group.bench_function(BenchmarkId::new("resolve cold", size), |b| {
        b.iter_with_large_drop(|| work::resolve(world, &log));
    });
    let (mut graph, mut authority) = work::resolve(world, &log);
    group.bench_function(BenchmarkId::new("list", size), |b| {
        b.iter(|| authority.members().map(black_box).count());
    });
    group.throughput(Throughput::Elements(1));
    for one in One::ALL {
        group.bench_function(
            BenchmarkId::new(format!("one more {}", one.name()), size),
            |b| {
                b.iter_batched(
                    || {
                        let at = crowd.one_more(one);
                        work::verified_at(&crowd.history, at)
                    },
                    |more| work::resolve_one(&mut graph, &mut authority, &more),
                    BatchSize::PerIteration,
                );
            },
        );
    }
    group.finish();
}

fn records(c: &mut Criterion, size: usize, crowd: &mut Crowd) {
    let mut machine = work::machine(&crowd.history);
    let mut group = c.benchmark_group("members");
    group.sample_size(10);
    let frontier = machine
        .authority()
        .frontier_for_record(machine.graph(), work::NOW);
    let members = machine.authority().members_at(machine.graph(), &frontier);
    let (members, _) = members.expect("all of it is held");
    group.throughput(Throughput::Elements(size as u64));
    group.bench_function(BenchmarkId::new("digest", size), |b| {
        b.iter(|| members.digest());
    });
    let tree = members.tree();
    let leaves = members.leaves();
    let user = leaves[leaves.len() / 2].user;
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("proof", size), |b| {
        b.iter(|| tree.prove(&user));
    });
    work::checkpoint(&mut machine, &crowd.history.world);
    let (machine, crowd) = (RefCell::new(machine), RefCell::new(crowd));
    group.bench_function(
        BenchmarkId::new(format!("checkpoint of {ACTS} acts"), size),
        |b| {
            b.iter_batched(
                || {
                    for _ in 0..ACTS {
                        let at = crowd.borrow_mut().one_more(One::Join);
                        let history = &crowd.borrow().history;
                        work::restore_one(&mut machine.borrow_mut(), history, at);
                    }
                },
                |()| {
                    let world = &crowd.borrow().history.world;
                    work::checkpoint(&mut machine.borrow_mut(), world)
                },
                BatchSize::PerIteration,
            );
        },
    );
    group.finish();
}

fn members(c: &mut Criterion) {
    for size in SIZES {
        let mut crowd = work::crowd(size);
        records(c, size, &mut crowd);
        one_more(c, size, &mut crowd);
    }
}

criterion_group!(benches, members);
criterion_main!(benches);
