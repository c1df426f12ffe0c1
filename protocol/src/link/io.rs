//! What goes into the machine of one link and what comes out.

use super::{
    frame::{Answer, Bundle, Cards, Frame, FrameChannel, Identity, Offer, Query, Range, Verdict},
    outbox::Progress,
};
use crate::{
    commit::RootRef,
    event::Tip,
    ids::{ConversationId, Nonce, UserId},
    root::{RawRoot, StewardMessage},
    session::Code,
};

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
    /// The peer may have these, with contents that are lacking here; nothing if it cannot be asked
    /// now.
    Ask(Vec<Range>),
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
    /// Say this about the next root record; nothing if the peer cannot hear it now.
    Say(ConversationId, Box<StewardMessage>),
    /// What one [`Output::Steward`] said was taken in.
    Heard {
        /// As in the output.
        session: u64,
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
        /// What is known, if anything.
        answer: Option<Answer>,
    },
    /// Compare everything shared with the peer now: something changed that lets more be taken.
    Compare,
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
    /// Hear what the peer says about the next root record, then answer with [`Input::Heard`].
    Steward {
        /// To be given back.
        session: u64,
        /// Where.
        conversation: ConversationId,
        /// What it says.
        message: Box<StewardMessage>,
    },
    /// Take in identity logs.
    Identities(Vec<Identity>),
    /// Take in server cards.
    Cards(Vec<Cards>),
    /// Answer about a user or a server with [`Input::Resolved`].
    Resolve {
        /// To be given back.
        session: u64,
        /// To be given back.
        id: u64,
        /// Who.
        query: Query,
    },
    /// Answer to an [`Input::Lookup`].
    Found(u64, Option<Answer>),
    /// The peer stored the own chain up to here.
    Acked(ConversationId, Progress),
    /// The peer refused an own commit for good.
    Refused(ConversationId, u64, Code),
    /// The peer breaks the protocol: close the link with this reason.
    Close(&'static str),
}
