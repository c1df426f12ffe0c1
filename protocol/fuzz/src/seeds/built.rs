//! Inputs that no vector holds: they are made by the code that writes them.

use comity_protocol::{
    commit::RootRef,
    document::{Change, ChangeKind, PackDocument, StateDocument},
    encoding,
    event::{Act, Tip},
    ids::{Blob, CommitId, ConversationId, Digest, EventId, Nonce, ServerId, UserId},
    link::{Bundle, Frame, encode_frame},
    role::Role,
    root::{Ballot, Proposal, RawRoot, Root, RootSignature, RootSigner, SignedRoot, Steward},
    session::Place,
    signing::{Domain, SecretKey},
    time::{Hlc, Timestamp},
};

use super::{SESSION, Seeds, client_frame, link_frames, unhex};
use crate::{
    machines,
    mutate::write_steps,
    random::Random,
    world::{Chronicle, T0, World, record_before, steward},
};

/// A small history of three homes, with every kind of event in it.
fn chronicle() -> Chronicle {
    let mut history = Chronicle::new(World::new(3, 6));
    history.found();
    let world = &mut history.world;
    let first = world.message(1, "first");
    let target = first.event.id();
    let edit = world.edit(1, &first, "first, edited");
    let react = |emoji: &str| Act::React {
        target,
        emoji: emoji.to_owned(),
        on: true,
        version: None,
    };
    let (a, b) = (
        world.act(0, Role::Member, react("a")),
        world.act(2, Role::Member, react("b")),
    );
    let pin = world.act(1, Role::Moderator, Act::Pin { target, on: true });
    let title = world.content("title");
    let state = Act::State {
        field: "title".to_owned(),
        content: Some(title.reference()),
    };
    let mut state = world.act(1, Role::Moderator, state);
    state.content = Some(title);
    let delete = world.act(1, Role::Member, Act::Delete { target });
    history.append(1, vec![first, edit]);
    history.append(2, vec![b]);
    history.append(0, vec![a]);
    history.append(1, vec![pin, state]);
    history.append(1, vec![delete]);
    let cut = history.end(2).into_iter().collect();
    let act = history.grant(5, Role::None, cut);
    let kick = history.world.act(1, Role::Admin, act);
    history.append(1, vec![kick]);
    history
}

pub(super) fn later_roots() -> Vec<RawRoot> {
    let (before_id, before) = record_before();
    let next = Root {
        n: 1,
        prev: Some(before_id),
        frontier: vec![Tip {
            home: before.home,
            epoch: 0,
            seq: 3,
            id: CommitId::from_bytes([9; 32]),
        }],
        digest: Some(Digest::from_bytes([4; 32])),
        ..before.clone()
    };
    let owner = UserId::from_bytes([2; 32]);
    let other = Root {
        owner,
        ..next.clone()
    };
    let key = SecretKey::from_seed([1; 32]);
    let makers = [
        (&other, Some(RootSigner::Device(key.public()))),
        (&next, Some(RootSigner::Home(key.public()))),
        (&other, None),
    ];
    let made = makers.map(|(root, by)| {
        let (id, bytes) = SignedRoot::encode(root);
        let signature = key.sign(Domain::Root, id.as_bytes());
        let raw = RawRoot {
            root: bytes,
            ballot: None,
            signatures: by
                .map(|by| RootSignature { by, signature })
                .into_iter()
                .collect(),
        };
        noted(&raw, &before.stewards)
    });
    made.into_iter().flatten().collect()
}

/// The record with the notes of a majority.
fn noted(raw: &RawRoot, stewards: &[ServerId]) -> Option<RawRoot> {
    let ballot = Ballot {
        round: 1,
        by: *stewards.first()?,
    };
    let root = SignedRoot::decode(raw).ok()?;
    let before = RootRef {
        n: root.n.checked_sub(1)?,
        id: root.prev?,
    };
    let mut proposal = Proposal::new(before, ballot, stewards.to_vec());
    proposal.propose(raw.clone());
    for server in stewards {
        let (mut acceptor, key) = (Steward::after(before), steward(server)?);
        let now = Timestamp(0);
        acceptor.prepare(now, &before, ballot, Vec::new).ok()?;
        let note = acceptor.propose(&before, ballot, raw, (0, &key), |_, _| Ok(()));
        let key_of = |_: &ServerId, _| Some(key.public());
        if let Some(whole) = proposal.noted(*server, note.ok()?, key_of).ok()? {
            return Some(whole);
        }
    }
    None
}

pub(super) fn bundles() -> Vec<Bundle> {
    chronicle().bundles()
}

/// Frontiers: of the history that they are compared with, and others.
#[must_use]
pub fn tips() -> Seeds {
    let held = crate::world::with_graph(|graph| {
        let homes: Vec<ServerId> = graph.homes().collect();
        let tips = |home: &ServerId| graph.tips(home).collect::<Vec<Tip>>();
        (graph.frontier(), tips(&homes[0]))
    });
    let beyond: Vec<Tip> = held
        .0
        .iter()
        .map(|tip| Tip {
            seq: tip.seq + 5,
            id: CommitId::from_bytes([9; 32]),
            ..*tip
        })
        .collect();
    let below: Vec<Tip> = held.0.iter().map(|tip| Tip { seq: 0, ..*tip }).collect();
    [held.0, held.1, beyond, below, vec![]]
        .iter()
        .map(encoding::encode)
        .collect()
}

fn place(n: u64) -> Place {
    Place {
        hlc: Hlc::new(Timestamp(T0 + n), 0),
        commit: CommitId::from_bytes([u8::try_from(n % 251).unwrap_or(0); 32]),
        index: 0,
    }
}

/// The changes of the small history, as one home after the other has seen them.
fn changes() -> Vec<Change> {
    let history = chronicle();
    let mut changes = Vec::new();
    for (n, commit) in (0u64..).zip(history.commits()) {
        for said in history.events(usize::try_from(n).unwrap_or(0)) {
            let Some(kind) = ChangeKind::of(said.event.event(), place(n)) else {
                continue;
            };
            changes.push(Change {
                event: said.event.id(),
                home: commit.commit().origin,
                epoch: 1,
                kind,
            });
        }
    }
    changes
}

/// Without the checksum, which the harness makes anew.
fn bare(snapshot: Vec<u8>) -> Vec<u8> {
    let mut snapshot = snapshot;
    snapshot.truncate(snapshot.len().saturating_sub(32));
    snapshot
}

fn written_in_order(changes: &[Change]) -> impl Fn(EventId, EventId) -> bool {
    let order: Vec<EventId> = changes.iter().map(|change| change.event).collect();
    move |x, y| {
        let at = |event| order.iter().position(|other| *other == event);
        at(x) < at(y)
    }
}

/// Snapshots of packs' documents.
#[must_use]
pub fn pack_snapshot() -> Seeds {
    let changes = changes();
    let seen = written_in_order(&changes);
    let seed = |count: usize| {
        let some = changes[..count.min(changes.len())].iter().cloned();
        let saved = PackDocument::rebuild(some, &seen).0.save();
        bare(saved.expect("a sound document"))
    };
    // The empty one is the only one that loads: the harness knows no other's heads.
    [0, 1, changes.len()].map(seed).to_vec()
}

/// Snapshots of states of conversations.
#[must_use]
pub fn state_snapshot() -> Seeds {
    let changes = changes();
    let seen = written_in_order(&changes);
    let seed = |count: usize| {
        let some = changes[..count.min(changes.len())].iter().cloned();
        let saved = StateDocument::rebuild(some, &seen).0.save();
        bare(saved.expect("a sound document"))
    };
    [0, changes.len()].map(seed).to_vec()
}

/// Streams of a session: the vectors' frames one by one, and the vectors' stream in pieces.
#[must_use]
pub fn session() -> Seeds {
    let frames = client_frame();
    let framed = write_steps(frames.iter().map(|frame| (0, frame.as_slice())));
    let split = write_steps(frames.iter().map(|frame| (1, frame.as_slice())));
    let stream = unhex(&SESSION["stream"]);
    let raw = write_steps(stream.chunks(7).map(|chunk| (machines::RAW, chunk)));
    vec![framed, split, raw]
}

/// Conversations over a link: the vectors' frames in several orders, with what a driver does.
#[must_use]
pub fn link() -> Seeds {
    let frames: Vec<Vec<u8>> = link_frames().iter().map(encode_frame).collect();
    let hello = encode_frame(&machines::link::hello(Nonce::from_bytes([9; 16])));
    let mut seeds = Vec::new();
    let driver: [(u8, &[u8]); 7] = [
        (machines::link::TAKES_PART, &[0]),
        (machines::link::COMMITTED, &[0]),
        (machines::link::KNOWN, &[0]),
        (machines::link::MISSING, &[3]),
        (machines::link::LOOKUP, &[1]),
        (machines::link::TICK, &[90]),
        (machines::link::LEFT_AT, &[1]),
    ];
    for first in 0..frames.len() {
        let order = frames[first..].iter().chain(&frames[..first]);
        let mut steps: Vec<(u8, &[u8])> = vec![(0, &hello)];
        for (n, frame) in order.enumerate() {
            steps.push((u8::try_from(n % 2).unwrap_or(0), frame));
            steps.push(driver[(n + first) % driver.len()]);
        }
        seeds.push(write_steps(steps));
    }
    // One conversation named over and over, in one frame and in many.
    let shared = encode_frame(&Frame::Shared {
        fingerprints: vec![(ConversationId::from_bytes([1; 32]), Blob(vec![0; 16])); 1_024],
    });
    seeds.push(write_steps([
        (0, hello.as_slice()),
        driver[0],
        (0, &shared),
    ]));
    let ask = encode_frame(&Frame::Ask {
        conversation: ConversationId::from_bytes([1; 32]),
    });
    let mut steps: Vec<(u8, &[u8])> = vec![(0, &hello), driver[0]];
    steps.extend(std::iter::repeat_n((0, ask.as_slice()), 20));
    seeds.push(write_steps(steps));
    seeds
}

/// Choices for the hostile home of [`machines::conversation`]: any bytes are some.
#[must_use]
pub fn conversation() -> Seeds {
    let mut random = Random::new(4);
    (0..64).map(|n| random.bytes(8 + n)).collect()
}

/// Items that a hostile peer pushes among sound ones.
#[must_use]
pub fn batch() -> Seeds {
    machines::batch::hostile_seeds()
        .iter()
        .map(encoding::encode)
        .collect()
}

/// What one of two peers sends: as over one link.
#[must_use]
pub fn replication() -> Seeds {
    link()
}
