//! What goes into the machine of all links and what comes out.

use std::{collections::BTreeSet, sync::Arc};

use super::NewConversation;
use crate::{
    card::{CardChain, CardError},
    commit::RootRef,
    event::Tip,
    identity::{IdentityError, IdentityLog},
    ids::{ConversationId, Nonce, ServerId, UserId},
    link::{Bundle, Frame, FrameChannel, Offer, Query, Range, Verdict},
    root::{RawRoot, StewardMessage},
    session::Code,
};

/// A bundle with the users whose identity logs its receivers need.
pub type ForPeers = (Bundle, Vec<UserId>);

/// Where a verdict goes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Ticket {
    /// To the peer that pushed the item.
    Pushed {
        /// The peer.
        peer: ServerId,
        /// Of its link.
        session: u64,
        /// Number of the push.
        n: u64,
    },
    /// To this server's own fetch.
    Fetched {
        /// The peer that was asked.
        peer: ServerId,
        /// Of its link.
        session: u64,
        /// The want.
        id: u64,
    },
}

impl Ticket {
    /// The peer that gave the item.
    #[must_use]
    pub const fn peer(&self) -> ServerId {
        match self {
            Self::Pushed { peer, .. } | Self::Fetched { peer, .. } => *peer,
        }
    }
}

/// What became of a peer's item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Judged {
    /// The verdict. After `waiting` others follow, the last one final.
    pub verdict: Verdict,
    /// Commits that it waits for.
    pub missing: Vec<Range>,
    /// Users whose identity logs it waits for.
    pub users: Vec<UserId>,
    /// The server whose cards are to be had before it can be judged; the item is not kept.
    pub server: Option<ServerId>,
    /// It waits for root records from this number on, of this conversation.
    pub records: Option<(ConversationId, u64)>,
    /// It follows an earlier `waiting`, and may be one more.
    pub again: bool,
}

impl Judged {
    /// A verdict at once.
    #[must_use]
    pub const fn of(verdict: Verdict) -> Self {
        Self {
            verdict,
            missing: Vec::new(),
            users: Vec::new(),
            server: None,
            records: None,
            again: false,
        }
    }

    /// Refused at once.
    #[must_use]
    pub const fn refused(code: Code) -> Self {
        Self::of(Verdict::Refused(code))
    }
}

/// What became durable. Told in the order of records.
#[derive(Clone, Debug)]
pub enum Committed {
    /// A conversation is known.
    Known {
        /// Which.
        conversation: ConversationId,
        /// What makes it known to others.
        offer: Offer,
        /// Other homes that take part from the start.
        peers: BTreeSet<ServerId>,
    },
    /// A commit was taken.
    Commit {
        /// Where.
        conversation: ConversationId,
        /// Ends of all chains held. Strictly increasing.
        frontier: Vec<Tip>,
        /// Its seq if it is an own one, with its bundle if somebody is to have it.
        own: Option<(u64, Option<ForPeers>)>,
        /// End of the own chain.
        own_tip: Option<u64>,
        /// Other homes that take part from here on.
        joined: Vec<ServerId>,
        /// Other homes that ceased to.
        left: Vec<ServerId>,
    },
    /// A root record was taken.
    Record {
        /// Where.
        conversation: ConversationId,
        /// The newest that stands.
        newest: RootRef,
        /// As it travels.
        raw: RawRoot,
        /// End of the own chain.
        own_tip: Option<u64>,
        /// Other homes that take part from here on.
        joined: Vec<ServerId>,
        /// Other homes that ceased to.
        left: Vec<ServerId>,
    },
}

/// A part of the own chain that a peer lacks; given back with the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OwnRead {
    /// The peer.
    pub peer: ServerId,
    /// Of its link.
    pub session: u64,
    /// Where.
    pub conversation: ConversationId,
    /// First seq.
    pub from: u64,
    /// Stop after this many bytes, but not before one item.
    pub max_bytes: usize,
}

/// A range that a peer wants; given back with the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerWant {
    /// The peer.
    pub peer: ServerId,
    /// Of its link.
    pub session: u64,
    /// The want.
    pub id: u64,
    /// What.
    pub range: Range,
    /// Bytes at most.
    pub max_bytes: u64,
}

/// Root records of a peer that are being judged, or what it says about the next one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecordsOf {
    /// The peer.
    pub peer: ServerId,
    /// Of its link.
    pub session: u64,
    /// Where.
    pub conversation: ConversationId,
}

/// What root records wait for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecordsNeed {
    /// Commits.
    pub missing: Vec<Range>,
    /// Users whose identity logs.
    pub users: Vec<UserId>,
    /// Records from this number on.
    pub from: Option<u64>,
    /// How many were refused for good.
    pub refused: u64,
}

/// The identity logs, accounts and server cards held here.
pub trait Directory {
    /// The log of a user, if held.
    fn log(&self, user: &UserId) -> Option<Arc<IdentityLog>>;
    /// The user of an account of this server.
    fn user_of(&self, handle: &str) -> Option<UserId>;
    /// Takes a log with news: [`Self::log`] gives it from now on, and it is made durable. Items may
    /// have waited for it.
    fn learn(&mut self, log: Arc<IdentityLog>);
    /// The cards of a server, if held; this one's own among them.
    fn cards(&self, server: &ServerId) -> Option<Arc<CardChain>>;
    /// Takes cards with news: [`Self::cards`] gives them from now on, and they are made durable.
    fn learn_cards(&mut self, cards: Arc<CardChain>);
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A server is a peer from here on; without effect if it was.
    Peer {
        /// Which.
        server: ServerId,
        /// Where it takes part.
        conversations: Vec<ConversationId>,
    },
    /// A server is no peer any more: its link is down and nothing is kept for it.
    NoPeer(ServerId),
    /// The link to a peer is up; the nonce is random.
    Up(ServerId, Nonce),
    /// It is down.
    Down(ServerId),
    /// A frame of a peer came.
    Frame(ServerId, Frame),
    /// Something became durable.
    Committed(Committed),
    /// Verdict on an [`Output::Judge`].
    Judged(Ticket, Judged),
    /// Answer to [`Output::Read`]: oldest first; none if it cannot be read now.
    Read(OwnRead, Vec<ForPeers>),
    /// Answer to [`Output::Serve`]: a prefix of the range, and the seq to go on with.
    Served(PeerWant, Vec<ForPeers>, Option<u64>),
    /// Answer to [`Output::Records`].
    RecordsTaken(RecordsOf, RecordsNeed),
    /// Ask a peer for these; lost if it is not linked now.
    Ask(ServerId, Vec<Range>),
    /// Say this to a peer about the next root record; lost if it cannot hear it now.
    Say(ServerId, ConversationId, Box<StewardMessage>),
    /// Answer to [`Output::Steward`].
    Heard(RecordsOf, RecordsNeed),
    /// Answer to [`Output::ServeRecords`].
    ServedRecords(RecordsOf, Vec<RawRoot>),
    /// Somebody here wants to know about a user, of one server or of all that are linked.
    Lookup {
        /// Comes back with [`Output::Answered`]; never given before.
        request: u64,
        /// Whom to ask.
        server: Option<ServerId>,
        /// What.
        query: Query,
        /// Ask also peers that are not linked now, for as long as a lookup waits.
        patient: bool,
    },
    /// Time passed; call at least every second. `random` is uniform.
    Tick {
        /// For jitter, one a peer in the order of ids; the last one again if there are too few.
        random: Vec<u64>,
    },
}

/// What the driver does, in the order given.
#[derive(Debug)]
pub enum Output {
    /// Send a frame to a peer; nothing if its link is gone.
    Send(ServerId, FrameChannel, Frame),
    /// Close the link to a peer with this reason.
    Close(ServerId, &'static str),
    /// Have an item judged by its conversation; answer with [`Input::Judged`].
    Judge {
        /// To be given back.
        ticket: Ticket,
        /// Where.
        conversation: ConversationId,
        /// The item.
        bundle: Bundle,
    },
    /// Read the own chain; answer with [`Input::Read`].
    Read(OwnRead),
    /// Serve a range if the peer may have it; answer with [`Input::Served`].
    Serve(PeerWant),
    /// Have root records judged by their conversation; answer with [`Input::RecordsTaken`].
    Records(RecordsOf, Vec<RawRoot>),
    /// Have a conversation hear what the peer says about its next root record; answer with
    /// [`Input::Heard`].
    Steward(RecordsOf, Box<StewardMessage>),
    /// Serve root records from this number on if the peer may have them; answer with
    /// [`Input::ServedRecords`].
    ServeRecords(RecordsOf, u64),
    /// Make a conversation known that a peer offered.
    Create(NewConversation),
    /// A peer stored the own chain up to here.
    Acked {
        /// Where.
        conversation: ConversationId,
        /// Who.
        peer: ServerId,
        /// Its position.
        seq: Option<u64>,
    },
    /// Positions of a peer that moved: store them, without haste.
    Positions(ServerId, Vec<(ConversationId, u64)>),
    /// For how many milliseconds this server has tried in vain to reach a peer: store it.
    Unreached(ServerId, u64),
    /// A home takes part and is no peer; its cards are held. Answer with [`Input::Peer`] if it is to
    /// be one.
    Sought(ServerId),
    /// Answer to an [`Input::Lookup`].
    Answered(u64, Option<Arc<IdentityLog>>),
    /// For the operator.
    Note(ServerId, Note),
}

/// Something odd about a peer.
#[derive(Debug)]
pub enum Note {
    /// An identity log was refused.
    Identity(IdentityError),
    /// Cards of this server were refused.
    Cards(ServerId, CardError),
    /// An offer was not taken, for this reason.
    Offer(ConversationId, &'static str),
    /// The peer refused an own commit for good.
    Refused(ConversationId, u64, Code),
}
