//! Rows as a function of the log. Nothing here decides anything: what an event means was written
//! into its record.

use std::collections::BTreeMap;

use comity_protocol::{
    authority::{Cause, Span, Switch},
    commit::UnverifiedCommit,
    event::{Act, Field, SignedEvent, Tip},
    ids::{CommitId, ConversationId, EventId, ServerId, UserId},
    role::Role,
    session::Place,
    shard::Due,
};
use comity_storage::{Projection, RecordView, Tx};

use crate::{
    records::{
        self, AccountRecord, CommitRecord, ConversationRecord, EventEntry, IdentityRecord, Marks,
        MemberChange, OutboxRecord, RootRecord, SUMMARY_FIELDS, ServerRecord, Slot, StewardRecord,
        TokenRecord, UnreachedRecord, UnreadableRecord, kind,
    },
    rows::{ConversationRow, EventRow, LineRow, LogKind, MemberRow, UserRow, key, parse, value},
};

mod contents;
mod log;

use contents::{contents, erase, expired, list_withheld, merged, set_slot};
use log::ChangeLog;

/// The projection of a home server.
#[derive(Debug)]
pub(crate) struct HomeProjection {
    /// Users bound to this home have rows of their own.
    pub(crate) me: ServerId,
}

impl Projection for HomeProjection {
    const FORMAT: u32 = 10;

    fn apply(&mut self, number: u64, record: RecordView<'_>, tx: &mut Tx<'_>) {
        let applied = match record.kind {
            kind::CONVERSATION => self.conversation(number, record.body, tx),
            kind::COMMIT => self.commit(number, record.body, tx),
            kind::ROOT => self.root(number, record.body, tx),
            kind::EXPIRED => records::read(number, record.body).map(|e| expired(number, &e, tx)),
            kind::CONTENTS => records::read(number, record.body).map(|c| contents(number, &c, tx)),
            kind::SERVER => records::read(number, record.body).map(|of: ServerRecord| {
                tx.put(&key::server(&of.server), &value(&of));
            }),
            kind::IDENTITY => records::read(number, record.body).map(|identity: IdentityRecord| {
                tx.put(&key::identity(&identity.user), &value(&identity.entries));
            }),
            kind::ACCOUNT => records::read(number, record.body).map(|a| account(&a, tx)),
            kind::TOKEN => records::read(number, record.body).map(|token: TokenRecord| {
                tx.put(&key::token(&token.hash.0), &value(&token));
            }),
            kind::OUTBOX => records::read(number, record.body).map(|outbox: OutboxRecord| {
                for (conversation, seq) in &outbox.acked {
                    tx.put(&key::outbox(&outbox.peer, conversation), &value(seq));
                }
            }),
            kind::STEWARD => records::read(number, record.body).map(|of: StewardRecord| {
                tx.put(&key::steward(&of.conversation), &value(&of.steward));
                due(&of.conversation, of.due, tx);
            }),
            kind::UNREACHED => records::read(number, record.body).map(|of: UnreachedRecord| {
                tx.put(&key::unreached(&of.peer), &value(&of.ms));
            }),
            other => {
                tracing::error!(
                    number,
                    kind = other,
                    "a record of an unknown kind was left out"
                );
                Ok(())
            }
        };
        if let Err(error) = applied {
            tracing::error!(%error, "a record was left out of the index");
        }
    }
}

/// What a conversation waits for, if a record changed that.
fn due(conversation: &ConversationId, due: Option<Due>, tx: &mut Tx<'_>) {
    match due {
        None => {}
        Some(due) if due == Due::default() => tx.delete(&key::due(conversation)),
        Some(due) => tx.put(&key::due(conversation), &value(&due)),
    }
}

fn account(account: &AccountRecord, tx: &mut Tx<'_>) {
    let before: Option<String> = tx
        .get(&key::account_of(&account.user))
        .and_then(|bytes| parse(&bytes));
    if let Some(before) = before.filter(|handle| *handle != account.handle) {
        tx.delete(&key::account(&before));
    }
    tx.put(&key::account(&account.handle), &value(account));
    tx.put(&key::account_of(&account.user), &value(&account.handle));
}

impl HomeProjection {
    fn conversation(
        &self,
        number: u64,
        body: &[u8],
        tx: &mut Tx<'_>,
    ) -> Result<(), UnreadableRecord> {
        let record: ConversationRecord = records::read(number, body)?;
        let row = ConversationRow {
            offer: record.offer,
            record: number,
            at: record.at,
            members: 0,
            state: Vec::new(),
        };
        tx.put(&key::conversation(&record.conversation), &value(&row));
        self.members(number, &record.conversation, &record.members, tx);
        // Whoever is there from the start sees all of it.
        for member in record.members.iter().filter(|m| m.home == self.me) {
            let of = key::sight(&record.conversation, &member.user);
            tx.put(&of, &value(&[Span::ALL]));
        }
        Ok(())
    }

    fn members(
        &self,
        number: u64,
        conversation: &ConversationId,
        changes: &[MemberChange],
        tx: &mut Tx<'_>,
    ) {
        if changes.is_empty() {
            return;
        }
        let mut count = 0i64;
        for change in changes {
            let member = key::member(conversation, &change.user);
            let before: Option<MemberRow> = tx.get(&member).and_then(|bytes| parse(&bytes));
            let name = before.and_then(|row| row.name);
            match (before.is_some(), change.role != Role::None) {
                (false, true) => count += 1,
                (true, false) => count -= 1,
                _ => {}
            }
            if change.role == Role::None {
                tx.delete(&member);
            } else {
                let row = MemberRow {
                    role: change.role,
                    home: change.home,
                    name,
                };
                tx.put(&member, &value(&row));
                tx.delete(&key::ended(conversation, &change.home));
            }
            if change.home == self.me {
                let user = key::user_conversation(&change.user, conversation);
                let before: Option<UserRow> = tx.get(&user).and_then(|bytes| parse(&bytes));
                let went_on = before.filter(|row| row.role != Role::None);
                let joined = went_on.map_or(number, |row| row.joined);
                tx.put(
                    &user,
                    &value(&UserRow {
                        role: change.role,
                        since: number,
                        joined,
                        by: change.by,
                    }),
                );
            }
        }
        let of = key::conversation(conversation);
        if let Some(mut row) = tx
            .get(&of)
            .and_then(|bytes| parse::<ConversationRow>(&bytes))
        {
            row.members = row.members.saturating_add_signed(count);
            tx.put(&of, &value(&row));
        }
    }

    /// A commit counts as held, and its chain as ending in it, only if what it builds on is held.
    /// Where damage took that, its lines are shown all the same, but peers are asked for the chain
    /// again from where it is whole.
    fn held(
        &self,
        number: u64,
        conversation: &ConversationId,
        commit: &UnverifiedCommit,
        tips: &[Tip],
        tx: &mut Tx<'_>,
    ) {
        let header = commit.commit();
        let named = header.authority.iter().flat_map(|change| &change.tips);
        let mut past = header.prev.iter().chain(named.map(|tip| &tip.id));
        let root = header.authority.as_ref().and_then(|change| change.root);
        let root = root.filter(|root| root.n > 0);
        let root = root.is_none_or(|root| tx.get(&key::root(conversation, &root.id)).is_some());
        let whole = root && past.all(|id| tx.get(&key::commit(conversation, id)).is_some());
        let own_end = key::own_end(conversation);
        let end: Option<u64> = tx.get(&own_end).and_then(|bytes| parse(&bytes));
        if whole {
            tx.put(&key::commit(conversation, &commit.id()), &value(&number));
            tx.put(&key::tips(conversation, &header.origin), &value(&tips));
            if header.origin == self.me && end.is_some_and(|end| end <= header.seq) {
                tx.delete(&own_end);
            }
        } else {
            tracing::error!(
                number,
                %conversation,
                "what a commit builds on is damaged: it is asked of peers again"
            );
            if header.origin == self.me {
                tx.put(&own_end, &value(&end.max(Some(header.seq))));
            }
        }
    }

    /// A root record counts as held, like a commit, only if what it builds on is.
    fn root(&self, number: u64, body: &[u8], tx: &mut Tx<'_>) -> Result<(), UnreadableRecord> {
        let record: RootRecord = records::read(number, body)?;
        let conversation = record.conversation;
        let held = |id: &CommitId, tx: &mut Tx<'_>| tx.get(&key::commit(&conversation, id));
        let before = record
            .before
            .is_none_or(|id| tx.get(&key::root(&conversation, &id)).is_some());
        if before && record.frontier.iter().all(|id| held(id, tx).is_some()) {
            tx.put(&key::root(&conversation, &record.id), &value(&number));
            tx.put(&key::newest_root(&conversation), &value(&record.newest));
        } else {
            tracing::error!(
                number,
                %conversation,
                "what a root record builds on is damaged: it is asked of peers again"
            );
        }
        if let Some(twins) = &record.twins {
            tx.put(&key::twins_of(&conversation, twins.n), &value(twins));
        }
        due(&conversation, record.due, tx);
        let log = ChangeLog {
            conversation,
            number,
            next: 0,
        };
        let changed = Changed {
            marks: &record.marks,
            void: &record.void,
            void_by: &record.void_by,
            void_outside: &record.void_outside,
            stand: &record.stand,
            moved: &record.moved,
            folded: &record.folded,
            erase: &record.erase,
            members: &record.members,
            sights: &record.sights,
            history: record.history.as_deref(),
            ended: &record.ended,
            state: &record.state,
        };
        self.changed(log, &changed, tx);
        Ok(())
    }

    fn commit(&self, number: u64, body: &[u8], tx: &mut Tx<'_>) -> Result<(), UnreadableRecord> {
        let record: CommitRecord = records::read(number, body)?;
        let conversation = record.conversation;
        let Ok(commit) = UnverifiedCommit::decode(record.commit.clone()) else {
            tracing::error!(
                number,
                "a commit that cannot be read was left out of the index"
            );
            return Ok(());
        };
        self.held(number, &conversation, &commit, &record.tips, tx);
        if let Some(fork) = &record.fork {
            tx.put(&key::fork(&conversation, &fork.home), &value(fork));
        }
        due(&conversation, record.due, tx);
        let mut log = ChangeLog {
            conversation,
            number,
            next: 0,
        };
        for (index, entry) in (0u16..).zip(&record.events) {
            let place = Place {
                hlc: commit.commit().hlc,
                commit: commit.id(),
                index,
            };
            event(&mut log, place, entry, record.late, tx);
        }
        let changed = Changed {
            marks: &record.marks,
            void: &record.void,
            void_by: &record.void_by,
            void_outside: &record.void_outside,
            stand: &record.stand,
            moved: &record.moved,
            folded: &record.folded,
            erase: &record.erase,
            members: &record.members,
            sights: &record.sights,
            history: record.history.as_deref(),
            ended: &record.ended,
            state: &record.state,
        };
        self.changed(log, &changed, tx);
        Ok(())
    }
}

/// What a commit or root record changed of what was there before, as its record has it.
struct Changed<'a> {
    marks: &'a [(EventId, Marks)],
    void: &'a [(EventId, String)],
    void_by: &'a [(EventId, Cause)],
    void_outside: &'a [(UserId, EventId)],
    stand: &'a [EventId],
    moved: &'a [(EventId, Place)],
    folded: &'a [(EventId, bool)],
    erase: &'a [EventId],
    members: &'a [MemberChange],
    sights: &'a [(UserId, Vec<Span>)],
    history: Option<&'a [Switch]>,
    ended: &'a [(ServerId, Option<u64>)],
    state: &'a [(String, Option<EventId>)],
}

impl HomeProjection {
    fn changed(&self, mut log: ChangeLog, changed: &Changed<'_>, tx: &mut Tx<'_>) {
        let (number, conversation) = (log.number, log.conversation);
        // Before what appears again, which takes it with it.
        for (event, folded) in changed.folded {
            log.fold(event, *folded, tx);
        }
        for (target, marks) in changed.marks {
            log.mark(target, Some(marks), tx);
        }
        // One act may take away what somebody did in years.
        let by: BTreeMap<_, _> = changed.void_by.iter().map(|(of, by)| (of, *by)).collect();
        for (event, reason) in changed.void {
            log.void(event, reason, by.get(event).copied(), tx);
        }
        // Beyond it, as if it had not come: nobody said that much in one conversation and left.
        for (index, (user, event)) in (0..u16::MAX).zip(changed.void_outside) {
            tx.put(&key::outside(user, number, index), &value(event));
        }
        // What a record says of an event that stands again: its line was not there to be marked.
        let marks: BTreeMap<_, _> = changed
            .marks
            .iter()
            .rev()
            .map(|(of, marks)| (of, marks))
            .collect();
        for event in changed.stand {
            let marks = marks.get(event).map(|marks| (*marks).clone());
            log.stand(event, marks.unwrap_or_default(), tx);
        }
        for (event, place) in changed.moved {
            log.shift(event, *place, tx);
        }
        for event in changed.erase {
            erase(event, Slot::Gone, tx);
        }
        self.members(number, &conversation, changed.members, tx);
        for (user, spans) in changed.sights {
            tx.put(&key::sight(&conversation, user), &value(spans));
        }
        if let Some(switches) = changed.history {
            tx.put(&key::switches(&conversation), &value(&switches));
        }
        for (home, until) in changed.ended {
            tx.put(&key::ended(&conversation, home), &value(until));
        }
        state(&conversation, changed.state, tx);
    }
}

fn event_row(id: &EventId, tx: &mut Tx<'_>) -> Option<EventRow> {
    parse(&tx.get(&key::event(id))?)
}

fn event(log: &mut ChangeLog, place: Place, entry: &EventEntry, late: bool, tx: &mut Tx<'_>) {
    let Ok(signed) = SignedEvent::from_trusted(entry.raw.clone()) else {
        return tracing::error!(
            number = log.number,
            "an event that cannot be read was left out"
        );
    };
    let id = signed.id();
    // An event counts once, at its first place; a later appearance is void and leaves no row.
    let before = event_row(&id, tx);
    let before_logged = before.as_ref().and_then(|row| row.logged);
    let mut slot = entry.slot;
    if let Some(row) = &before {
        if row.record == log.number {
            // Applied before the last savepoint was lost.
            return;
        }
        let replaces = row.void.is_some() && entry.void.is_none();
        slot = merged(&id, row, (log.number, slot), replaces, tx);
        if !replaces {
            if slot != row.slot {
                let mut row = row.clone();
                set_slot(&id, &mut row, slot, tx);
            }
            return;
        }
        log.unlist(row, tx);
    }
    let mut row = EventRow {
        conversation: log.conversation,
        place,
        record: log.number,
        at: place.index,
        slot,
        shown: entry.shown,
        void: entry.void.clone(),
        folded: entry.folded,
        void_by: entry.void_by,
        logged: before_logged,
        withheld: before.and_then(|row| row.withheld),
    };
    list_withheld(&mut row, place, tx);
    let by = entry.void_by.map(|by| by.author);
    if by != Some(signed.event().author) && log.list(&id, &row, tx) {
        log.without_line(LogKind::Voided, &id, &mut row, tx);
    }
    if let Act::Policy {
        field: Field::KeepDays,
        ..
    } = signed.event().act
    {
        tx.put(&key::keeping(&log.conversation), &[]);
    }
    tx.put(&key::event(&id), &value(&row));
    tx.put(
        &key::nonce(&signed.event().device, &signed.event().nonce),
        &value(&id),
    );
    if entry.shown && entry.void.is_none() {
        let line = LineRow {
            event: id,
            record: log.number,
            at: place.index,
            slot,
            late,
            folded: entry.folded,
            marks: Marks::default(),
            logged: before_logged.unwrap_or_default(),
        };
        log.write(LogKind::Appeared, place, line, tx);
    }
}

fn state(conversation: &ConversationId, fields: &[(String, Option<EventId>)], tx: &mut Tx<'_>) {
    if fields.is_empty() {
        return;
    }
    let of = key::conversation(conversation);
    let Some(mut row) = tx
        .get(&of)
        .and_then(|bytes| parse::<ConversationRow>(&bytes))
    else {
        return;
    };
    for (field, event) in fields {
        if let Some(user) = field.strip_prefix("name|") {
            let Ok(user) = user.parse() else { continue };
            let member = key::member(conversation, &user);
            if let Some(mut row) = tx.get(&member).and_then(|bytes| parse::<MemberRow>(&bytes)) {
                row.name = *event;
                tx.put(&member, &value(&row));
            }
            continue;
        }
        let of_field = key::state_field(conversation, field);
        match event {
            Some(event) => tx.put(&of_field, &value(event)),
            None => tx.delete(&of_field),
        }
        if SUMMARY_FIELDS.contains(&field.as_str()) {
            row.state.retain(|(name, _)| name != field);
            row.state.extend(event.map(|event| (field.clone(), event)));
        }
    }
    tx.put(&of, &value(&row));
}

#[cfg(test)]
mod tests;
