//! The change log of a conversation, and the lines that its entries are about.

use comity_protocol::{
    authority::Cause,
    ids::{ConversationId, EventId},
    session::Place,
};
use comity_storage::Tx;

use super::event_row;
use crate::{
    records::Marks,
    rows::{EventRow, LineRow, LogKind, LogRow, is_taken_away, key, parse, value},
};

/// Appends to a conversation's change log, keeping the latest entry an event.
pub(super) struct ChangeLog {
    pub(super) conversation: ConversationId,
    pub(super) number: u64,
    pub(super) next: u16,
}

impl ChangeLog {
    pub(super) fn write(
        &mut self,
        kind: LogKind,
        place: Place,
        mut line: LineRow,
        tx: &mut Tx<'_>,
    ) {
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

    pub(super) fn mark(&mut self, target: &EventId, marks: Option<&Marks>, tx: &mut Tx<'_>) {
        let Some((place, mut line)) = self.line(target, tx) else {
            return;
        };
        if let Some(marks) = marks {
            line.marks = marks.clone();
        }
        self.write(LogKind::Changed, place, line, tx);
    }

    pub(super) fn fold(&mut self, event: &EventId, folded: bool, tx: &mut Tx<'_>) {
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

    pub(super) fn void(
        &mut self,
        event: &EventId,
        reason: &str,
        by: Option<Cause>,
        tx: &mut Tx<'_>,
    ) {
        let Some(mut row) = event_row(event, tx) else {
            return;
        };
        self.unlist(&row, tx);
        row.void = Some(reason.to_owned());
        row.void_by = by;
        self.list(event, &row, tx);
        if let Some((place, line)) = self.line(event, tx).filter(|_| row.shown) {
            row.logged = Some(line.logged);
            self.without_line(LogKind::Vanished, event, &mut row, tx);
            tx.delete(&key::line(&self.conversation, &place));
        } else if !row.shown {
            self.without_line(LogKind::Vanished, event, &mut row, tx);
        }
        tx.put(&key::event(event), &value(&row));
    }

    /// Puts an event on the list of what a local user's acts took away. Gives whether it is on one.
    pub(super) fn list(&self, event: &EventId, row: &EventRow, tx: &mut Tx<'_>) -> bool {
        let taken = row.void.as_deref().is_some_and(is_taken_away);
        let by = row.void_by.filter(|_| taken).map(|by| by.author);
        let local = by.filter(|by| tx.get(&key::account_of(by)).is_some());
        if let Some(by) = local {
            let of = key::voided(&self.conversation, &by, &row.place);
            tx.put(&of, &value(event));
        }
        local.is_some()
    }

    /// Takes it off again.
    pub(super) fn unlist(&self, row: &EventRow, tx: &mut Tx<'_>) {
        if let Some(by) = row.void_by {
            tx.delete(&key::voided(&self.conversation, &by.author, &row.place));
        }
    }

    /// An entry of an event that has no line to keep the key of the entry before.
    pub(super) fn without_line(
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
    pub(super) fn shift(&mut self, event: &EventId, place: Place, tx: &mut Tx<'_>) {
        let Some(mut row) = event_row(event, tx) else {
            return;
        };
        let line = self.line(event, tx);
        self.unlist(&row, tx);
        row.place = place;
        self.list(event, &row, tx);
        tx.put(&key::event(event), &value(&row));
        if let Some((before, line)) = line.filter(|(before, _)| *before != place) {
            tx.delete(&key::line(&self.conversation, &before));
            self.write(LogKind::Appeared, place, line, tx);
        }
    }

    pub(super) fn stand(&mut self, event: &EventId, marks: Marks, tx: &mut Tx<'_>) {
        let Some(mut row) = event_row(event, tx) else {
            return;
        };
        self.unlist(&row, tx);
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
                logged: row.logged.unwrap_or_default(),
            };
            self.write(LogKind::Appeared, row.place, line, tx);
        }
    }
}
