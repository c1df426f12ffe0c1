//! The machine of all links with a directory in memory.

use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::{
    card::{CardChain, CardFields},
    commit::{AuthorityChange, Commit},
    identity::{Genesis as Identity, IdentityLog, Op, Signer},
    ids::{EventId, Nonce, UserId},
    link::{Answer, Bundle, Frame, Query, Range, VERSION, Verdict},
    root::{Genesis, Root},
    signing::SecretKey,
    time::Hlc,
};

const T: Timestamp = Timestamp(5_000);

fn server(n: u8) -> ServerId {
    ServerId::from_bytes([n; 32])
}

/// A user of server 2 with one device.
fn user() -> (IdentityLog, SecretKey) {
    let (key, device) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let genesis = Identity {
        handle: "ada".parse().unwrap(),
        home: server(2),
        home_key: key.public(),
        recovery: None,
        nonce: Nonce::from_bytes([3; 16]),
    };
    let mut log = IdentityLog::genesis(genesis, T, &key);
    let op = Op::AddDevice {
        device: device.public(),
        name: "phone".to_owned(),
    };
    log.extend(&log.next(op, T, Signer::Home, &key).unwrap())
        .unwrap();
    (log, device)
}

#[derive(Default)]
struct Known {
    logs: BTreeMap<UserId, Arc<IdentityLog>>,
    cards: BTreeMap<ServerId, Arc<CardChain>>,
}

impl Directory for Known {
    fn log(&self, user: &UserId) -> Option<Arc<IdentityLog>> {
        self.logs.get(user).cloned()
    }

    fn user_of(&self, _: &str) -> Option<UserId> {
        None
    }

    fn learn(&mut self, log: Arc<IdentityLog>) {
        self.logs.insert(log.user(), log);
    }

    fn cards(&self, server: &ServerId) -> Option<Arc<CardChain>> {
        self.cards.get(server).cloned()
    }

    fn learn_cards(&mut self, cards: Arc<CardChain>) {
        self.cards.insert(cards.server(), cards);
    }
}

struct Here {
    machine: Replication,
    known: Known,
}

impl Here {
    fn new() -> Self {
        let machine = Replication::new(server(1), [server(2), server(3)]);
        let known = Known::default();
        Self { machine, known }
    }

    fn input(&mut self, now: Timestamp, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.machine.handle(now, input, &mut self.known, &mut out);
        out
    }

    fn open(&mut self, peer: u8) {
        self.input(T, Input::Up(server(peer), Nonce::from_bytes([1; 16])));
        let hello = Frame::Hello {
            version: VERSION,
            server: server(peer),
            nonce: Nonce::from_bytes([2; 16]),
        };
        self.input(T, Input::Frame(server(peer), hello));
    }
}

fn asked(out: &[Output]) -> Vec<(u64, Query)> {
    let of = |output: &Output| match output {
        Output::Send(_, _, Frame::Lookup { id, query }) => Some((*id, query.clone())),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

mod servers;

#[test]
fn an_offer_is_taken_once_the_log_of_its_owner_came_and_only_if_he_signed_it() {
    let (log, device) = user();
    for (signer, taken) in [(device, true), (SecretKey::from_seed([9; 32]), false)] {
        let root = Root {
            v: 1,
            n: 0,
            prev: None,
            owner: log.user(),
            home: server(2),
            stewards: vec![server(2)],
            frontier: vec![],
            digest: None,
            nonce: Nonce::from_bytes([1; 16]),
            created_at: T,
        };
        let genesis = Genesis::sign(root, &signer);
        let mut here = Here::new();
        here.open(2);
        let frontier = Frame::Frontier {
            conversation: genesis.conversation(),
            tips: vec![],
            offer: Offer::Group(genesis.raw().clone()),
            root: None,
            reply: false,
        };
        let out = here.input(T, Input::Frame(server(2), frontier));
        let [(id, Query::User(who))] = asked(&out)[..] else {
            panic!("{out:?}")
        };
        assert_eq!(who, log.user());
        let identity = Some(log.to_travel());
        let answer = identity.map(Answer::Identity);
        let found = Frame::Found { id, answer };
        let out = here.input(T, Input::Frame(server(2), found));
        let created = out.iter().any(
            |o| matches!(o, Output::Create(new) if new.conversation() == genesis.conversation()),
        );
        assert_eq!(created, taken);
    }
}

#[test]
fn a_fetched_answer_is_taken_in_once_each_item_has_a_first_verdict() {
    let mut here = Here::new();
    let conversation = ConversationId::from_bytes([5; 32]);
    let (offer, homes) = (
        Offer::Direct(UserId::from_bytes([1; 32]), UserId::from_bytes([2; 32])),
        [server(1), server(2)],
    );
    here.machine.restore(conversation, offer, vec![], homes);
    here.open(2);
    let key = SecretKey::from_seed([3; 32]);
    let bundle = |seq| {
        let commit = Commit {
            v: 1,
            conversation,
            origin: server(3),
            epoch: 1,
            seq,
            prev: (seq > 0).then(|| crate::ids::CommitId::from_bytes([1; 32])),
            hlc: Hlc::new(T, 0),
            parents: vec![],
            authority: (seq == 0).then(AuthorityChange::default),
            events: vec![EventId::from_bytes([1; 32])],
        };
        Bundle {
            commit: commit.sign(&key).to_raw(),
            events: vec![],
            contents: vec![],
        }
    };
    let range = |to| Range {
        conversation,
        home: server(3),
        tip: crate::ids::CommitId::from_bytes([4; 32]),
        from: 0,
        to,
    };
    // A range is asked of who may have it; a second one of the conversation waits for its turn.
    let pushed = Ticket::Pushed {
        peer: server(2),
        session: 1,
        n: 0,
    };
    let mut waiting = Judged::of(Verdict::Waiting);
    waiting.missing = vec![range(1), range(9)];
    let out = here.input(T, Input::Judged(pushed, waiting));
    let want = |out: &[Output]| {
        out.iter().find_map(|o| match o {
            Output::Send(_, _, Frame::Want { id, .. }) => Some(*id),
            _ => None,
        })
    };
    let id = want(&out).unwrap();
    let have = Frame::Have {
        id,
        bundles: vec![bundle(0), bundle(1)],
        next: None,
    };
    let out = here.input(T, Input::Frame(server(2), have));
    let tickets: Vec<_> = out
        .iter()
        .filter_map(|o| match o {
            Output::Judge { ticket, .. } => Some(*ticket),
            _ => None,
        })
        .collect();
    assert_eq!(tickets.len(), 2);
    let first = Judged::of(Verdict::Waiting);
    let mut again = Judged::of(Verdict::Stored);
    again.again = true;
    assert_eq!(want(&here.input(T, Input::Judged(tickets[0], first))), None);
    assert_eq!(want(&here.input(T, Input::Judged(tickets[0], again))), None);
    let last = Judged::of(Verdict::Stored);
    assert!(want(&here.input(T, Input::Judged(tickets[1], last))).is_some());
}

#[test]
fn a_lookup_that_nobody_answers_has_no_answer_after_patience() {
    let mut here = Here::new();
    let query = Query::User(user().0.user());
    let lookup = |request| Input::Lookup {
        request,
        server: None,
        query: query.clone(),
        patient: false,
    };
    let out = here.input(T, lookup(1));
    assert!(matches!(out[..], [Output::Answered(1, None)]));
    here.open(2);
    here.open(3);
    assert_eq!(asked(&here.input(T, lookup(2))).len(), 2);
    let tick = || Input::Tick { random: vec![0] };
    let none = |out: &[Output]| !out.iter().any(|o| matches!(o, Output::Answered(..)));
    assert!(none(&here.input(T.plus_ms(10_000), tick())));
    let out = here.input(T.plus_ms(10_001), tick());
    assert!(out.iter().any(|o| matches!(o, Output::Answered(2, None))));
}

#[test]
fn commits_are_asked_for_once_more_of_who_is_linked_and_of_nobody_later() {
    let mut here = Here::new();
    here.open(2);
    let range = Range {
        conversation: ConversationId::from_bytes([7; 32]),
        home: server(2),
        tip: crate::ids::CommitId::from_bytes([8; 32]),
        from: 4,
        to: 5,
    };
    let wants = |out: &[Output]| {
        let of = |output: &Output| match output {
            Output::Send(peer, _, Frame::Want { range, .. }) => Some((*peer, *range)),
            _ => None,
        };
        out.iter().filter_map(of).collect::<Vec<_>>()
    };
    let out = here.input(T, Input::Ask(server(2), vec![range]));
    assert_eq!(wants(&out), [(server(2), range)]);
    // Not linked: by the time it is, others may have given it.
    here.input(T, Input::Ask(server(3), vec![range]));
    here.input(T, Input::Up(server(3), Nonce::from_bytes([1; 16])));
    let hello = Frame::Hello {
        version: VERSION,
        server: server(3),
        nonce: Nonce::from_bytes([2; 16]),
    };
    let out = here.input(T, Input::Frame(server(3), hello));
    assert_eq!(wants(&out), []);
}

#[test]
fn a_patient_lookup_is_asked_once_the_link_is_up() {
    let mut here = Here::new();
    let lookup = Input::Lookup {
        request: 1,
        server: Some(server(2)),
        query: Query::User(user().0.user()),
        patient: true,
    };
    assert!(here.input(T, lookup).is_empty());
    here.input(T, Input::Up(server(2), Nonce::from_bytes([1; 16])));
    let hello = Frame::Hello {
        version: VERSION,
        server: server(2),
        nonce: Nonce::from_bytes([2; 16]),
    };
    let asked = asked(&here.input(T, Input::Frame(server(2), hello)));
    let [(id, _)] = asked[..] else {
        panic!("{asked:?}")
    };
    let found = Frame::Found {
        id,
        answer: Some(Answer::Identity(user().0.to_travel())),
    };
    let out = here.input(T, Input::Frame(server(2), found));
    let answered = |o: &Output| matches!(o, Output::Answered(1, Some(_)));
    assert!(out.iter().any(answered), "{out:?}");
}
