//! Servers that were no peers, and the cards by which they become known.

use super::*;
use crate::{identity::Signer, link::Cards, session::Code};

const CONVERSATION: ConversationId = ConversationId::from_bytes([5; 32]);

fn chain(seed: u8) -> (CardChain, SecretKey) {
    let key = SecretKey::from_seed([seed; 32]);
    let recovery = SecretKey::from_seed([seed ^ 0x80; 32]).public();
    let chain = CardChain::genesis(fields(seed), &key, recovery, 1, T).unwrap();
    (chain, key)
}

fn fields(n: u8) -> CardFields {
    CardFields {
        name: format!("s{n}.example").parse().unwrap(),
        addresses: vec![],
        https: None,
        region: None,
    }
}

/// The same server, which moved.
fn moved(chain: &CardChain, key: &SecretKey) -> CardChain {
    let raw = chain.next(fields(77).into(), Signer::Home, key, T).unwrap();
    let mut moved = chain.clone();
    moved.extend(&raw).unwrap();
    moved
}

fn tick() -> Input {
    Input::Tick { random: vec![0] }
}

fn joined(home: ServerId) -> Input {
    Input::Committed(Committed::Commit {
        conversation: CONVERSATION,
        frontier: vec![],
        own: None,
        own_tip: None,
        joined: vec![home],
        left: vec![],
    })
}

fn cards_asked(out: &[Output]) -> Vec<(ServerId, u64)> {
    let of = |output: &Output| match output {
        Output::Send(peer, _, Frame::Lookup { id, query }) => {
            matches!(query, Query::Server(_)).then_some((*peer, *id))
        }
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

fn sought(out: &[Output]) -> Vec<ServerId> {
    let of = |output: &Output| match output {
        Output::Sought(server) => Some(*server),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

fn found(id: u64, cards: Cards) -> Frame {
    let answer = Some(Answer::Cards(cards));
    Frame::Found { id, answer }
}

#[test]
fn a_home_that_joins_is_asked_about_and_becomes_a_peer_once_its_cards_came() {
    let (cards, _) = chain(9);
    let home = cards.server();
    let mut here = Here::new();
    here.open(2);
    let asked = cards_asked(&here.input(T, joined(home)));
    let [(peer, id)] = asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!(peer, server(2));
    let out = here.input(T, Input::Frame(peer, found(id, cards.to_travel())));
    assert_eq!(sought(&out), [home]);
    let conversations = vec![CONVERSATION];
    here.input(
        T,
        Input::Peer {
            server: home,
            conversations,
        },
    );
    let progress: Vec<_> = here
        .machine
        .peer(&home)
        .unwrap()
        .link()
        .progress()
        .map(|(of, _)| of)
        .collect();
    assert_eq!(progress, [CONVERSATION]);
    let later = T.plus_ms(200_000);
    let out = here.input(later, tick());
    assert!(sought(&out).is_empty() && cards_asked(&out).is_empty());
}

#[test]
fn a_home_that_nobody_knew_is_asked_about_again_and_not_without_pause() {
    let (cards, _) = chain(9);
    let mut here = Here::new();
    assert!(cards_asked(&here.input(T, joined(cards.server()))).is_empty());
    here.open(2);
    let ticked = |here: &mut Here, ms| cards_asked(&here.input(T.plus_ms(ms), tick()));
    assert!(ticked(&mut here, 1_000).is_empty());
    let first = ticked(&mut here, 60_000);
    let [(peer, id)] = first[..] else {
        panic!("{first:?}")
    };
    let nothing = Frame::Found { id, answer: None };
    here.input(T.plus_ms(60_000), Input::Frame(peer, nothing));
    assert!(ticked(&mut here, 61_000).is_empty());
    assert_eq!(ticked(&mut here, 120_000).len(), 1);
}

#[test]
fn a_home_that_is_read_back_as_taking_part_is_sought_too() {
    let (cards, _) = chain(9);
    let mut here = Here::new();
    let offer = Offer::Direct(UserId::from_bytes([1; 32]), UserId::from_bytes([2; 32]));
    let homes = [server(1), cards.server()];
    here.machine.restore(CONVERSATION, offer, vec![], homes);
    here.known.learn_cards(Arc::new(cards.clone()));
    assert_eq!(sought(&here.input(T, tick())), [cards.server()]);
}

#[test]
fn what_was_refused_for_want_of_its_origins_card_is_compared_again_once_that_came() {
    let (cards, _) = chain(9);
    let mut here = Here::new();
    let offer = Offer::Direct(UserId::from_bytes([1; 32]), UserId::from_bytes([2; 32]));
    let homes = [server(1), server(2)];
    here.machine.restore(CONVERSATION, offer, vec![], homes);
    here.open(2);
    let fetched = Ticket::Fetched {
        peer: server(2),
        session: 1,
        id: 0,
    };
    let mut judged = Judged::refused(Code::NotFound);
    judged.server = Some(cards.server());
    let asked = cards_asked(&here.input(T, Input::Judged(fetched, judged)));
    let [(peer, id)] = asked[..] else {
        panic!("{asked:?}")
    };
    let compares = |out: &[Output]| {
        let shared = |o: &Output| matches!(o, Output::Send(_, _, Frame::Shared { .. }));
        out.iter().any(shared)
    };
    assert!(!compares(&here.input(T, tick())));
    here.input(T, Input::Frame(peer, found(id, cards.to_travel())));
    assert!(compares(&here.input(T, tick())));
}

#[test]
fn a_peer_says_who_it_is_and_newer_cards_of_it_are_taken() {
    let (old, key) = chain(2);
    let peer = old.server();
    let mut here = Here::new();
    let (mine, _) = chain(1);
    here.machine = Replication::new(mine.server(), [peer]);
    here.known.learn_cards(Arc::new(mine.clone()));
    here.known.learn_cards(Arc::new(old.clone()));
    let out = here.input(T, Input::Up(peer, Nonce::from_bytes([1; 16])));
    let said = |o: &Output| matches!(o, Output::Send(_, _, Frame::Cards { chains }) if *chains == [mine.to_travel()]);
    assert!(out.iter().any(said), "{out:?}");
    let hello = Frame::Hello {
        version: VERSION,
        server: peer,
        nonce: Nonce::from_bytes([2; 16]),
    };
    here.input(T, Input::Frame(peer, hello));
    let newer = moved(&old, &key);
    let chains = vec![newer.to_travel()];
    here.input(T, Input::Frame(peer, Frame::Cards { chains }));
    assert_eq!(*here.known.cards[&peer], newer);
}

#[test]
fn cards_nobody_asked_for_and_cards_that_do_not_verify_change_nothing() {
    let (other, key) = chain(9);
    let mut here = Here::new();
    here.open(2);
    let chains = vec![other.to_travel()];
    here.input(T, Input::Frame(server(2), Frame::Cards { chains }));
    assert!(here.known.cards.is_empty());
    // Asked about one, answered with another.
    let (wanted, _) = chain(8);
    let asked = cards_asked(&here.input(T, joined(wanted.server())));
    here.input(
        T,
        Input::Frame(server(2), found(asked[0].1, other.to_travel())),
    );
    assert!(here.known.cards.is_empty());
    // Forged: the second card is signed by somebody else.
    here.known.learn_cards(Arc::new(other.clone()));
    let mut forged = moved(&other, &key).to_travel();
    forged[1].signature = forged[0].signature;
    let chains = vec![forged];
    let out = here.input(T, Input::Frame(server(2), Frame::Cards { chains }));
    let noted =
        |o: &Output| matches!(o, Output::Note(_, Note::Cards(of, _)) if *of == other.server());
    assert!(out.iter().any(noted), "{out:?}");
    assert_eq!(*here.known.cards[&other.server()], other);
}

#[test]
fn who_is_no_peer_any_more_is_told_nothing() {
    let mut here = Here::new();
    here.open(2);
    here.input(T, Input::NoPeer(server(2)));
    assert!(here.machine.peer(&server(2)).is_none());
    let ask = Frame::Lookup {
        id: 1,
        query: Query::Server(server(2)),
    };
    assert!(here.input(T, Input::Frame(server(2), ask)).is_empty());
    let up = Input::Up(server(2), Nonce::from_bytes([1; 16]));
    assert!(here.input(T, up).is_empty());
}
