//! One end of a link whose peer sends anything, with a driver that answers, late or never.

use std::collections::BTreeSet;

use comity_protocol::{
    commit::RootRef,
    event::Tip,
    ids::{CommitId, ConversationId, Nonce, RootId, ServerId, UserId},
    limits::{LINK_WINDOW_BYTES, LINK_WINDOW_ITEMS, WANT_BYTES_MAX},
    link::{
        self, Bundle, Frame, Input, Link, Offer, Output, Query, Range, STEWARDING_MAX, VERSION,
        Verdict, World, decode_frame,
    },
    session::Code,
    time::Timestamp,
};

use super::STEPS_MAX;
use crate::{mutate::steps, seeds};

/// Opcode: time passes, the first byte in seconds.
pub const TICK: u8 = 8;
/// Opcode: the link goes down and up.
pub const AGAIN: u8 = 9;
/// Opcode: the peer takes part in a conversation.
pub const TAKES_PART: u8 = 10;
/// Opcode: a conversation is known now.
pub const KNOWN: u8 = 11;
/// Opcode: the peer's last member left.
pub const LEFT_AT: u8 = 12;
/// Opcode: an own commit is durable.
pub const COMMITTED: u8 = 13;
/// Opcode: something that waits names what is not held.
pub const MISSING: u8 = 14;
/// Opcode: somebody here asks about a user.
pub const LOOKUP: u8 = 15;
/// Bit of an opcode: the driver gives no answers after this step.
pub(crate) const SILENT: u8 = 0x80;

pub(crate) const ME: ServerId = ServerId::from_bytes([3; 32]);
pub(crate) const PEER: ServerId = ServerId::from_bytes([2; 32]);

/// Frames and requests that one step may give: a round of fingerprints, or of what is asked again.
const OUTPUTS_MAX: usize = 8 * 1024;
/// Wants of the peer that are served at once.
const SERVING_MAX: usize = 64;
/// Bytes of frames that one frame of the peer may call forth, beyond a whole frontier for each
/// conversation that it names.
const SENT_BYTES_FLAT: usize = 64 * 1024;

fn conversation(n: u8) -> ConversationId {
    ConversationId::from_bytes([n % 4 + 1; 32])
}

/// The peer's first frame.
#[must_use]
pub const fn hello(nonce: Nonce) -> Frame {
    Frame::Hello {
        version: VERSION,
        server: PEER,
        nonce,
    }
}

/// Conversations 1 and 2 are known here, others are not.
struct Known {
    own: u64,
}

impl Known {
    fn tip(home: ServerId, seq: u64) -> Tip {
        Tip {
            home,
            epoch: 1,
            seq,
            id: CommitId::from_bytes([5; 32]),
        }
    }
}

impl World for Known {
    fn frontier(&self, id: &ConversationId) -> Option<Vec<Tip>> {
        let tips = || vec![Self::tip(PEER, 7), Self::tip(ME, self.own)];
        (*id == conversation(0) || *id == conversation(1)).then(tips)
    }

    fn offer(&self, _: &ConversationId) -> Option<Offer> {
        Some(Offer::Direct(
            UserId::from_bytes([1; 32]),
            UserId::from_bytes([2; 32]),
        ))
    }

    fn root(&self, _: &ConversationId) -> Option<RootRef> {
        Some(RootRef {
            n: 2,
            id: RootId::from_bytes([6; 32]),
        })
    }
}

/// What the driver has not answered yet.
#[derive(Default)]
struct Owed {
    answers: Vec<Input>,
    judging: BTreeSet<u64>,
    judging_bytes: usize,
    serving: usize,
    hearing: usize,
}

struct Driver {
    link: Link,
    world: Known,
    now: u64,
    nonce: u8,
    owed: Owed,
    closed: bool,
}

impl Driver {
    fn new() -> Self {
        let mut driver = Self {
            link: Link::new(ME, PEER),
            world: Known { own: 0 },
            now: 1_000,
            nonce: 0,
            owed: Owed::default(),
            closed: false,
        };
        driver.connect();
        driver
    }

    fn connect(&mut self) {
        self.closed = false;
        self.owed = Owed::default();
        self.nonce = self.nonce.wrapping_add(1);
        self.input(Input::Down);
        self.input(Input::Up(Nonce::from_bytes([self.nonce; 16])));
    }

    /// Hands an input to the machine, checks what it gives, and notes what it is owed.
    fn input(&mut self, input: Input) -> Vec<Output> {
        let (was_judged, size) = match &input {
            Input::Judged { n, verdict, .. } if *verdict != Verdict::Waiting => {
                (self.owed.judging.remove(n), 0)
            }
            Input::Frame(Frame::Push { bundle, .. }) => (false, bundle.size()),
            _ => (false, 0),
        };
        let _ = was_judged;
        if matches!(input, Input::Heard { .. }) {
            self.owed.hearing = self.owed.hearing.saturating_sub(1);
        }
        if matches!(input, Input::Served { .. } | Input::ServedRecords { .. }) {
            self.owed.serving = self.owed.serving.saturating_sub(1);
        }
        let mut out = Vec::new();
        self.link
            .handle(Timestamp(self.now), input, &self.world, &mut out);
        assert!(
            out.len() <= OUTPUTS_MAX,
            "{} outputs of one input",
            out.len()
        );
        for output in &out {
            self.note(output, size);
        }
        out
    }

    fn note(&mut self, output: &Output, size: usize) {
        match output {
            Output::Close(_) => self.closed = true,
            Output::Judge { session, n, .. } => {
                assert!(
                    self.owed.judging.insert(*n),
                    "one item is judged once at a time"
                );
                self.owed.judging_bytes += size;
                assert!(self.owed.judging.len() <= LINK_WINDOW_ITEMS);
                let verdict = match n % 4 {
                    0 => Verdict::Refused(Code::Malformed),
                    1 => Verdict::Waiting,
                    _ => Verdict::Stored,
                };
                let (session, n) = (*session, *n);
                self.owed.answers.push(Input::Judged {
                    session,
                    n,
                    verdict,
                });
            }
            Output::Take { session, id, .. } => {
                let (session, id) = (*session, *id);
                self.owed.answers.push(Input::Taken { session, id });
            }
            Output::Serve {
                session,
                id,
                range,
                max_bytes,
            } => {
                assert!(*max_bytes <= WANT_BYTES_MAX);
                self.owed.serving += 1;
                assert!(
                    self.owed.serving <= SERVING_MAX,
                    "more wants than are served at once"
                );
                let next = range.from.checked_add(1);
                let (session, id) = (*session, *id);
                let bundles = vec![];
                self.owed.answers.push(Input::Served {
                    session,
                    id,
                    bundles,
                    next,
                });
            }
            Output::ServeRecords {
                session,
                conversation,
                ..
            } => {
                self.owed.serving += 1;
                assert!(
                    self.owed.serving <= SERVING_MAX,
                    "more wants than are served at once"
                );
                let (session, conversation) = (*session, *conversation);
                let records = vec![];
                self.owed.answers.push(Input::ServedRecords {
                    session,
                    conversation,
                    records,
                });
            }
            Output::Records { session, .. } => {
                let session = *session;
                self.owed.answers.push(Input::RecordsTaken { session });
            }
            Output::Steward { session, .. } => {
                self.owed.hearing += 1;
                assert!(
                    self.owed.hearing <= STEWARDING_MAX,
                    "more words than are heard at once"
                );
                let session = *session;
                self.owed.answers.push(Input::Heard { session });
            }
            Output::Read {
                session,
                conversation,
                ..
            } => {
                let bundles = own_bundle().into_iter().map(|b| (b, vec![])).collect();
                let (session, conversation) = (*session, *conversation);
                self.owed.answers.push(Input::Read {
                    session,
                    conversation,
                    bundles,
                });
            }
            Output::Resolve { session, id, .. } => {
                let (session, id) = (*session, *id);
                self.owed.answers.push(Input::Resolved {
                    session,
                    id,
                    answer: None,
                });
            }
            _ => {}
        }
    }

    /// Gives the answers owed. Answers call forth more; what the second round does is left.
    fn answer(&mut self) {
        for answer in std::mem::take(&mut self.owed.answers) {
            self.input(answer);
        }
    }

    fn frame(&mut self, frame: Frame) -> bool {
        let named = match &frame {
            Frame::Shared { fingerprints } => {
                let named: BTreeSet<_> = fingerprints.iter().map(|(id, _)| *id).collect();
                named.len()
            }
            _ => 1,
        };
        let out = self.input(Input::Frame(frame));
        let sent = out.iter().map(|output| match output {
            Output::Send(_, frame) => link::encode_frame(frame).len(),
            _ => 0,
        });
        let most = SENT_BYTES_FLAT + named * 1_024;
        let sent: usize = sent.sum();
        assert!(
            sent <= most,
            "{sent} bytes for one frame that names {named} conversations"
        );
        !self.closed
    }

    fn step(&mut self, op: u8, body: &[u8]) -> bool {
        let first = body.first().copied().unwrap_or(0);
        match op & !SILENT & 0x0f {
            TICK => {
                self.now += u64::from(first) * 1_000;
                let random = u64::from(first);
                self.input(Input::Tick { random });
            }
            AGAIN => self.connect(),
            TAKES_PART => {
                let own = self.world.own;
                self.input(Input::TakesPart(conversation(first), Some(own)));
            }
            KNOWN => drop(self.input(Input::Known(conversation(first)))),
            LEFT_AT => {
                self.input(Input::LeftAt(
                    conversation(first),
                    Some(u64::from(first / 4)),
                ));
            }
            COMMITTED => {
                self.world.own += 1;
                let bundle = own_bundle().map(|bundle| (bundle, vec![UserId::from_bytes([1; 32])]));
                let (conversation, seq) = (conversation(first), self.world.own);
                self.input(Input::Committed {
                    conversation,
                    seq,
                    bundle,
                });
            }
            MISSING => {
                let range = Range {
                    conversation: conversation(first),
                    home: PEER,
                    tip: CommitId::from_bytes([first; 32]),
                    from: u64::from(first / 2),
                    to: u64::from(first),
                };
                self.input(Input::Missing(vec![range]));
            }
            LOOKUP => {
                let query = Query::User(UserId::from_bytes([first; 32]));
                self.input(Input::Lookup(u64::from(first), query));
            }
            _ => match decode_frame(body) {
                Ok(frame) => return self.frame(frame),
                // Peer and server disagree on the protocol: the driver closes the link.
                Err(_) => {
                    self.closed = true;
                    return false;
                }
            },
        }
        false
    }
}

pub(crate) fn own_bundle() -> Option<Bundle> {
    thread_local! {
        static BUNDLE: Option<Bundle> = seeds::link_frames().into_iter().find_map(|frame| {
            let Frame::Push { bundle, .. } = frame else {
                return None;
            };
            Some(bundle)
        });
    }
    BUNDLE.with(Clone::clone)
}

/// A link over which anything comes. What it gives and what it owes stay bounded, and after all of
/// it a sound peer's item is judged: on this link while it is open, else on the next one.
#[must_use]
pub fn link(bytes: &[u8]) -> bool {
    let mut driver = Driver::new();
    let mut taken = false;
    for (op, body) in steps(bytes).into_iter().take(STEPS_MAX) {
        taken |= driver.step(op, body);
        if op & SILENT == 0 {
            driver.answer();
        }
        if driver.closed {
            driver.connect();
        }
    }
    let full = driver.owed.judging.len() >= LINK_WINDOW_ITEMS
        || driver.owed.judging_bytes >= LINK_WINDOW_BYTES;
    if full || !driver.link.is_open() {
        driver.connect();
        driver.frame(hello(Nonce::from_bytes([9; 16])));
    }
    assert!(driver.link.is_open(), "a peer that says hello is let in");
    let n = u64::MAX;
    if let Some(bundle) = own_bundle()
        && !driver.owed.judging.contains(&n)
    {
        let out = driver.input(Input::Frame(Frame::Push { n, bundle }));
        let judged = |output: &Output| matches!(output, Output::Judge { n: of, .. } if *of == n);
        assert!(
            out.iter().any(judged),
            "a sound item after hostile ones is judged"
        );
    }
    taken
}
