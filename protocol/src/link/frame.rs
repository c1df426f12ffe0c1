//! Frames between servers. Source: `spec/05-links.md`, section 2.

use serde::{Deserialize, Serialize};

use crate::{
    card::RawCard,
    commit::{RawCommit, RootRef},
    encoding::{self, DecodeError},
    event::{RawEvent, Tip},
    ids::{Blob, CommitId, ConversationId, Nonce, ServerId, UserId},
    limits::LINK_FRAME_BYTES_MAX,
    root::{RawRoot, StewardMessage},
    session::Code,
};

/// Which of the two streams of a link a frame travels on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FrameChannel {
    /// Live traffic.
    Live,
    /// History asked for, which must not make live traffic wait.
    Bulk,
}

/// A content in a bundle.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ContentSlot {
    /// Canonical bytes.
    Held(Blob),
    /// Erased; nobody asks for it again.
    Gone,
    /// Not for the receiver to have.
    Withheld,
}

/// A commit with its events and their contents: the unit that is pushed and fetched.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The commit.
    pub commit: RawCommit,
    /// Its events, in the commit's order.
    pub events: Vec<RawEvent>,
    /// One for each event that names a content, in order.
    pub contents: Vec<ContentSlot>,
}

impl Bundle {
    /// Size that counts against windows.
    #[must_use]
    pub fn size(&self) -> usize {
        let events: usize = self.events.iter().map(|e| e.event.0.len() + 80).sum();
        let held = |slot: &ContentSlot| match slot {
            ContentSlot::Held(bytes) => bytes.0.len() + 16,
            _ => 16,
        };
        self.commit.commit.0.len() + 160 + events + self.contents.iter().map(held).sum::<usize>()
    }
}

/// A stretch of a home's chain: the commits from `from` to `to` on the `prev` chain that ends in
/// `tip`, whose seq is `to`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The conversation.
    pub conversation: ConversationId,
    /// Whose chain.
    pub home: ServerId,
    /// Where it ends.
    pub tip: CommitId,
    /// First seq.
    pub from: u64,
    /// Last seq.
    pub to: u64,
}

/// What makes an unknown conversation known.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Offer {
    /// A group, by its root record 0.
    Group(RawRoot),
    /// A direct conversation, by its two users.
    Direct(UserId, UserId),
}

/// What became of an item.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Durable now, or before.
    Stored,
    /// Kept in memory until what it names comes; another verdict follows.
    Waiting,
    /// Refused for good.
    Refused(Code),
}

/// What is asked of a peer.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Query {
    /// The identity log of a user.
    User(UserId),
    /// The identity log of the user with this handle at the asked server.
    Handle(String),
    /// The cards of a server.
    Server(ServerId),
}

/// A user's identity log, genesis first: canonical DAG-CBOR of each signed entry.
pub type Identity = Vec<Blob>;

/// A server's cards, card 0 first, each after its `prev`.
pub type Cards = Vec<RawCard>;

/// What is answered to a [`Query`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The identity log asked for.
    Identity(Identity),
    /// The cards asked for.
    Cards(Cards),
}

/// A frame.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Frame {
    /// First in each direction.
    Hello {
        /// Version spoken.
        version: u64,
        /// The sender.
        server: ServerId,
        /// Random; both together key the fingerprints of this link.
        nonce: Nonce,
    },
    /// Fingerprints of conversations that both take part in; at most 1,024.
    Shared {
        /// Conversation and keyed fingerprint of its frontier.
        fingerprints: Vec<(ConversationId, Blob)>,
    },
    /// Asks for the frontier of a conversation that the sender does not know or finds different.
    Ask {
        /// Which.
        conversation: ConversationId,
    },
    /// A frontier.
    Frontier {
        /// Whose.
        conversation: ConversationId,
        /// Ends of all chains held. Strictly increasing.
        tips: Vec<Tip>,
        /// So that the receiver can know the conversation at all.
        offer: Offer,
        /// The newest root record that stands, from 1 on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<RootRef>,
        /// The receiver is to answer with its own.
        reply: bool,
    },
    /// Asks for root records.
    WantRecords {
        /// Of which conversation.
        conversation: ConversationId,
        /// From this number on.
        from: u64,
    },
    /// Root records, each after the one it follows: asked for, or new at the sender.
    Records {
        /// Of which conversation.
        conversation: ConversationId,
        /// At most 64.
        records: Vec<RawRoot>,
    },
    /// About the next root record.
    Steward {
        /// Of which conversation.
        conversation: ConversationId,
        /// A question to a steward, or its answer.
        message: Box<StewardMessage>,
    },
    /// Identity logs that the items behind it need.
    Identities {
        /// At most 64 logs.
        logs: Vec<Identity>,
    },
    /// Cards of servers, the sender's own among them: what it is and how it is reached, where that
    /// may be new to the receiver.
    Cards {
        /// At most 16 servers.
        chains: Vec<Cards>,
    },
    /// An item of the sender's own chain.
    Push {
        /// Counts up on this link.
        n: u64,
        /// The item.
        bundle: Bundle,
    },
    /// Verdicts on pushed items, each final but `waiting`.
    Verdicts {
        /// By number of the push.
        verdicts: Vec<(u64, Verdict)>,
    },
    /// Asks for a range, at most `max_bytes` of it.
    Want {
        /// Chosen by the asker.
        id: u64,
        /// Which commits.
        range: Range,
        /// Bytes that the asker takes.
        max_bytes: u64,
    },
    /// The answer: a prefix of the range, perhaps empty.
    Have {
        /// The want's id.
        id: u64,
        /// Items, oldest first.
        bundles: Vec<Bundle>,
        /// The seq to go on with, if the range went further.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<u64>,
    },
    /// Asks about a user or a server.
    Lookup {
        /// Chosen by the asker.
        id: u64,
        /// Who.
        query: Query,
    },
    /// The answer.
    Found {
        /// The lookup's id.
        id: u64,
        /// What is known, if anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Answer>,
    },
}

/// Bytes of a frame.
#[must_use]
pub fn encode_frame(frame: &Frame) -> Vec<u8> {
    encoding::encode(frame)
}

/// Reads a frame.
///
/// # Errors
///
/// [`DecodeError`]; the link is to be closed, since peer and server disagree on the protocol.
pub fn decode_frame(bytes: &[u8]) -> Result<Frame, DecodeError> {
    encoding::decode_frame(bytes, LINK_FRAME_BYTES_MAX)
}
