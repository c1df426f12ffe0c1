//! Records: what was concluded, as it is on the disk.

use comity_protocol::{
    commit::{RawCommit, RootRef},
    conversation::{Came, Changes, RoleChange, Slot, Taken},
    event::{Act, Field, RawEvent, SealedContent, Tip},
    ids::{Blob, CommitId, ConversationId, EventId, ServerId, UserId},
    link::Offer,
    root::{RawRoot, Steward},
    shard::What,
    time::Timestamp,
};

/// Where an event's content is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kept {
    None,
    Held(usize),
    /// A content of a later record.
    Later(usize, usize),
    Gone,
    /// Its days are over.
    Expired,
    Withheld,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: EventId,
    pub(crate) raw: RawEvent,
    pub(crate) kept: Kept,
    /// It is a policy of for how long contents are kept.
    pub(super) keeps: bool,
    pub(super) shown: bool,
    pub(super) void: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct CommitRecord {
    pub(crate) conversation: ConversationId,
    pub(crate) id: CommitId,
    pub(crate) commit: RawCommit,
    pub(crate) events: Vec<Entry>,
    /// When it was taken, by the wall clock.
    pub(crate) at: Timestamp,
    pub(super) tips: Vec<Tip>,
    pub(super) ended: Vec<(ServerId, Option<u64>)>,
    pub(super) changes: Changes,
}

/// A root record and what it changed.
#[derive(Clone, Debug)]
pub(crate) struct RootRecord {
    pub(super) conversation: ConversationId,
    pub(crate) raw: RawRoot,
    pub(super) newest: RootRef,
    pub(super) ended: Vec<(ServerId, Option<u64>)>,
    pub(super) changes: Changes,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Conversation {
        conversation: ConversationId,
        offer: Offer,
        members: Vec<RoleChange>,
    },
    Commit(Box<CommitRecord>),
    Root(Box<RootRecord>),
    Steward(ConversationId, Box<Steward>),
    Unreached(ServerId, u64),
    Expired(ConversationId, Vec<EventId>, Timestamp),
    /// Contents that came after their commits, in the order of the record's contents.
    Contents(Vec<(EventId, Kept)>),
    Identity(UserId, Vec<Blob>),
    Outbox(ServerId, Vec<(ConversationId, u64)>),
}

/// One record of a log.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) body: Body,
    /// Overwritten when erased.
    pub(crate) contents: Vec<Option<Vec<u8>>>,
}

impl Record {
    pub(crate) const fn plain(body: Body) -> Self {
        let contents = Vec::new();
        Self { body, contents }
    }

    /// The record of what a shard concluded.
    pub(crate) fn of(conversation: ConversationId, what: What, at: Timestamp) -> Self {
        match what {
            What::Conversation { offer, members } => Self::plain(Body::Conversation {
                conversation,
                offer,
                members,
            }),
            What::Steward(steward) => Self::plain(Body::Steward(conversation, steward)),
            What::Record {
                taken,
                newest,
                ended,
                ..
            } => Self::plain(Body::Root(Box::new(RootRecord {
                conversation,
                raw: taken.raw,
                newest,
                ended,
                changes: taken.changes,
            }))),
            What::Expired(expired) => {
                let events = expired.iter().map(|expired| expired.event).collect();
                Self::plain(Body::Expired(conversation, events, at))
            }
            What::Contents(came) => Self::of_contents(came),
            What::Commit {
                taken, tips, ended, ..
            } => Self::of_commit(conversation, *taken, tips, ended, at),
        }
    }

    fn of_contents(came: Vec<Came>) -> Self {
        let mut contents = Vec::new();
        let mut kept = |slot| match slot {
            Slot::Held(content) => {
                let content: SealedContent = content;
                contents.push(Some(content.bytes().to_vec()));
                Kept::Held(contents.len() - 1)
            }
            Slot::None | Slot::Withheld => Kept::Withheld,
            Slot::Gone => Kept::Gone,
            Slot::Expired => Kept::Expired,
        };
        let events = came.into_iter().map(|came| (came.event, kept(came.slot)));
        let body = Body::Contents(events.collect());
        Self { body, contents }
    }

    fn of_commit(
        conversation: ConversationId,
        taken: Taken,
        tips: Vec<Tip>,
        ended: Vec<(ServerId, Option<u64>)>,
        at: Timestamp,
    ) -> Self {
        let mut contents = Vec::new();
        let events = taken.events.iter().map(|event| Entry {
            id: event.event.id(),
            raw: event.event.to_raw(),
            kept: match &event.slot {
                Slot::None => Kept::None,
                Slot::Gone => Kept::Gone,
                Slot::Expired => Kept::Expired,
                Slot::Withheld => Kept::Withheld,
                Slot::Held(content) => {
                    contents.push(Some(content.bytes().to_vec()));
                    Kept::Held(contents.len() - 1)
                }
            },
            keeps: matches!(
                event.event.event().act,
                Act::Policy {
                    field: Field::KeepDays,
                    ..
                }
            ),
            shown: event.shown,
            void: event.void,
        });
        let record = CommitRecord {
            conversation,
            id: taken.commit.id(),
            commit: taken.commit.to_raw(),
            events: events.collect(),
            at,
            tips,
            ended,
            changes: taken.changes,
        };
        Self {
            body: Body::Commit(Box::new(record)),
            contents,
        }
    }
}
