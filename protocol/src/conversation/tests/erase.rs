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
        version: None,
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

#[test]
fn a_reaction_says_whether_it_was_to_the_text_that_is_shown() {
    let mut world = World::group();
    let id = world.said(MEMBER, "tea?");
    world.gossip_all();
    world.act(OWNER, react(id, "+1", true)).unwrap();
    world.act(OTHER, react(id, "+1", true)).unwrap();
    world.commit(0);
    world.commit(2);
    world.gossip_all();
    assert!(world.homes[1].states[&id].older.is_empty(), "as written");
    let edit = world.edit(MEMBER, id, "coffee?").unwrap();
    world.commit(1);
    world.gossip_all();
    let (owner, other) = (world.users[OWNER].id, world.users[OTHER].id);
    for home in &world.homes {
        let older = [("+1".to_owned(), vec![owner, other])];
        assert_eq!(home.states[&id].older, older, "home {}", home.n);
    }
    // One reacts anew to what it says now; the other took his off and put it back unseeing.
    let to_edit = Act::React {
        target: id,
        emoji: "+1".into(),
        on: true,
        version: Some(edit),
    };
    world.act(OWNER, to_edit).unwrap();
    world.commit(0);
    world.act(OTHER, react(id, "+1", false)).unwrap();
    world.act(OTHER, react(id, "+1", true)).unwrap();
    world.commit(2);
    world.gossip_all();
    for home in &world.homes {
        let state = &home.states[&id];
        assert_eq!(state.reactions, [("+1".to_owned(), vec![owner, other])]);
        assert_eq!(state.older, [("+1".to_owned(), vec![other])]);
    }
}

/// MEMBER moves from home 1 to home 2, which has not heard of his last edit at home 1, and edits
/// once more there. Gives the message and both edits.
fn edits_at_two_homes() -> (World, EventId, [EventId; 2]) {
    let mut world = World::group();
    let id = world.said(MEMBER, "tea at 3");
    world.gossip_all();
    let first = world.edit(MEMBER, id, "tea at 4").unwrap();
    world.commit(1);
    // His new home does not hold it yet.
    world.move_to(MEMBER, 2);
    world.commit(2);
    let second = world.edit(MEMBER, id, "tea at 5").unwrap();
    world.commit(2);
    (world, id, [first, second])
}

#[test]
fn of_edits_of_one_version_at_two_homes_one_wins_everywhere_and_the_other_is_named() {
    let (mut world, id, [first, second]) = edits_at_two_homes();
    // What the move's cut names is not held there yet: until then nothing of him stands.
    assert!(!world.homes[2].shown.contains(&id));
    world.gossip_all();
    world.gossip_all();
    for home in &world.homes {
        let state = &home.states[&id];
        assert_eq!(state.edit.map(|edit| edit.event), Some(second));
        let lost: Vec<_> = state.lost.iter().map(|edit| edit.event).collect();
        assert_eq!(lost, [first], "home {}", home.n);
        assert_eq!(state.lost[0].author, world.users[MEMBER].id);
    }
    // Once its author has seen both, his next one leaves nothing behind.
    let third = world.edit(MEMBER, id, "tea at 4, then").unwrap();
    world.commit(2);
    world.gossip_all();
    for home in &world.homes {
        let state = &home.states[&id];
        assert_eq!(state.edit.map(|edit| edit.event), Some(third));
        assert!(state.lost.is_empty(), "home {}", home.n);
    }
}

#[test]
fn a_storm_of_reactions_on_both_sides_of_a_split_is_one_reaction_and_one_state() {
    let mut world = World::group();
    let id = world.said(OWNER, "popular");
    world.gossip_all();
    for n in 0..100 {
        for user in [ADMIN, OTHER] {
            world.act(user, react(id, "+1", n % 3 != 1)).unwrap();
        }
        if n % 7 == 0 {
            world.commit(1);
            world.commit(2);
        }
    }
    for home in 0..3 {
        while world.commit(home).is_some() {}
    }
    world.gossip_all();
    let (admin, other) = (world.users[ADMIN].id, world.users[OTHER].id);
    for home in &world.homes {
        let state = &home.states[&id];
        assert_eq!(state.reactions, [("+1".to_owned(), vec![admin, other])]);
        // What a change costs, and no more for those that replaced each other.
        assert!(home.machine.document_bytes() < 512 * 1024, "bounded");
    }
}

#[test]
fn a_moderators_deletion_that_turns_void_shows_the_message_again_with_its_text() {
    let mut world = World::group();
    let id = world.said(OTHER, "rude?");
    let edit = world.edit(OTHER, id, "not at all").unwrap();
    world.commit(2);
    world.gossip_all();
    // The admin deletes it while the owner, who has not seen that, removes the admin.
    world.act(ADMIN, Act::Delete { target: id }).unwrap();
    world.commit(1);
    world.gossip(1, 2);
    assert!(world.homes[2].states[&id].deleted_by.is_some());
    let removal = world.grant(0, ADMIN, Role::None);
    world.act(OWNER, removal).unwrap();
    world.commit(0);
    world.gossip_all();
    for home in &world.homes {
        let state = home.states.get(&id).unwrap();
        assert_eq!(state.deleted_by, None, "home {}", home.n);
        assert_eq!(state.edit.map(|e| e.event), Some(edit));
        assert!(home.erased.is_empty(), "home {}", home.n);
    }
}

#[test]
fn the_authors_deletion_that_turns_void_stays_and_its_text_is_erased() {
    let mut world = World::group();
    let id = world.said(OTHER, "secret");
    world.gossip_all();
    // A removal that has not seen the deletion makes it void wherever it is known.
    let removal = world.grant(0, OTHER, Role::None);
    world.act(OWNER, removal).unwrap();
    world.commit(0);
    world.act(OTHER, Act::Delete { target: id }).unwrap();
    world.commit(2);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.states[&id].deleted_by.is_some(), "home {}", home.n);
        assert!(home.erased.contains(&id), "home {}", home.n);
    }
}
