use super::world::{World, message};
use crate::document::{PackDocument, Refusal, Refused, engine::poison};

fn ten() -> World {
    let mut world = World::default();
    for home in 0..10 {
        world.react_as_self(home, 9, "🎉", true);
        world.sync(home, home + 1);
    }
    world
}

#[test]
fn change_on_which_the_engine_panics_is_quarantined_and_the_others_stand() {
    let world = ten();
    let seen = world.seen();
    let bad = world.changes[4].event;
    let mut document = PackDocument::new();
    document.apply(world.changes[..2].to_vec(), &seen);
    poison::set(&[bad]);
    let applied = document.apply(world.changes[2..].to_vec(), &seen);
    let quarantined = Refused {
        event: bad,
        why: Refusal::Quarantined,
    };
    assert_eq!(applied.refused, [quarantined]);
    assert_eq!(document.len(), 9);
    assert!(!document.contains(bad));
    assert_eq!(
        document.message(message(9)).unwrap().reactions[0].1.len(),
        9
    );
    // It is not tried again until somebody takes it out or rebuilds.
    poison::set(&[]);
    let again = document.apply([world.changes[4].clone()], &seen);
    assert_eq!(again.refused, [quarantined]);
    let mut without = world.changes.clone();
    without.remove(4);
    assert_eq!(
        document.heads(),
        PackDocument::rebuild(without, &seen).0.heads()
    );
    document.remove(&[bad], &seen);
    document.apply([world.changes[4].clone()], &seen);
    let (whole, _) = PackDocument::rebuild(world.changes.clone(), &seen);
    assert_eq!(document.heads(), whole.heads());
}

#[test]
fn engine_that_always_panics_leaves_an_empty_document_and_says_so() {
    let world = ten();
    let seen = world.seen();
    let all: Vec<_> = world.changes.iter().map(|c| c.event).collect();
    poison::set(&all);
    let mut document = PackDocument::new();
    let applied = document.apply(world.changes.clone(), &seen);
    assert_eq!(applied.refused.len(), all.len());
    assert!(document.is_empty() && document.heads().is_empty());
    poison::set(&[]);
    let (document, applied) = PackDocument::rebuild(world.changes.clone(), &seen);
    assert!(applied.refused.is_empty());
    assert_eq!(document.len(), all.len());
}
