//! Edits, reactions, deletions and removals across homes.

use super::world::*;
use crate::{
    event::{Act, Grant, Target},
    ids::EventId,
    role::Role,
};

fn react(target: EventId, emoji: &str, on: bool) -> Act {
    Act::React {
        target,
        emoji: emoji.into(),
        on,
    }
}

#[test]
fn concurrent_edits_and_reactions_read_the_same_everywhere() {
    let mut world = World::group();
    let id = world.said(MEMBER, "hello");
    world.gossip_all();
    world.edit(MEMBER, id, "hello, world").unwrap();
    world.act(ADMIN, react(id, "+1", true)).unwrap();
    world.act(OTHER, react(id, "+1", true)).unwrap();
    world.act(OTHER, react(id, "eyes", true)).unwrap();
    world.act(OWNER, react(id, "eyes", true)).unwrap();
    for home in 0..3 {
        world.commit(home);
    }
    world.gossip_all();
    world.act(OTHER, react(id, "eyes", false)).unwrap();
    world.commit(2);
    world.gossip_all();
    let state = &world.homes[0].states[&id];
    assert!(state.edit.is_some());
    let counts: Vec<_> = state
        .reactions
        .iter()
        .map(|(emoji, users)| (emoji.as_str(), users.len()))
        .collect();
    assert_eq!(counts, [("+1", 2), ("eyes", 1)]);
    assert_eq!(world.homes[1].states[&id], *state);
    assert_eq!(world.homes[2].states[&id], *state);
}

#[test]
fn the_authors_deletion_erases_the_message_and_every_edit_of_it() {
    let mut world = World::group();
    let id = world.said(MEMBER, "secret");
    let first = world.edit(MEMBER, id, "secret 2").unwrap();
    world.commit(1);
    let second = world.edit(MEMBER, id, "secret 3").unwrap();
    world.commit(1);
    world.gossip_all();
    world.act(MEMBER, Act::Delete { target: id }).unwrap();
    world.commit(1);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.states[&id].deleted_by.is_some());
        assert_eq!(home.states[&id].edit, None);
        let expected = [id, first, second].into_iter().collect();
        assert_eq!(home.erased, expected, "home {}", home.n);
    }
}

#[test]
fn an_edit_that_comes_after_the_deletion_is_erased_too() {
    let mut world = World::group();
    let id = world.said(MEMBER, "secret");
    world.act(MEMBER, Act::Delete { target: id }).unwrap();
    world.commit(1);
    // Another device of the author, which has not heard of it.
    let late = world.edit(MEMBER, id, "still secret").unwrap();
    world.commit(1);
    world.gossip_all();
    for home in &world.homes {
        assert_eq!(home.states[&id].edit, None);
        assert!(home.erased.contains(&late), "home {}", home.n);
    }
}

#[test]
fn a_void_edit_of_a_deleted_message_is_erased_too() {
    let mut world = World::group();
    let id = world.said(MEMBER, "secret");
    world.act(MEMBER, Act::Delete { target: id }).unwrap();
    world.commit(1);
    world.gossip_all();
    // The owner removes the author while the author's home, cut off, lets him edit once more.
    let removal = world.grant(0, MEMBER, Role::None);
    world.act(OWNER, removal).unwrap();
    world.commit(0);
    let late = world.edit(MEMBER, id, "once more").unwrap();
    world.commit(1);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.erased.contains(&late), "home {}", home.n);
    }
}

#[test]
fn edits_that_a_removal_voided_before_the_deletion_are_erased_with_it() {
    let mut world = World::group();
    let id = world.said(MEMBER, "secret");
    world.gossip_all();
    let removal = world.grant(0, MEMBER, Role::None);
    world.act(OWNER, removal).unwrap();
    world.commit(0);
    let voided = world.edit(MEMBER, id, "more secret").unwrap();
    world.commit(1);
    world.act(MEMBER, Act::Delete { target: id }).unwrap();
    world.commit(1);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.erased.contains(&id), "home {}", home.n);
        assert!(home.erased.contains(&voided), "home {}", home.n);
    }
}

#[test]
fn a_moderators_deletion_hides_and_erases_nothing() {
    let mut world = World::group();
    let id = world.said(OTHER, "rude");
    world.gossip_all();
    world.act(ADMIN, Act::Delete { target: id }).unwrap();
    world.commit(1);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.states[&id].deleted_by.is_some());
        assert!(home.erased.is_empty(), "home {}", home.n);
    }
    // The author's own, later, does.
    world.act(OTHER, Act::Delete { target: id }).unwrap();
    world.commit(2);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.erased.contains(&id), "home {}", home.n);
    }
}

#[test]
fn a_removal_voids_what_is_beyond_its_cut_and_it_stands_again_when_the_removal_falls() {
    let mut world = World::group();
    let inside = world.said(OTHER, "seen by the admin");
    world.gossip_all();
    let removal = world.grant(1, OTHER, Role::None);
    world.act(ADMIN, removal).unwrap();
    world.commit(1);
    let beyond = world.said(OTHER, "not seen");
    // The owner, cut off too, removes the admin and lets nothing of the admin's removal stand.
    let act = world.grant(0, ADMIN, Role::None);
    world.act(OWNER, act).unwrap();
    world.commit(0);
    world.gossip(1, 2);
    assert!(world.homes[2].shown.contains(&inside));
    assert!(!world.homes[2].shown.contains(&beyond), "beyond the cut");
    assert_eq!(world.homes[2].role(&world.users[OTHER]), Role::None);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.shown.contains(&beyond), "home {}", home.n);
        assert_eq!(home.role(&world.users[OTHER]), Role::Member);
        assert_eq!(home.role(&world.users[ADMIN]), Role::None);
    }
}

#[test]
fn a_line_that_stands_again_is_told_with_what_was_done_to_it() {
    let mut world = World::group();
    world.gossip_all();
    let removal = world.grant(1, OTHER, Role::None);
    world.act(ADMIN, removal).unwrap();
    world.commit(1);
    let beyond = world.said(OTHER, "not seen");
    world.act(THIRD, react(beyond, "+1", true)).unwrap();
    world.commit(2);
    let act = world.grant(0, ADMIN, Role::None);
    world.act(OWNER, act).unwrap();
    world.commit(0);
    world.gossip(1, 2);
    world.homes[2].states.remove(&beyond);
    world.gossip_all();
    let state = &world.homes[2].states[&beyond];
    assert_eq!(state.reactions.len(), 1);
}

#[test]
fn a_ban_keeps_out_and_its_lift_lets_back_in() {
    let mut world = World::group();
    let Act::Grant(grant) = world.grant(0, OTHER, Role::None) else {
        unreachable!()
    };
    world
        .act(OWNER, Act::Grant(Grant { ban: true, ..grant }))
        .unwrap();
    world.commit(0);
    world.gossip_all();
    // A grant that does not lift the ban gives nothing, whoever makes it.
    let blind = Act::Grant(Grant {
        target: Target::User {
            user: world.users[OTHER].id,
            home: server(2),
        },
        role: Role::Member,
        cut: vec![],
        ban: false,
        lifts: vec![],
    });
    let _ = world.act(ADMIN, blind);
    world.commit(1);
    world.gossip_all();
    assert!(
        world
            .homes
            .iter()
            .all(|h| h.role(&world.users[OTHER]) == Role::None)
    );
    let lift = world.grant(0, OTHER, Role::Member);
    world.act(OWNER, lift).unwrap();
    world.commit(0);
    world.gossip_all();
    assert!(
        world
            .homes
            .iter()
            .all(|h| h.role(&world.users[OTHER]) == Role::Member)
    );
}
