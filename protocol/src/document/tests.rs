use super::*;
use crate::ids::{ServerId, UserId};

#[test]
fn reaction_is_seen_and_taken_off() {
    let react = |n: u8, on| Change {
        event: EventId::from_bytes([n; 32]),
        home: ServerId::from_bytes([1; 32]),
        epoch: 1,
        kind: ChangeKind::React {
            target: EventId::from_bytes([9; 32]),
            emoji: "👍".to_owned(),
            user: UserId::from_bytes([3; 32]),
            on,
        },
    };
    let mut document = PackDocument::new();
    let seen = |a: EventId, b: EventId| a < b;
    document.apply([react(1, true)], &seen);
    let state = document.message(EventId::from_bytes([9; 32])).unwrap();
    assert_eq!(state.reactions.len(), 1);
    document.apply([react(2, false)], &seen);
    let state = document.message(EventId::from_bytes([9; 32])).unwrap();
    assert!(state.reactions.is_empty());
}
