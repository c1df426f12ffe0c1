//! What is told after a machine was read back from its store.

use super::world::*;
use crate::{conversation::Conversation, event::Act, role::Role};

/// A home's machine, read back from what it stored.
fn restart(world: &mut World, home: usize) {
    let offer = world.homes[home].machine.offer().clone();
    let mut machine = Conversation::of_offer(&offer, server(home), 1).unwrap();
    for (commit, events) in &world.homes[home].records {
        machine.restore(commit, events).unwrap();
    }
    world.homes[home].machine = machine;
}

#[test]
fn a_field_whose_event_turns_void_is_cleared_also_after_a_restart() {
    let mut world = World::group();
    let promote = world.grant(0, MEMBER, Role::Moderator);
    world.act(OWNER, promote).unwrap();
    world.commit(0);
    world.gossip(0, 1);
    let demote = world.grant(0, MEMBER, Role::Member);
    let sealed = world.content("by a moderator");
    let act = Act::State {
        field: "topic".to_owned(),
        content: Some(sealed.reference()),
    };
    let claims = world.claims(MEMBER, &act);
    let event = world.sign(MEMBER, claims, act);
    let now = world.time();
    world.homes[1].submit(now, (event, Some(sealed))).unwrap();
    world.commit(1);
    assert!(world.homes[1].fields.contains_key("topic"));
    // The owner had not seen it.
    world.act(OWNER, demote).unwrap();
    world.commit(0);
    restart(&mut world, 1);
    world.gossip(0, 1);
    assert!(!world.homes[1].fields.contains_key("topic"));
}

#[test]
fn a_reaction_that_waited_for_a_parent_is_told_also_after_a_restart() {
    let mut world = World::group();
    let message = world.said(MEMBER, "hello");
    world.gossip(1, 0);
    world.said(THIRD, "seen by the owner only");
    world.gossip(2, 0);
    let act = Act::React {
        target: message,
        emoji: "+1".to_owned(),
        on: true,
        version: None,
    };
    world.act(OWNER, act).unwrap();
    world.commit(0);
    let reaction = world.homes[0].bundles.last().unwrap().clone();
    let parent = world.homes[2].bundles.last().unwrap().clone();
    assert!(is_taken(&world.give(1, &reaction)));
    assert!(!world.homes[1].states.contains_key(&message));
    restart(&mut world, 1);
    assert!(is_taken(&world.give(1, &parent)));
    assert_eq!(world.homes[1].states[&message].reactions.len(), 1);
}
