use super::world::{World, message, user};
use crate::{
    document::{Change, ChangeKind, MessageState, PackDocument, StateDocument, StateKey},
    ids::EventId,
};

/// The state of message 9 in a document of everything that happened, which is the same in the
/// order it happened, backwards, and rebuilt.
fn state(world: &World) -> MessageState {
    let seen = world.seen();
    let (rebuilt, _) = PackDocument::rebuild(world.changes.clone(), &seen);
    let mut forwards = PackDocument::new();
    let mut backwards = PackDocument::new();
    for change in &world.changes {
        forwards.apply([change.clone()], &seen);
    }
    for change in world.changes.iter().rev() {
        backwards.apply([change.clone()], &seen);
    }
    assert_eq!(forwards.heads(), rebuilt.heads());
    assert_eq!(backwards.heads(), rebuilt.heads());
    let state = rebuilt.message(message(9)).unwrap();
    assert_eq!(state, forwards.message(message(9)).unwrap());
    assert_eq!(state, backwards.message(message(9)).unwrap());
    assert_eq!(state, world.expected(&world.changes, message(9)));
    state
}

#[test]
fn reaction_taken_off_is_gone() {
    let mut world = World::default();
    world.react(1, 9, true);
    world.react(1, 9, false);
    assert!(state(&world).reactions.is_empty());
}

#[test]
fn removal_takes_away_only_what_it_saw() {
    let mut world = World::default();
    world.react(1, 9, true);
    world.sync(1, 2);
    world.react(2, 9, false);
    world.react(1, 9, true);
    assert_eq!(state(&world).reactions, [("👍".to_owned(), vec![user(1)])]);
    // Once somebody has seen both, off is off.
    world.sync(1, 2);
    world.react(2, 9, false);
    assert!(state(&world).reactions.is_empty());
}

#[test]
fn off_without_on_changes_nothing() {
    let mut world = World::default();
    world.react(1, 9, false);
    world.react(2, 9, false);
    assert_eq!(state(&world), MessageState::default());
}

#[test]
fn storm_on_two_sides_of_a_partition_counts_one_reaction() {
    let mut world = World::default();
    for round in 0..60 {
        world.react(1, 9, round % 2 == 0);
        world.react(2, 9, round % 3 == 0);
    }
    world.sync(1, 3);
    world.sync(2, 3);
    let off = state(&world);
    assert!(
        off.reactions.is_empty(),
        "both sides ended with off: {off:?}"
    );
    world.react(2, 9, true);
    world.react(1, 9, false);
    assert_eq!(state(&world).reactions, [("👍".to_owned(), vec![user(1)])]);
    world.react(3, 9, true);
    assert_eq!(state(&world).reactions, [("👍".to_owned(), vec![user(1)])]);
}

#[test]
fn concurrent_edits_have_one_winner_and_a_loser_who_can_be_told() {
    let mut world = World::default();
    let first = world.edit(1, 9);
    world.sync(1, 2);
    let loser = world.edit(1, 9);
    let winner = world.edit(2, 9);
    let split = state(&world);
    assert_eq!(split.edit.map(|e| e.event), Some(winner));
    assert_eq!(
        split
            .lost
            .iter()
            .map(|e| (e.event, e.author))
            .collect::<Vec<_>>(),
        [(loser, user(1))]
    );
    assert_ne!(split.lost[0].event, first);
    // An edit that has seen both settles it.
    world.sync(2, 1);
    let settled = world.edit(1, 9);
    let healed = state(&world);
    assert_eq!(healed.edit.map(|e| e.event), Some(settled));
    assert!(healed.lost.is_empty());
}

#[test]
fn deletion_beats_edits_and_reactions_before_beside_and_after_it() {
    let mut world = World::default();
    world.edit(1, 9);
    world.react(1, 9, true);
    let deletion = world.delete(2, 9);
    world.edit(1, 9);
    world.sync(2, 1);
    world.edit(1, 9);
    world.react(1, 9, true);
    let dead = MessageState {
        deleted_by: Some(deletion),
        ..MessageState::default()
    };
    assert_eq!(state(&world), dead);
}

#[test]
fn other_messages_are_left_alone() {
    let mut world = World::default();
    world.delete(1, 8);
    world.edit(1, 7);
    world.react(1, 6, true);
    assert_eq!(state(&world), MessageState::default());
}

#[test]
fn emoji_that_looks_like_a_separator_stays_an_emoji() {
    let mut world = World::default();
    for emoji in ["|", "||", "👍|", "~", "\u{10ffff}"] {
        world.react_as_self(1, 9, emoji, true);
        world.react_as_self(2, 9, emoji, true);
    }
    let reactions = state(&world).reactions;
    assert_eq!(reactions.len(), 5);
    assert!(
        reactions
            .iter()
            .all(|(_, users)| *users == [user(1), user(2)])
    );
}

fn state_changes(world: &mut World) -> Vec<EventId> {
    let title = |at, value| ChangeKind::State {
        field: "title".to_owned(),
        value: Some(value),
        at,
    };
    let pin = |on| {
        move |_, _| ChangeKind::Pin {
            target: message(9),
            on,
        }
    };
    let name = |at, value| ChangeKind::Name {
        user: user(1),
        value: Some(value),
        at,
    };
    let mut events = vec![
        world.act(1, title),
        world.act(1, pin(true)),
        world.act(1, name),
    ];
    world.sync(1, 2);
    events.extend([
        world.act(1, title),
        world.act(2, title),
        world.act(2, pin(false)),
    ]);
    events
}

#[test]
fn state_has_winners_losers_pins_and_names() {
    let mut world = World::default();
    let events = state_changes(&mut world);
    let seen = world.seen();
    let mut document = StateDocument::new();
    let applied = document.apply(world.changes.clone(), &seen);
    let keys = [
        StateKey::Field("title".to_owned()),
        StateKey::Pin(message(9)),
        StateKey::Name(user(1)),
    ];
    assert_eq!(applied.touched, keys.into_iter().collect());
    let view = document.state().unwrap();
    assert_eq!(view.fields["title"].event, events[4]);
    assert_eq!(view.fields["title"].lost.len(), 1);
    assert_eq!(view.fields["title"].lost[0].0, events[3]);
    assert!(view.pins.is_empty());
    assert_eq!(view.names[&user(1)].event, events[2]);
    let (rebuilt, _) = StateDocument::rebuild(world.changes.iter().rev().cloned(), &seen);
    assert_eq!(rebuilt.state().unwrap(), view);
    assert_eq!(rebuilt.heads(), document.heads());
}

#[test]
fn change_of_another_document_is_refused() {
    let mut world = World::default();
    state_changes(&mut world);
    let mut document = PackDocument::new();
    let applied = document.apply(world.changes.clone(), &world.seen());
    assert_eq!(applied.refused.len(), world.changes.len());
    assert!(document.is_empty() && applied.touched.is_empty());
}

#[test]
fn repeated_event_changes_nothing_and_another_appearance_of_it_is_refused() {
    let mut world = World::default();
    world.react(1, 9, true);
    let seen = world.seen();
    let mut document = PackDocument::new();
    document.apply(world.changes.clone(), &seen);
    let heads = document.heads();
    let again = document.apply(world.changes.clone(), &seen);
    assert!(again.touched.is_empty() && again.refused.is_empty());
    let elsewhere = Change {
        epoch: 7,
        ..world.changes[0].clone()
    };
    assert_eq!(document.apply([elsewhere], &seen).refused.len(), 1);
    assert_eq!(document.heads(), heads);
}
