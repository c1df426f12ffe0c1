use comity_protocol::ids::Signature;

use super::*;

fn id(n: u8) -> EventId {
    EventId::from_bytes([n; 32])
}

fn lane(n: u8) -> ConversationId {
    ConversationId::from_bytes([n; 32])
}

fn push(queue: &mut Queue, event: u8, conversation: u8, target: Option<u8>) {
    let ticket = Arc::new(Ticket::new(id(event), lane(conversation)));
    let raw = RawEvent {
        event: Blob(vec![event]),
        signature: Signature::from_bytes([0; 64]),
    };
    let item = Item::new(raw, None, target.map(id), ticket);
    queue.push(queue.next_number(), item);
}

/// Everything that can leave now.
fn leaving(queue: &mut Queue, now: u64) -> Vec<u64> {
    let mut numbers = vec![];
    while let Some((number, _)) = queue.next(now) {
        numbers.push(number);
    }
    numbers
}

#[test]
fn a_lane_keeps_its_order_and_lanes_take_turns() {
    let mut queue = Queue::default();
    for event in 0..3 {
        push(&mut queue, event, 1, None);
    }
    push(&mut queue, 3, 2, None);
    assert_eq!(leaving(&mut queue, 0), [0, 3, 1, 2]);
}

#[test]
fn a_lost_session_sends_the_unanswered_again_in_the_old_order() {
    let mut queue = Queue::default();
    for event in 0..4 {
        push(&mut queue, event, 1, None);
    }
    assert_eq!(leaving(&mut queue, 0), [0, 1, 2, 3]);
    assert!(queue.accepted(1).is_some());
    queue.session_lost();
    push(&mut queue, 9, 1, None);
    assert_eq!(leaving(&mut queue, 0), [0, 2, 3, 4]);
}

#[test]
fn an_edit_waits_for_its_message_and_what_follows_waits_behind_it() {
    let mut queue = Queue::default();
    push(&mut queue, 1, 1, None);
    push(&mut queue, 2, 1, Some(1));
    push(&mut queue, 3, 1, None);
    assert_eq!(leaving(&mut queue, 0), [0]);
    assert!(queue.accepted(0).is_some());
    assert_eq!(leaving(&mut queue, 0), [1, 2]);
}

#[test]
fn a_passing_refusal_holds_only_its_lane_and_then_goes_ahead_alone() {
    let mut queue = Queue::default();
    push(&mut queue, 1, 1, None);
    push(&mut queue, 2, 1, None);
    push(&mut queue, 3, 2, None);
    assert_eq!(leaving(&mut queue, 0).len(), 3);
    queue.refused(0, 0, Some(5_000));
    queue.refused(2, 0, Some(7_000));
    push(&mut queue, 4, 2, None);
    assert_eq!(queue.next_hold(), Some(5_000));
    assert!(leaving(&mut queue, 4_999).is_empty());
    queue.session_lost();
    assert_eq!(leaving(&mut queue, 5_000), [0]);
    assert!(queue.accepted(0).is_some());
    assert_eq!(leaving(&mut queue, 6_999), [1]);
    assert_eq!(leaving(&mut queue, 7_000), [2]);
    assert!(queue.accepted(2).is_some());
    assert_eq!(leaving(&mut queue, 7_000), [3]);
}

#[test]
fn refusals_without_a_time_wait_longer_each_time_up_to_a_minute() {
    let mut queue = Queue::default();
    push(&mut queue, 1, 1, None);
    let (mut now, mut waits) = (0, vec![]);
    for _ in 0..9 {
        assert_eq!(leaving(&mut queue, now), [0]);
        queue.refused(0, now, None);
        waits.push(queue.next_hold().unwrap() - now);
        now = queue.next_hold().unwrap();
    }
    assert_eq!(waits[..4], [1_000, 2_000, 4_000, 8_000]);
    assert_eq!(waits[8], 60_000);
}

#[test]
fn a_rejected_message_takes_its_edits_with_it_and_frees_its_lane() {
    let mut queue = Queue::default();
    push(&mut queue, 1, 1, None);
    push(&mut queue, 2, 1, Some(1));
    push(&mut queue, 3, 1, Some(2));
    push(&mut queue, 4, 1, None);
    assert_eq!(leaving(&mut queue, 0), [0]);
    let gone: Vec<u64> = queue.rejected(0).iter().map(|(n, _)| *n).collect();
    assert_eq!(gone, [0, 1, 2]);
    assert_eq!(leaving(&mut queue, 0), [3]);
}

#[test]
fn only_what_never_left_can_be_taken_back() {
    let mut queue = Queue::default();
    push(&mut queue, 1, 1, None);
    assert_eq!(leaving(&mut queue, 0), [0]);
    queue.session_lost();
    assert!(queue.cancel(&id(1)).is_none());
    push(&mut queue, 2, 1, None);
    assert_eq!(queue.cancel(&id(2)).unwrap().len(), 1);
    assert_eq!(queue.len(), 1);
}

#[test]
fn the_queue_is_bounded_and_empties_without_a_trace() {
    let mut queue = Queue::default();
    assert!(!queue.has_room(OUTBOX_BYTES_MAX + 1));
    for event in 0..200 {
        push(&mut queue, event, event % 7, None);
    }
    for number in leaving(&mut queue, 0) {
        assert!(queue.accepted(number).is_some());
    }
    assert_eq!((queue.len(), queue.bytes, queue.lanes.len()), (0, 0, 0));
    assert!(queue.by_event.is_empty() && queue.turns.is_empty() && queue.holds.is_empty());
}
