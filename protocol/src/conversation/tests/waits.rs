//! Bundles that come before what they need.

use super::world::*;
use crate::{
    conversation::Received,
    ids::UserId,
    limits::{AHEAD_HOLD_MS, WAITING_ITEMS_MAX},
    link::Range,
    role::Role,
    time::Timestamp,
};

#[test]
fn a_bundle_without_its_prev_waits_and_asks_for_just_what_lacks() {
    let mut world = World::group();
    for n in 0..4 {
        world.said(OTHER, &format!("{n}"));
    }
    let own: Vec<_> = world.homes[2].bundles[1..].to_vec();
    assert!(is_taken(&world.give(1, &own[0])));
    let Received::Waiting { commits, users, .. } = world.give(1, &own[3]) else {
        panic!("it cannot be taken");
    };
    let third = commit_of(&own[2]);
    let lacks = Range {
        conversation: world.conversation,
        home: server(2),
        tip: third.id(),
        from: 1,
        to: 2,
    };
    assert_eq!((commits, users), (vec![lacks], vec![]));
    // The one before waits too, and asks for no more than itself lacks.
    let Received::Waiting { commits, .. } = world.give(1, &own[2]) else {
        panic!("it cannot be taken");
    };
    assert_eq!(commits.len(), 1);
    assert_eq!((commits[0].from, commits[0].to), (1, 1));
    let Received::Taken(all) = world.give(1, &own[1]) else {
        panic!("nothing lacks");
    };
    assert_eq!(all.len(), 3, "what waited follows at once");
    assert!(world.homes[1].machine.is_idle());
}

#[test]
fn a_bundle_whose_authority_names_an_unheld_commit_asks_for_that_chain() {
    let mut world = World::group();
    let promote = world.grant(0, MEMBER, Role::Moderator);
    world.act(OWNER, promote).unwrap();
    world.commit(0);
    world.gossip(0, 1);
    world.said(MEMBER, "as moderator");
    let bundle = world.homes[1].bundles.last().unwrap().clone();
    let Received::Waiting { commits, .. } = world.give(2, &bundle) else {
        panic!("home 2 lacks the promotion");
    };
    assert_eq!(commits.len(), 1);
    assert_eq!(
        (commits[0].home, commits[0].from, commits[0].to),
        (server(0), 1, 1)
    );
    world.gossip(0, 2);
    assert!(world.homes[2].machine.is_idle());
    assert_eq!(world.homes[2].digest(), world.homes[1].digest());
}

#[test]
fn a_commit_far_ahead_of_its_time_is_held_until_then() {
    let mut world = World::group();
    let event = world.message(OTHER, "from tomorrow");
    let ahead = world.now + AHEAD_HOLD_MS + 5_000;
    let bundle = world.forge(2, None, ahead, &[event]);
    assert!(matches!(world.give(0, &bundle), Received::Waiting { .. }));
    let devices = world.devices();
    assert_eq!(
        world.homes[0].release(Timestamp(world.now + 4_999), &devices),
        0
    );
    assert_eq!(
        world.homes[0].release(Timestamp(world.now + 5_000), &devices),
        1
    );
    assert_eq!(world.homes[0].shown.len(), 5);
}

#[test]
fn a_commit_ahead_is_shown_but_drags_no_other_clock_along() {
    let mut world = World::group();
    let event = world.message(OTHER, "two minutes ahead");
    let bundle = world.forge(2, None, world.now + 120_000, &[event]);
    assert!(is_taken(&world.give(0, &bundle)));
    world.said(OWNER, "now");
    let own = world.newest(0).unwrap();
    assert!(own.commit().hlc.timestamp().0 < T0 + 1_000);
    assert!(own.commit().parents.is_empty());
}

#[test]
fn an_event_of_an_unknown_device_waits_for_the_identity_log_and_is_never_void_for_it() {
    let mut world = World::group();
    world.said(OTHER, "who am I");
    let bundle = world.homes[2].bundles.last().unwrap().clone();
    let author = world.users[OTHER].id;
    let known = world.devices();
    let now = world.time();
    for answer in [None, Some(false)] {
        let devices = |user: &UserId, device: &_| {
            if *user == author {
                answer
            } else {
                known(user, device)
            }
        };
        let received = world.homes[1].receive(now, &bundle, &devices);
        let Received::Waiting { commits, users, .. } = received else {
            panic!("the log lacks");
        };
        assert_eq!((commits, users), (vec![], vec![author]));
        assert_eq!(world.homes[1].release(now, &devices), 0);
    }
    assert_eq!(world.homes[1].release(now, &known), 1);
    assert_eq!(world.homes[1].shown, world.homes[2].shown);
}

#[test]
fn a_bundle_that_lacks_an_identity_and_a_commit_asks_for_both_at_once() {
    let mut world = World::group();
    world.said(OTHER, "one");
    world.said(THIRD, "two");
    let second = world.homes[2].bundles.last().unwrap().clone();
    let third = world.users[THIRD].id;
    let known = world.devices();
    let devices = |user: &UserId, device: &_| {
        if *user == third {
            None
        } else {
            known(user, device)
        }
    };
    let now = world.time();
    let Received::Waiting { commits, users, .. } = world.homes[1].receive(now, &second, &devices)
    else {
        panic!("it cannot be taken");
    };
    // Otherwise the commit would be asked for only once the log came, by nobody.
    assert_eq!(users, vec![third]);
    assert_eq!(commits.len(), 1);
}

#[test]
fn the_waiting_room_is_bounded_and_its_oldest_can_come_again() {
    let mut world = World::group();
    let mut bundles = vec![];
    let (mut prev, mut at) = (None, world.now);
    for _ in 0..=WAITING_ITEMS_MAX + 1 {
        let event = world.message(OTHER, "x");
        at += 1;
        let bundle = world.forge(2, prev.as_ref(), at, &[event]);
        prev = Some(commit_of(&bundle));
        bundles.push(bundle);
    }
    let mut dropped = 0;
    for bundle in &bundles[1..] {
        match world.give(1, bundle) {
            Received::Waiting { .. } => {}
            other => panic!("{other:?}"),
        }
        dropped += world.homes[1].machine.take_given_up().len();
    }
    assert_eq!(dropped, 1, "told of, so that its sender learns of it");
    let Received::Taken(all) = world.give(1, &bundles[0]) else {
        panic!("the first one lacks nothing");
    };
    assert_eq!(
        all.len(),
        1,
        "the second one was dropped, and all others build on it"
    );
    let Received::Taken(all) = world.give(1, &bundles[1]) else {
        panic!("it comes again");
    };
    assert_eq!(all.len(), WAITING_ITEMS_MAX + 1);
}

#[test]
fn a_bundle_that_waits_is_not_kept_twice() {
    let mut world = World::group();
    for n in 0..3 {
        world.said(OTHER, &format!("{n}"));
    }
    let own: Vec<_> = world.homes[2].bundles[1..].to_vec();
    for _ in 0..10 {
        assert!(matches!(world.give(1, &own[2]), Received::Waiting { .. }));
    }
    world.give(1, &own[0]);
    let Received::Taken(all) = world.give(1, &own[1]) else {
        panic!("nothing lacks");
    };
    assert_eq!(all.len(), 2);
    assert!(matches!(world.give(1, &own[2]), Received::Known));
}
