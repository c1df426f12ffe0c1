//! `commit.json`: commits, record 0 of groups and the ids of direct conversations, with bytes that
//! are refused.

use comity_protocol::{
    commit::{AuthorityChange, Commit, RawCommit, RootRef, UnverifiedCommit},
    encoding::{self, DecodeError},
    event::Tip,
    ids::{
        Blob, CommitId, ConversationId, DeviceKey, EventId, Nonce, PublicKey, RootId, ServerId,
        UserId,
    },
    root::{Genesis, RawRoot, Root, RootError, RootSignature, RootSigner, direct_conversation},
    signing::{Domain, SecretKey},
    time::{Hlc, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::vectors::{self, hex, unhex};

const FILE: &str = "commit.json";

#[derive(Deserialize, Serialize)]
struct File {
    commits: Vec<CommitVector>,
    refused_commits: Vec<Refused>,
    clocks: Vec<Clock>,
    roots: Vec<RootVector>,
    refused_roots: Vec<Refused>,
    direct: Vec<Direct>,
}

#[derive(Deserialize, Serialize)]
struct CommitVector {
    about: String,
    key: PublicKey,
    commit: Commit,
    id: CommitId,
    bytes: String,
    signature: String,
}

#[derive(Deserialize, Serialize)]
struct RootVector {
    about: String,
    device: DeviceKey,
    root: Root,
    id: RootId,
    conversation: ConversationId,
    bytes: String,
    signature: String,
}

#[derive(Deserialize, Serialize)]
struct Refused {
    about: String,
    key: PublicKey,
    bytes: String,
    signature: String,
    why: String,
}

/// The next reading of a clock.
#[derive(Deserialize, Serialize)]
struct Clock {
    last: Hlc,
    now_ms: u64,
    next: Hlc,
}

#[derive(Deserialize, Serialize)]
struct Direct {
    users: [UserId; 2],
    conversation: ConversationId,
}

fn key() -> SecretKey {
    SecretKey::from_seed([9; 32])
}

fn tip(byte: u8, seq: u64) -> Tip {
    Tip {
        home: ServerId::from_bytes([byte; 32]),
        epoch: 1,
        seq,
        id: CommitId::from_bytes([byte + 1; 32]),
    }
}

fn first() -> Commit {
    Commit {
        v: 1,
        conversation: ConversationId::from_bytes([1; 32]),
        origin: ServerId::from_bytes([2; 32]),
        epoch: 1,
        seq: 0,
        prev: None,
        hlc: Hlc::new(Timestamp(1_700_000_000_000), 0),
        parents: vec![],
        authority: Some(AuthorityChange {
            tips: vec![],
            root: Some(RootRef {
                n: 0,
                id: RootId::from_bytes([1; 32]),
            }),
        }),
        events: vec![EventId::from_bytes([4; 32])],
    }
}

fn later() -> Commit {
    Commit {
        seq: 1,
        prev: Some(CommitId::from_bytes([5; 32])),
        hlc: Hlc::new(Timestamp(1_700_000_000_000), 1),
        authority: None,
        ..first()
    }
}

fn commits() -> Vec<(&'static str, Commit)> {
    let rich = Commit {
        epoch: 7,
        seq: 70_000,
        parents: vec![CommitId::from_bytes([6; 32]), CommitId::from_bytes([7; 32])],
        authority: Some(AuthorityChange {
            tips: vec![tip(0x31, 3), tip(0x41, 0)],
            root: None,
        }),
        events: vec![EventId::from_bytes([9; 32]), EventId::from_bytes([8; 32])],
        ..later()
    };
    let direct = Commit {
        authority: Some(AuthorityChange::default()),
        ..first()
    };
    vec![
        ("the first of a group", first()),
        ("the first of a direct conversation", direct),
        ("one event and nothing new", later()),
        ("with parents, new authority and two events", rich),
    ]
}

fn refused_commits() -> Vec<(&'static str, RawCommit)> {
    let raw = |commit: Commit| commit.sign(&key()).to_raw();
    let mut other_domain = raw(first());
    let id = *blake3::hash(&other_domain.commit.0).as_bytes();
    other_domain.signature = key().sign(Domain::Event, &id);
    let mut forged = raw(first());
    forged.signature = SecretKey::from_seed([8; 32]).sign(Domain::Commit, &id);
    let mut cut = raw(first());
    cut.commit.0.pop();
    let event = |n: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        EventId::from_bytes(id)
    };
    let with = |change: fn(&mut Commit)| {
        let mut commit = later();
        change(&mut commit);
        raw(commit)
    };
    let crowd = Commit {
        events: (0..257).map(event).collect(),
        ..later()
    };
    vec![
        ("signed by another key", forged),
        ("signed in another domain", other_domain),
        ("a byte short", cut),
        ("version 2", with(|c| c.v = 2)),
        ("without events", with(|c| c.events.clear())),
        ("257 events", raw(crowd)),
        ("an event twice", with(|c| c.events = vec![c.events[0]; 2])),
        ("seq 1 without prev", with(|c| c.prev = None)),
        ("seq 0 with prev", with(|c| c.seq = 0)),
        (
            "the first of a chain without authority",
            raw(Commit {
                authority: None,
                ..first()
            }),
        ),
        (
            "a change of authority that changes nothing",
            with(|c| c.authority = Some(AuthorityChange::default())),
        ),
        (
            "parents out of order",
            with(|c| {
                c.parents = vec![CommitId::from_bytes([7; 32]), CommitId::from_bytes([6; 32])];
            }),
        ),
        (
            "17 parents",
            with(|c| c.parents = (0..17).map(|n| CommitId::from_bytes([n; 32])).collect()),
        ),
    ]
}

fn root(stewards: &[u8]) -> Root {
    Root {
        v: 1,
        n: 0,
        prev: None,
        owner: UserId::from_bytes([1; 32]),
        home: ServerId::from_bytes([2; 32]),
        stewards: stewards
            .iter()
            .map(|byte| ServerId::from_bytes([*byte; 32]))
            .collect(),
        frontier: vec![],
        digest: None,
        nonce: Nonce::from_bytes([3; 16]),
        created_at: Timestamp(1_700_000_000_000),
    }
}

fn refused_roots() -> Vec<(&'static str, RawRoot)> {
    let raw = |root: Root| Genesis::sign(root, &key()).raw().clone();
    let mut unsigned = raw(root(&[2]));
    unsigned.signatures.clear();
    let mut twice = raw(root(&[2]));
    twice.signatures.push(twice.signatures[0]);
    let next = Root {
        n: 1,
        prev: Some(RootId::from_bytes([4; 32])),
        ..root(&[2])
    };
    let unknown = Root { v: 2, ..root(&[2]) };
    vec![
        ("not signed", unsigned),
        ("signed twice", twice),
        ("no stewards", raw(root(&[]))),
        ("two stewards", raw(root(&[1, 2]))),
        ("stewards out of order", raw(root(&[3, 2, 1]))),
        ("nine stewards", raw(root(&[1, 2, 3, 4, 5, 6, 7, 8, 9]))),
        ("record 1", raw(next)),
        ("version 2", raw(unknown)),
    ]
}

fn why(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::UnknownVersion(_) => "unknown_version",
        DecodeError::Malformed(_) => "malformed",
        DecodeError::Invalid(_) => "invalid",
        _ => "other",
    }
}

fn why_commit(raw: RawCommit, key: &PublicKey) -> &'static str {
    match UnverifiedCommit::decode(raw) {
        Err(error) => why(&error),
        Ok(commit) => {
            commit.verify(key).unwrap_err();
            "wrong_signature"
        }
    }
}

fn why_root(raw: RawRoot) -> &'static str {
    match Genesis::verify(raw).unwrap_err() {
        RootError::Decode(error) => why(&error),
        RootError::Signature(_) => "wrong_signature",
        _ => "other",
    }
}

fn raw_root(bytes: &str, device: DeviceKey, signature: &str) -> RawRoot {
    let by = RootSigner::Device(device);
    // More signatures than one stand behind each other.
    let one = |chunk: &[u8]| RootSignature {
        by,
        signature: hex(chunk).parse().unwrap(),
    };
    RawRoot {
        ballot: None,
        root: Blob(unhex(bytes)),
        signatures: unhex(signature).chunks(64).map(one).collect(),
    }
}

fn commit_vector((about, commit): (&str, Commit)) -> CommitVector {
    let signed = commit.clone().sign(&key());
    CommitVector {
        about: about.to_owned(),
        key: key().public(),
        commit,
        id: signed.id(),
        bytes: hex(signed.bytes()),
        signature: signed.to_raw().signature.to_string(),
    }
}

fn root_vector((about, root): (&str, Root)) -> RootVector {
    let genesis = Genesis::sign(root.clone(), &key());
    RootVector {
        about: about.to_owned(),
        device: genesis.device(),
        root,
        id: genesis.id(),
        conversation: genesis.conversation(),
        bytes: hex(&genesis.raw().root),
        signature: genesis.raw().signatures[0].signature.to_string(),
    }
}

fn clocks() -> Vec<Clock> {
    let at = |ms, counter| Hlc::new(Timestamp(ms), counter);
    [
        (at(1_000, 3), 999),
        (at(1_000, 3), 1_000),
        (at(1_000, 3), 1_001),
        (at(1_000, u16::MAX), 1_000),
        (Hlc::from_bits(0), 0),
    ]
    .map(|(last, now_ms)| Clock {
        last,
        now_ms,
        next: last.next(Timestamp(now_ms)),
    })
    .into()
}

fn direct() -> Vec<Direct> {
    let (low, high) = (UserId::from_bytes([1; 32]), UserId::from_bytes([0xfe; 32]));
    [[low, high], [high, low], [low, low]]
        .map(|users| Direct {
            conversation: direct_conversation(&users[0], &users[1]),
            users,
        })
        .into()
}

#[test]
fn commit_json_is_what_this_program_makes() {
    let refused_commit = |(about, raw): (&str, RawCommit)| Refused {
        about: about.to_owned(),
        key: key().public(),
        bytes: hex(&raw.commit),
        signature: raw.signature.to_string(),
        why: why_commit(raw, &key().public()).to_owned(),
    };
    let refused_root = |(about, raw): (&str, RawRoot)| Refused {
        about: about.to_owned(),
        key: key().public(),
        bytes: hex(&raw.root),
        signature: raw
            .signatures
            .iter()
            .map(|one| one.signature.to_string())
            .collect(),
        why: why_root(raw).to_owned(),
    };
    let roots = [
        ("the owner's server alone", root(&[2])),
        ("three stewards", root(&[2, 5, 7])),
    ];
    let file = File {
        commits: commits().into_iter().map(commit_vector).collect(),
        refused_commits: refused_commits().into_iter().map(refused_commit).collect(),
        clocks: clocks(),
        roots: roots.into_iter().map(root_vector).collect(),
        refused_roots: refused_roots().into_iter().map(refused_root).collect(),
        direct: direct(),
    };
    vectors::compare_or_write(FILE, &file);
}

#[test]
fn commit_json_is_read_as_it_says() {
    let file: File = vectors::read(FILE);
    let raw = |bytes: &str, signature: &str| RawCommit {
        commit: Blob(unhex(bytes)),
        signature: signature.parse().unwrap(),
    };
    for vector in &file.commits {
        let read = UnverifiedCommit::decode(raw(&vector.bytes, &vector.signature)).unwrap();
        let signed = read.verify(&vector.key).unwrap();
        assert_eq!(signed.id(), vector.id, "{}", vector.about);
        assert_eq!(*signed.commit(), vector.commit, "{}", vector.about);
        assert_eq!(hex(encoding::encode(&vector.commit)), vector.bytes);
    }
    for case in &file.refused_commits {
        let why = why_commit(raw(&case.bytes, &case.signature), &case.key);
        assert_eq!(why, case.why, "{}", case.about);
    }
    for clock in &file.clocks {
        assert_eq!(clock.last.next(Timestamp(clock.now_ms)), clock.next);
    }
    for vector in &file.roots {
        let raw = raw_root(&vector.bytes, vector.device, &vector.signature);
        let genesis = Genesis::verify(raw).unwrap();
        assert_eq!(*genesis.root(), vector.root, "{}", vector.about);
        assert_eq!(genesis.id(), vector.id, "{}", vector.about);
        assert_eq!(genesis.conversation(), vector.conversation);
    }
    for case in &file.refused_roots {
        let raw = raw_root(&case.bytes, case.key, &case.signature);
        assert_eq!(why_root(raw), case.why, "{}", case.about);
    }
    for Direct {
        users: [a, b],
        conversation,
    } in &file.direct
    {
        assert_eq!(direct_conversation(a, b), *conversation);
    }
}
