//! Where contents are: copies, what came later than its commit, and what is erased.

use std::{collections::BTreeSet, ops::Bound};

use comity_protocol::{ids::EventId, session::Place};
use comity_storage::{ContentAt, Direction, Tx};

use super::{event_row, log::ChangeLog};
use crate::{
    records::{ContentEntry, ContentsRecord, ExpiredRecord, Slot},
    rows::{EventRow, LineRow, key, parse, value},
};

/// Copies of one event's content that an erasure looks for; each but the first came of damage, of a
/// fork or of somebody who committed another's event.
const COPIES_MAX: usize = 4_096;

/// Where a content is that a record's slot names.
pub(super) const fn content_at(record: u64, slot: Slot) -> Option<ContentAt> {
    match slot {
        Slot::Held(index) => Some(ContentAt { record, index }),
        Slot::Later(record, index) => Some(ContentAt { record, index }),
        Slot::None | Slot::Gone | Slot::Expired | Slot::Withheld => None,
    }
}

/// What an event that is held comes with once more: both contents stay, the one for when damage takes
/// the other, and an erasure finds both. Gives where its content is, if the new appearance `replaces`
/// the one before, and else.
pub(super) fn merged(
    id: &EventId,
    row: &EventRow,
    new: (u64, Slot),
    replaces: bool,
    tx: &mut Tx<'_>,
) -> Slot {
    let (number, slot) = new;
    match (content_at(row.record, row.slot), content_at(number, slot)) {
        (Some(old), Some(new)) => {
            let (kept, other) = if replaces {
                (slot, old)
            } else {
                (row.slot, new)
            };
            tx.put(&key::copy(id, other), &[]);
            kept
        }
        // Erased before this copy came.
        (None, Some(new)) if matches!(row.slot, Slot::Gone | Slot::Expired) => {
            tx.erase(new);
            row.slot
        }
        (None, Some(new)) if !replaces => Slot::Later(new.record, new.index),
        // It was void, and so was never looked through for what is too old; now it is.
        (Some(old), None) if replaces && slot == Slot::Expired => {
            tx.erase(old);
            erase_copies(id, tx);
            slot
        }
        // What is held stays so, whatever the new appearance came without.
        (Some(old), None) if replaces => Slot::Later(old.record, old.index),
        (None, None) if slot == Slot::Withheld => row.slot,
        _ if replaces => slot,
        _ => row.slot,
    }
}

/// Lists what is withheld, and nothing else.
pub(super) fn list_withheld(row: &mut EventRow, came: Place, tx: &mut Tx<'_>) {
    let now = (row.slot == Slot::Withheld).then_some(came);
    if let Some(listed) = row.withheld.filter(|listed| Some(*listed) != now) {
        tx.delete(&key::withheld(&row.conversation, &listed));
    }
    if let Some(place) = now {
        tx.put(&key::withheld(&row.conversation, &place), &[]);
    }
    row.withheld = now;
}

/// Writes where an event's content is now.
pub(super) fn set_slot(event: &EventId, row: &mut EventRow, now: Slot, tx: &mut Tx<'_>) {
    row.slot = now;
    list_withheld(row, row.place, tx);
    tx.put(&key::event(event), &value(row));
    let line = key::line(&row.conversation, &row.place);
    let shown = tx.get(&line).and_then(|bytes| parse::<LineRow>(&bytes));
    if let Some(mut shown) = shown.filter(|shown| shown.event == *event) {
        shown.slot = now;
        tx.put(&line, &value(&shown));
    }
}

/// Contents that came after their commits: their lines read otherwise.
pub(super) fn contents(number: u64, record: &ContentsRecord, tx: &mut Tx<'_>) {
    let mut log = ChangeLog {
        conversation: record.conversation,
        number,
        next: 0,
    };
    let mut lines = BTreeSet::new();
    for entry in &record.events {
        if came(number, entry, tx) {
            lines.insert(entry.line);
        }
    }
    for line in lines {
        log.mark(&line, None, tx);
    }
}

/// Whether the content of an event is another than before.
fn came(number: u64, entry: &ContentEntry, tx: &mut Tx<'_>) -> bool {
    let new = content_at(number, entry.slot);
    let Some(mut row) = event_row(&entry.event, tx) else {
        // Damage took the event: nothing would find its content to erase it.
        new.into_iter().for_each(|at| tx.erase(at));
        return false;
    };
    let held = content_at(row.record, row.slot);
    match (row.slot, new) {
        (Slot::Withheld, Some(at)) => {
            set_slot(&entry.event, &mut row, Slot::Later(at.record, at.index), tx);
            return true;
        }
        (Slot::Withheld, None) => {
            set_slot(&entry.event, &mut row, entry.slot, tx);
            return true;
        }
        // Erased since it was asked for.
        (Slot::Gone | Slot::Expired, Some(at)) => tx.erase(at),
        (_, Some(at)) if held != new => tx.put(&key::copy(&entry.event, at), &[]),
        _ => {}
    }
    false
}

/// Contents went because their days are over: their lines read otherwise.
pub(super) fn expired(number: u64, record: &ExpiredRecord, tx: &mut Tx<'_>) {
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

pub(super) fn erase(event: &EventId, now: Slot, tx: &mut Tx<'_>) {
    let Some(mut row) = event_row(event, tx) else {
        return;
    };
    match content_at(row.record, row.slot) {
        Some(at) => tx.erase(at),
        // What is not held is not asked for any more.
        None if row.slot == Slot::Withheld => {}
        None => return,
    }
    erase_copies(event, tx);
    set_slot(event, &mut row, now, tx);
}

fn erase_copies(event: &EventId, tx: &mut Tx<'_>) {
    let copies = key::copies(event);
    let end = [copies.as_slice(), &[0xff; ContentAt::BYTES + 1]].concat();
    let (low, high) = (Bound::Included(&*copies), Bound::Included(&*end));
    for (copy, _) in tx.scan(low, high, Direction::Forward, COPIES_MAX) {
        if let Some(at) = copy.get(copies.len()..).and_then(|at| at.try_into().ok()) {
            tx.erase(ContentAt::from_bytes(at));
        }
        tx.delete(&copy);
    }
}
