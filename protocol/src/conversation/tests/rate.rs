//! The policy `rate`: what is folded, on every home and in every order.

use std::collections::BTreeSet;

use super::{
    super::Conversation,
    world::{ADMIN, Home, MEMBER, OTHER, OWNER, THIRD, World, bundle_of, id_of, is_taken},
};
use crate::{
    event::{Act, Field},
    history::{Graph, NodeIx},
    ids::EventId,
    limits::{AGAIN_WAIT_MS, RATE_WINDOW_MS},
    role::Role,
};

/// Messages that are shown and folded.
pub(super) fn folded(machine: &Conversation) -> BTreeSet<EventId> {
    let graph = machine.graph();
    let nodes = graph.iter();
    let events = nodes.flat_map(|node| graph.node(node).events().to_vec());
    let is_folded = |event: &EventId| {
        let shown = machine.authority().shown(graph, event);
        shown.is_some_and(|at| machine.is_folded(at))
    };
    events.filter(is_folded).collect()
}

/// What was told of every message that is shown is what follows from all that is held: the messages
/// before it are counted here once more, by walking down its chain.
pub(super) fn assert_told(home: &Home, machine: &Conversation) {
    let (graph, authority) = (machine.graph(), machine.authority());
    let minute = |node: NodeIx| graph.node(node).hlc().timestamp().0 / RATE_WINDOW_MS;
    let said = |graph: &Graph, node: NodeIx| authority.messages_of(graph, node).count();
    for (event, told) in &home.folded {
        let Some(at) = authority.shown(graph, event) else {
            continue;
        };
        let mut own = authority.messages_of(graph, at.node);
        let Some(place) = own.position(|message| message == at) else {
            assert!(!told, "only messages are folded");
            continue;
        };
        let earlier =
            std::iter::successors(graph.node(at.node).prev(), |node| graph.node(*node).prev());
        let before: usize = earlier
            .filter(|node| minute(*node) == minute(at.node))
            .map(|node| said(graph, node))
            .sum();
        let rate = authority.policy_at(graph, at.node, Field::Rate);
        let expected = rate.is_some_and(|rate| rate > 0 && (before + place) as u64 >= rate);
        assert_eq!(machine.is_folded(at), expected, "{event}");
        assert_eq!(*told, expected, "{event} at home {}", home.n);
    }
}

fn set_rate(world: &mut World, user: usize, value: u64) -> EventId {
    let field = Field::Rate;
    let policy = world.act(user, Act::Policy { field, value }).unwrap();
    world.commit(world.users[user].home);
    world.gossip_all();
    policy
}

/// So many messages of a user, each in a commit of its own; whether they are folded.
fn says(world: &mut World, user: usize, count: usize) -> Vec<bool> {
    let home = world.users[user].home;
    let said: Vec<EventId> = (0..count)
        .map(|_| {
            let id = world.say(user, "text").unwrap();
            world.commit(home).unwrap();
            id
        })
        .collect();
    let machine = &world.homes[home].machine;
    let folded = folded(machine);
    said.iter().map(|id| folded.contains(id)).collect()
}

fn next_minute(world: &mut World) {
    world.now = (world.now / RATE_WINDOW_MS + 1) * RATE_WINDOW_MS;
}

#[test]
fn beyond_the_rate_a_homes_messages_of_one_minute_are_folded_and_no_others() {
    let mut world = World::group();
    next_minute(&mut world);
    assert_eq!(says(&mut world, OTHER, 4), [false; 4], "without a policy");
    next_minute(&mut world);
    set_rate(&mut world, OWNER, 3);
    assert_eq!(says(&mut world, OTHER, 2), [false; 2]);
    // Of the same home another user; of another home one who has a count of his own.
    assert_eq!(says(&mut world, THIRD, 3), [false, true, true]);
    assert_eq!(says(&mut world, OWNER, 3), [false; 3]);
    next_minute(&mut world);
    assert_eq!(says(&mut world, OTHER, 4), [false, false, false, true]);
    world.gossip_all();
    for home in &world.homes {
        assert_told(home, &home.machine);
        assert_eq!(folded(&home.machine).len(), 3);
        // They are lines like any other.
        assert!(folded(&home.machine).is_subset(&home.shown));
    }
}

#[test]
fn messages_of_one_commit_are_folded_one_by_one_and_what_is_no_message_never() {
    let mut world = World::group();
    next_minute(&mut world);
    set_rate(&mut world, OWNER, 2);
    let ids: Vec<EventId> = (0..4).map(|_| world.say(MEMBER, "text").unwrap()).collect();
    world.edit(MEMBER, ids[0], "other").unwrap();
    let taken = world.commit(1).unwrap();
    let marks: Vec<bool> = taken.events.iter().map(|event| event.folded).collect();
    assert_eq!(marks, [false, false, true, true, false]);
}

#[test]
fn a_rate_counts_for_commits_that_have_seen_it_and_no_longer_once_it_is_void() {
    let mut world = World::group();
    next_minute(&mut world);
    let policy = world
        .act(
            ADMIN,
            Act::Policy {
                field: Field::Rate,
                value: 1,
            },
        )
        .unwrap();
    world.commit(1).unwrap();
    // Home 2 has not heard of it.
    assert_eq!(says(&mut world, THIRD, 2), [false; 2]);
    assert_eq!(says(&mut world, MEMBER, 2), [false, true]);
    // The owner removes the admin without having seen the policy.
    let removal = world.grant(0, ADMIN, Role::None);
    world.act(OWNER, removal).unwrap();
    let removal = world.commit(0).unwrap();
    assert!(is_taken(&world.give(1, &bundle_of(&removal))));
    let home = &world.homes[1];
    let at = home.machine.graph().find_event(&policy).next().unwrap();
    assert!(!home.machine.authority().verdict(at).stands());
    assert!(folded(&home.machine).is_empty());
    assert_told(home, &home.machine);
    world.gossip_all();
    for home in &world.homes {
        assert_told(home, &home.machine);
        assert!(folded(&home.machine).is_empty());
    }
}

#[test]
fn a_rate_that_is_committed_again_counts_for_who_saw_it_where_it_was_lost() {
    let mut world = World::group();
    next_minute(&mut world);
    world.said(MEMBER, "text");
    world.gossip_all();
    let prev = world.newest(1);
    let (field, value) = (Field::Rate, 1);
    world.act(ADMIN, Act::Policy { field, value }).unwrap();
    let policy = world.commit(1).unwrap();
    world.gossip(1, 2);
    assert_eq!(says(&mut world, THIRD, 2), [false, true]);
    // Somebody with home 1's key makes another branch that wins.
    let wins = (0..).find_map(|n| {
        let event = world.message(MEMBER, "of another branch");
        let bundle = world.forge(1, prev.as_ref(), world.now + n, &[event]);
        (id_of(&bundle) < policy.commit.id()).then_some(bundle)
    });
    for home in [1, 2] {
        assert!(is_taken(&world.give(home, wins.as_ref().unwrap())));
    }
    assert!(folded(&world.homes[2].machine).is_empty());
    assert_told(&world.homes[2], &world.homes[2].machine);
    world.now += AGAIN_WAIT_MS;
    for taken in world.commit_all_lost(1) {
        assert!(is_taken(&world.give(2, &bundle_of(&taken))));
    }
    assert_eq!(folded(&world.homes[2].machine).len(), 1);
    assert_told(&world.homes[2], &world.homes[2].machine);
}
