//! The state machine of one peer link. Source: `spec/05-links.md`, sections 3 to 6.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    VERSION,
    fetch::Fetcher,
    frame::{Bundle, Frame, FrameChannel, Identity, Offer, Query, Range, Verdict},
    outbox::{Outbox, Progress, after},
};
use crate::{
    commit::RootRef,
    encoding::strictly_increasing,
    event::Tip,
    ids::{Blob, ConversationId, Nonce, ServerId, UserId},
    limits::{ANTI_ENTROPY_MS, LINK_WINDOW_BYTES, LINK_WINDOW_ITEMS, WANT_BYTES_MAX},
    root::RawRoot,
    session::Code,
    time::Timestamp,
};

/// Fingerprints in one frame.
const FINGERPRINTS_MAX: usize = 1_024;
/// Identity logs in one frame: each costs the checking of all its signatures.
const LOGS_MAX: usize = 64;
/// Root records in one frame.
pub const RECORDS_MAX: usize = 64;
/// Frames of root records of one peer that are judged at once.
const RECORDING_MAX: usize = 16;
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

/// What the link may ask at any time, answered at once from memory.
pub trait World {
    /// Ends of all chains held and durable in a conversation, strictly increasing; `None` if it is
    /// not known here.
    fn frontier(&self, conversation: &ConversationId) -> Option<Vec<Tip>>;
    /// What makes the conversation known to somebody else.
    fn offer(&self, conversation: &ConversationId) -> Option<Offer>;
    /// The newest root record from 1 on that stands and is durable.
    fn root(&self, conversation: &ConversationId) -> Option<RootRef>;
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The link is up; the nonce is random.
    Up(Nonce),
    /// The link is down. What was under way is taken up again at the next [`Input::Up`].
    Down,
    /// A frame came.
    Frame(Frame),
    /// The peer has a standing member in this conversation; the own chain ends at this seq.
    TakesPart(ConversationId, Option<u64>),
    /// A conversation that the peer offered is known here now.
    Known(ConversationId),
    /// The peer's last member is gone: nothing beyond this seq of the own chain is for it.
    LeftAt(ConversationId, Option<u64>),
    /// A commit of the own chain is durable. With its bundle it need not be read again.
    Committed {
        /// Where.
        conversation: ConversationId,
        /// Its seq.
        seq: u64,
        /// The item and the users whose identity log the receiver needs.
        bundle: Option<(Bundle, Vec<UserId>)>,
    },
    /// Answer to [`Output::Read`], oldest first, at least one unless the read failed.
    Read {
        /// As in the output.
        session: u64,
        /// As in the output.
        conversation: ConversationId,
        /// Items with the users whose identity logs they need.
        bundles: Vec<(Bundle, Vec<UserId>)>,
    },
    /// Verdict on [`Output::Judge`].
    Judged {
        /// As in the output.
        session: u64,
        /// As in the output.
        n: u64,
        /// What became of it.
        verdict: Verdict,
    },
    /// An item that waits names these, which the peer may have.
    Missing(Vec<Range>),
    /// An item or record that waits names a root record; the peer may have those from this number.
    LacksRecords(ConversationId, u64),
    /// A root record is durable.
    Recorded(ConversationId, RawRoot),
    /// Answer to [`Output::ServeRecords`].
    ServedRecords {
        /// As in the output.
        session: u64,
        /// As in the output.
        conversation: ConversationId,
        /// Each after the one it follows.
        records: Vec<RawRoot>,
    },
    /// Everything of one [`Output::Records`] was judged.
    RecordsTaken {
        /// As in the output.
        session: u64,
    },
    /// Everything of one [`Output::Take`] was judged.
    Taken {
        /// As in the output.
        session: u64,
        /// As in the output.
        id: u64,
    },
    /// Answer to [`Output::Serve`].
    Served {
        /// As in the output.
        session: u64,
        /// As in the output.
        id: u64,
        /// A prefix of the range, with the users it needs.
        bundles: Vec<(Bundle, Vec<UserId>)>,
        /// The seq to go on with.
        next: Option<u64>,
    },
    /// Somebody here wants to know about a user; the id comes back with [`Output::Found`].
    Lookup(u64, Query),
    /// Answer to [`Output::Resolve`].
    Resolved {
        /// As in the output.
        session: u64,
        /// As in the output.
        id: u64,
        /// The identity log, if known.
        identity: Option<Identity>,
    },
    /// Time passed; call at least every second while the link is up. `random` is uniform.
    Tick {
        /// For jitter.
        random: u64,
    },
}

/// What the driver does, in the order given.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send a frame.
    Send(FrameChannel, Frame),
    /// Send the identity logs of these users, then go on. Unknown ones are left out.
    Introduce(FrameChannel, Vec<UserId>),
    /// Read the own chain from this seq on and answer with [`Input::Read`].
    Read {
        /// To be given back.
        session: u64,
        /// Where.
        conversation: ConversationId,
        /// First seq.
        from: u64,
        /// Stop after this many bytes, but not before one item.
        max_bytes: usize,
    },
    /// Judge an item that the peer pushed: answer with [`Input::Judged`], again if it waited.
    Judge {
        /// To be given back.
        session: u64,
        /// To be given back.
        n: u64,
        /// The item.
        bundle: Bundle,
    },
    /// Take in items that were asked for, then answer with [`Input::Taken`].
    Take {
        /// To be given back.
        session: u64,
        /// To be given back.
        id: u64,
        /// The items.
        bundles: Vec<Bundle>,
    },
    /// The peer shares a conversation that is not known here.
    Offered(ConversationId, Offer),
    /// Serve a range if the peer may have it, at most this many bytes.
    Serve {
        /// To be given back.
        session: u64,
        /// To be given back.
        id: u64,
        /// What.
        range: Range,
        /// At most.
        max_bytes: u64,
    },
    /// Serve root records from this number on if the peer may have them; answer with
    /// [`Input::ServedRecords`].
    ServeRecords {
        /// To be given back.
        session: u64,
        /// To be given back.
        conversation: ConversationId,
        /// First number.
        from: u64,
    },
    /// Take in root records, then answer with [`Input::RecordsTaken`].
    Records {
        /// To be given back.
        session: u64,
        /// Where.
        conversation: ConversationId,
        /// The records.
        records: Vec<RawRoot>,
    },
    /// Take in identity logs.
    Identities(Vec<Identity>),
    /// Answer about a user with [`Input::Resolved`].
    Resolve {
        /// To be given back.
        session: u64,
        /// To be given back.
        id: u64,
        /// Who.
        query: Query,
    },
    /// Answer to an [`Input::Lookup`].
    Found(u64, Option<Identity>),
    /// The peer stored the own chain up to here.
    Acked(ConversationId, Progress),
    /// The peer refused an own commit for good.
    Refused(ConversationId, u64, Code),
    /// The peer breaks the protocol: close the link with this reason.
    Close(&'static str),
}

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
                identity,
            } if session == self.session => {
                out.push(Output::Send(
                    FrameChannel::Live,
                    Frame::Found { id, identity },
                ));
            }
            Input::Tick { random } => self.tick(now, random, world, out),
            // Answers to what an earlier link asked, and frames of a link that is down.
            Input::Frame(_)
            | Input::Read { .. }
            | Input::Judged { .. }
            | Input::Taken { .. }
            | Input::Served { .. }
            | Input::ServedRecords { .. }
            | Input::RecordsTaken { .. }
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
            Frame::Ask { conversation } => self.send_frontier(conversation, true, world, out),
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
            Frame::Found { id, identity } => {
                if self.lookups.remove(&id).is_some() {
                    out.push(Output::Found(id, identity));
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

    /// Compares everything shared with the peer.
    fn round(&mut self, now: Timestamp, random: u64, world: &dyn World, out: &mut Vec<Output>) {
        self.next_round = now.plus_ms(ANTI_ENTROPY_MS / 2 + random % ANTI_ENTROPY_MS);
        self.fetcher.give_up_old(now);
        let shared: Vec<_> = self
            .outboxes
            .iter()
            .filter(|(_, outbox)| outbox.is_open())
            .filter_map(|(c, _)| {
                let fingerprint = self.fingerprint(&world.frontier(c)?, world.root(c))?;
                Some((*c, fingerprint))
            })
            .collect();
        for fingerprints in shared.chunks(FINGERPRINTS_MAX) {
            let frame = Frame::Shared {
                fingerprints: fingerprints.to_vec(),
            };
            out.push(Output::Send(FrameChannel::Live, frame));
        }
    }

    fn fingerprint(&self, tips: &[Tip], root: Option<RootRef>) -> Option<Blob> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key?);
        for tip in tips {
            hasher.update(tip.home.as_bytes());
            hasher.update(&tip.epoch.to_be_bytes());
            hasher.update(&tip.seq.to_be_bytes());
            hasher.update(tip.id.as_bytes());
        }
        if let Some(root) = root {
            hasher.update(root.id.as_bytes());
        }
        Some(Blob(hasher.finalize().as_bytes()[..16].to_vec()))
    }

    fn shared(
        &mut self,
        fingerprints: Vec<(ConversationId, Blob)>,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        if fingerprints.len() > FINGERPRINTS_MAX {
            return out.push(Output::Close("more fingerprints than a frame may have"));
        }
        // One conversation a thousand times would be answered by a thousand whole frontiers.
        if !fingerprints.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return out.push(Output::Close("fingerprints out of order"));
        }
        for (conversation, theirs) in fingerprints {
            let ours = world.frontier(&conversation);
            let same = ours
                .as_ref()
                .and_then(|t| self.fingerprint(t, world.root(&conversation)))
                .is_some_and(|f| f == theirs);
            match self.outboxes.get_mut(&conversation) {
                Some(outbox) if same => {
                    // Equal frontiers: the peer holds the whole own chain.
                    let tips = ours.unwrap_or_default();
                    let held = own_end(&tips, &self.me).map(|tip| tip.seq);
                    if outbox.peer_holds(held) {
                        out.push(Output::Acked(conversation, outbox.progress()));
                    }
                    self.ready.insert(conversation);
                }
                Some(outbox) if outbox.until.is_none() => {
                    self.send_frontier(conversation, true, world, out);
                }
                // Unknown, or its last member left here: it may have one again by a commit that
                // did not come yet. It is asked, and told nothing.
                _ => {
                    let ask = Frame::Ask { conversation };
                    out.push(Output::Send(FrameChannel::Live, ask));
                }
            }
        }
    }

    fn send_frontier(
        &mut self,
        conversation: ConversationId,
        reply: bool,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        // Only for a conversation in which the peer has a member: to everybody else it does not
        // exist, and silence tells the same as an unknown id.
        let takes_part = self
            .outboxes
            .get(&conversation)
            .is_some_and(|o| o.until.is_none());
        let (Some(tips), Some(offer), true) = (
            world.frontier(&conversation),
            world.offer(&conversation),
            takes_part && self.is_open(),
        ) else {
            return;
        };
        let frame = Frame::Frontier {
            conversation,
            tips,
            offer,
            root: world.root(&conversation),
            reply,
        };
        out.push(Output::Send(FrameChannel::Live, frame));
    }

    /// Whether the peer has a member in a conversation, as far as is known.
    fn takes_records(&self, conversation: &ConversationId) -> bool {
        self.outboxes
            .get(conversation)
            .is_some_and(|outbox| outbox.until.is_none())
    }

    fn want_records(&self, conversation: ConversationId, from: u64, out: &mut Vec<Output>) {
        if self.is_open() {
            let frame = Frame::WantRecords { conversation, from };
            out.push(Output::Send(FrameChannel::Bulk, frame));
        }
    }

    /// Asks for records that the peer has and this server lacks: newer ones, or a twin.
    fn compare_records(
        &self,
        conversation: ConversationId,
        theirs: Option<RootRef>,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        if world.frontier(&conversation).is_none() {
            return;
        }
        let ours = world.root(&conversation);
        let held = ours.map_or(0, |root| root.n);
        if let Some(theirs) = theirs.filter(|theirs| Some(*theirs) != ours && theirs.n >= held) {
            self.want_records(conversation, theirs.n.min(held + 1), out);
        }
    }

    fn frontier(
        &mut self,
        conversation: ConversationId,
        theirs: &[Tip],
        offer: Offer,
        reply: bool,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        let Some(ours) = world.frontier(&conversation) else {
            // Nothing is fetched before the conversation is known: it could not be taken.
            return out.push(Output::Offered(conversation, offer));
        };
        // The peer pushes its own chain itself once it knows where this server stands.
        let pushes = self
            .outboxes
            .get(&conversation)
            .is_some_and(Outbox::is_open);
        for tip in theirs.iter().filter(|tip| !pushes || tip.home != self.peer) {
            let forked = theirs.iter().filter(|t| t.home == tip.home).count() > 1;
            if let Some(from) = first_lacking(&ours, tip, forked) {
                let (home, to) = (tip.home, tip.seq);
                self.fetcher.queue(Range {
                    conversation,
                    home,
                    tip: tip.id,
                    from,
                    to,
                });
            }
        }
        if let Some(outbox) = self.outboxes.get_mut(&conversation) {
            let own = own_end(&ours, &self.me);
            let held = theirs
                .iter()
                .filter(|t| {
                    t.home == self.me && own.is_some_and(|o| t.seq <= o.seq && t.epoch <= o.epoch)
                })
                .map(|t| t.seq)
                .max();
            if outbox.peer_holds(held) {
                out.push(Output::Acked(conversation, outbox.progress()));
            }
            self.ready.insert(conversation);
        }
        if reply {
            self.send_frontier(conversation, false, world, out);
        }
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

fn own_end<'a>(tips: &'a [Tip], me: &ServerId) -> Option<&'a Tip> {
    tips.iter()
        .filter(|tip| tip.home == *me)
        .max_by_key(|tip| (tip.epoch, tip.seq))
}

/// The first seq on the chain that ends in `theirs` which may be missing from `ours`; `None` if
/// nothing is. `forked`: the peer names two ends of this home.
fn first_lacking(ours: &[Tip], theirs: &Tip, forked: bool) -> Option<u64> {
    let mut held = ours.iter().filter(|tip| tip.home == theirs.home).peekable();
    if held.peek().is_none() {
        return Some(0);
    }
    let held: Vec<_> = held.collect();
    if held.iter().any(|tip| tip.id == theirs.id) {
        return None;
    }
    let end = held.iter().map(|tip| tip.seq).max()?;
    if theirs.seq > end {
        return Some(end + 1);
    }
    // Not beyond, and not one of the ends: an earlier commit of a chain that is held, unless the
    // peer knows a fork. A higher epoch can only be one; a second end may be one at any height,
    // and is asked for by itself: at worst it was held.
    let other = |tip: &&Tip| theirs.epoch > tip.epoch || theirs.seq == tip.seq;
    (forked || held.iter().all(other)).then_some(theirs.seq)
}
