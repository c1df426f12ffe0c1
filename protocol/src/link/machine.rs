//! The state machine of one peer link. Source: `spec/05-links.md`, sections 3 to 6.

mod compare;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    VERSION,
    fetch::Fetcher,
    frame::{Bundle, Frame, FrameChannel, Query, Verdict},
    io::{Input, Output, World},
    outbox::{Outbox, Progress, after},
};
use crate::{
    encoding::strictly_increasing,
    ids::{ConversationId, Nonce, ServerId, UserId},
    limits::{LINK_WINDOW_BYTES, LINK_WINDOW_ITEMS, WANT_BYTES_MAX},
    session::Code,
    time::Timestamp,
};

/// Identity logs in one frame: each costs the checking of all its signatures.
const LOGS_MAX: usize = 64;
/// Servers whose cards are in one frame.
const CHAINS_MAX: usize = 16;
/// Root records in one frame.
pub const RECORDS_MAX: usize = 64;
/// Frames of root records of one peer that are judged at once.
const RECORDING_MAX: usize = 16;
/// Words about next root records of one peer that are taken in at once. Beyond it they are lost, as
/// any may be: who asked asks again.
pub const STEWARDING_MAX: usize = 64;
/// Users whose identity log this peer was given; beyond it the set starts anew.
const INTRODUCED_MAX: usize = 100_000;
/// Bytes read from the own chain at once.
const READ_BYTES: usize = 1024 * 1024;
/// Wants of the peer under way: it has few at once, but asks anew when it lost patience.
const SERVING_MAX: usize = 64;
/// Lookups without answer that are kept for the next link; beyond it the oldest are given up.
const LOOKUPS_MAX: usize = 4_096;
/// After a refusal that may pass the peer is asked what it holds this much later.
const REFUSED_RETRY_MS: u64 = 5_000;

/// One peer link.
#[derive(Debug)]
pub struct Link {
    me: ServerId,
    peer: ServerId,
    session: u64,
    up: bool,
    nonce: Nonce,
    /// Keys the fingerprints; known once the peer's hello came.
    key: Option<[u8; 32]>,
    outboxes: BTreeMap<ConversationId, Outbox>,
    /// Conversations whose outbox has something to read.
    ready: BTreeSet<ConversationId>,
    pushed: BTreeMap<u64, (ConversationId, u64, usize)>,
    pushed_bytes: usize,
    next_n: u64,
    /// Reads of the own chain under way.
    reading: usize,
    verdicts: Vec<(u64, Verdict)>,
    /// What the peer pushed and no final verdict was given on.
    judging: BTreeMap<u64, usize>,
    judging_bytes: usize,
    serving: usize,
    /// Frames of root records that are being judged.
    recording: usize,
    /// Words about next root records that are taken in.
    stewarding: usize,
    fetcher: Fetcher,
    introduced: BTreeSet<UserId>,
    lookups: BTreeMap<u64, Query>,
    next_round: Timestamp,
}

impl Link {
    /// A link that is down, between this server and a peer.
    #[must_use]
    pub fn new(me: ServerId, peer: ServerId) -> Self {
        Self {
            me,
            peer,
            session: 0,
            up: false,
            nonce: Nonce::from_bytes([0; 16]),
            key: None,
            outboxes: BTreeMap::new(),
            ready: BTreeSet::new(),
            pushed: BTreeMap::new(),
            pushed_bytes: 0,
            next_n: 0,
            reading: 0,
            verdicts: Vec::new(),
            judging: BTreeMap::new(),
            judging_bytes: 0,
            serving: 0,
            recording: 0,
            stewarding: 0,
            fetcher: Fetcher::default(),
            introduced: BTreeSet::new(),
            lookups: BTreeMap::new(),
            next_round: Timestamp(0),
        }
    }

    /// The peer.
    #[must_use]
    pub const fn peer(&self) -> ServerId {
        self.peer
    }

    /// Whether both hellos were exchanged.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.up && self.key.is_some()
    }

    /// How far the peer is in each conversation it takes part in.
    pub fn progress(&self) -> impl Iterator<Item = (ConversationId, Progress)> + '_ {
        self.outboxes
            .iter()
            .map(|(conversation, outbox)| (*conversation, outbox.progress()))
    }

    /// Everything known to be shared was compared, pushed and fetched.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let done = |o: &Outbox| o.synced && o.outstanding.is_empty() && o.next_read().is_none();
        self.is_open() && self.fetcher.is_idle() && self.outboxes.values().all(done)
    }

    /// Applies `input` at `now` and appends its effects to `out`.
    pub fn handle(
        &mut self,
        now: Timestamp,
        input: Input,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        match input {
            Input::Up(nonce) => self.link_up(nonce, out),
            Input::Down => self.up = false,
            Input::Frame(frame) if self.up => self.frame(now, frame, world, out),
            Input::TakesPart(conversation, tip) => self.takes_part(conversation, tip, world, out),
            Input::Known(conversation) => {
                // What the peer holds was not asked for while nobody here could have taken it.
                if self.is_open() {
                    let ask = Frame::Ask { conversation };
                    out.push(Output::Send(FrameChannel::Live, ask));
                }
            }
            Input::LeftAt(conversation, until) => {
                if let Some(outbox) = self.outboxes.get_mut(&conversation) {
                    outbox.until = Some(after(until))
                        .and_then(|n| n.checked_sub(1))
                        .or(Some(0));
                }
            }
            Input::Committed {
                conversation,
                seq,
                bundle,
            } => {
                self.committed(conversation, seq, bundle, out);
            }
            Input::Read {
                session,
                conversation,
                bundles,
            } if session == self.session => {
                self.push_read(conversation, bundles, out);
            }
            Input::Judged {
                session,
                n,
                verdict,
            } if session == self.session => {
                if verdict != Verdict::Waiting
                    && let Some(size) = self.judging.remove(&n)
                {
                    self.judging_bytes -= size;
                }
                self.verdicts.push((n, verdict));
            }
            Input::Missing(ranges) => ranges.into_iter().for_each(|r| self.fetcher.queue(r)),
            Input::Ask(ranges) => {
                if self.is_open() {
                    ranges.into_iter().for_each(|r| self.fetcher.queue(r));
                }
            }
            Input::LacksRecords(conversation, from) => self.want_records(conversation, from, out),
            Input::Recorded(conversation, raw) => {
                if self.is_open() && self.takes_records(&conversation) {
                    let records = vec![raw];
                    let frame = Frame::Records {
                        conversation,
                        records,
                    };
                    out.push(Output::Send(FrameChannel::Live, frame));
                }
            }
            Input::ServedRecords {
                session,
                conversation,
                records,
            } if session == self.session => {
                self.serving = self.serving.saturating_sub(1);
                let frame = Frame::Records {
                    conversation,
                    records,
                };
                out.push(Output::Send(FrameChannel::Bulk, frame));
            }
            Input::Say(conversation, message) => {
                if self.is_open() && self.takes_records(&conversation) {
                    let frame = Frame::Steward {
                        conversation,
                        message,
                    };
                    out.push(Output::Send(FrameChannel::Live, frame));
                }
            }
            Input::Heard { session } if session == self.session => {
                self.stewarding = self.stewarding.saturating_sub(1);
            }
            Input::RecordsTaken { session } if session == self.session => {
                self.recording = self.recording.saturating_sub(1);
            }
            Input::Taken { session, id } if session == self.session => self.fetcher.taken(id),
            Input::Served {
                session,
                id,
                bundles,
                next,
            } if session == self.session => {
                self.serving = self.serving.saturating_sub(1);
                let mut items = Vec::with_capacity(bundles.len());
                for (bundle, users) in bundles {
                    self.introduce(FrameChannel::Bulk, users, out);
                    items.push(bundle);
                }
                out.push(Output::Send(
                    FrameChannel::Bulk,
                    Frame::Have {
                        id,
                        bundles: items,
                        next,
                    },
                ));
            }
            Input::Lookup(id, query) => {
                if self.is_open() {
                    let frame = Frame::Lookup {
                        id,
                        query: query.clone(),
                    };
                    out.push(Output::Send(FrameChannel::Live, frame));
                }
                self.lookups.insert(id, query);
                if self.lookups.len() > LOOKUPS_MAX {
                    self.lookups.pop_first();
                }
            }
            Input::Resolved {
                session,
                id,
                answer,
            } if session == self.session => {
                let frame = Frame::Found { id, answer };
                out.push(Output::Send(FrameChannel::Live, frame));
            }
            Input::Compare => self.next_round = Timestamp(0),
            Input::Tick { random } => self.tick(now, random, world, out),
            // Answers to what an earlier link asked, and frames of a link that is down.
            Input::Frame(_)
            | Input::Read { .. }
            | Input::Judged { .. }
            | Input::Taken { .. }
            | Input::Served { .. }
            | Input::ServedRecords { .. }
            | Input::RecordsTaken { .. }
            | Input::Heard { .. }
            | Input::Resolved { .. } => {}
        }
        self.pump(now, out);
    }

    fn link_up(&mut self, nonce: Nonce, out: &mut Vec<Output>) {
        self.session += 1;
        self.up = true;
        self.nonce = nonce;
        self.key = None;
        self.pushed.clear();
        self.pushed_bytes = 0;
        self.next_n = 0;
        self.reading = 0;
        self.verdicts.clear();
        self.judging.clear();
        self.judging_bytes = 0;
        self.serving = 0;
        self.recording = 0;
        self.stewarding = 0;
        self.fetcher.reset();
        self.introduced.clear();
        self.outboxes.values_mut().for_each(Outbox::reset);
        self.ready.clear();
        let hello = Frame::Hello {
            version: VERSION,
            server: self.me,
            nonce,
        };
        out.push(Output::Send(FrameChannel::Live, hello));
    }

    fn frame(&mut self, now: Timestamp, frame: Frame, world: &dyn World, out: &mut Vec<Output>) {
        if self.key.is_none() && !matches!(frame, Frame::Hello { .. }) {
            // The bulk stream may overtake the hello; nothing on it was asked for yet.
            if !matches!(
                frame,
                Frame::Want { .. } | Frame::Have { .. } | Frame::Identities { .. }
            ) {
                out.push(Output::Close("the first frame is a hello"));
            }
            return;
        }
        match frame {
            Frame::Hello {
                version,
                server,
                nonce,
            } => {
                self.hello(now, version, server, nonce, world, out);
            }
            Frame::Shared { fingerprints } => self.shared(fingerprints, world, out),
            Frame::Ask { conversation } => self.asked(conversation, world, out),
            Frame::Frontier {
                conversation,
                tips,
                offer,
                root,
                reply,
            } => {
                if strictly_increasing(&tips) {
                    self.frontier(conversation, &tips, offer, reply, world, out);
                    self.compare_records(conversation, root, world, out);
                } else {
                    out.push(Output::Close("a frontier out of order"));
                }
            }
            Frame::Identities { logs } if logs.len() > LOGS_MAX => {
                out.push(Output::Close("more identity logs than a frame may have"));
            }
            Frame::Identities { logs } => out.push(Output::Identities(logs)),
            Frame::Cards { chains } if chains.len() > CHAINS_MAX => {
                out.push(Output::Close("more server cards than a frame may have"));
            }
            Frame::Cards { chains } => out.push(Output::Cards(chains)),
            Frame::Push { n, bundle } => {
                // The sender keeps the same count, and never has fewer under way than are counted
                // here: whoever goes beyond would fill this server's memory.
                let full = self.judging.len() >= LINK_WINDOW_ITEMS
                    || self.judging_bytes >= LINK_WINDOW_BYTES;
                let size = bundle.size();
                if full || self.judging.insert(n, size).is_some() {
                    return out.push(Output::Close("pushed beyond the window"));
                }
                self.judging_bytes += size;
                out.push(Output::Judge {
                    session: self.session,
                    n,
                    bundle,
                });
            }
            Frame::Verdicts { verdicts } => {
                verdicts
                    .into_iter()
                    .for_each(|(n, verdict)| self.verdict(now, n, verdict, out));
            }
            Frame::Want {
                id,
                range,
                max_bytes,
            } => {
                if self.serving >= SERVING_MAX {
                    return out.push(Output::Close("more wants than are answered at once"));
                }
                self.serving += 1;
                out.push(Output::Serve {
                    session: self.session,
                    id,
                    range,
                    max_bytes: max_bytes.min(WANT_BYTES_MAX),
                });
            }
            Frame::WantRecords { conversation, from } => {
                if self.serving >= SERVING_MAX {
                    return out.push(Output::Close("more wants than are answered at once"));
                }
                self.serving += 1;
                out.push(Output::ServeRecords {
                    session: self.session,
                    conversation,
                    from,
                });
            }
            Frame::Records {
                conversation,
                records,
            } => {
                if records.len() > RECORDS_MAX || self.recording >= RECORDING_MAX {
                    return out.push(Output::Close("more root records than are taken at once"));
                }
                if records.is_empty() {
                    return;
                }
                self.recording += 1;
                out.push(Output::Records {
                    session: self.session,
                    conversation,
                    records,
                });
            }
            Frame::Steward {
                conversation,
                message,
            } => {
                if self.stewarding < STEWARDING_MAX && self.takes_records(&conversation) {
                    self.stewarding += 1;
                    out.push(Output::Steward {
                        session: self.session,
                        conversation,
                        message,
                    });
                }
            }
            Frame::Have { id, bundles, next } => {
                if self
                    .fetcher
                    .answered(id, next, !bundles.is_empty())
                    .is_some()
                {
                    out.push(Output::Take {
                        session: self.session,
                        id,
                        bundles,
                    });
                }
            }
            Frame::Lookup { id, query } => {
                out.push(Output::Resolve {
                    session: self.session,
                    id,
                    query,
                });
            }
            Frame::Found { id, answer } => {
                if self.lookups.remove(&id).is_some() {
                    out.push(Output::Found(id, answer));
                }
            }
        }
    }

    fn hello(
        &mut self,
        now: Timestamp,
        version: u64,
        server: ServerId,
        nonce: Nonce,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        if version != VERSION {
            return out.push(Output::Close("another version of the link protocol"));
        }
        if server != self.peer || self.key.is_some() {
            return out.push(Output::Close("not the hello of this peer"));
        }
        let mut hasher = blake3::Hasher::new_derive_key("comity link fingerprints v1");
        hasher.update(self.nonce.min(nonce).as_bytes());
        hasher.update(self.nonce.max(nonce).as_bytes());
        self.key = Some(*hasher.finalize().as_bytes());
        for (id, query) in &self.lookups {
            let frame = Frame::Lookup {
                id: *id,
                query: query.clone(),
            };
            out.push(Output::Send(FrameChannel::Live, frame));
        }
        self.round(now, 0, world, out);
    }

    fn takes_part(
        &mut self,
        conversation: ConversationId,
        tip: Option<u64>,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        let outbox = self.outboxes.entry(conversation).or_default();
        let again = outbox.until.take().is_some();
        let new = outbox.tip.is_none() && !outbox.synced;
        outbox.tip = outbox.tip.max(tip);
        if new || again {
            // The peer may not know the conversation yet: tell it, and learn what it holds.
            self.send_frontier(conversation, true, world, out);
        }
    }

    fn committed(
        &mut self,
        conversation: ConversationId,
        seq: u64,
        bundle: Option<(Bundle, Vec<UserId>)>,
        out: &mut Vec<Output>,
    ) {
        let Some(outbox) = self.outboxes.get_mut(&conversation) else {
            return;
        };
        if Some(seq) <= outbox.tip {
            outbox.rewind(seq);
            let bytes = &mut self.pushed_bytes;
            self.pushed.retain(|_, (of, sent, size)| {
                let keep = *of != conversation || *sent < seq;
                *bytes -= if keep { 0 } else { *size };
                keep
            });
            out.push(Output::Acked(conversation, outbox.progress()));
        }
        outbox.tip = outbox.tip.max(Some(seq));
        self.ready.insert(conversation);
        let next = outbox.next_read() == Some(seq);
        if let Some((bundle, users)) =
            bundle.filter(|_| next && self.is_open() && self.has_window())
        {
            self.push(conversation, seq, bundle, users, out);
        }
    }

    fn has_window(&self) -> bool {
        self.pushed.len() < LINK_WINDOW_ITEMS && self.pushed_bytes < LINK_WINDOW_BYTES
    }

    /// What is being read will be pushed. Half of the window is to be free, so that not much is read
    /// for the little that fits.
    fn has_room_to_read(&self) -> bool {
        self.pushed.len() <= LINK_WINDOW_ITEMS / 2
            && self.pushed_bytes + self.reading * READ_BYTES <= LINK_WINDOW_BYTES / 2
    }

    fn push_read(
        &mut self,
        conversation: ConversationId,
        bundles: Vec<(Bundle, Vec<UserId>)>,
        out: &mut Vec<Output>,
    ) {
        self.reading = self.reading.saturating_sub(1);
        let Some(outbox) = self.outboxes.get_mut(&conversation) else {
            return;
        };
        outbox.reading = false;
        if std::mem::take(&mut outbox.skip_read) {
            self.ready.insert(conversation);
            return;
        }
        if !bundles.is_empty() {
            // There may be more. After an empty answer, not readable now, the next tick tries again.
            self.ready.insert(conversation);
        }
        let first = after(outbox.sent);
        for (seq, (bundle, users)) in (first..).zip(bundles) {
            if !self.has_window() {
                // What is left is read again once there is room.
                break;
            }
            if self
                .outboxes
                .get(&conversation)
                .is_some_and(|o| o.is_for_peer(seq))
            {
                self.push(conversation, seq, bundle, users, out);
            }
        }
    }

    fn push(
        &mut self,
        conversation: ConversationId,
        seq: u64,
        bundle: Bundle,
        users: Vec<UserId>,
        out: &mut Vec<Output>,
    ) {
        let Some(outbox) = self.outboxes.get_mut(&conversation) else {
            return;
        };
        outbox.sent = Some(seq);
        outbox.outstanding.insert(seq);
        let (n, size) = (self.next_n, bundle.size());
        self.next_n += 1;
        self.pushed.insert(n, (conversation, seq, size));
        self.pushed_bytes += size;
        self.introduce(FrameChannel::Live, users, out);
        out.push(Output::Send(FrameChannel::Live, Frame::Push { n, bundle }));
    }

    fn introduce(&mut self, channel: FrameChannel, users: Vec<UserId>, out: &mut Vec<Output>) {
        if self.introduced.len() > INTRODUCED_MAX {
            self.introduced.clear();
        }
        let new: Vec<_> = users
            .into_iter()
            .filter(|user| self.introduced.insert(*user))
            .collect();
        if !new.is_empty() {
            out.push(Output::Introduce(channel, new));
        }
    }

    fn verdict(&mut self, now: Timestamp, n: u64, verdict: Verdict, out: &mut Vec<Output>) {
        if verdict == Verdict::Waiting {
            // It keeps its place in the window, so that a peer that stores nothing is sent
            // nothing more.
            return;
        }
        let Some((conversation, seq, size)) = self.pushed.remove(&n) else {
            return;
        };
        self.pushed_bytes -= size;
        let passes = matches!(verdict, Verdict::Refused(code) if code.is_retryable());
        if let Verdict::Refused(code) = verdict
            && !passes
        {
            out.push(Output::Refused(conversation, seq, code));
        }
        let Some(outbox) = self.outboxes.get_mut(&conversation) else {
            return;
        };
        if passes || verdict == Verdict::Refused(Code::NotFound) {
            // The peer does not know the conversation, or has no room now: that says nothing
            // against the commit. It is pushed again once the peer says what it holds.
            outbox.reset();
            if passes {
                self.next_round = self.next_round.min(now.plus_ms(REFUSED_RETRY_MS));
            }
        } else if outbox.settled(seq) {
            out.push(Output::Acked(conversation, outbox.progress()));
        }
    }

    fn tick(&mut self, now: Timestamp, random: u64, world: &dyn World, out: &mut Vec<Output>) {
        if self.is_open() && now >= self.next_round {
            self.round(now, random, world, out);
        }
        self.fetcher.give_up_old(now);
        self.ready.extend(
            self.outboxes
                .iter()
                .filter(|(_, o)| o.next_read().is_some())
                .map(|(c, _)| *c),
        );
    }

    /// Starts whatever the windows allow.
    fn pump(&mut self, now: Timestamp, out: &mut Vec<Output>) {
        if !self.is_open() {
            return;
        }
        if !self.verdicts.is_empty() {
            let verdicts = std::mem::take(&mut self.verdicts);
            out.push(Output::Send(
                FrameChannel::Live,
                Frame::Verdicts { verdicts },
            ));
        }
        while self.has_room_to_read() {
            let Some(conversation) = self.ready.pop_first() else {
                break;
            };
            let Some(outbox) = self.outboxes.get_mut(&conversation) else {
                continue;
            };
            let Some(from) = outbox.next_read() else {
                continue;
            };
            outbox.reading = true;
            self.reading += 1;
            let (session, max_bytes) = (self.session, READ_BYTES);
            out.push(Output::Read {
                session,
                conversation,
                from,
                max_bytes,
            });
        }
        while let Some((id, range)) = self.fetcher.next(now) {
            let frame = Frame::Want {
                id,
                range,
                max_bytes: READ_BYTES as u64,
            };
            out.push(Output::Send(FrameChannel::Bulk, frame));
        }
    }
}
