//! Documents as caches: opened when they are used, closed when there are too many.

use super::world::*;
use crate::{event::Act, ids::EventId};

fn react(world: &mut World, user: usize, target: EventId, emoji: &str) {
    let act = Act::React {
        target,
        emoji: emoji.into(),
        on: true,
        version: None,
    };
    world.act(user, act).unwrap();
}

#[test]
fn a_cold_pack_is_not_opened_by_the_first_change_and_reads_the_same() {
    let mut world = World::group();
    let messages: Vec<_> = (0..3)
        .map(|n| world.said(MEMBER, &format!("{n}")))
        .collect();
    for (n, message) in messages.iter().enumerate() {
        react(&mut world, ADMIN, *message, &format!("e{n}"));
        world.commit(1);
    }
    assert_eq!(world.homes[1].machine.open_packs(), 1, "in use");
    world.homes[1].machine.close_documents();
    assert_eq!(world.homes[1].machine.document_bytes(), 0);
    react(&mut world, MEMBER, messages[0], "+1");
    world.commit(1);
    assert_eq!(world.homes[1].machine.open_packs(), 0, "cold");
    let cold = world.homes[1].states[&messages[0]].clone();
    let emoji: Vec<_> = cold.reactions.iter().map(|(emoji, _)| &**emoji).collect();
    assert_eq!(emoji, ["+1", "e0"]);
    react(&mut world, MEMBER, messages[1], "+1");
    world.commit(1);
    assert_eq!(world.homes[1].machine.open_packs(), 1, "used again");
    // Another home, whose document was open all the time, says the same.
    world.gossip_all();
    react(&mut world, OWNER, messages[0], "+1");
    react(&mut world, OWNER, messages[1], "+1");
    world.commit(0);
    world.gossip_all();
    for message in &messages {
        let states: Vec<_> = (0..3).map(|n| world.homes[n].states.get(message)).collect();
        assert_eq!(states[0], states[1]);
        assert_eq!(states[0], states[2]);
    }
}

#[test]
fn a_deletion_of_a_message_in_a_cold_pack_erases_at_once() {
    let mut world = World::group();
    let id = world.said(MEMBER, "secret");
    let edit = world.edit(MEMBER, id, "more secret").unwrap();
    world.commit(1);
    world.homes[1].machine.close_documents();
    world.act(MEMBER, Act::Delete { target: id }).unwrap();
    world.commit(1);
    assert_eq!(world.homes[1].machine.open_packs(), 0);
    let home = &world.homes[1];
    assert!(home.states[&id].deleted_by.is_some());
    assert!(home.erased.contains(&id) && home.erased.contains(&edit));
}

#[test]
fn open_packs_of_a_conversation_are_bounded_in_bytes() {
    let mut world = World::group();
    let mut largest = 0;
    // 20 packs, each touched often enough to be opened; 1,000 reactions weigh over 500 KiB.
    for pack in 0..20 {
        let first = world.said(MEMBER, &format!("pack {pack}"));
        for n in 0..1_000 {
            react(&mut world, MEMBER, first, &format!("{n}"));
        }
        while world.commit(1).is_some() {}
        react(&mut world, MEMBER, first, "again");
        world.commit(1);
        largest = largest.max(world.homes[1].machine.document_bytes());
        for _ in 0..1_024 {
            world.said(MEMBER, "fills the pack");
        }
    }
    assert!(largest > 4 * 1024 * 1024, "{largest}");
    assert!(largest < 10 * 1024 * 1024, "{largest}");
    assert!(world.homes[1].machine.open_packs() < 20);
}
