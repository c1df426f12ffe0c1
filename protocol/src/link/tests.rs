//! Two links joined back to back, each with a store of its own that judges and serves at once.

mod compare;
mod records;

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
