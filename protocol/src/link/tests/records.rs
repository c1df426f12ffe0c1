//! Root records on a link, and what stewards say to each other.

use super::*;

fn record(n: u64, id: u8) -> RootRef {
    RootRef {
        n,
        id: RootId::from_bytes([id; 32]),
    }
}

fn raw_record() -> RawRoot {
    RawRoot {
        root: Blob(vec![0xa0]),
        ballot: None,
        signatures: vec![],
    }
}

fn frontier_with(root: Option<RootRef>) -> Input {
    Input::Frame(Frame::Frontier {
        conversation: C,
        tips: vec![],
        offer: Offer::Direct(UserId::from_bytes([1; 32]), UserId::from_bytes([2; 32])),
        root,
        reply: false,
    })
}

fn records_wanted(outputs: &[Output]) -> Vec<u64> {
    let from = |o: &Output| match o {
        Output::Send(_, Frame::WantRecords { from, .. }) => Some(*from),
        _ => None,
    };
    outputs.iter().filter_map(from).collect()
}

#[test]
fn records_that_a_frontier_shows_are_asked_for_and_a_twin_too() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    b.known = true;
    assert_eq!(
        records_wanted(&b.input(frontier_with(Some(record(3, 1))))),
        [1]
    );
    b.root = Some(record(2, 2));
    assert_eq!(
        records_wanted(&b.input(frontier_with(Some(record(5, 1))))),
        [3]
    );
    assert_eq!(
        records_wanted(&b.input(frontier_with(Some(record(2, 1))))),
        [2]
    );
    for held in [Some(record(2, 2)), None] {
        assert!(records_wanted(&b.input(frontier_with(held))).is_empty());
    }
}

#[test]
fn an_older_record_is_asked_for_since_what_is_held_may_follow_its_losing_twin() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    b.known = true;
    b.root = Some(record(3, 3));
    assert_eq!(
        records_wanted(&b.input(frontier_with(Some(record(2, 1))))),
        [2]
    );
}

#[test]
fn a_new_record_is_pushed_to_who_takes_part_and_to_nobody_else() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let sent = |outputs: Vec<Output>| {
        let record = |o: &&Output| matches!(o, Output::Send(_, Frame::Records { .. }));
        outputs.iter().filter(record).count()
    };
    let other = ConversationId::from_bytes([99; 32]);
    assert_eq!(sent(a.input(Input::Recorded(other, raw_record()))), 0);
    a.input(Input::TakesPart(C, None));
    assert_eq!(sent(a.input(Input::Recorded(C, raw_record()))), 1);
    a.input(Input::LeftAt(C, None));
    assert_eq!(sent(a.input(Input::Recorded(C, raw_record()))), 0);
}

#[test]
fn records_beyond_what_is_judged_at_once_close_the_link() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let records = |count: usize| {
        Input::Frame(Frame::Records {
            conversation: C,
            records: vec![raw_record(); count],
        })
    };
    let closes = |outputs: &[Output]| outputs.iter().any(|o| matches!(o, Output::Close(_)));
    assert!(closes(&b.input(records(65))));
    assert!(b.input(records(0)).is_empty());
    for _ in 0..100 {
        assert!(!closes(&b.input(records(1))));
        b.input(Input::RecordsTaken { session: 1 });
    }
    let outputs: Vec<_> = (0..17).map(|_| closes(&b.input(records(1)))).collect();
    assert_eq!(outputs.iter().filter(|closed| **closed).count(), 1);
}

#[test]
fn words_about_the_next_record_are_said_and_heard_where_the_peer_takes_part_and_bounded() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let other = ConversationId::from_bytes([99; 32]);
    let message = || {
        Box::new(StewardMessage::Prepare {
            before: record(0, 1),
            ballot: Ballot {
                round: 1,
                by: ServerId::from_bytes([1; 32]),
            },
        })
    };
    let said = |outputs: Vec<Output>| {
        let steward = |o: &&Output| matches!(o, Output::Send(_, Frame::Steward { .. }));
        outputs.iter().filter(steward).count()
    };
    for host in [&mut a, &mut b] {
        host.input(Input::TakesPart(C, None));
    }
    assert_eq!(said(a.input(Input::Say(C, message()))), 1);
    assert_eq!(said(a.input(Input::Say(other, message()))), 0);
    let word = |conversation| {
        Input::Frame(Frame::Steward {
            conversation,
            message: message(),
        })
    };
    let heard = |outputs: Vec<Output>| {
        assert!(!outputs.iter().any(|o| matches!(o, Output::Close(_))));
        let steward = |o: &&Output| matches!(o, Output::Steward { .. });
        outputs.iter().filter(steward).count()
    };
    assert_eq!(heard(b.input(word(other))), 0, "it takes no part there");
    let all: usize = (0..100).map(|_| heard(b.input(word(C)))).sum();
    assert_eq!(all, STEWARDING_MAX, "the others are lost, as any may be");
    b.input(Input::Heard { session: 1 });
    assert_eq!(heard(b.input(word(C))), 1);
    a.input(Input::LeftAt(C, None));
    assert_eq!(said(a.input(Input::Say(C, message()))), 0);
    a.input(Input::Down);
    assert_eq!(said(a.input(Input::Say(C, message()))), 0);
}

#[test]
fn fingerprints_differ_where_only_the_records_do() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    for host in [&mut a, &mut b] {
        host.known = true;
        host.input(Input::TakesPart(C, None));
    }
    a.root = Some(record(1, 1));
    a.now += 10 * crate::limits::ANTI_ENTROPY_MS;
    let outputs = a.input(Input::Tick { random: 1 });
    let shared = outputs.into_iter().find_map(|o| match o {
        Output::Send(_, frame @ Frame::Shared { .. }) => Some(frame),
        _ => None,
    });
    let frame = shared.expect("a round");
    let answers = |outputs: Vec<Output>| {
        let frontier = |o: &&Output| matches!(o, Output::Send(_, Frame::Frontier { .. }));
        outputs.iter().filter(frontier).count()
    };
    assert_eq!(answers(b.input(Input::Frame(frame.clone()))), 1);
    b.root = Some(record(1, 1));
    assert_eq!(answers(b.input(Input::Frame(frame))), 0);
}
