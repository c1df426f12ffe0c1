//! What goes to the disk, what comes back from it, and what is said then.

use std::sync::Arc;

use super::{stewards::Asks, wake::Due, withheld::Looks};
use crate::{
    commit::RootRef,
    conversation::{Came, Expired, ProvenTwins, RoleChange, Taken, TakenRecord},
    event::Tip,
    history::Fork,
    ids::{CommitId, ConversationId, EventId, ServerId, UserId},
    link::{Offer, Range, Verdict},
    replication::{Committed, Judged, RecordsNeed, RecordsOf, Ticket},
    root::{Steward, StewardMessage},
    session::{Accepted, Code, NextRoot, Place, WireError},
};

/// Who waits for an answer: chosen by the driver, given back once.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ReplyTo(pub u64);

/// One opening of a conversation: what was given up is read back as another.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Opening(pub(super) u64);

/// What the driver does, in the order given.
#[derive(Debug)]
pub enum Output {
    /// Make it durable, in the order given, then call [`super::Shard::stored`], in that order too.
    /// Once one submission of an [`Opening`] failed, every later one of it has to fail.
    Store(Box<Submission>),
    /// Answer a sender.
    Accepted(ReplyTo, Result<Accepted, WireError>),
    /// Answer whoever made a conversation.
    Created(ReplyTo, Result<(), WireError>),
    /// Hand a verdict to the links.
    Judged(Ticket, Judged),
    /// Say something about the next root record of a conversation to a server.
    Say(ServerId, ConversationId, Box<StewardMessage>),
    /// What a peer said about it was taken in.
    Heard(RecordsOf, RecordsNeed),
    /// Answer the owner who asked for the next record.
    NextRoot(ReplyTo, Result<NextRoot, WireError>),
    /// Root records of a peer were judged.
    RecordsTaken(RecordsOf, RecordsNeed),
    /// Tell an author how far his event got.
    Delivery {
        /// Where.
        conversation: ConversationId,
        /// Whom.
        author: UserId,
        /// Which event.
        event: EventId,
        /// Peers that stored it.
        replicated: u32,
        /// Peers that are to.
        of: u32,
    },
    /// Ask a peer for commits that are held, for the sake of contents that came withheld and that
    /// this home may have. Lost if it cannot be asked now.
    Ask(ServerId, Range),
    /// For the operator: an item of a peer was refused.
    Refused(Option<ConversationId>, String),
    /// For the operator: something could not be made durable, and its conversation is read again
    /// from the store when it is needed.
    GivenUp(ConversationId, WireError),
}

/// Something to be made durable.
#[derive(Debug)]
pub struct Submission {
    /// The record. A conversation and expired contents change nothing that is due.
    pub what: What,
    /// What its conversation waits for from then on, in place of what was stored before; none: the
    /// same.
    pub due: Option<Due>,
    /// Local users to be told once it is durable: members as they are then, and those who just
    /// ceased to be. Sorted.
    pub users: Arc<Vec<UserId>>,
    /// What the links are told once it is durable.
    pub committed: Option<Committed>,
    /// To be given back with the result.
    pub done: Done,
}

/// What a record says.
#[derive(Debug)]
pub enum What {
    /// A conversation is known from here on.
    Conversation {
        /// What makes it known.
        offer: Offer,
        /// Members before any commit.
        members: Vec<RoleChange>,
    },
    /// A root record and what it changed.
    Record {
        /// These.
        taken: Box<TakenRecord>,
        /// The newest that stands.
        newest: RootRef,
        /// Another record on the same one before, if there is one.
        twins: Option<ProvenTwins>,
        /// Homes that take part no longer, and the end of the own chain that they are to have.
        ended: Vec<(ServerId, Option<u64>)>,
    },
    /// What this home promised and signed as a steward, in place of what it did before.
    Steward(Box<Steward>),
    /// Contents whose days are over.
    Expired(Vec<Expired>),
    /// Contents that came after their commits, one each for what was held as withheld. Meanwhile one
    /// may have been erased, or come otherwise.
    Contents(Vec<Came>),
    /// A commit and what it changed.
    Commit {
        /// These.
        taken: Box<Taken>,
        /// Ends of the chain of the commit's home. Sorted.
        tips: Vec<Tip>,
        /// What it proves, if its home has another on the same one before.
        fork: Option<Fork>,
        /// Homes that take part no longer, and the end of the own chain that they are to have.
        ended: Vec<(ServerId, Option<u64>)>,
    },
}

/// What is on its way to the disk.
#[derive(Clone, Debug)]
pub struct Done {
    pub(super) conversation: ConversationId,
    pub(super) opening: Opening,
    pub(super) work: Work,
    pub(super) looks: Looks,
}

/// What a [`Done`] is about, for drivers that look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Submitted {
    /// A conversation.
    Conversation,
    /// A commit.
    Commit(CommitId),
    /// A root record.
    Record(RootRef),
    /// What a steward promised or signed.
    Steward,
    /// Contents whose days are over.
    Expired,
    /// Contents that came after their commits.
    Contents,
}

impl Done {
    /// The conversation.
    #[must_use]
    pub const fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// The opening that submitted it.
    #[must_use]
    pub const fn opening(&self) -> Opening {
        self.opening
    }

    /// What it is.
    #[must_use]
    pub const fn submitted(&self) -> Submitted {
        match &self.work {
            Work::Conversation => Submitted::Conversation,
            Work::Commit { commit, .. } => Submitted::Commit(*commit),
            Work::Record(record) => Submitted::Record(*record),
            Work::Steward { .. } => Submitted::Steward,
            Work::Expired => Submitted::Expired,
            Work::Contents(_) => Submitted::Contents,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Work {
    /// A conversation that is new here.
    Conversation,
    /// A root record.
    Record(RootRef),
    /// A steward's answer, which leaves once it is durable.
    Steward {
        asks: Asks,
        answer: Box<StewardMessage>,
    },
    /// Contents whose days are over.
    Expired,
    /// Contents that came after their commits.
    Contents(Vec<EventId>),
    /// A commit.
    Commit {
        commit: CommitId,
        /// Its seq, if it is an own one.
        own: Option<u64>,
        /// Where its events are shown, their authors, and why they do not count.
        events: Vec<(EventId, Place, UserId, Option<&'static str>)>,
    },
}

/// Who waits for a verdict.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    ticket: Ticket,
    /// Was told that it waits.
    again: bool,
}

impl Waiter {
    pub(super) const fn first(ticket: Ticket) -> Self {
        let again = false;
        Self { ticket, again }
    }

    pub(super) const fn again(ticket: Ticket) -> Self {
        let again = true;
        Self { ticket, again }
    }

    pub(super) const fn answer(self, verdict: Verdict) -> Output {
        let mut judged = Judged::of(verdict);
        judged.again = self.again;
        Output::Judged(self.ticket, judged)
    }
}

/// The answer to whoever sent an event that this home committed, now and to every retry.
///
/// # Errors
///
/// It does not count, for the reason of this code.
pub fn first_answer(
    event: EventId,
    place: Place,
    void: Option<&str>,
) -> Result<Accepted, WireError> {
    match void {
        None => Ok(Accepted { event, place }),
        Some(code) => Err(WireError::new(
            Code::NotAllowed,
            format!("an act that came first took the right away ({code})"),
        )),
    }
}
