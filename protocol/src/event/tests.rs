use super::*;
use crate::ids::{ContentHash, Salt, ServerId};

fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn event(act: Act) -> Event {
    Event {
        conversation: ConversationId::from_bytes([1; 32]),
        author: UserId::from_bytes([2; 32]),
        device: key().public(),
        nonce: Nonce::from_bytes([3; 16]),
        claims: Role::Member,
        act,
        sent_at: Timestamp(1_700_000_000_000),
    }
}

fn every_kind() -> Vec<Act> {
    let target = EventId::from_bytes([4; 32]);
    let content = ContentRef {
        hash: ContentHash::from_bytes([5; 32]),
        len: 20,
    };
    let home = ServerId::from_bytes([6; 32]);
    let tip = Tip {
        home,
        epoch: 1,
        seq: 9,
        id: crate::ids::CommitId::from_bytes([8; 32]),
    };
    let user = UserId::from_bytes([9; 32]);
    let grant = |target, role, ban| Grant {
        target,
        role,
        cut: vec![tip],
        ban,
        lifts: vec![],
    };
    vec![
        Act::Message { content },
        Act::Edit { target, content },
        Act::Delete { target },
        Act::React {
            target,
            emoji: "👍".into(),
            on: true,
            version: None,
        },
        Act::React {
            target,
            emoji: "👍".into(),
            on: true,
            version: Some(EventId::from_bytes([7; 32])),
        },
        Act::Pin { target, on: false },
        Act::State {
            field: "title".into(),
            content: Some(content),
        },
        Act::State {
            field: "title".into(),
            content: None,
        },
        Act::Grant(grant(Target::User { user, home }, Role::None, true)),
        Act::Grant(Grant {
            cut: vec![],
            ..grant(Target::Anyone, Role::Member, false)
        }),
        Act::Join {
            role: Role::Member,
            home,
        },
        Act::Leave { cut: vec![] },
        Act::Move {
            home,
            n: 3,
            cut: vec![tip],
        },
        Act::Policy {
            field: Field::Posting,
            value: 3,
        },
    ]
}

#[test]
fn every_kind_round_trips_and_keeps_its_id() {
    for act in every_kind() {
        let signed = event(act).sign(&key());
        let read = SignedEvent::verify(signed.to_raw()).unwrap();
        assert_eq!(read, signed);
        assert_eq!(read.id(), event_id(signed.bytes()));
    }
}

#[test]
fn every_single_byte_change_is_refused() {
    for act in every_kind() {
        let raw = event(act).sign(&key()).to_raw();
        for i in 0..raw.event.0.len() {
            let mut changed = raw.clone();
            changed.event.0[i] ^= 1;
            assert!(SignedEvent::verify(changed).is_err(), "byte {i}");
        }
        let cut = RawEvent {
            event: Blob(raw.event.0[..raw.event.0.len() - 1].to_vec()),
            ..raw
        };
        assert!(SignedEvent::verify(cut).is_err());
    }
}

#[test]
fn a_kind_takes_exactly_its_own_fields() {
    let mut wire = wire::WireEvent::from(&event(Act::Delete {
        target: EventId::from_bytes([4; 32]),
    }));
    assert!(Event::try_from(std::mem::replace(&mut wire, wire_of("message"))).is_ok());
    assert!(Event::try_from(wire).is_err(), "a message without content");
}

fn wire_of(kind: &str) -> wire::WireEvent {
    let bytes = event(Act::Delete {
        target: EventId::from_bytes([4; 32]),
    })
    .to_bytes();
    let needle = b"fdelete";
    let at = bytes.windows(7).position(|w| w == needle).unwrap();
    let mut changed = bytes[..at].to_vec();
    changed.push(0x60 + u8::try_from(kind.len()).unwrap());
    changed.extend(kind.as_bytes());
    changed.extend(&bytes[at + 7..]);
    serde_ipld_dagcbor::from_slice(&changed).unwrap()
}

#[test]
fn unknown_version_and_kind_are_refused_by_name() {
    assert_eq!(
        Event::try_from(wire_of("dance")),
        Err(DecodeError::Invalid("unknown kind of event"))
    );
    let mut bytes = event(Act::Delete {
        target: EventId::from_bytes([4; 32]),
    })
    .to_bytes();
    let at = bytes.windows(3).position(|w| w == [0x61, b'v', 1]).unwrap();
    bytes[at + 2] = 2;
    let raw = RawEvent {
        event: Blob(bytes),
        signature: Signature::from_bytes([0; 64]),
    };
    assert_eq!(
        SignedEvent::from_trusted(raw),
        Err(DecodeError::UnknownVersion(2))
    );
}

#[test]
fn content_at_the_limit_passes_and_one_byte_more_does_not() {
    let salt = Salt::from_bytes([1; 16]);
    let overhead = SealedContent::seal(&Content::text(salt, "x".repeat(60_000)))
        .unwrap()
        .bytes()
        .len()
        - 60_000;
    let most = crate::limits::CONTENT_BYTES_MAX - overhead;
    let sealed = SealedContent::seal(&Content::text(salt, "x".repeat(most))).unwrap();
    assert_eq!(
        sealed.reference().len as usize,
        crate::limits::CONTENT_BYTES_MAX
    );
    assert!(matches!(
        SealedContent::seal(&Content::text(salt, "x".repeat(most + 1))),
        Err(DecodeError::TooLarge { .. })
    ));
}

#[test]
fn text_is_kept_byte_for_byte() {
    let text = "é e\u{301} \u{202e}x\u{0} ";
    let sealed = SealedContent::seal(&Content::text(Salt::from_bytes([0; 16]), text)).unwrap();
    assert_eq!(
        SealedContent::open(sealed.into_bytes())
            .unwrap()
            .content()
            .text,
        text
    );
}

#[test]
fn a_grant_that_spells_out_what_says_nothing_is_refused() {
    let user = UserId::from_bytes([9; 32]);
    let home = ServerId::from_bytes([6; 32]);
    let target = Target::User { user, home };
    let (cut, lifts) = (vec![], vec![]);
    let ban = Act::Grant(Grant {
        target,
        role: Role::None,
        cut,
        ban: true,
        lifts,
    });
    let mut bytes = event(ban).to_bytes();
    let at = bytes.windows(5).position(|w| w == b"cban\xf5").unwrap();
    let read = |bytes: &[u8]| {
        let signature = Signature::from_bytes([0; 64]);
        SignedEvent::from_trusted(RawEvent {
            event: Blob(bytes.to_vec()),
            signature,
        })
    };
    assert!(read(&bytes).is_ok());
    bytes[at + 4] = 0xf4;
    assert!(matches!(read(&bytes), Err(DecodeError::Invalid(_))));
}
