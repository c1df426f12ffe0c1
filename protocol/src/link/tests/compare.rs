//! What is asked for after ends of chains were compared.

use super::*;

/// Frames that a host sends on one input.
fn frames(host: &mut Host, input: Input) -> Vec<Frame> {
    let sent = |output| match output {
        Output::Send(_, frame) => Some(frame),
        _ => None,
    };
    host.input(input).into_iter().filter_map(sent).collect()
}

fn opened(n: u8, peer: u8) -> Host {
    let mut host = Host::new(n, peer);
    host.input(Input::TakesPart(C, None));
    host.input(Input::Up(Nonce::from_bytes([1; 16])));
    host.input(Input::Frame(Frame::Hello {
        version: VERSION,
        server: server(peer),
        nonce: Nonce::from_bytes([2; 16]),
    }));
    host
}

#[test]
fn the_lost_branch_of_a_fork_is_asked_for_however_far_the_chain_went_on() {
    let mut host = opened(1, 2);
    let mut chain = vec![commit(server(3), None)];
    for _ in 0..4 {
        chain.push(commit(server(3), chain.last()));
    }
    let end = tip(chain.last().unwrap());
    let other = Tip {
        seq: 2,
        id: crate::ids::CommitId::from_bytes([7; 32]),
        ..end
    };
    host.chains.insert(server(3), chain);
    let frontier = |tips: Vec<Tip>| {
        Input::Frame(Frame::Frontier {
            conversation: C,
            tips,
            offer: Offer::Direct(UserId::from_bytes([1; 32]), UserId::from_bytes([2; 32])),
            root: None,
            reply: false,
        })
    };
    // One lower end is an earlier commit of a chain that is held.
    assert!(frames(&mut host, frontier(vec![other])).is_empty());
    let asked = frames(&mut host, frontier(vec![other, end]));
    let [Frame::Want { range, .. }] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!((range.tip, range.from, range.to), (other.id, 2, 2));
}

#[test]
fn a_peer_whose_last_member_is_gone_is_asked_what_it_has_and_told_nothing() {
    let mut host = opened(1, 2);
    host.input(Input::LeftAt(C, None));
    let shared = Frame::Shared {
        fingerprints: vec![(C, Blob(vec![5; 16]))],
    };
    let asked = frames(&mut host, Input::Frame(shared));
    assert_eq!(asked, [Frame::Ask { conversation: C }]);
    assert!(frames(&mut host, Input::Frame(Frame::Ask { conversation: C })).is_empty());
}

#[test]
fn what_ended_a_peers_part_is_pushed_when_it_asks_and_tells_nothing_itself() {
    let mut host = opened(1, 2);
    host.grow(3);
    host.input(Input::LeftAt(C, Some(1)));
    let reads = |outputs: Vec<Output>| {
        let read = |o: &Output| match o {
            Output::Read { from, .. } => Some(*from),
            _ => None,
        };
        outputs.iter().filter_map(read).collect::<Vec<_>>()
    };
    let ask = || Input::Frame(Frame::Ask { conversation: C });
    assert_eq!(reads(host.input(ask())), [0]);
    // The peer stored it: it is told no more.
    let bundles = host.chains[&server(1)].clone();
    let bundles = bundles.into_iter().map(|bundle| (bundle, vec![])).collect();
    let pushed = frames(
        &mut host,
        Input::Read {
            session: 1,
            conversation: C,
            bundles,
        },
    );
    let [Frame::Push { n: first, .. }, Frame::Push { n: last, .. }] = pushed[..] else {
        panic!("{pushed:?}")
    };
    let verdicts = vec![(first, Verdict::Stored), (last, Verdict::Stored)];
    host.input(Input::Frame(Frame::Verdicts { verdicts }));
    assert!(reads(host.input(ask())).is_empty());
}

#[test]
fn what_a_peer_wrote_before_it_knew_that_its_part_ended_is_had_on_contact() {
    let (mut a, mut b) = pair();
    a.grow(5);
    a.input(Input::LeftAt(C, Some(4)));
    b.grow(3);
    connect(&mut a, &mut b, None);
    assert_eq!(a.chains[&server(2)].len(), 3);
    assert_eq!(b.chains[&server(1)].len(), 5);
}

#[test]
fn an_end_of_an_older_epoch_is_not_taken_for_an_end_of_the_own_chain() {
    let mut host = opened(1, 2);
    host.grow(3);
    // The third commit was ahead of the clock: the home made it again, in a new epoch.
    let again = {
        let chain = host.chains.get_mut(&server(1)).unwrap();
        let old = tip(&chain.pop().unwrap());
        let mut bundle = UnverifiedCommit::decode(commit(server(1), chain.last()).commit)
            .unwrap()
            .commit()
            .clone();
        bundle.epoch = 2;
        let raw = bundle.sign(&SecretKey::from_seed([9; 32])).to_raw();
        let bundle = Bundle {
            commit: raw,
            events: vec![],
            contents: vec![],
        };
        chain.push(bundle);
        old
    };
    host.input(Input::Committed {
        conversation: C,
        seq: 2,
        bundle: None,
    });
    // The peer names the end that lost, which is as high as the one that stands.
    let outputs = host.input(Input::Frame(Frame::Frontier {
        conversation: C,
        tips: vec![again],
        offer: Offer::Direct(UserId::from_bytes([1; 32]), UserId::from_bytes([2; 32])),
        root: None,
        reply: false,
    }));
    let reads = |o: &&Output| matches!(o, Output::Read { from: 0..=2, .. });
    assert_eq!(outputs.iter().filter(reads).count(), 1, "{outputs:?}");
}
