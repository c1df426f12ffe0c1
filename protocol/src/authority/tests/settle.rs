//! Late twins: what they have settled again, and that it is the same as everything settled anew.

use super::{
    super::{RecordOutcome, settle::SETTLED_LATE},
    differential::{shuffled, verdicts},
    examples::start,
    wander::Wander,
    world::{Rng, Server, World, home, user},
};

/// Records that `f` has late twins settle.
fn settled_by(f: impl FnOnce()) -> u64 {
    let before = SETTLED_LATE.get();
    f();
    SETTLED_LATE.get() - before
}

#[test]
fn late_twins_settle_in_every_order_what_all_settled_anew_does() {
    let (mut late, mut twins) = (0, 0);
    for seed in 1..=80 {
        let world = Wander::run_with(seed, 20);
        let mut first = None;
        let mut rng = Rng(seed ^ 0x5e77);
        println!("SEED={seed}");
        for _ in 0..4 {
            let order = shuffled(&world, &mut rng);
            let mut server = Server::new(&world);
            for i in order {
                late += settled_by(|| {
                    let _ = server.take(&world, i);
                });
                if world.made[i].record.is_some() {
                    server.authority.assert_settled_as_anew(&server.graph);
                }
            }
            twins += server.graph.twins().len();
            server.assert_told();
            let all = verdicts(&world, &server);
            assert_eq!(
                *first.get_or_insert_with(|| all.clone()),
                all,
                "SEED={seed}"
            );
        }
    }
    assert!(late > 100 && twins > 100, "{late} late, {twins} twins");
}

/// So many numbers with two records each, the lower of which is followed; and those, the higher one
/// first.
fn pairs(count: usize) -> (World, Vec<usize>) {
    let mut world = start();
    let (mut prev, mut order) = (None, Vec::new());
    for _ in 0..count {
        let seen = world.all() & !world.records();
        let mut pair: Vec<usize> = (0..2)
            .map(|_| world.record(user('O'), home('o'), seen, prev))
            .collect();
        let id = |i: &usize| world.made[*i].record.as_ref().unwrap().id();
        pair.sort_by_key(|i| std::cmp::Reverse(id(i)));
        prev = pair.last().copied();
        order.extend(pair);
    }
    (world, order)
}

#[test]
fn a_late_twin_settles_the_records_that_no_chain_before_it_had_and_no_other() {
    const PAIRS: usize = 16;
    let (world, order) = pairs(PAIRS);
    let mut taken = Server::new(&world);
    let (mut from_where_they_differ, mut anew) = (0, 0);
    for i in (0..world.made.len()).filter(|i| !order.contains(i)) {
        taken.take(&world, i);
    }
    let mut read_back = taken.clone();
    for i in &order {
        let settled = settled_by(|| {
            let _ = taken.take(&world, *i);
        });
        from_where_they_differ += settled;
        if settled > 0 {
            let standing = taken.graph.standing_records();
            anew += settled_by(|| drop(taken.authority.settled_anew(&taken.graph, &standing)));
        }
    }
    println!("late twins settled {from_where_they_differ} records, anew {anew}");
    let pairs = u64::try_from(PAIRS).unwrap();
    assert_eq!(from_where_they_differ, pairs, "one for each pair");
    assert_eq!(anew, pairs * (pairs + 1) / 2);
    // Read from the log, where each was judged when it came.
    let settled = settled_by(|| {
        for i in &order {
            let record = world.made[*i].record.as_ref().unwrap();
            let (graph, authority) = (&mut read_back.graph, &mut read_back.authority);
            let outcome = authority.restore_record(graph, record);
            assert!(matches!(outcome, RecordOutcome::Taken { .. }));
        }
    });
    assert_eq!(settled, pairs);
    read_back.authority.assert_settled_as_anew(&read_back.graph);
    for i in (0..world.made.len()).filter(|i| !order.contains(i)) {
        for index in 0..u16::try_from(world.made[i].events.len()).unwrap() {
            assert_eq!(read_back.verdict(i, index), taken.verdict(i, index));
        }
    }
}

#[test]
fn twins_that_lose_have_nothing_settled_when_they_are_read_back() {
    let (world, mut order) = pairs(8);
    // The lower one of each pair first.
    for pair in order.chunks_mut(2) {
        pair.reverse();
    }
    let mut server = Server::new(&world);
    for i in (0..world.made.len()).filter(|i| !order.contains(i)) {
        server.take(&world, i);
    }
    let settled = settled_by(|| {
        for i in order {
            let record = world.made[i].record.as_ref().unwrap();
            let (graph, authority) = (&mut server.graph, &mut server.authority);
            authority.restore_record(graph, record);
        }
    });
    assert_eq!(settled, 0);
    assert_eq!(server.graph.twins().len(), 8);
    server.authority.assert_settled_as_anew(&server.graph);
}
