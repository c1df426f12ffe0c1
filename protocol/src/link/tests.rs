//! Two links joined back to back, each with a store of its own that judges and serves at once.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::{
    commit::{AuthorityChange, Commit, RootRef, UnverifiedCommit},
    event::Tip,
    ids::{Blob, ConversationId, EventId, Nonce, RootId, ServerId, UserId},
    root::{Ballot, RawRoot, StewardMessage},
    session::Code,
    signing::SecretKey,
    time::{Hlc, Timestamp},
};

const C: ConversationId = ConversationId::from_bytes([1; 32]);

fn size(seq: u64) -> usize {
    usize::try_from(seq).unwrap()
}

fn server(n: u8) -> ServerId {
    ServerId::from_bytes([n; 32])
}

struct Host {
    me: ServerId,
    link: Link,
    chains: BTreeMap<ServerId, Vec<Bundle>>,
    known: bool,
    acked: Option<Progress>,
    refuse: Option<u64>,
    /// Offers are not acted on at once, as while an identity log is asked for.
    slow: bool,
    /// Nothing can be stored now.
    full: bool,
    root: Option<RootRef>,
    now: u64,
}

impl World for Host {
    fn frontier(&self, conversation: &ConversationId) -> Option<Vec<Tip>> {
        if *conversation != C {
            return Some(vec![]);
        }
        let end = |(_, chain): (&ServerId, &Vec<Bundle>)| Some(tip(chain.last()?));
        self.known
            .then(|| self.chains.iter().filter_map(end).collect())
    }

    fn offer(&self, _: &ConversationId) -> Option<Offer> {
        Some(Offer::Direct(
            UserId::from_bytes([1; 32]),
            UserId::from_bytes([2; 32]),
        ))
    }

    fn root(&self, conversation: &ConversationId) -> Option<RootRef> {
        self.root.filter(|_| *conversation == C)
    }
}

fn tip(bundle: &Bundle) -> Tip {
    let commit = UnverifiedCommit::decode(bundle.commit.clone()).unwrap();
    commit.commit().tip(commit.id())
}

fn commit(origin: ServerId, prev: Option<&Bundle>) -> Bundle {
    let before = prev.map(tip);
    let seq = before.map_or(0, |t| t.seq + 1);
    let mut event = [0; 32];
    event[..8].copy_from_slice(&seq.to_be_bytes());
    let commit = Commit {
        v: 1,
        conversation: C,
        origin,
        epoch: 1,
        seq,
        prev: before.map(|t| t.id),
        hlc: Hlc::new(Timestamp(seq + 1), 0),
        parents: vec![],
        authority: (seq == 0).then(AuthorityChange::default),
        events: vec![EventId::from_bytes(event)],
    };
    let commit = commit.sign(&SecretKey::from_seed([9; 32])).to_raw();
    Bundle {
        commit,
        events: vec![],
        contents: vec![],
    }
}

impl Host {
    fn new(n: u8, peer: u8) -> Self {
        let link = Link::new(server(n), server(peer));
        Self {
            me: server(n),
            link,
            chains: BTreeMap::new(),
            known: true,
            acked: None,
            refuse: None,
            slow: false,
            full: false,
            root: None,
            now: 1_000,
        }
    }

    fn grow(&mut self, count: usize) -> Vec<Output> {
        let mut out = vec![];
        for _ in 0..count {
            let chain = self.chains.entry(self.me).or_default();
            let bundle = commit(self.me, chain.last());
            let seq = chain.len() as u64;
            chain.push(bundle.clone());
            let bundle = Some((bundle, vec![UserId::from_bytes([3; 32])]));
            out.extend(self.input(Input::Committed {
                conversation: C,
                seq,
                bundle,
            }));
        }
        out
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut out = vec![];
        let mut link = std::mem::replace(&mut self.link, Link::new(self.me, self.me));
        link.handle(Timestamp(self.now), input, self, &mut out);
        self.link = link;
        out
    }

    fn store(&mut self, bundle: Bundle) -> (Verdict, Vec<Range>) {
        if !self.known {
            return (Verdict::Refused(Code::NotFound), vec![]);
        }
        if self.full {
            return (Verdict::Refused(Code::DiskFull), vec![]);
        }
        let end = tip(&bundle);
        if self.refuse == Some(end.seq) {
            return (Verdict::Refused(Code::WrongSignature), vec![]);
        }
        let chain = self.chains.entry(end.home).or_default();
        match size(end.seq).cmp(&chain.len()) {
            std::cmp::Ordering::Equal => chain.push(bundle),
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Greater => return (Verdict::Waiting, vec![]),
        }
        (Verdict::Stored, vec![])
    }

    /// Does what an output asks, at once, and gives the frames to send and inputs that follow.
    fn perform(&mut self, output: Output) -> (Vec<Frame>, Vec<Input>) {
        match output {
            Output::Send(_, frame) => (vec![frame], vec![]),
            Output::Read {
                session,
                conversation,
                from,
                ..
            } => {
                let chain = self.chains.get(&self.me).cloned().unwrap_or_default();
                let bundles = chain[size(from)..]
                    .iter()
                    .take(10)
                    .cloned()
                    .map(|b| (b, vec![]));
                let bundles = bundles.collect();
                (
                    vec![],
                    vec![Input::Read {
                        session,
                        conversation,
                        bundles,
                    }],
                )
            }
            Output::Judge { session, n, bundle } => {
                let (verdict, missing) = self.store(bundle);
                (
                    vec![],
                    vec![
                        Input::Missing(missing),
                        Input::Judged {
                            session,
                            n,
                            verdict,
                        },
                    ],
                )
            }
            Output::Take {
                session,
                id,
                bundles,
            } => {
                bundles.into_iter().for_each(|b| drop(self.store(b)));
                (vec![], vec![Input::Taken { session, id }])
            }
            Output::Serve {
                session, id, range, ..
            } => {
                let chain = self.chains.get(&range.home).cloned().unwrap_or_default();
                let all: Vec<_> = chain.into_iter().skip(size(range.from)).collect();
                let next = (all.len() > 7).then_some(range.from + 7);
                let bundles = all.into_iter().take(7).map(|b| (b, vec![])).collect();
                (
                    vec![],
                    vec![Input::Served {
                        session,
                        id,
                        bundles,
                        next,
                    }],
                )
            }
            Output::Offered(..) if self.slow => (vec![], vec![]),
            Output::Offered(conversation, _) => {
                self.known = true;
                (
                    vec![],
                    vec![
                        Input::Known(conversation),
                        Input::TakesPart(conversation, None),
                    ],
                )
            }
            Output::Acked(_, progress) => {
                self.acked = Some(progress);
                (vec![], vec![])
            }
            Output::Introduce(..) | Output::Refused(..) => (vec![], vec![]),
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// Runs both until nothing is left to do; `cut` drops everything after that many frames.
fn run(a: &mut Host, b: &mut Host, first: Vec<(bool, Output)>, cut: Option<usize>) -> usize {
    let mut work: VecDeque<(bool, Output)> = first.into();
    let mut frames = 0;
    while let Some((at_a, output)) = work.pop_front() {
        let host = if at_a { &mut *a } else { &mut *b };
        let (sent, inputs) = host.perform(output);
        for input in inputs {
            work.extend(host.input(input).into_iter().map(|o| (at_a, o)));
        }
        for frame in sent {
            frames += 1;
            if cut.is_some_and(|n| frames > n) {
                return frames;
            }
            let frame = decode_frame(&encode_frame(&frame)).unwrap();
            let other = if at_a { &mut *b } else { &mut *a };
            let outputs = other.input(Input::Frame(frame));
            work.extend(outputs.into_iter().map(|o| (!at_a, o)));
        }
    }
    frames
}

fn connect(a: &mut Host, b: &mut Host, cut: Option<usize>) -> usize {
    let mut first: Vec<_> = a
        .input(Input::Up(Nonce::from_bytes([1; 16])))
        .into_iter()
        .map(|o| (true, o))
        .collect();
    first.extend(
        b.input(Input::Up(Nonce::from_bytes([2; 16])))
            .into_iter()
            .map(|o| (false, o)),
    );
    run(a, b, first, cut)
}

fn pair() -> (Host, Host) {
    let (mut a, mut b) = (Host::new(1, 2), Host::new(2, 1));
    a.input(Input::TakesPart(C, None));
    b.input(Input::TakesPart(C, None));
    (a, b)
}

#[test]
fn what_both_wrote_while_apart_is_whole_on_contact_without_new_traffic() {
    let (mut a, mut b) = pair();
    a.grow(100);
    b.grow(50);
    connect(&mut a, &mut b, None);
    assert_eq!(a.chains, b.chains);
    assert!(a.link.is_settled() && b.link.is_settled());
    assert_eq!(
        a.acked,
        Some(Progress {
            tip: Some(99),
            acked: Some(99)
        })
    );
}

#[test]
fn a_link_cut_after_any_frame_is_whole_after_the_next_contact() {
    let mut whole = pair();
    whole.0.grow(20);
    let frames = connect(&mut whole.0, &mut whole.1, None);
    for cut in 0..frames {
        let (mut a, mut b) = pair();
        a.grow(20);
        connect(&mut a, &mut b, Some(cut));
        a.input(Input::Down);
        b.input(Input::Down);
        b.grow(3);
        connect(&mut a, &mut b, None);
        assert_eq!(a.chains, b.chains, "cut after {cut} frames");
        assert_eq!(a.chains[&server(1)].len(), 20);
    }
}

#[test]
fn a_live_commit_is_pushed_at_once_and_read_from_nowhere() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let outputs = a.grow(1);
    assert!(
        !outputs.iter().any(|o| matches!(o, Output::Read { .. })),
        "{outputs:?}"
    );
    assert!(matches!(outputs[0], Output::Introduce(..)));
    run(
        &mut a,
        &mut b,
        outputs.into_iter().map(|o| (true, o)).collect(),
        None,
    );
    assert_eq!(a.chains, b.chains);
}

#[test]
fn an_unknown_conversation_is_offered_and_fetched_whole() {
    let (mut a, mut b) = (Host::new(1, 2), Host::new(2, 1));
    b.known = false;
    a.grow(30);
    a.input(Input::TakesPart(C, Some(29)));
    connect(&mut a, &mut b, None);
    assert!(b.known);
    assert_eq!(a.chains, b.chains);
}

#[test]
fn a_refused_item_blocks_nothing_behind_it() {
    let (mut a, mut b) = pair();
    b.refuse = Some(0);
    connect(&mut a, &mut b, None);
    let outputs = a.grow(1);
    run(
        &mut a,
        &mut b,
        outputs.into_iter().map(|o| (true, o)).collect(),
        None,
    );
    assert_eq!(
        a.acked,
        Some(Progress {
            tip: Some(0),
            acked: Some(0)
        })
    );
    assert!(a.link.is_settled());
}

#[test]
fn a_peer_that_never_answers_is_sent_one_window_and_no_more() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let mut pushed = 0;
    for _ in 0..3 {
        let outputs = a.grow(1_000);
        pushed += outputs
            .iter()
            .filter(|o| matches!(o, Output::Send(_, Frame::Push { .. })))
            .count();
    }
    assert_eq!(pushed, crate::limits::LINK_WINDOW_ITEMS);
}

#[test]
fn nothing_is_pushed_beyond_the_act_that_ended_the_last_member() {
    let (mut a, mut b) = pair();
    a.grow(5);
    a.input(Input::LeftAt(C, Some(4)));
    let more = a.grow(5);
    assert!(more.is_empty(), "{more:?}");
    connect(&mut a, &mut b, None);
    assert!(
        b.chains
            .get(&server(1))
            .is_none_or(|chain| chain.len() <= 5)
    );
}

#[test]
fn frames_before_hello_and_a_wrong_version_close_the_link() {
    let (mut a, _) = pair();
    a.input(Input::Up(Nonce::from_bytes([1; 16])));
    let closed = |outputs: Vec<Output>| outputs.iter().any(|o| matches!(o, Output::Close(_)));
    assert!(closed(
        a.input(Input::Frame(Frame::Ask { conversation: C }))
    ));
    let nonce = Nonce::from_bytes([2; 16]);
    let hello = |version, n| Frame::Hello {
        version,
        server: server(n),
        nonce,
    };
    assert!(closed(a.input(Input::Frame(hello(9, 2)))));
    assert!(closed(a.input(Input::Frame(hello(VERSION, 3)))));
    assert!(!closed(a.input(Input::Frame(hello(VERSION, 2)))));
}

#[test]
fn nothing_of_an_offered_conversation_is_asked_for_before_it_is_known() {
    let (mut a, mut b) = (Host::new(1, 2), Host::new(2, 1));
    (b.known, b.slow) = (false, true);
    a.grow(30);
    a.input(Input::TakesPart(C, Some(29)));
    connect(&mut a, &mut b, None);
    assert!(b.chains.is_empty() && b.link.is_settled());
    b.known = true;
    let asked = b.input(Input::Known(C));
    run(
        &mut a,
        &mut b,
        asked.into_iter().map(|o| (false, o)).collect(),
        None,
    );
    assert_eq!(a.chains, b.chains);
}

#[test]
fn what_a_peer_did_not_know_the_conversation_of_is_pushed_again() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    b.known = false;
    let pushed = a.grow(3);
    run(
        &mut a,
        &mut b,
        pushed.into_iter().map(|o| (true, o)).collect(),
        None,
    );
    assert_eq!(a.acked.and_then(|progress| progress.acked), None);
    b.known = true;
    let round = a.input(Input::Frame(Frame::Ask { conversation: C }));
    run(
        &mut a,
        &mut b,
        round.into_iter().map(|o| (true, o)).collect(),
        None,
    );
    assert_eq!(a.chains, b.chains);
}

#[test]
fn what_a_full_peer_could_not_store_comes_again_on_the_same_link() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    b.full = true;
    let pushed = a.grow(3);
    let told = |o: &Output| matches!(o, Output::Refused(..));
    assert!(!pushed.iter().any(told));
    let at_a = |outputs: Vec<Output>| outputs.into_iter().map(|o| (true, o)).collect();
    run(&mut a, &mut b, at_a(pushed), None);
    assert!(!b.chains.contains_key(&server(1)));
    b.full = false;
    a.now += 10_000;
    let round = a.input(Input::Tick { random: 0 });
    run(&mut a, &mut b, at_a(round), None);
    assert_eq!(a.chains, b.chains);
    assert!(a.link.is_settled());
}

#[test]
fn a_peer_that_pushes_beyond_the_window_or_wants_without_end_is_cut_off() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let bundle = commit(server(1), None);
    let closes = |outputs: Vec<Output>| outputs.iter().any(|o| matches!(o, Output::Close(_)));
    for n in 0..crate::limits::LINK_WINDOW_ITEMS as u64 {
        let bundle = bundle.clone();
        assert!(!closes(b.input(Input::Frame(Frame::Push { n, bundle }))));
    }
    let n = u64::MAX;
    assert!(closes(b.input(Input::Frame(Frame::Push { n, bundle }))));
    let range = Range {
        conversation: C,
        home: server(2),
        tip: tip(&commit(server(2), None)).id,
        from: 0,
        to: 0,
    };
    let max_bytes = 1;
    let want = |id| {
        Input::Frame(Frame::Want {
            id,
            range,
            max_bytes,
        })
    };
    assert!(!closes(b.input(want(0))));
    assert!((1..100).any(|id| closes(b.input(want(id)))));
}

#[test]
fn a_pushed_item_that_waits_keeps_its_place_in_the_window_until_its_last_verdict() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let session = 1;
    for n in 0..4 * crate::limits::LINK_WINDOW_ITEMS as u64 {
        let bundle = commit(server(1), None);
        let outputs = b.input(Input::Frame(Frame::Push { n, bundle }));
        assert!(matches!(outputs[0], Output::Judge { .. }), "{n}");
        for verdict in [Verdict::Waiting, Verdict::Stored] {
            b.input(Input::Judged {
                session,
                n,
                verdict,
            });
        }
    }
}

#[test]
fn after_an_outage_few_conversations_are_read_at_once() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let mut reads = 0;
    for n in 0..200u8 {
        let conversation = ConversationId::from_bytes([100, n].repeat(16).try_into().unwrap());
        a.input(Input::TakesPart(conversation, Some(1_000)));
        let outputs = a.input(Input::Frame(Frame::Frontier {
            conversation,
            tips: vec![],
            offer: a.offer(&conversation).unwrap(),
            root: None,
            reply: false,
        }));
        let read = |o: &&Output| matches!(o, Output::Read { .. });
        reads += outputs.iter().filter(read).count();
    }
    assert!((1..=4).contains(&reads), "{reads}");
}

#[test]
fn lookups_that_nobody_answers_are_bounded() {
    let mut a = Host::new(1, 2);
    for id in 0..10_000 {
        a.input(Input::Lookup(id, Query::Handle("nobody".into())));
    }
    a.input(Input::Up(Nonce::from_bytes([1; 16])));
    let hello = Frame::Hello {
        version: VERSION,
        server: server(2),
        nonce: Nonce::from_bytes([2; 16]),
    };
    let outputs = a.input(Input::Frame(hello));
    assert!(outputs.len() <= 4_200, "{}", outputs.len());
}

#[test]
fn one_conversation_named_a_thousand_times_is_not_answered_a_thousand_times() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let other = Blob(vec![0; 16]);
    let fingerprints = vec![(C, other); 1_024];
    let outputs = b.input(Input::Frame(Frame::Shared { fingerprints }));
    assert!(matches!(outputs[..], [Output::Close(_)]), "{outputs:?}");
}

#[test]
fn a_frame_of_more_identity_logs_than_it_may_have_closes_the_link() {
    let (mut a, mut b) = pair();
    connect(&mut a, &mut b, None);
    let logs = |count| {
        Input::Frame(Frame::Identities {
            logs: vec![vec![]; count],
        })
    };
    assert!(matches!(b.input(logs(64))[..], [Output::Identities(_)]));
    assert!(matches!(b.input(logs(65))[..], [Output::Close(_)]));
}

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
    for held in [Some(record(2, 2)), Some(record(1, 1)), None] {
        assert!(records_wanted(&b.input(frontier_with(held))).is_empty());
    }
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
