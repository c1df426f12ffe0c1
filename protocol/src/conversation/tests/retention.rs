//! The policy `keep_days`: what is erased, when, and what never is.

use super::{
    super::Expired,
    world::{MEMBER, OWNER, World, is_taken},
};
use crate::{
    event::{Act, Field},
    ids::EventId,
    limits::{DAY_MS, RETENTION_BATCH},
    link::{Bundle, ContentSlot},
};

fn keep(world: &mut World, days: u64) {
    let field = Field::KeepDays;
    world
        .act(OWNER, Act::Policy { field, value: days })
        .unwrap();
    world.commit(0).unwrap();
}

/// All steps of one look at a home, of which each holds what the ones before did not give.
fn look(world: &mut World, home: usize, days: u64) -> Vec<Expired> {
    let now = world.time().plus_ms(days * DAY_MS);
    let machine = &mut world.homes[home].machine;
    let mut all: Vec<Expired> = vec![];
    loop {
        let held = |event: &EventId| all.iter().all(|expired| expired.event != *event);
        let (some, through) = machine.expire(now, &held);
        assert!(some.len() <= RETENTION_BATCH);
        all.extend(some);
        if through {
            return all;
        }
    }
}

#[test]
fn contents_of_messages_and_edits_go_when_their_days_are_over_and_nothing_else_does() {
    let mut world = World::group();
    let message = world.said(MEMBER, "text");
    let edit = world.edit(MEMBER, message, "other text").unwrap();
    let act = Act::React {
        target: message,
        emoji: "a".into(),
        on: true,
        version: None,
    };
    world.act(MEMBER, act).unwrap();
    world.commit(1).unwrap();
    world.gossip_all();
    assert_eq!(look(&mut world, 0, 1_000), [], "kept for ever");
    keep(&mut world, 7);
    assert_eq!(look(&mut world, 0, 1_000), [], "nothing settled the policy");
    world.checkpoint(0).unwrap();
    assert_eq!(look(&mut world, 0, 6), []);
    let line = message;
    let expected = [
        Expired {
            event: message,
            line,
        },
        Expired { event: edit, line },
    ];
    assert_eq!(look(&mut world, 0, 8), expected);
    // It was given to be erased: another look finds what is still held, however far the clock is.
    let now = world.time().plus_ms(9 * DAY_MS);
    let (again, _) = world.homes[0].machine.expire(now, &|_| true);
    assert_eq!(again, [], "a look does not begin before what is done");
}

#[test]
fn a_longer_time_counts_at_once_and_a_shorter_one_once_it_is_settled() {
    let mut world = World::group();
    world.said(MEMBER, "text");
    world.gossip_all();
    keep(&mut world, 7);
    world.checkpoint(0).unwrap();
    keep(&mut world, 2);
    assert_eq!(look(&mut world, 0, 3), [], "two days are not settled");
    keep(&mut world, 30);
    assert_eq!(look(&mut world, 0, 8), [], "thirty days are for now");
    keep(&mut world, 0);
    assert_eq!(look(&mut world, 0, 1_000), [], "and so is for ever");
    world.checkpoint(0).unwrap();
    keep(&mut world, 2);
    assert_eq!(look(&mut world, 0, 1_000), []);
    world.checkpoint(0).unwrap();
    assert_eq!(look(&mut world, 0, 3).len(), 1);
}

#[test]
fn many_go_in_batches_and_a_batch_ends_within_a_commit() {
    let mut world = World::group();
    let many = 2 * RETENTION_BATCH + 30;
    let mut said: Vec<EventId> = (0..many)
        .map(|_| world.say(MEMBER, "text").unwrap())
        .collect();
    while world.commit(1).is_some() {}
    world.gossip_all();
    keep(&mut world, 1);
    world.checkpoint(0).unwrap();
    let mut gone: Vec<EventId> = look(&mut world, 0, 2).iter().map(|e| e.event).collect();
    said.sort_unstable();
    gone.sort_unstable();
    assert_eq!(gone, said, "each once");
}

#[test]
fn a_content_that_comes_too_late_is_not_taken_in_and_not_given_on() {
    let mut world = World::group();
    keep(&mut world, 7);
    let record = world.checkpoint(0).unwrap();
    world.gossip(0, 1);
    world.give_record(1, &record.raw);
    let message = world.said(MEMBER, "old");
    let old = world.homes[1].bundles.last().unwrap().clone();
    world.now += 8 * DAY_MS;
    world.said(MEMBER, "new");
    let new = world.homes[1].bundles.last().unwrap().clone();
    let before = world.homes[0].bundles.len();
    assert!(is_taken(&world.give(0, &old)) && is_taken(&world.give(0, &new)));
    let given: Vec<_> = world.homes[0].bundles[before..]
        .iter()
        .map(|bundle| bundle.contents.clone())
        .collect();
    assert_eq!(given[0], [ContentSlot::Gone]);
    assert!(matches!(given[1][..], [ContentSlot::Held(_)]));
    assert!(world.homes[0].shown.contains(&message), "its header stays");
    // Nobody gets it from one who holds it no longer.
    world.gossip(0, 2);
    world.give_record(2, &record.raw);
    world.gossip(0, 2);
    let bundles = &world.homes[2].bundles;
    let had = |of: &Bundle| bundles.iter().find(|bundle| bundle.commit == of.commit);
    assert_eq!(had(&old).unwrap().contents, [ContentSlot::Gone]);
    assert_eq!(had(&new).unwrap().contents, given[1]);
}
