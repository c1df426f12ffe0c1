//! All links of one server, of which one peer sends anything: the others do not notice.

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::{
    card::CardChain,
    event::Tip,
    identity::IdentityLog,
    ids::{CommitId, ConversationId, Nonce, ServerId, UserId},
    link::{Frame, Offer, Query, VERSION, Verdict, decode_frame},
    replication::{Committed, Directory, Input, Judged, Output, RecordsNeed, Replication, Ticket},
    session::Code,
    time::Timestamp,
};

use super::{
    STEPS_MAX,
    link::{AGAIN, COMMITTED, ME, PEER, SILENT, TAKES_PART, TICK, hello, own_bundle},
};
use crate::mutate::steps;

const HONEST: ServerId = ServerId::from_bytes([4; 32]);
/// What one input may call forth: a round with both peers, or what is looked up again.
const OUTPUTS_MAX: usize = 16 * 1024;

/// Logs and cards that peers taught.
#[derive(Default)]
struct Logs(
    BTreeMap<UserId, Arc<IdentityLog>>,
    BTreeMap<ServerId, Arc<CardChain>>,
);

impl Directory for Logs {
    fn log(&self, user: &UserId) -> Option<Arc<IdentityLog>> {
        self.0.get(user).cloned()
    }

    fn user_of(&self, _: &str) -> Option<UserId> {
        self.0.keys().next().copied()
    }

    fn learn(&mut self, log: Arc<IdentityLog>) {
        self.0.insert(log.user(), log);
    }

    fn cards(&self, server: &ServerId) -> Option<Arc<CardChain>> {
        self.1.get(server).cloned()
    }

    fn learn_cards(&mut self, cards: Arc<CardChain>) {
        self.1.insert(cards.server(), cards);
    }
}

struct Driver {
    machine: Replication,
    logs: Logs,
    now: u64,
    own: u64,
    answers: Vec<Input>,
    closed: bool,
}

const CONVERSATION: ConversationId = ConversationId::from_bytes([1; 32]);

impl Driver {
    fn new() -> Self {
        let mut driver = Self {
            machine: Replication::new(ME, [PEER, HONEST]),
            logs: Logs::default(),
            now: 1_000,
            own: 0,
            answers: Vec::new(),
            closed: false,
        };
        driver.input(Input::Committed(Committed::Known {
            conversation: CONVERSATION,
            offer: Offer::Direct(UserId::from_bytes([1; 32]), UserId::from_bytes([2; 32])),
            peers: [PEER, HONEST].into(),
        }));
        driver.open(HONEST);
        driver.connect();
        driver
    }

    fn open(&mut self, peer: ServerId) {
        self.input(Input::Up(peer, Nonce::from_bytes([1; 16])));
        let nonce = Nonce::from_bytes([9; 16]);
        let hello = Frame::Hello {
            version: VERSION,
            server: peer,
            nonce,
        };
        self.input(Input::Frame(peer, hello));
    }

    fn connect(&mut self) {
        self.closed = false;
        self.input(Input::Down(PEER));
        self.input(Input::Up(PEER, Nonce::from_bytes([2; 16])));
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let now = Timestamp(self.now);
        self.machine.handle(now, input, &mut self.logs, &mut out);
        assert!(
            out.len() <= OUTPUTS_MAX,
            "{} outputs of one input",
            out.len()
        );
        for output in &out {
            self.note(output);
        }
        out
    }

    fn note(&mut self, output: &Output) {
        let answer = match output {
            Output::Close(peer, why) => {
                assert_eq!(*peer, PEER, "an honest peer is closed: {why}");
                self.closed = true;
                return;
            }
            Output::Judge { ticket, .. } => {
                let verdict = match ticket {
                    Ticket::Pushed { n, .. } if n % 3 == 0 => Verdict::Waiting,
                    Ticket::Pushed { n, .. } if n % 3 == 1 => Verdict::Refused(Code::Malformed),
                    _ => Verdict::Stored,
                };
                Input::Judged(*ticket, Judged::of(verdict))
            }
            Output::Read(read) => {
                let bundles = own_bundle().into_iter().map(|b| (b, vec![]));
                Input::Read(*read, bundles.collect())
            }
            Output::Serve(want) => Input::Served(*want, vec![], None),
            Output::Records(of, _) => Input::RecordsTaken(*of, RecordsNeed::default()),
            Output::Steward(of, _) => Input::Heard(*of, RecordsNeed::default()),
            Output::ServeRecords(of, _) => Input::ServedRecords(*of, vec![]),
            _ => return,
        };
        self.answers.push(answer);
    }

    fn step(&mut self, op: u8, body: &[u8]) -> bool {
        let first = body.first().copied().unwrap_or(0);
        match op & !SILENT & 0x0f {
            TICK => {
                self.now += u64::from(first) * 1_000;
                let random = vec![u64::from(first), 7];
                self.input(Input::Tick { random });
            }
            AGAIN => self.connect(),
            TAKES_PART => {
                let query = Query::User(UserId::from_bytes([first; 32]));
                self.own += 1;
                self.input(Input::Lookup {
                    request: self.own,
                    server: (first % 2 == 0).then_some(PEER),
                    query,
                    patient: false,
                });
            }
            COMMITTED => {
                self.own += 1;
                let end = Tip {
                    home: ME,
                    epoch: 1,
                    seq: self.own,
                    id: CommitId::from_bytes([first; 32]),
                };
                self.input(Input::Committed(Committed::Commit {
                    conversation: CONVERSATION,
                    frontier: vec![end],
                    own: Some((self.own, own_bundle().map(|bundle| (bundle, vec![])))),
                    own_tip: Some(self.own),
                    joined: vec![],
                    left: vec![],
                }));
            }
            _ => match decode_frame(body) {
                Ok(frame) => {
                    self.input(Input::Frame(PEER, frame));
                    return true;
                }
                Err(_) => self.closed = true,
            },
        }
        false
    }
}

/// All links of a server while one of two peers sends anything. The other one's link is never
/// closed for it, and its sound item is judged as if the hostile peer were not there.
#[must_use]
pub fn replication(bytes: &[u8]) -> bool {
    let mut driver = Driver::new();
    let mut taken = false;
    for (op, body) in steps(bytes).into_iter().take(STEPS_MAX) {
        taken |= driver.step(op, body);
        if op & SILENT == 0 {
            for answer in std::mem::take(&mut driver.answers) {
                driver.input(answer);
            }
        }
        if driver.closed {
            driver.connect();
        }
    }
    let open = driver
        .machine
        .peer(&HONEST)
        .is_some_and(|peer| peer.link().is_open());
    assert!(open, "the honest peer's link stays open");
    if let Some(bundle) = own_bundle() {
        let n = u64::MAX;
        let out = driver.input(Input::Frame(HONEST, Frame::Push { n, bundle }));
        let judged = |output: &Output| match output {
            Output::Judge { ticket, .. } => {
                matches!(ticket, Ticket::Pushed { peer, n: of, .. } if *peer == HONEST && *of == n)
            }
            // Of a conversation that is not known here it is refused at once.
            Output::Send(peer, _, Frame::Verdicts { verdicts }) => {
                *peer == HONEST && verdicts.iter().any(|(of, _)| *of == n)
            }
            _ => false,
        };
        assert!(out.iter().any(judged), "the honest peer's item is judged");
    }
    driver.connect();
    driver.input(Input::Frame(PEER, hello(Nonce::from_bytes([9; 16]))));
    let open = driver
        .machine
        .peer(&PEER)
        .is_some_and(|peer| peer.link().is_open());
    assert!(open, "a peer that says hello again is let in again");
    taken
}
