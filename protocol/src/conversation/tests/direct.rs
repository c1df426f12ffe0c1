//! Direct conversations between two homes.

use super::world::*;
use crate::{
    conversation::{Conversation, Received},
    event::Act,
    role::Role,
    root::direct_conversation,
};

/// Two users of homes 0 and 1, and a stranger at home 2.
fn direct() -> World {
    let mut world = World::group();
    world.users = vec![user(11, 0), user(12, 1), user(13, 2)];
    let (a, b) = (world.users[0].id, world.users[1].id);
    world.conversation = direct_conversation(&a, &b);
    world.homes = (0..3)
        .map(|n| Home::new(n, Conversation::direct(b, a, server(n), 1)))
        .collect();
    world
}

#[test]
fn both_ends_begin_at_once_and_it_is_one_conversation() {
    let mut world = direct();
    let one = world.said(0, "hi");
    let two = world.said(1, "hey");
    world.gossip(0, 1);
    world.gossip(1, 0);
    for home in 0..2 {
        assert_eq!(world.homes[home].shown, [one, two].into_iter().collect());
    }
    assert_eq!(world.homes[0].digest(), world.homes[1].digest());
    world.edit(1, two, "hey!").unwrap();
    world.act(0, Act::Delete { target: one }).unwrap();
    world.commit(0);
    world.commit(1);
    world.gossip(0, 1);
    world.gossip(1, 0);
    assert_eq!(world.homes[0].digest(), world.homes[1].digest());
    assert_eq!(world.homes[0].states, world.homes[1].states);
}

#[test]
fn nobody_else_gets_a_word_in() {
    let mut world = direct();
    world.said(0, "between us");
    assert!(world.say(2, "me too").is_err());
    let event = world.message(2, "me too");
    let mut bundle = world.forge(2, None, world.now, &[event]);
    // Direct conversations have no root and, here, no tips to name.
    let mut commit = commit_of(&bundle).commit().clone();
    commit.authority = Some(crate::commit::AuthorityChange::default());
    bundle.commit = commit.sign(&server_key(2)).to_raw();
    let Received::Taken(all) = world.give(0, &bundle) else {
        panic!("the commit is well-formed");
    };
    assert_eq!(all[0].events[0].void, Some("not_member"));
    assert_eq!(world.homes[0].shown.len(), 1);
}

#[test]
fn a_user_is_bound_to_the_home_that_speaks_for_him_first() {
    let mut world = direct();
    world.said(0, "from home 0");
    world.gossip(0, 1);
    // Home 2 commits for the same user later: he never spoke there.
    let event = world.message(0, "from a thief");
    let id = event.0.id();
    let mut bundle = world.forge(2, None, world.now + 50, &[event]);
    let mut commit = commit_of(&bundle).commit().clone();
    commit.authority = Some(crate::commit::AuthorityChange::default());
    bundle.commit = commit.sign(&server_key(2)).to_raw();
    world.give(0, &bundle);
    world.give(1, &bundle);
    assert!(!world.homes[0].shown.contains(&id));
    assert_eq!(world.homes[0].shown, world.homes[1].shown);
}

#[test]
fn acts_of_groups_are_refused_there() {
    let mut world = direct();
    world.said(0, "x");
    let grant = world.grant(0, 2, Role::Member);
    assert!(world.act(0, grant).is_err());
}
