use proptest::{prelude::*, sample::Index};

use super::world::{World, message, user};
use crate::document::{Applied, Change, ChangeKind, PackDocument, StateDocument};

#[derive(Clone, Debug)]
enum Step {
    React { target: u8, shared: bool, on: bool },
    Edit { target: u8 },
    Delete { target: u8 },
    Sync { from: u8 },
    Epoch,
}

fn step() -> impl Strategy<Value = (u8, Step)> {
    let target = 1..4u8;
    let step = prop_oneof![
        6 => (target.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(target, shared, on)| Step::React { target, shared, on }),
        3 => target.clone().prop_map(|target| Step::Edit { target }),
        1 => target.prop_map(|target| Step::Delete { target }),
        5 => (0..4u8).prop_map(|from| Step::Sync { from }),
        1 => Just(Step::Epoch),
    ];
    (0..4u8, step)
}

fn world(steps: Vec<(u8, Step)>) -> World {
    let mut world = World::default();
    for (home, step) in steps {
        match step {
            Step::React {
                target,
                shared: true,
                on,
            } => {
                world.react(home, target, on);
            }
            Step::React {
                target,
                shared: false,
                on,
            } => {
                world.react_as_self(home, target, "🎉", on);
            }
            Step::Edit { target } => {
                world.edit(home, target);
            }
            Step::Delete { target } => {
                world.delete(home, target);
            }
            Step::Sync { from } => world.sync(from, home),
            Step::Epoch => world.new_epoch(home),
        }
    }
    world
}

/// The changes in an order chosen by `picks` in which each follows those it has seen; deletions,
/// which never wait, at any place.
fn causal_order(world: &World, picks: &[Index]) -> Vec<Change> {
    let seen = world.seen();
    let mut waiting = world.changes.clone();
    let mut order = Vec::new();
    for n in 0..waiting.len() {
        let ready = |c: &Change| {
            matches!(c.kind, ChangeKind::Delete { .. })
                || !waiting.iter().any(|w| seen(w.event, c.event))
        };
        let ready: Vec<usize> = (0..waiting.len()).filter(|i| ready(&waiting[*i])).collect();
        let pick = picks[n % picks.len()].index(ready.len());
        order.push(waiting.remove(ready[pick]));
    }
    order
}

fn shuffled(mut changes: Vec<Change>, picks: &[Index]) -> Vec<Change> {
    for n in (1..changes.len()).rev() {
        changes.swap(n, picks[n % picks.len()].index(n + 1));
    }
    changes
}

fn batched(world: &World, order: &[Change], sizes: &[usize]) -> PackDocument {
    let seen = world.seen();
    let mut document = PackDocument::new();
    let mut rest = order;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        let applied = document.apply(batch.iter().cloned(), &seen);
        assert!(applied.refused.is_empty());
        rest = later;
    }
    document
}

fn assert_says_what_it_must(world: &World, changes: &[Change], document: &PackDocument) {
    for target in (1..4).map(message) {
        assert_eq!(
            document.message(target).unwrap(),
            world.expected(changes, target)
        );
    }
}

fn picks() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 64)
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..20usize, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_causal_order_in_every_batching_gives_one_document(
        steps in prop::collection::vec(step(), 1..80),
        picks in picks(),
        sizes in sizes(),
    ) {
        let world = world(steps);
        let (rebuilt, applied) = PackDocument::rebuild(world.changes.clone(), &world.seen());
        prop_assert!(applied.refused.is_empty());
        assert_says_what_it_must(&world, &world.changes, &rebuilt);
        let document = batched(&world, &causal_order(&world, &picks), &sizes);
        prop_assert_eq!(document.heads(), rebuilt.heads());
        assert_says_what_it_must(&world, &world.changes, &document);
    }

    #[test]
    fn orders_that_break_causality_give_the_same_document(
        steps in prop::collection::vec(step(), 1..60),
        picks in picks(),
        sizes in sizes(),
    ) {
        let world = world(steps);
        let (rebuilt, _) = PackDocument::rebuild(world.changes.clone(), &world.seen());
        let document = batched(&world, &shuffled(world.changes.clone(), &picks), &sizes);
        prop_assert_eq!(document.heads(), rebuilt.heads());
        assert_says_what_it_must(&world, &world.changes, &document);
    }

    #[test]
    fn removed_events_leave_no_trace(
        steps in prop::collection::vec(step(), 1..60),
        keep in prop::collection::vec(any::<bool>(), 60),
    ) {
        let world = world(steps);
        let seen = world.seen();
        let (mut document, _) = PackDocument::rebuild(world.changes.clone(), &seen);
        let kept = |n: usize| keep[n % keep.len()];
        let void = (0..world.changes.len()).filter(|n| !kept(*n));
        let void: Vec<_> = void.map(|n| world.changes[n].event).collect();
        let left = (0..world.changes.len()).filter(|n| kept(*n));
        let left: Vec<Change> = left.map(|n| world.changes[n].clone()).collect();
        document.remove(&void, &seen);
        let (rebuilt, _) = PackDocument::rebuild(left.clone(), &seen);
        prop_assert_eq!(document.heads(), rebuilt.heads());
        prop_assert_eq!(document.len(), left.len());
        assert_says_what_it_must(&world, &left, &document);
        // And they may come back, however late.
        document.apply(world.changes.clone(), &seen);
        prop_assert_eq!(
            document.heads(),
            PackDocument::rebuild(world.changes.clone(), &seen).0.heads()
        );
    }
}

#[test]
fn only_what_is_touched_reads_otherwise() {
    let mut world = World::default();
    world.react(1, 1, true);
    world.edit(2, 2);
    let seen = world.seen();
    let mut document = PackDocument::new();
    let first = document.apply([world.changes[0].clone()], &seen);
    assert_eq!(first.touched, [message(1)].into_iter().collect());
    let before = document.message(message(1)).unwrap();
    let second = document.apply([world.changes[1].clone()], &seen);
    assert_eq!(
        second,
        Applied {
            touched: [message(2)].into_iter().collect(),
            refused: vec![]
        }
    );
    assert_eq!(document.message(message(1)).unwrap(), before);
}

#[test]
fn heads_tell_documents_apart_that_read_the_same() {
    let mut world = World::default();
    world.react(1, 9, true);
    let heads = |world: &World| {
        PackDocument::rebuild(world.changes.clone(), &world.seen())
            .0
            .heads()
    };
    let once = heads(&world);
    world.react(1, 9, true);
    assert_ne!(heads(&world), once);
    world.delete(1, 9);
    let deleted = heads(&world);
    world.edit(1, 9);
    assert_ne!(heads(&world), deleted);
}

/// Changes of many messages by a few homes that sync now and then.
fn busy(changes: usize) -> World {
    let mut world = World::default();
    for n in 0..changes {
        let home = u8::try_from(n % 3).unwrap();
        let target = u8::try_from(n % 97).unwrap();
        match n % 11 {
            0 => world.sync(home, (home + 1) % 3),
            1 => {
                world.edit(home, target);
            }
            2 => {
                world.delete(home, 200);
            }
            _ => {
                world.react_as_self(home, target, "🎉", n % 5 != 0);
            }
        }
    }
    world
}

#[test]
fn large_document_is_split_and_joined_again_without_a_trace() {
    let world = busy(1_400);
    assert!(world.changes.len() > crate::document::SPLIT_ABOVE);
    let seen = world.seen();
    let (rebuilt, _) = PackDocument::rebuild(world.changes.clone(), &seen);
    let mut document = batched(&world, &world.changes, &[97]);
    assert_eq!(document.heads(), rebuilt.heads());
    for target in (0..97).map(message) {
        let state = document.message(target).unwrap();
        assert_eq!(state, rebuilt.message(target).unwrap());
        assert_eq!(state, world.expected(&world.changes, target));
    }
    let (few, many) = world.changes.split_at(600);
    let many: Vec<_> = many.iter().map(|c| c.event).collect();
    document.remove(&many, &seen);
    assert_eq!(
        document.heads(),
        PackDocument::rebuild(few.to_vec(), &seen).0.heads()
    );
    for target in (0..97).map(message) {
        assert_eq!(
            document.message(target).unwrap(),
            world.expected(few, target)
        );
    }
}

#[test]
fn splitting_keeps_the_winner_of_concurrent_edits() {
    let mut world = World::default();
    world.edit(1, 9);
    world.edit(2, 9);
    let winner = |world: &World| {
        let (document, _) = PackDocument::rebuild(world.changes.clone(), &world.seen());
        document.message(message(9)).unwrap()
    };
    let before = winner(&world);
    // Much else at the loser's home, which would raise its operation numbers.
    for n in 0..1_100 {
        world.react_as_self(1, u8::try_from(n % 7).unwrap(), "🎉", true);
    }
    assert_eq!(winner(&world), before);
    assert_eq!(before.lost.len(), 1);
}

#[test]
fn large_state_is_split_without_a_trace() {
    let mut world = World::default();
    for n in 0..1_100u32 {
        let home = u8::try_from(n % 2).unwrap();
        world.act(home, |at, value| ChangeKind::State {
            field: format!("field {}", n % 50),
            value: Some(value),
            at,
        });
        if n % 100 == 0 {
            world.act(home, |_, _| ChangeKind::Pin {
                target: message(u8::try_from(n % 251).unwrap()),
                on: true,
            });
            world.act(home, |at, value| ChangeKind::Name {
                user: user(home),
                value: Some(value),
                at,
            });
            world.sync(home, 1 - home);
        }
    }
    let seen = world.seen();
    let (rebuilt, _) = StateDocument::rebuild(world.changes.clone(), &seen);
    let mut document = StateDocument::new();
    for batch in world.changes.chunks(100) {
        document.apply(batch.to_vec(), &seen);
    }
    assert_eq!(document.heads(), rebuilt.heads());
    let view = document.state().unwrap();
    assert_eq!(view, rebuilt.state().unwrap());
    assert_eq!(
        (view.fields.len(), view.pins.len(), view.names.len()),
        (50, 11, 1)
    );
}
