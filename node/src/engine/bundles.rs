//! Bundles out of stored records.

use comity_protocol::{
    event::SignedEvent,
    ids::{Blob, UserId},
    link::{Bundle, ContentSlot},
};
use comity_storage::StoredRecord;

use crate::{
    records::{self, CommitRecord, Slot},
    rows::Rows,
};

/// The bundle that a record holds, with its authors. `None` if it cannot be read: logged.
pub(super) fn read(rows: &Rows, number: u64, with_contents: bool) -> Option<(Bundle, Vec<UserId>)> {
    let stored: StoredRecord = match rows.0.record(number) {
        Ok(stored) => stored?,
        Err(error) => {
            tracing::error!(number, %error, "a stored commit could not be read for a peer");
            return None;
        }
    };
    let record: CommitRecord = records::read(number, &stored.body).ok()?;
    let (mut authors, mut contents) = (Vec::new(), Vec::new());
    for entry in &record.events {
        let event = SignedEvent::from_trusted(entry.raw.clone()).ok()?;
        if !authors.contains(&event.event().author) {
            authors.push(event.event().author);
        }
        match entry.slot {
            Slot::None => {}
            Slot::Gone => contents.push(ContentSlot::Gone),
            Slot::Withheld => contents.push(ContentSlot::Withheld),
            Slot::Held(_) if !with_contents => contents.push(ContentSlot::Withheld),
            Slot::Held(index) => contents.push(match stored.contents.get(usize::from(index)) {
                Some(Some(bytes)) => ContentSlot::Held(Blob(bytes.clone())),
                _ => ContentSlot::Gone,
            }),
        }
    }
    let events = record.events.into_iter().map(|entry| entry.raw).collect();
    Some((
        Bundle {
            commit: record.commit,
            events,
            contents,
        },
        authors,
    ))
}
