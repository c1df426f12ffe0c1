//! `event.json`: contents and events of every kind with what their bytes say, and bytes that are
//! refused.

use comity_protocol::{
    encoding::{self, DecodeError},
    event::{
        Act, Attachment, Content, ContentRef, Event, EventError, Field, Grant, RawEvent,
        SealedContent, SignedEvent, Target, Tip,
    },
    ids::{
        Blob, BlobId, CommitId, ContentHash, ConversationId, DeviceKey, EventId, Nonce, Salt,
        ServerId, UserId,
    },
    role::Role,
    signing::SecretKey,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::vectors::{self, hex, unhex};

const FILE: &str = "event.json";
const DEVICE_SEED: [u8; 32] = [7; 32];

#[derive(Deserialize, Serialize)]
struct File {
    contents: Vec<ContentVector>,
    refused_contents: Vec<RefusedContent>,
    events: Vec<EventVector>,
    refused_events: Vec<RefusedEvent>,
}

#[derive(Deserialize, Serialize)]
struct ContentVector {
    about: String,
    content: Content,
    bytes: String,
    hash: ContentHash,
    len: u32,
}

#[derive(Deserialize, Serialize)]
struct RefusedContent {
    about: String,
    bytes: String,
    why: String,
}

#[derive(Deserialize, Serialize)]
struct EventVector {
    about: String,
    device_seed: String,
    id: EventId,
    bytes: String,
    signature: String,
    says: Says,
}

#[derive(Deserialize, Serialize)]
struct RefusedEvent {
    about: String,
    bytes: String,
    signature: String,
    why: String,
}

/// The event's form on the wire, written down a second time: what is read by this has to be what
/// the crate wrote.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Says {
    v: u64,
    conversation: ConversationId,
    author: UserId,
    device: DeviceKey,
    nonce: Nonce,
    kind: String,
    #[serde(rename = "as")]
    claims: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    act: Option<Fields>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<ContentRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<EventId>,
    sent_at: u64,
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    ban: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<Vec<Tip>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    emoji: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<ServerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifts: Option<Vec<EventId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<EventId>,
}

fn content(text: &str) -> Content {
    Content::text(Salt::from_bytes([0x5a; 16]), text)
}

fn contents() -> Vec<(&'static str, Content)> {
    let everything = Content {
        action: true,
        reply_to: vec![EventId::from_bytes([2; 32]), EventId::from_bytes([1; 32])],
        mentions: vec![UserId::from_bytes([3; 32])],
        attachments: vec![Attachment {
            blob: BlobId::from_bytes([4; 32]),
            len: 123_456,
            name: "map of the valley.png".to_owned(),
            media_type: "image/png".to_owned(),
        }],
        ..content("shows the way")
    };
    vec![
        ("a text", content("Grüße 👋\n")),
        ("no text", content("")),
        (
            "an action that answers, mentions and carries a file",
            everything,
        ),
    ]
}

fn refused_contents() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |content: &Content| encoding::encode(content);
    let twice = Content {
        reply_to: vec![EventId::from_bytes([1; 32]); 2],
        ..content("")
    };
    let unknown = Content {
        v: 2,
        ..content("")
    };
    let crowd = Content {
        mentions: (0..65).map(|n| UserId::from_bytes([n; 32])).collect(),
        ..content("")
    };
    let mut cut = bytes(&content("a text"));
    cut.pop();
    vec![
        ("a message answered twice", bytes(&twice)),
        ("65 mentions", bytes(&crowd)),
        ("version 2", bytes(&unknown)),
        ("a byte short", cut),
    ]
}

fn tip(byte: u8) -> Tip {
    Tip {
        home: ServerId::from_bytes([byte; 32]),
        epoch: 1,
        seq: 41,
        id: CommitId::from_bytes([byte + 1; 32]),
    }
}

fn user() -> Target {
    Target::User {
        user: UserId::from_bytes([0x21; 32]),
        home: ServerId::from_bytes([0x22; 32]),
    }
}

fn grant(target: Target, role: Role) -> Grant {
    Grant {
        target,
        role,
        cut: vec![],
        ban: false,
        lifts: vec![],
    }
}

fn acts() -> Vec<(&'static str, Role, Act)> {
    let said = SealedContent::seal(&content("Grüße 👋\n"))
        .unwrap()
        .reference();
    let target = EventId::from_bytes([0x11; 32]);
    let cut = vec![tip(0x31), tip(0x41)];
    let react = |on| Act::React {
        target,
        emoji: "👍".to_owned(),
        on,
        version: None,
    };
    let react_to_edit = Act::React {
        target,
        emoji: "👍".to_owned(),
        on: true,
        version: Some(EventId::from_bytes([0x12; 32])),
    };
    let state = |field: &str, content| Act::State {
        field: field.to_owned(),
        content,
    };
    let ban = Grant {
        cut: cut.clone(),
        ban: true,
        ..grant(user(), Role::None)
    };
    let lifting = Grant {
        lifts: vec![EventId::from_bytes([5; 32])],
        ..grant(user(), Role::Member)
    };
    let home = ServerId::from_bytes([0x22; 32]);
    let content = said;
    vec![
        ("a message", Role::Member, Act::Message { content }),
        ("an edit", Role::Member, Act::Edit { target, content }),
        ("a deletion", Role::None, Act::Delete { target }),
        ("a reaction", Role::Member, react(true)),
        ("a reaction taken off", Role::Member, react(false)),
        ("a reaction to an edit", Role::Member, react_to_edit),
        ("a pin", Role::Moderator, Act::Pin { target, on: true }),
        ("a title", Role::Moderator, state("title", Some(content))),
        ("a name cleared", Role::Member, state("name", None)),
        (
            "an invitation",
            Role::Moderator,
            Act::Grant(grant(user(), Role::Member)),
        ),
        ("a ban with a cut", Role::Admin, Act::Grant(ban)),
        ("a grant that lifts a ban", Role::Admin, Act::Grant(lifting)),
        (
            "an open door",
            Role::Moderator,
            Act::Grant(grant(Target::Anyone, Role::Member)),
        ),
        (
            "a join",
            Role::Member,
            Act::Join {
                role: Role::Member,
                home,
            },
        ),
        ("a leave", Role::None, Act::Leave { cut: cut.clone() }),
        ("a move", Role::None, Act::Move { home, n: 3, cut }),
        (
            "a policy",
            Role::Admin,
            Act::Policy {
                field: Field::Posting,
                value: 3,
            },
        ),
    ]
}

fn event(claims: Role, act: Act) -> Event {
    Event {
        conversation: ConversationId::from_bytes([1; 32]),
        author: UserId::from_bytes([2; 32]),
        device: SecretKey::from_seed(DEVICE_SEED).public(),
        nonce: Nonce::from_bytes([3; 16]),
        claims,
        act,
        sent_at: Timestamp(1_700_000_000_000),
    }
}

/// What an event says, read by the types above from its bytes.
fn says(event: &SignedEvent) -> Says {
    let says = encoding::decode_frame(event.bytes(), usize::MAX).unwrap();
    assert_eq!(encoding::encode(&says), event.bytes());
    says
}

/// Bytes that differ from those of a message in what `change` does, signed as they are.
fn changed(change: impl FnOnce(&mut Says)) -> RawEvent {
    let (_, claims, act) = acts().swap_remove(0);
    let key = SecretKey::from_seed(DEVICE_SEED);
    let mut says = says(&event(claims, act).sign(&key));
    change(&mut says);
    signed(encoding::encode(&says))
}

fn signed(bytes: Vec<u8>) -> RawEvent {
    let id = *blake3::hash(&bytes).as_bytes();
    let key = SecretKey::from_seed(DEVICE_SEED);
    RawEvent {
        event: Blob(bytes),
        signature: key.sign(comity_protocol::signing::Domain::Event, &id),
    }
}

fn refused_events() -> Vec<(&'static str, RawEvent)> {
    let fields = |change: fn(&mut Fields)| {
        changed(|says| {
            says.kind = "grant".to_owned();
            says.content = None;
            let act = says.act.insert(Fields::default());
            act.role = Some(2);
            change(act);
        })
    };
    let (_, claims, act) = acts().swap_remove(0);
    let good = event(claims, act).sign(&SecretKey::from_seed(DEVICE_SEED));
    let mut forged = good.to_raw();
    forged.signature = SecretKey::from_seed([8; 32]).sign(
        comity_protocol::signing::Domain::Event,
        good.id().as_bytes(),
    );
    let mut other_domain = good.to_raw();
    other_domain.signature = SecretKey::from_seed(DEVICE_SEED).sign(
        comity_protocol::signing::Domain::Commit,
        good.id().as_bytes(),
    );
    let mut trailing = good.bytes().to_vec();
    trailing.push(0);
    vec![
        ("signed by another key", forged),
        ("signed in another domain", other_domain),
        ("a byte behind the value", signed(trailing)),
        ("version 2", changed(|says| says.v = 2)),
        (
            "an unknown kind",
            changed(|says| says.kind = "shout".to_owned()),
        ),
        (
            "a message without content",
            changed(|says| says.content = None),
        ),
        (
            "a message with a target",
            changed(|says| says.target = Some(EventId::from_bytes([0x11; 32]))),
        ),
        ("a role that there is not", changed(|says| says.claims = 6)),
        (
            "a content of 65,537 bytes",
            changed(|says| says.content.as_mut().unwrap().len = 65_537),
        ),
        (
            "a door that gives moderator",
            fields(|act| act.role = Some(3)),
        ),
        ("a ban of everybody", fields(|act| act.ban = Some(true))),
        (
            "a cut out of order",
            fields(|act| act.cut = Some(vec![tip(0x41), tip(0x31)])),
        ),
        (
            "a reaction taken off a version",
            changed(|says| {
                says.kind = "react".to_owned();
                says.content = None;
                says.target = Some(EventId::from_bytes([0x11; 32]));
                let act = says.act.insert(Fields::default());
                act.emoji = Some("👍".to_owned());
                act.on = Some(false);
                act.version = Some(EventId::from_bytes([0x12; 32]));
            }),
        ),
        (
            "a grant of ownership",
            fields(|act| {
                act.role = Some(5);
                act.user = Some(UserId::from_bytes([0x21; 32]));
                act.home = Some(ServerId::from_bytes([0x22; 32]));
            }),
        ),
    ]
}

fn why(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::TooLarge { .. } => "too_large",
        DecodeError::UnknownVersion(_) => "unknown_version",
        DecodeError::NotCanonical => "not_canonical",
        DecodeError::Malformed(_) => "malformed",
        DecodeError::Invalid(_) => "invalid",
        _ => "other",
    }
}

fn why_event(error: &EventError) -> &'static str {
    match error {
        EventError::Decode(error) => why(error),
        EventError::Signature(_) => "wrong_signature",
        _ => "other",
    }
}

fn content_vector((about, content): (&str, Content)) -> ContentVector {
    let sealed = SealedContent::seal(&content).unwrap();
    ContentVector {
        about: about.to_owned(),
        content,
        bytes: hex(sealed.bytes()),
        hash: sealed.reference().hash,
        len: sealed.reference().len,
    }
}

fn event_vector((about, claims, act): (&str, Role, Act)) -> EventVector {
    let signed = event(claims, act).sign(&SecretKey::from_seed(DEVICE_SEED));
    EventVector {
        about: about.to_owned(),
        device_seed: hex(DEVICE_SEED),
        id: signed.id(),
        bytes: hex(signed.bytes()),
        signature: signed.to_raw().signature.to_string(),
        says: says(&signed),
    }
}

#[test]
fn event_json_is_what_this_program_makes() {
    let refused_content = |(about, bytes): (&str, Vec<u8>)| RefusedContent {
        about: about.to_owned(),
        why: why(&SealedContent::open(bytes.clone()).unwrap_err()).to_owned(),
        bytes: hex(bytes),
    };
    let refused_event = |(about, raw): (&str, RawEvent)| RefusedEvent {
        about: about.to_owned(),
        bytes: hex(&raw.event),
        signature: raw.signature.to_string(),
        why: why_event(&SignedEvent::verify(raw).expect_err(about)).to_owned(),
    };
    let file = File {
        contents: contents().into_iter().map(content_vector).collect(),
        refused_contents: refused_contents()
            .into_iter()
            .map(refused_content)
            .collect(),
        events: acts().into_iter().map(event_vector).collect(),
        refused_events: refused_events().into_iter().map(refused_event).collect(),
    };
    vectors::compare_or_write(FILE, &file);
}

#[test]
fn event_json_is_read_as_it_says() {
    let file: File = vectors::read(FILE);
    for vector in &file.contents {
        let sealed = SealedContent::open(unhex(&vector.bytes)).unwrap();
        assert_eq!(*sealed.content(), vector.content, "{}", vector.about);
        let reference = ContentRef {
            hash: vector.hash,
            len: vector.len,
        };
        assert_eq!(sealed.reference(), reference, "{}", vector.about);
    }
    for case in &file.refused_contents {
        let error = SealedContent::open(unhex(&case.bytes)).unwrap_err();
        assert_eq!(why(&error), case.why, "{}: {error}", case.about);
    }
    let mut kinds: Vec<&str> = Vec::new();
    for vector in &file.events {
        let raw = RawEvent {
            event: Blob(unhex(&vector.bytes)),
            signature: vector.signature.parse().unwrap(),
        };
        let signed = SignedEvent::verify(raw.clone()).unwrap();
        assert_eq!(signed.id(), vector.id, "{}", vector.about);
        assert_eq!(says(&signed), vector.says, "{}", vector.about);
        // Every field counts: what is read makes the same bytes and, ed25519 being deterministic,
        // the same signature.
        let key = SecretKey::from_seed(unhex(&vector.device_seed).try_into().unwrap());
        assert_eq!(signed.event().clone().sign(&key).to_raw(), raw);
        kinds.push(signed.event().act.kind());
    }
    kinds.dedup();
    assert_eq!(kinds.len(), 11, "one vector of every kind: {kinds:?}");
    for case in &file.refused_events {
        let raw = RawEvent {
            event: Blob(unhex(&case.bytes)),
            signature: case.signature.parse().unwrap(),
        };
        let error = SignedEvent::verify(raw).unwrap_err();
        assert_eq!(why_event(&error), case.why, "{}: {error}", case.about);
    }
}
