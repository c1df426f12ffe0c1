use super::world::{World, message, numbered, user};
use crate::{
    document::{CHANGES_MAX, Change, ChangeKind, LANES_MAX, PackDocument, Refusal, StateDocument},
    event::ContentRef,
    ids::{CommitId, ContentHash, EventId, ServerId},
    session::Place,
    time::Hlc,
};

fn react(n: usize, epoch: u64, emoji: &str) -> Change {
    Change {
        event: EventId::from_bytes(numbered("event", n)),
        home: ServerId::from_bytes([1; 32]),
        epoch,
        kind: ChangeKind::React {
            target: message(9),
            emoji: emoji.to_owned(),
            user: user(u8::try_from(n % 50).unwrap()),
            on: true,
            version: None,
        },
    }
}

fn never(_: EventId, _: EventId) -> bool {
    false
}

#[test]
fn keys_outside_the_limits_are_refused() {
    let mut document = PackDocument::new();
    for emoji in ["", "\n", "\u{0}", &"x".repeat(65)] {
        let applied = document.apply([react(1, 1, emoji)], &never);
        assert_eq!(applied.refused[0].why, Refusal::Key, "{emoji:?}");
    }
    assert!(
        document
            .apply([react(1, 1, &"x".repeat(64))], &never)
            .refused
            .is_empty()
    );
    assert_eq!(document.len(), 1);
    let field = |field: &str| Change {
        event: message(1),
        home: ServerId::from_bytes([1; 32]),
        epoch: 1,
        kind: ChangeKind::State {
            field: field.to_owned(),
            value: Some(ContentRef {
                hash: ContentHash::from_bytes([0; 32]),
                len: 0,
            }),
            at: Place {
                hlc: Hlc::from_bits(1),
                commit: CommitId::from_bytes([0; 32]),
                index: 0,
            },
        },
    };
    let mut state = StateDocument::new();
    let applied = state.apply([field(&"x".repeat(65))], &never);
    assert_eq!(applied.refused[0].why, Refusal::Key);
    assert!(
        state
            .apply([field(&"x".repeat(64))], &never)
            .refused
            .is_empty()
    );
}

#[test]
fn homes_beyond_the_limit_are_refused_and_the_others_flow() {
    let mut document = PackDocument::new();
    let change = |n: usize, home: usize| Change {
        home: ServerId::from_bytes(numbered("home", home)),
        ..react(n, 1, "🎉")
    };
    let changes = (0..LANES_MAX + 5).map(|n| change(n, n));
    // Above 1,000 changes there are 16 parts; one message's stay in one of them.
    let applied = document.apply(changes, &never);
    assert_eq!(applied.refused.len(), 5);
    assert!(
        applied
            .refused
            .iter()
            .all(|r| r.why == Refusal::TooManyLanes)
    );
    assert_eq!(document.len(), LANES_MAX);
    let more = document.apply([change(10_000, 3)], &never);
    assert!(more.refused.is_empty());
}

#[test]
fn epochs_of_one_home_need_no_room() {
    let mut document = PackDocument::new();
    let after = |earlier: EventId, later: EventId| earlier < later;
    let changes = (0..LANES_MAX + 5).map(|n| react(n, n as u64, "🎉"));
    assert!(document.apply(changes, &after).refused.is_empty());
}

#[test]
fn full_document_refuses_reactions_and_still_takes_deletions() {
    let mut world = World::default();
    let after = |earlier: EventId, later: EventId| earlier < later;
    // Ids of increasing order, so that this huge document needs no sorting out.
    let ordered = |n: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        EventId::from_bytes(id)
    };
    let changes = (0..CHANGES_MAX + 3).map(|n| Change {
        event: ordered(n),
        kind: ChangeKind::React {
            target: EventId::from_bytes(numbered("message", n % 1_000)),
            emoji: "🎉".to_owned(),
            user: user(u8::try_from(n % 200).unwrap()),
            on: true,
            version: None,
        },
        ..react(n, 1, "🎉")
    });
    let (mut document, applied) = PackDocument::rebuild(changes, &after);
    assert_eq!(applied.refused.len(), 3);
    assert!(
        applied
            .refused
            .iter()
            .all(|r| r.why == Refusal::Full && r.event >= ordered(CHANGES_MAX))
    );
    assert_eq!(document.len(), CHANGES_MAX);
    let refused = document.apply([react(0, 1, "🎉")], &after).refused;
    assert_eq!(refused[0].why, Refusal::Full);
    let deletion = world.delete(1, 9);
    assert!(
        document
            .apply(world.changes.clone(), &after)
            .refused
            .is_empty()
    );
    assert_eq!(
        document.message(message(9)).unwrap().deleted_by,
        Some(deletion)
    );
    assert!(document.bytes_estimate() < 128 * 1024 * 1024);
}
