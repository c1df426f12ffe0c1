//! `link.json`: every frame between servers, and the fingerprint of a frontier.

use std::collections::BTreeSet;

use comity_protocol::{
    card::{CardChain, CardFields},
    commit::{Commit, RootRef},
    event::{Act, Content, Event, SealedContent, Tip},
    ids::{
        Blob, CommitId, ConversationId, EventId, Nonce, PublicKey, RootId, Salt, ServerId,
        Signature, UserId,
    },
    link::{
        Answer, Bundle, Cards, ContentSlot, Frame, FrameChannel, Input, Link, Offer, Output, Query,
        Range, Verdict, World, decode_frame, encode_frame,
    },
    role::Role,
    root::{
        Ballot, Declined, Note, Promise, RawRoot, RootSignature, RootSigner, Signed, StewardMessage,
    },
    session::Code,
    signing::SecretKey,
    time::{Hlc, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::vectors::{self, Frame as FrameVector, frame_vector, hex, tag, unhex};

const FILE: &str = "link.json";

#[derive(Deserialize, Serialize)]
struct File {
    frames: Vec<FrameVector<Frame>>,
    fingerprint: Fingerprint,
}

#[derive(Deserialize, Serialize)]
struct Fingerprint {
    own_nonce: Nonce,
    peer_nonce: Nonce,
    key: String,
    tips: Vec<Tip>,
    fingerprint: String,
}

const CONVERSATION: ConversationId = ConversationId::from_bytes([1; 32]);
const ME: ServerId = ServerId::from_bytes([2; 32]);
const PEER: ServerId = ServerId::from_bytes([3; 32]);
const USER: UserId = UserId::from_bytes([4; 32]);
const OTHER: UserId = UserId::from_bytes([5; 32]);
const NONCES: [Nonce; 2] = [Nonce::from_bytes([9; 16]), Nonce::from_bytes([8; 16])];

fn tips() -> Vec<Tip> {
    let tip = |home, seq| Tip {
        home,
        epoch: 1,
        seq,
        id: CommitId::from_bytes([6; 32]),
    };
    vec![tip(ME, 70_000), tip(PEER, 0)]
}

fn bundle() -> Bundle {
    let (device, home) = (SecretKey::from_seed([7; 32]), SecretKey::from_seed([9; 32]));
    let content = SealedContent::seal(&Content::text(Salt::from_bytes([1; 16]), "hello")).unwrap();
    let event = |nonce: u8, act| Event {
        conversation: CONVERSATION,
        author: USER,
        device: device.public(),
        nonce: Nonce::from_bytes([nonce; 16]),
        claims: Role::Member,
        act,
        sent_at: Timestamp(1_700_000_000_000),
    };
    let said = |nonce| {
        event(
            nonce,
            Act::Message {
                content: content.reference(),
            },
        )
    };
    let target = EventId::from_bytes([0x11; 32]);
    let events: Vec<_> = [said(1), event(2, Act::Delete { target }), said(3), said(4)]
        .into_iter()
        .map(|event| event.sign(&device))
        .collect();
    let commit = Commit {
        v: 1,
        conversation: CONVERSATION,
        origin: ME,
        epoch: 1,
        seq: 1,
        prev: Some(CommitId::from_bytes([6; 32])),
        hlc: Hlc::new(Timestamp(1_700_000_000_000), 1),
        parents: vec![],
        authority: None,
        events: events.iter().map(|event| event.id()).collect(),
    };
    Bundle {
        commit: commit.sign(&home).to_raw(),
        events: events.iter().map(|event| event.to_raw()).collect(),
        contents: vec![
            ContentSlot::Held(Blob(content.bytes().to_vec())),
            ContentSlot::Gone,
            ContentSlot::Withheld,
        ],
    }
}

fn frames() -> Vec<Frame> {
    let conversation = CONVERSATION;
    let group = Offer::Group(RawRoot {
        ballot: None,
        root: Blob(vec![0xa0]),
        signatures: vec![RootSignature {
            by: RootSigner::Device(PublicKey::from_bytes([7; 32])),
            signature: Signature::from_bytes([8; 64]),
        }],
    });
    let record = match &group {
        Offer::Group(raw) => RawRoot {
            ballot: Some(Ballot { round: 3, by: ME }),
            ..raw.clone()
        },
        Offer::Direct(..) => unreachable!("a group"),
    };
    let root = RootRef {
        n: 7,
        id: RootId::from_bytes([9; 32]),
    };
    let frontier = |offer, reply: bool| Frame::Frontier {
        conversation,
        tips: tips(),
        offer,
        root: reply.then_some(root),
        reply,
    };
    let proposed = RawRoot {
        ballot: None,
        ..record.clone()
    };
    let ballot = Ballot {
        round: 117_964_800_000_000_000,
        by: PEER,
    };
    let declined = |why| StewardMessage::Declined {
        before: root,
        ballot,
        why,
    };
    let steward = |message| Frame::Steward {
        conversation,
        message: Box::new(message),
    };
    let range = Range {
        conversation,
        home: PEER,
        tip: CommitId::from_bytes([6; 32]),
        from: 3,
        to: 41,
    };
    vec![
        Frame::Hello {
            version: 1,
            server: ME,
            nonce: NONCES[0],
        },
        Frame::Shared {
            fingerprints: vec![(conversation, Blob(unhex(&fingerprint().fingerprint)))],
        },
        Frame::Ask { conversation },
        frontier(group, true),
        frontier(Offer::Direct(USER, OTHER), false),
        Frame::WantRecords {
            conversation,
            from: 3,
        },
        Frame::Records {
            conversation,
            records: vec![record.clone()],
        },
        steward(StewardMessage::Prepare {
            before: root,
            ballot,
        }),
        steward(StewardMessage::Promise(Promise {
            before: root,
            ballot,
            frontier: tips(),
            signed: Some(Signed {
                ballot: Ballot { round: 3, by: ME },
                record: proposed.clone(),
            }),
        })),
        steward(StewardMessage::Promise(Promise {
            before: root,
            ballot,
            frontier: vec![],
            signed: None,
        })),
        steward(StewardMessage::Propose {
            before: root,
            ballot,
            record: proposed,
        }),
        steward(StewardMessage::Note(Note {
            before: root,
            ballot,
            epoch: 1,
            signature: Signature::from_bytes([8; 64]),
        })),
        steward(declined(Declined::Elsewhere(RootRef { n: 8, ..root }))),
        steward(declined(Declined::Outvoted(Ballot {
            round: 117_964_800_000_000_007,
            by: ME,
        }))),
        steward(declined(Declined::TooFarAhead)),
        steward(declined(Declined::NotPromised)),
        steward(declined(Declined::Waits)),
        steward(declined(Declined::Uncovered)),
        steward(declined(Declined::NotLost)),
        steward(declined(Declined::Invalid)),
        Frame::Identities {
            logs: vec![vec![Blob(vec![0xa0]), Blob(vec![0xa1])]],
        },
        Frame::Push {
            n: 0,
            bundle: bundle(),
        },
        Frame::Verdicts {
            verdicts: vec![
                (0, Verdict::Stored),
                (1, Verdict::Waiting),
                (2, Verdict::Refused(Code::WrongSignature)),
            ],
        },
        Frame::Want {
            id: 1,
            range,
            max_bytes: 1_048_576,
        },
        Frame::Have {
            id: 1,
            bundles: vec![bundle()],
            next: Some(4),
        },
        Frame::Have {
            id: 2,
            bundles: vec![],
            next: None,
        },
        Frame::Lookup {
            id: 1,
            query: Query::User(USER),
        },
        Frame::Lookup {
            id: 2,
            query: Query::Handle("alice".to_owned()),
        },
        Frame::Found {
            id: 1,
            answer: Some(Answer::Identity(vec![Blob(vec![0xa0])])),
        },
        Frame::Found {
            id: 2,
            answer: None,
        },
        Frame::Lookup {
            id: 3,
            query: Query::Server(ME),
        },
        Frame::Found {
            id: 3,
            answer: Some(Answer::Cards(cards())),
        },
        Frame::Cards {
            chains: vec![cards()],
        },
    ]
}

fn cards() -> Cards {
    let fields = CardFields {
        name: "acme.example".parse().unwrap(),
        addresses: vec!["/dns/acme.example/udp/4001/quic-v1".to_owned()],
        https: None,
        region: None,
    };
    let key = SecretKey::from_seed([1; 32]);
    let recovery = SecretKey::from_seed([2; 32]).public();
    let chain = CardChain::genesis(fields, &key, recovery, 1, Timestamp(1));
    chain.unwrap().to_travel()
}

fn fingerprint() -> Fingerprint {
    let mut hasher = blake3::Hasher::new_derive_key("comity link fingerprints v1");
    let [a, b] = NONCES;
    hasher.update(a.min(b).as_bytes());
    hasher.update(a.max(b).as_bytes());
    let key = *hasher.finalize().as_bytes();
    let mut hasher = blake3::Hasher::new_keyed(&key);
    for tip in tips() {
        hasher.update(tip.home.as_bytes());
        hasher.update(&tip.epoch.to_be_bytes());
        hasher.update(&tip.seq.to_be_bytes());
        hasher.update(tip.id.as_bytes());
    }
    Fingerprint {
        own_nonce: a,
        peer_nonce: b,
        key: hex(key),
        tips: tips(),
        fingerprint: hex(&hasher.finalize().as_bytes()[..16]),
    }
}

struct OneConversation(Vec<Tip>);

impl World for OneConversation {
    fn frontier(&self, conversation: &ConversationId) -> Option<Vec<Tip>> {
        (*conversation == CONVERSATION).then(|| self.0.clone())
    }

    fn offer(&self, _: &ConversationId) -> Option<Offer> {
        Some(Offer::Direct(USER, OTHER))
    }

    fn root(&self, _: &ConversationId) -> Option<RootRef> {
        None
    }
}

#[test]
fn link_json_is_what_this_program_makes() {
    let file = File {
        frames: frames()
            .into_iter()
            .map(|frame| frame_vector(tag(&frame), frame))
            .collect(),
        fingerprint: fingerprint(),
    };
    vectors::compare_or_write(FILE, &file);
}

#[test]
fn link_json_is_read_as_it_says() {
    let file: File = vectors::read(FILE);
    for vector in &file.frames {
        vector.check();
        let bytes = unhex(&vector.cbor);
        assert_eq!(decode_frame(&bytes).unwrap(), vector.json);
        assert_eq!(encode_frame(&vector.json), bytes);
    }
    let names: BTreeSet<String> = file.frames.iter().map(|f| tag(&f.json)).collect();
    // Exhaustive, so that a new frame cannot be left out here by mistake.
    let frame = |frame: &Frame| match frame {
        Frame::Hello { .. }
        | Frame::Shared { .. }
        | Frame::Ask { .. }
        | Frame::Frontier { .. }
        | Frame::WantRecords { .. }
        | Frame::Records { .. }
        | Frame::Steward { .. }
        | Frame::Identities { .. }
        | Frame::Push { .. }
        | Frame::Verdicts { .. }
        | Frame::Want { .. }
        | Frame::Have { .. }
        | Frame::Lookup { .. }
        | Frame::Found { .. }
        | Frame::Cards { .. } => 15,
    };
    assert_eq!(names.len(), frame(&file.frames[0].json), "{names:?}");
}

#[test]
fn a_link_compares_by_the_fingerprint_of_the_vector() {
    let vector = vectors::read::<File>(FILE).fingerprint;
    let world = OneConversation(vector.tips);
    let mut link = Link::new(ME, PEER);
    let mut out = Vec::new();
    let hello = Frame::Hello {
        version: 1,
        server: PEER,
        nonce: vector.peer_nonce,
    };
    for input in [
        Input::TakesPart(CONVERSATION, None),
        Input::Up(vector.own_nonce),
        Input::Frame(hello),
    ] {
        link.handle(Timestamp(1_000), input, &world, &mut out);
    }
    let shared = Frame::Shared {
        fingerprints: vec![(CONVERSATION, Blob(unhex(&vector.fingerprint)))],
    };
    assert!(
        out.contains(&Output::Send(FrameChannel::Live, shared)),
        "{out:?}"
    );
}
