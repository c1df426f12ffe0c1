//! Events of the home's own users.

use super::world::*;
use crate::{conversation::RoleChange, event::Act, role::Role, session::Code};

#[test]
fn events_that_come_while_a_commit_is_on_its_way_share_the_next_one() {
    let mut world = World::group();
    world.say(OWNER, "first").unwrap();
    let now = world.time();
    let first = world.homes[0]
        .machine
        .next_commit(now, &server_key(0))
        .unwrap();
    assert_eq!(first.events.len(), 1);
    for n in 0..5 {
        world.say(OWNER, &format!("later {n}")).unwrap();
    }
    let home = &mut world.homes[0];
    assert!(home.machine.next_commit(now, &server_key(0)).is_none());
    home.machine.durable(&first.commit.id());
    let second = home.machine.next_commit(now, &server_key(0)).unwrap();
    assert_eq!(second.events.len(), 5);
    assert_eq!(second.commit.commit().prev, Some(first.commit.id()));
    assert!(second.commit.commit().hlc > first.commit.commit().hlc);
}

#[test]
fn a_commit_takes_no_more_events_or_bytes_than_peers_accept() {
    let mut world = World::group();
    for n in 0..300 {
        world.say(OWNER, &format!("{n}")).unwrap();
    }
    assert_eq!(world.commit(0).unwrap().events.len(), 256);
    assert_eq!(world.commit(0).unwrap().events.len(), 44);
    let text = "x".repeat(60 * 1024);
    for _ in 0..40 {
        world.say(OWNER, &text).unwrap();
    }
    let mut events = 0;
    while let Some(taken) = world.commit(0) {
        let bundle = bundle_of(&taken);
        assert!(checked(&bundle).is_ok(), "peers take it");
        assert!(
            crate::link::encode_frame(&crate::link::Frame::Push {
                n: u64::MAX,
                bundle
            })
            .len()
                <= crate::limits::LINK_FRAME_BYTES_MAX
        );
        events += taken.events.len();
    }
    assert_eq!(events, 40);
}

#[test]
fn a_queued_message_can_be_edited_and_deleted_before_its_commit() {
    let mut world = World::group();
    let id = world.say(MEMBER, "typo").unwrap();
    world.edit(MEMBER, id, "type").unwrap();
    let taken = world.commit(1).unwrap();
    assert!(taken.events.iter().all(|e| e.void.is_none()));
    let edit = taken.events[1].event.id();
    assert_eq!(world.homes[1].states[&id].edit.map(|e| e.event), Some(edit));
}

#[test]
fn a_local_event_that_would_be_void_is_refused_and_nothing_is_kept() {
    let mut world = World::group();
    let theirs = world.said(OWNER, "not yours");
    world.gossip(0, 1);
    let code = |refused: Result<_, super::super::Refusal>| refused.unwrap_err().code();
    assert_eq!(code(world.edit(MEMBER, theirs, "mine")), Code::NotAllowed);
    let delete = Act::Delete { target: theirs };
    assert_eq!(code(world.act(MEMBER, delete)), Code::NotAllowed);
    let nowhere = Act::Delete {
        target: crate::ids::EventId::from_bytes([9; 32]),
    };
    assert_eq!(code(world.act(MEMBER, nowhere)), Code::NotFound);
    let (event, _) = world.message(MEMBER, "without its content");
    let now = world.time();
    assert_eq!(
        code(world.homes[1].submit(now, (event, None))),
        Code::ContentMismatch
    );
    let removal = world.grant(0, MEMBER, Role::None);
    world.act(OWNER, removal).unwrap();
    world.commit(0);
    world.gossip(0, 1);
    assert_eq!(code(world.say(MEMBER, "still here")), Code::NotMember);
    assert!(world.commit(1).is_none(), "nothing of it waits");
}

#[test]
fn what_waits_for_its_commit_is_bounded() {
    let mut world = World::group();
    let mut refused = 0;
    for n in 0..5_000 {
        if let Err(refusal) = world.say(OWNER, &format!("{n}")) {
            assert_eq!(refusal.code(), Code::Busy);
            refused += 1;
        }
    }
    assert_eq!(refused, 5_000 - 4_096);
    while world.commit(0).is_some() {}
    assert!(world.say(OWNER, "room again").is_ok());
}

#[test]
fn who_moves_is_told_of_as_a_member_at_his_new_home() {
    let mut world = World::group();
    world.gossip_all();
    world.move_to(MEMBER, 2);
    let moved = world.commit(2).unwrap();
    let member = RoleChange {
        user: world.users[MEMBER].id,
        role: Role::Member,
        home: server(2),
    };
    assert_eq!(moved.changes.roles, [member]);
    assert_eq!(moved.changes.homes.joined, []);
}
