use proptest::prelude::*;

use super::world::{World, message, user};
use crate::document::{ChangeKind, DocumentError, Heads, PackDocument, StateDocument};

fn world(changes: usize) -> World {
    let mut world = World::default();
    for n in 0..changes {
        let home = u8::try_from(n % 3).unwrap();
        let target = u8::try_from(n % 13).unwrap();
        match n % 7 {
            0 => world.sync(home, (home + 1) % 3),
            1 => {
                world.edit(home, target);
            }
            2 if n % 5 == 0 => {
                world.delete(home, target);
            }
            3 if n % 11 == 0 => world.new_epoch(home),
            _ => {
                world.react(home, target, n % 2 == 0);
            }
        }
    }
    world
}

#[test]
fn loaded_document_goes_on_like_the_one_saved() {
    for size in [0, 1, 30, 300, 1_500] {
        let world = world(size);
        let seen = world.seen();
        let half = world.changes.len() / 2;
        let mut kept = PackDocument::new();
        kept.apply(world.changes[..half].to_vec(), &seen);
        let mut loaded = PackDocument::load(&kept.save().unwrap(), &kept.heads()).unwrap();
        assert_eq!(loaded.heads(), kept.heads());
        for batch in world.changes[half..].chunks(7) {
            kept.apply(batch.to_vec(), &seen);
            loaded.apply(batch.to_vec(), &seen);
        }
        // Actors, sequence numbers, dependencies: all of it is in the heads.
        assert_eq!(loaded.heads(), kept.heads());
        assert_eq!(
            loaded.heads(),
            PackDocument::rebuild(world.changes.clone(), &seen)
                .0
                .heads()
        );
        for target in (0..13).map(message) {
            assert_eq!(
                loaded.message(target).unwrap(),
                world.expected(&world.changes, target)
            );
        }
        let last: Vec<_> = world
            .changes
            .iter()
            .rev()
            .take(3)
            .map(|c| c.event)
            .collect();
        assert_eq!(loaded.remove(&last, &seen), kept.remove(&last, &seen));
        assert_eq!(loaded.heads(), kept.heads());
    }
}

#[test]
fn state_survives_a_snapshot() {
    let mut world = World::default();
    world.act(1, |at, value| ChangeKind::State {
        field: "title".to_owned(),
        value: Some(value),
        at,
    });
    world.act(2, |at, _| ChangeKind::Name {
        user: user(2),
        value: None,
        at,
    });
    world.act(1, |_, _| ChangeKind::Pin {
        target: message(3),
        on: true,
    });
    let (document, _) = StateDocument::rebuild(world.changes.clone(), &world.seen());
    let bytes = document.save().unwrap();
    let loaded = StateDocument::load(&bytes, &document.heads()).unwrap();
    assert_eq!(loaded.state().unwrap(), document.state().unwrap());
    let other_kind = PackDocument::load(&bytes, &document.heads()).err();
    assert!(matches!(other_kind, Some(DocumentError::Snapshot(_))));
}

#[test]
fn snapshot_of_other_heads_is_refused() {
    let world = world(60);
    let seen = world.seen();
    let (mut document, _) = PackDocument::rebuild(world.changes[..20].to_vec(), &seen);
    let before = document.save().unwrap();
    document.apply(world.changes.clone(), &seen);
    let loaded = PackDocument::load(&before, &document.heads());
    assert_eq!(loaded.err(), Some(DocumentError::OtherHeads));
    assert!(PackDocument::load(&before, &Heads::default()).is_err());
}

/// Bytes whose checksum is right again after a change: as if this program had a fault.
fn resealed(mut body: Vec<u8>) -> Vec<u8> {
    let sum = blake3::hash(&body);
    body.extend_from_slice(sum.as_bytes());
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_snapshot_is_an_error(at in any::<prop::sample::Index>(), bit in 0..8u32, cut in any::<bool>()) {
        let world = world(40);
        let (document, _) = PackDocument::rebuild(world.changes.clone(), &world.seen());
        let mut bytes = document.save().unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        prop_assert!(PackDocument::load(&bytes, &document.heads()).is_err());
    }

    #[test]
    fn damage_under_a_right_checksum_never_panics_or_changes_the_heads(
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let world = world(40);
        let (document, _) = PackDocument::rebuild(world.changes.clone(), &world.seen());
        let mut body = document.save().unwrap();
        body.truncate(body.len() - 32);
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        if let Ok(loaded) = PackDocument::load(&resealed(body), &document.heads()) {
            prop_assert_eq!(loaded.heads(), document.heads());
        }
    }
}

#[test]
fn heads_of_a_known_document_are_those_of_every_version() {
    let mut world = World::default();
    world.react(1, 9, true);
    world.sync(1, 2);
    world.edit(2, 9);
    world.react(2, 9, false);
    world.delete(1, 8);
    let (document, _) = PackDocument::rebuild(world.changes.clone(), &world.seen());
    assert_eq!(document.heads().len(), 2);
    assert_eq!(
        document.heads().digest().to_string(),
        "d080f45625f17a3d248dd309f174b17712af627dfea33d586fed1ec146d0275b"
    );
}
