//! Rows as a function of the log. Nothing here decides anything: what an event means was written
//! into its record.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use comity_protocol::{
    authority::{Cause, Span, Switch},
    commit::UnverifiedCommit,
    event::{Act, Field, SignedEvent, Tip},
    ids::{CommitId, ConversationId, EventId, ServerId, UserId},
    role::Role,
    session::Place,
};
use comity_storage::{ContentAt, Direction, Projection, RecordView, Tx};

use crate::{
    records::{
        self, AccountRecord, CommitRecord, ConversationRecord, EventEntry, ExpiredRecord,
        IdentityRecord, Marks, MemberChange, OutboxRecord, RootRecord, SUMMARY_FIELDS, Slot,
        StewardRecord, TokenRecord, UnreachedRecord, UnreadableRecord, kind,
    },
    rows::{
        ConversationRow, EventRow, LineRow, LogKind, LogRow, MemberRow, UserRow, key, parse, value,
    },
};

/// Copies of one event's content that an erasure looks for; each but the first came of damage, of a
/// fork or of somebody who committed another's event.
const COPIES_MAX: usize = 4_096;

/// The projection of a home server.
#[derive(Debug)]
pub(crate) struct HomeProjection {
    /// Users bound to this home have rows of their own.
    pub(crate) me: ServerId,
}

impl Projection for HomeProjection {
    const FORMAT: u32 = 8;

    fn apply(&mut self, number: u64, record: RecordView<'_>, tx: &mut Tx<'_>) {
        let applied = match record.kind {
            kind::CONVERSATION => self.conversation(number, record.body, tx),
            kind::COMMIT => self.commit(number, record.body, tx),
            kind::ROOT => self.root(number, record.body, tx),
            kind::EXPIRED => records::read(number, record.body).map(|e| expired(number, &e, tx)),
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
        let log = ChangeLog {
            conversation,
            number,
            next: 0,
        };
        let changed = Changed {
            marks: &record.marks,
            void: &record.void,
            void_by: &record.void_by,
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
        for event in changed.stand {
            log.stand(event, marks_of(changed.marks, event), tx);
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

/// What a record says of an event that stands again: its line was not there to be marked.
fn marks_of(marks: &[(EventId, Marks)], event: &EventId) -> Marks {
    let of = marks.iter().find(|(target, _)| target == event);
    of.map(|(_, marks)| marks.clone()).unwrap_or_default()
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
    if let Some(row) = before {
        if row.record == log.number {
            // Applied before the last savepoint was lost.
            return;
        }
        let replaces = row.void.is_some() && entry.void.is_none();
        match (row.slot, entry.slot) {
            // Both stay, the one for when damage takes the other; an erasure finds both.
            (Slot::Held(old), Slot::Held(new)) => {
                let (record, index) = if replaces {
                    (row.record, old)
                } else {
                    (log.number, new)
                };
                tx.put(&key::copy(&id, ContentAt { record, index }), &[]);
            }
            // Erased before this copy came.
            (erased @ (Slot::Gone | Slot::Expired), Slot::Held(index)) => {
                tx.erase(ContentAt {
                    record: log.number,
                    index,
                });
                slot = erased;
            }
            _ => {}
        }
        if !replaces {
            return;
        }
    }
    let row = EventRow {
        conversation: log.conversation,
        place,
        record: log.number,
        at: place.index,
        slot,
        shown: entry.shown,
        void: entry.void.clone(),
        folded: entry.folded,
        void_by: None,
        logged: before_logged,
    };
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
            logged: (0, 0),
        };
        log.write(LogKind::Appeared, place, line, tx);
    }
}

/// Contents went because their days are over: their lines read otherwise.
fn expired(number: u64, record: &ExpiredRecord, tx: &mut Tx<'_>) {
    let mut log = ChangeLog {
        conversation: record.conversation,
        number,
        next: 0,
    };
    let mut lines = BTreeSet::new();
    for (event, line) in &record.events {
        erase(event, Slot::Expired, tx);
        lines.insert(line);
    }
    for line in lines {
        log.mark(line, None, tx);
    }
}

fn erase(event: &EventId, now: Slot, tx: &mut Tx<'_>) {
    let Some(mut row) = event_row(event, tx) else {
        return;
    };
    if let Slot::Held(index) = row.slot {
        tx.erase(ContentAt {
            record: row.record,
            index,
        });
        let copies = key::copies(event);
        let end = [copies.as_slice(), &[0xff; ContentAt::BYTES + 1]].concat();
        let (low, high) = (Bound::Included(&*copies), Bound::Included(&*end));
        for (copy, _) in tx.scan(low, high, Direction::Forward, COPIES_MAX) {
            if let Some(at) = copy.get(copies.len()..).and_then(|at| at.try_into().ok()) {
                tx.erase(ContentAt::from_bytes(at));
            }
            tx.delete(&copy);
        }
        row.slot = now;
        tx.put(&key::event(event), &value(&row));
        let line = key::line(&row.conversation, &row.place);
        if let Some(mut shown) = tx.get(&line).and_then(|bytes| parse::<LineRow>(&bytes)) {
            shown.slot = now;
            tx.put(&line, &value(&shown));
        }
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

/// Appends to a conversation's change log, keeping the latest entry an event.
struct ChangeLog {
    conversation: ConversationId,
    number: u64,
    next: u16,
}

impl ChangeLog {
    fn write(&mut self, kind: LogKind, place: Place, mut line: LineRow, tx: &mut Tx<'_>) {
        self.append(kind, place, line.event, line.logged, tx);
        line.logged = (self.number, self.next - 1);
        tx.put(&key::line(&self.conversation, &place), &value(&line));
    }

    fn append(
        &mut self,
        kind: LogKind,
        place: Place,
        event: EventId,
        before: (u64, u16),
        tx: &mut Tx<'_>,
    ) {
        if before != (0, 0) {
            tx.delete(&key::log(&self.conversation, before.0, before.1));
        }
        let row = LogRow { kind, event, place };
        tx.put(
            &key::log(&self.conversation, self.number, self.next),
            &value(&row),
        );
        self.next = self.next.saturating_add(1);
    }

    fn line(&self, event: &EventId, tx: &mut Tx<'_>) -> Option<(Place, LineRow)> {
        let row = event_row(event, tx)?;
        let line = parse(&tx.get(&key::line(&self.conversation, &row.place))?)?;
        Some((row.place, line))
    }

    fn mark(&mut self, target: &EventId, marks: Option<&Marks>, tx: &mut Tx<'_>) {
        let Some((place, mut line)) = self.line(target, tx) else {
            return;
        };
        if let Some(marks) = marks {
            line.marks = marks.clone();
        }
        self.write(LogKind::Changed, place, line, tx);
    }

    fn fold(&mut self, event: &EventId, folded: bool, tx: &mut Tx<'_>) {
        let row = event_row(event, tx).filter(|row| row.folded != folded);
        let Some(mut row) = row else {
            return;
        };
        row.folded = folded;
        tx.put(&key::event(event), &value(&row));
        if let Some((place, mut line)) = self.line(event, tx) {
            line.folded = folded;
            self.write(LogKind::Changed, place, line, tx);
        }
    }

    fn void(&mut self, event: &EventId, reason: &str, by: Option<Cause>, tx: &mut Tx<'_>) {
        let Some(mut row) = event_row(event, tx) else {
            return;
        };
        row.void = Some(reason.to_owned());
        row.void_by = by;
        if let Some((place, line)) = self.line(event, tx).filter(|_| row.shown) {
            self.append(LogKind::Vanished, place, *event, line.logged, tx);
            tx.delete(&key::line(&self.conversation, &place));
        } else if !row.shown {
            self.without_line(LogKind::Vanished, event, &mut row, tx);
        }
        tx.put(&key::event(event), &value(&row));
    }

    /// An entry of an event that has no line to keep the key of the entry before.
    fn without_line(
        &mut self,
        kind: LogKind,
        event: &EventId,
        row: &mut EventRow,
        tx: &mut Tx<'_>,
    ) {
        let before = row.logged.unwrap_or_default();
        self.append(kind, row.place, *event, before, tx);
        row.logged = Some((self.number, self.next - 1));
    }

    /// The event is shown elsewhere. Its bytes stay where they are.
    fn shift(&mut self, event: &EventId, place: Place, tx: &mut Tx<'_>) {
        let Some(mut row) = event_row(event, tx) else {
            return;
        };
        let line = self.line(event, tx);
        row.place = place;
        tx.put(&key::event(event), &value(&row));
        if let Some((before, line)) = line.filter(|(before, _)| *before != place) {
            tx.delete(&key::line(&self.conversation, &before));
            self.write(LogKind::Appeared, place, line, tx);
        }
    }

    fn stand(&mut self, event: &EventId, marks: Marks, tx: &mut Tx<'_>) {
        let Some(mut row) = event_row(event, tx) else {
            return;
        };
        (row.void, row.void_by) = (None, None);
        if !row.shown {
            self.without_line(LogKind::Stands, event, &mut row, tx);
        }
        tx.put(&key::event(event), &value(&row));
        if row.shown {
            let line = LineRow {
                event: *event,
                record: row.record,
                at: row.at,
                slot: row.slot,
                late: true,
                folded: row.folded,
                marks,
                logged: (0, 0),
            };
            self.write(LogKind::Appeared, row.place, line, tx);
        }
    }
}

#[cfg(test)]
mod tests {
    use comity_protocol::{
        commit::{AuthorityChange, Commit},
        event::{Act, Content, Event, SealedContent},
        ids::{Nonce, Salt, UserId},
        link::Offer,
        signing::SecretKey,
        time::{Hlc, Timestamp},
    };
    use comity_storage::{Config, Storage};

    use super::*;
    use comity_protocol::{authority::Sight, session::Change};

    use crate::{items::Items, records::record, rows::Rows};

    /// One event posted, taken away and given back, each by a record of its own.
    struct Posted {
        event: EventId,
        conversation: ConversationId,
        place: Place,
        known: ConversationRecord,
        commits: [CommitRecord; 3],
    }

    fn posted(shown: bool, by: Cause, marks: &Marks) -> Posted {
        let (me, user) = (ServerId::from_bytes([1; 32]), UserId::from_bytes([2; 32]));
        let key = SecretKey::from_seed([3; 32]);
        let conversation = ConversationId::from_bytes([4; 32]);
        let text = Content::text(Salt::from_bytes([5; 16]), "hello");
        let event = Event {
            conversation,
            author: user,
            device: key.public(),
            nonce: Nonce::from_bytes([6; 16]),
            claims: Role::Member,
            act: Act::Message {
                content: SealedContent::seal(&text).unwrap().reference(),
            },
            sent_at: Timestamp(1),
        };
        let event = event.sign(&key);
        let commit = Commit {
            v: 1,
            conversation,
            origin: me,
            epoch: 1,
            seq: 0,
            prev: None,
            hlc: Hlc::new(Timestamp(1), 0),
            parents: vec![],
            authority: Some(AuthorityChange::default()),
            events: vec![event.id()],
        };
        let commit = commit.sign(&key);
        let place = Place {
            hlc: commit.commit().hlc,
            commit: commit.id(),
            index: 0,
        };
        let plain = CommitRecord {
            conversation,
            commit: commit.to_raw(),
            events: vec![],
            late: false,
            at: Timestamp(1),
            marks: vec![],
            void: vec![],
            void_by: vec![],
            stand: vec![],
            moved: Vec::new(),
            folded: Vec::new(),
            erase: vec![],
            members: vec![],
            sights: vec![],
            history: None,
            tips: vec![],
            state: vec![],
            ended: vec![],
        };
        let known = ConversationRecord {
            conversation,
            offer: Offer::Direct(user, user),
            at: Timestamp(1),
            members: vec![],
        };
        let posted = CommitRecord {
            events: vec![EventEntry {
                raw: event.to_raw(),
                slot: Slot::Gone,
                shown,
                void: None,
                folded: false,
            }],
            ..plain.clone()
        };
        let taken_away = CommitRecord {
            void: vec![(event.id(), "removed".to_owned())],
            void_by: vec![(event.id(), by)],
            ..plain.clone()
        };
        let given_back = CommitRecord {
            stand: vec![event.id()],
            marks: vec![(event.id(), marks.clone())],
            ..plain
        };
        Posted {
            event: event.id(),
            conversation,
            place,
            known,
            commits: [posted, taken_away, given_back],
        }
    }

    fn cause() -> Cause {
        Cause {
            event: EventId::from_bytes([8; 32]),
            author: UserId::from_bytes([9; 32]),
        }
    }

    fn opened(dir: &tempfile::TempDir) -> (Storage, Rows) {
        let me = ServerId::from_bytes([1; 32]);
        let config = Config::new(dir.path(), "boot");
        let (storage, _) = Storage::open(config, HomeProjection { me }).unwrap();
        let rows = Rows(storage.reader());
        (storage, rows)
    }

    #[test]
    fn what_stands_again_reads_as_its_record_says() {
        let marks = Marks {
            deleted: Some(EventId::from_bytes([7; 32])),
            ..Marks::default()
        };
        let posted = posted(true, cause(), &marks);
        let dir = tempfile::tempdir().unwrap();
        let (storage, rows) = opened(&dir);
        let commits = posted.commits;
        let commits = commits.map(|body| record(kind::COMMIT, &body, vec![]));
        let records = [record(kind::CONVERSATION, &posted.known, vec![])];
        let records = records.into_iter().chain(commits).collect();
        storage.submit_and_wait(records).unwrap();
        let line = rows.line(&posted.conversation, &posted.place);
        assert_eq!(line.unwrap().unwrap().marks, marks);
    }

    #[test]
    fn of_an_event_without_a_line_the_log_has_the_latest_and_its_row_who_took_it_away() {
        let posted = posted(false, cause(), &Marks::default());
        let dir = tempfile::tempdir().unwrap();
        let (storage, rows) = opened(&dir);
        let submit = |kind, body| storage.submit_and_wait(vec![record(kind, body, vec![])]);
        storage
            .submit_and_wait(vec![record(kind::CONVERSATION, &posted.known, vec![])])
            .unwrap();
        let [first, taken_away, given_back] = &posted.commits;
        submit(kind::COMMIT, first).unwrap();
        let everyone = Sight::everything();
        for _ in 0..3 {
            for (record, by) in [(taken_away, Some(cause())), (given_back, None)] {
                submit(kind::COMMIT, record).unwrap();
                let row = rows.event(&posted.event).unwrap().unwrap();
                assert_eq!(row.void_by, by);
                let log = rows.log(&posted.conversation, (0, 0), u64::MAX, 10);
                let log = log.unwrap();
                assert_eq!(log.len(), 1, "the latest alone: {log:?}");
                let mut items = Items::new(&rows);
                let told = items.change(posted.conversation, &log[0].2, &everyone);
                let (conversation, event) = (posted.conversation, posted.event);
                let expected = match by {
                    Some(_) => Change::Vanished {
                        conversation,
                        event,
                        reason: "removed".to_owned(),
                        by,
                    },
                    None => Change::Stands {
                        conversation,
                        event,
                    },
                };
                assert_eq!(told.unwrap(), Some(expected));
            }
        }
    }
}
