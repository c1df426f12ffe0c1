//! From what a shard concluded to its record, and to what sessions are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_protocol::{
    authority::{Cause, Span},
    commit::RootRef,
    conversation::{Came, Changes, RoleChange, Slot as Content, Taken, TakenRecord, Voided},
    document::MessageState,
    event::Tip,
    ids::{Blob, ConversationId, EventId, ServerId, UserId},
    role::Role,
    root::SignedRoot,
    session::{Change, ContentState, Item, Place},
    shard::{Due, What},
};
use comity_storage::Record;

use crate::{
    hub::Live,
    records::{
        CommitRecord, ContentEntry, ContentsRecord, ConversationRecord, EventEntry, ExpiredRecord,
        ForkRow, Marks, MemberChange, RootRecord, SUMMARY_FIELDS, Slot, StewardRecord, TwinsRow,
        kind, record,
    },
    rows::{LogKind, is_taken_away},
};

/// Homes that take part no longer, and the end of the own chain that they are still to have.
type Ended = Vec<(ServerId, Option<u64>)>;

/// What the sessions of local users are told once the record is durable.
pub(crate) struct Announcement {
    pub(crate) common: Arc<Vec<Live>>,
    pub(crate) own: BTreeMap<UserId, Vec<Live>>,
    /// What users are told who are no members any more, and nothing else.
    pub(crate) outside: BTreeMap<UserId, Vec<Live>>,
    pub(crate) users: Arc<Vec<UserId>>,
}

/// What is made durable, and what sessions are told then.
pub(crate) fn record_of(
    me: &ServerId,
    conversation: ConversationId,
    (what, due): (What, Option<Due>),
    users: Arc<Vec<UserId>>,
) -> (Record, Announcement) {
    let (record, mut told) = record_with(me, conversation, what, due, users);
    // His device acts on it: it learns of it at once, and at each start while it stays.
    if let Some(owner) = due.and_then(|due| due.stewards) {
        let summary = Live::Summary(conversation);
        told.own.entry(owner).or_default().push(summary);
    }
    (record, told)
}

fn record_with(
    me: &ServerId,
    conversation: ConversationId,
    what: What,
    due: Option<Due>,
    users: Arc<Vec<UserId>>,
) -> (Record, Announcement) {
    match what {
        What::Conversation { offer, members } => {
            let body = ConversationRecord {
                conversation,
                offer,
                at: super::now(),
                members: members.iter().map(member).collect(),
            };
            let told = Announcement {
                common: Arc::new(vec![Live::Summary(conversation)]),
                own: BTreeMap::new(),
                outside: BTreeMap::new(),
                users,
            };
            (record(kind::CONVERSATION, &body, Vec::new()), told)
        }
        What::Steward(steward) => {
            let body = StewardRecord {
                conversation,
                steward: *steward,
                due,
            };
            let told = Announcement {
                common: Arc::default(),
                own: BTreeMap::new(),
                outside: BTreeMap::new(),
                users,
            };
            (record(kind::STEWARD, &body, Vec::new()), told)
        }
        What::Record {
            taken,
            newest,
            twins,
            ended,
        } => {
            let twins = twins.map(|proof| TwinsRow {
                n: proof.twins.n,
                stands: proof.twins.stands,
                loses: proof.twins.loses,
                signed_both: proof.signed_both,
            });
            if let Some(twins) = &twins {
                tracing::error!(
                    %conversation,
                    n = twins.n,
                    stands = %twins.stands,
                    loses = %twins.loses,
                    signed_both = ?twins.signed_both,
                    "two root records follow one: a steward lied or lost its log"
                );
            }
            let body = root_record(conversation, me, &users, &taken, (newest, twins, ended));
            let body = RootRecord { due, ..body };
            let record = record(kind::ROOT, &body, Vec::new());
            let told = announced(conversation, me, &taken.changes, users, Vec::new());
            (record, told)
        }
        What::Expired(expired) => {
            let events: Vec<_> = expired.iter().map(|e| (e.event, e.line)).collect();
            let lines: BTreeSet<EventId> = expired.iter().map(|e| e.line).collect();
            let line = |line| Live::Line(conversation, LogKind::Changed, line, None);
            let body = ExpiredRecord {
                conversation,
                events,
                at: super::now(),
            };
            let told = Announcement {
                common: Arc::new(lines.into_iter().map(line).collect()),
                own: BTreeMap::new(),
                outside: BTreeMap::new(),
                users,
            };
            (record(kind::EXPIRED, &body, Vec::new()), told)
        }
        What::Contents(came) => {
            let lines: BTreeSet<EventId> = came.iter().map(|came| came.line).collect();
            let line = |line| Live::Line(conversation, LogKind::Changed, line, None);
            let told = Announcement {
                common: Arc::new(lines.into_iter().map(line).collect()),
                own: BTreeMap::new(),
                outside: BTreeMap::new(),
                users,
            };
            (contents_record(conversation, came), told)
        }
        What::Commit {
            taken,
            tips,
            fork,
            ended,
        } => {
            let fork = fork.map(|fork| ForkRow {
                home: fork.home,
                stands: fork.stands,
                loses: fork.loses,
            });
            if let Some(fork) = &fork {
                tracing::error!(
                    %conversation,
                    home = %fork.home,
                    stands = %fork.stands,
                    loses = %fork.loses,
                    "two commits of a home follow one: it lied or went on from an old copy of its log"
                );
            }
            let (body, contents) = to_record(conversation, me, &users, &taken, (tips, ended));
            let body = CommitRecord { fork, due, ..body };
            let record = record(kind::COMMIT, &body, contents);
            (record, announcement(conversation, me, &taken, users))
        }
    }
}

/// The record of contents that came after their commits.
fn contents_record(conversation: ConversationId, came: Vec<Came>) -> Record {
    let mut contents = Vec::new();
    let entry = |came: Came| ContentEntry {
        event: came.event,
        line: came.line,
        slot: slot_of(&came.slot, &mut contents),
    };
    let body = ContentsRecord {
        conversation,
        events: came.into_iter().map(entry).collect(),
        at: super::now(),
    };
    record(kind::CONTENTS, &body, contents)
}

/// The slot of a content, whose bytes go among those of the record.
fn slot_of(slot: &Content, contents: &mut Vec<Vec<u8>>) -> Slot {
    match slot {
        Content::None => Slot::None,
        Content::Gone => Slot::Gone,
        Content::Expired => Slot::Expired,
        Content::Withheld => Slot::Withheld,
        Content::Held(content) => {
            contents.push(content.bytes().to_vec());
            Slot::Held(u16::try_from(contents.len() - 1).unwrap_or(u16::MAX))
        }
    }
}

/// Events that turned void of users at home here who are no members any more. Who just ceased to be
/// one is told with the members.
fn void_outside<'a>(
    me: &ServerId,
    voided: &'a [Voided],
    users: &[UserId],
) -> impl Iterator<Item = (UserId, &'a Voided)> {
    voided.iter().filter_map(move |voided| {
        let (author, home) = voided.outside?;
        let is_told = home != *me || users.binary_search(&author).is_ok();
        (!is_told).then_some((author, voided))
    })
}

/// When users at home here were members.
fn sights(me: &ServerId, changes: &Changes) -> Vec<(UserId, Vec<Span>)> {
    let local = changes.sights.iter().filter(|sight| sight.home == *me);
    local.map(|s| (s.user, s.spans.clone())).collect()
}

fn member(role: &RoleChange) -> MemberChange {
    MemberChange {
        user: role.user,
        role: role.role,
        home: role.home,
        by: None,
    }
}

fn members(changes: &Changes) -> Vec<MemberChange> {
    let member = |role: &RoleChange| MemberChange {
        by: ended_by(changes, &role.user),
        ..member(role)
    };
    changes.roles.iter().map(member).collect()
}

fn ended_by(changes: &Changes, user: &UserId) -> Option<Cause> {
    let ended = &mut changes.ended_by.iter();
    ended.find(|(of, _)| of == user).map(|(_, by)| *by)
}

fn place(taken: &Taken, index: u16) -> Place {
    Place {
        hlc: taken.commit.commit().hlc,
        commit: taken.commit.id(),
        index,
    }
}

fn marks(touched: &[(EventId, MessageState)]) -> Vec<(EventId, Marks)> {
    let marks = touched.iter().map(|(target, state)| {
        let mut lost: Vec<_> = state.lost.iter().map(|edit| edit.event).collect();
        lost.sort_unstable();
        let marks = Marks {
            edit: state.edit.map(|edit| edit.event),
            deleted: state.deleted_by,
            reactions: state.reactions.clone(),
            older: state.older.clone(),
            lost,
        };
        (*target, marks)
    });
    marks.collect()
}

fn voided(voided: &[Voided]) -> Vec<(EventId, String)> {
    let owned = voided.iter().map(|v| (v.event, v.reason.to_owned()));
    owned.collect()
}

fn void_by(voided: &[Voided]) -> Vec<(EventId, Cause)> {
    let named = voided.iter().filter_map(|v| Some((v.event, v.by?)));
    named.collect()
}

/// The record of a root record, but for what is due from then on.
fn root_record(
    conversation: ConversationId,
    me: &ServerId,
    users: &[UserId],
    taken: &TakenRecord,
    (newest, twins, ended): (RootRef, Option<TwinsRow>, Ended),
) -> RootRecord {
    let changes = &taken.changes;
    // It was verified: it can be read.
    let root = SignedRoot::decode(&taken.raw).ok();
    let before = root.as_ref().filter(|root| root.n > 1);
    RootRecord {
        conversation,
        root: taken.raw.clone(),
        id: taken.record.id,
        before: before.and_then(|root| root.prev),
        frontier: root
            .iter()
            .flat_map(|root| &root.frontier)
            .map(|tip| tip.id)
            .collect(),
        newest,
        twins,
        at: super::now(),
        marks: marks(&changes.touched),
        void: voided(&changes.voided),
        void_by: void_by(&changes.voided),
        void_outside: void_outside(me, &changes.voided, users)
            .map(|(author, voided)| (author, voided.event))
            .collect(),
        stand: changes.stands_again.clone(),
        moved: changes.moved.clone(),
        folded: changes.folded.clone(),
        erase: changes.erase.clone(),
        members: members(changes),
        sights: sights(me, changes),
        history: changes.history.clone(),
        state: changes.state.clone(),
        ended,
        due: None,
    }
}

/// The record of a commit and its contents, but for what it proves and what is due from then on.
fn to_record(
    conversation: ConversationId,
    me: &ServerId,
    users: &[UserId],
    taken: &Taken,
    (tips, ended): (Vec<Tip>, Ended),
) -> (CommitRecord, Vec<Vec<u8>>) {
    let mut contents = Vec::new();
    let mut entry = |event: &comity_protocol::conversation::TakenEvent| EventEntry {
        raw: event.event.to_raw(),
        slot: slot_of(&event.slot, &mut contents),
        shown: event.shown,
        void: event.void.map(str::to_owned),
        void_by: event.void_by,
        folded: event.folded,
    };
    let events = taken.events.iter().map(&mut entry).collect();
    let changes = &taken.changes;
    let body = CommitRecord {
        conversation,
        commit: taken.commit.to_raw(),
        events,
        late: taken.late,
        at: super::now(),
        marks: marks(&changes.touched),
        void: voided(&changes.voided),
        void_by: void_by(&changes.voided),
        void_outside: void_outside(me, &changes.voided, users)
            .map(|(author, voided)| (author, voided.event))
            .collect(),
        stand: changes.stands_again.clone(),
        moved: changes.moved.clone(),
        folded: changes.folded.clone(),
        erase: changes.erase.clone(),
        members: members(changes),
        sights: sights(me, changes),
        history: changes.history.clone(),
        tips,
        state: changes.state.clone(),
        ended,
        fork: None,
        due: None,
    };
    (body, contents)
}

/// What sessions are told.
fn announcement(
    conversation: ConversationId,
    me: &ServerId,
    taken: &Taken,
    users: Arc<Vec<UserId>>,
) -> Announcement {
    let origin = taken.commit.commit().origin;
    let mut common = Vec::new();
    for (index, event) in (0u16..).zip(&taken.events) {
        if !event.shown || event.void.is_some() {
            continue;
        }
        let content = match &event.slot {
            Content::None => ContentState::None,
            Content::Held(content) => ContentState::Held(Blob(content.bytes().to_vec())),
            Content::Gone => ContentState::Gone,
            Content::Expired => ContentState::Expired,
            Content::Withheld => ContentState::Missing,
        };
        let item = Item {
            place: place(taken, index),
            origin,
            event: event.event.to_raw(),
            content,
            edited: None,
            lost: Vec::new(),
            deleted: None,
            reactions: Vec::new(),
            late: taken.late,
            folded: event.folded,
        };
        common.push(Live::Ready(Change::Appeared {
            conversation,
            item: Box::new(item),
        }));
    }
    let mut told = announced(conversation, me, &taken.changes, users, common);
    for event in &taken.events {
        let (Some(reason), Some(by)) = (event.void, event.void_by) else {
            continue;
        };
        if is_taken_away(reason) && by.author != event.event.event().author {
            let change = Change::Vanished {
                conversation,
                event: event.event.id(),
                reason: reason.to_owned(),
                by: Some(by),
            };
            told.own
                .entry(by.author)
                .or_default()
                .push(Live::Ready(change));
        }
    }
    told
}

/// What changed of what was there before is told behind what is new.
fn announced(
    conversation: ConversationId,
    me: &ServerId,
    changes: &Changes,
    users: Arc<Vec<UserId>>,
    mut common: Vec<Live>,
) -> Announcement {
    let refolded = changes.folded.iter().map(|(event, _)| event);
    let again = |event: &&EventId| {
        let is_moved = changes.moved.iter().any(|(moved, _)| moved == *event);
        let is_touched = changes.touched.iter().any(|(target, _)| target == *event);
        !changes.stands_again.contains(event) && !is_moved && !is_touched
    };
    for event in refolded.filter(again) {
        common.push(Live::Line(conversation, LogKind::Changed, *event, None));
    }
    // What stands again appears as it reads now.
    let stays = |(target, _): &&(EventId, MessageState)| !changes.stands_again.contains(target);
    for (target, _) in changes.touched.iter().filter(stays) {
        common.push(Live::Line(conversation, LogKind::Changed, *target, None));
    }
    for voided in &changes.voided {
        common.push(Live::Ready(Change::Vanished {
            conversation,
            event: voided.event,
            reason: voided.reason.to_owned(),
            by: voided.by,
        }));
    }
    let moved = changes.moved.iter().map(|(event, _)| event);
    let moved = moved.filter(|event| !changes.stands_again.contains(event));
    let again = changes.stands_again.iter().map(|e| (LogKind::Stands, e));
    for (kind, event) in again.chain(moved.map(|e| (LogKind::Appeared, e))) {
        common.push(Live::Line(conversation, kind, *event, None));
    }
    let mut fields = changes.state.iter();
    if fields.any(|(field, _)| SUMMARY_FIELDS.contains(&field.as_str())) {
        common.push(Live::Summary(conversation));
    }
    Announcement {
        common: Arc::new(common),
        own: roles_told(conversation, me, changes),
        outside: outside_told(conversation, me, &changes.voided, &users),
        users,
    }
}

/// What authors are told who are no members any more: that it counts no more and why, and not by whom.
fn outside_told(
    conversation: ConversationId,
    me: &ServerId,
    voided: &[Voided],
    users: &[UserId],
) -> BTreeMap<UserId, Vec<Live>> {
    let mut told: BTreeMap<UserId, Vec<Live>> = BTreeMap::new();
    for (author, voided) in void_outside(me, voided, users) {
        let change = Change::Vanished {
            conversation,
            event: voided.event,
            reason: voided.reason.to_owned(),
            by: None,
        };
        told.entry(author).or_default().push(Live::Ready(change));
    }
    told
}

fn roles_told(
    conversation: ConversationId,
    me: &ServerId,
    changes: &Changes,
) -> BTreeMap<UserId, Vec<Live>> {
    let mut own: BTreeMap<UserId, Vec<Live>> = BTreeMap::new();
    for change in changes.roles.iter().filter(|change| change.home == *me) {
        own.entry(change.user)
            .or_default()
            .push(if change.role == Role::None {
                let by = ended_by(changes, &change.user);
                Live::Ready(Change::Left { conversation, by })
            } else {
                Live::Summary(conversation)
            });
    }
    own
}
