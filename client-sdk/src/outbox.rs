//! The outbox: what was written and is not yet accepted, in a file if there is a store.
//!
//! An event is in the file before `send` returns, so the end of the process at any moment loses
//! nothing; the file is synced a second later, off the path. An accepted event is struck out by a
//! second record. If the process ends between the two, the event is sent again with the same
//! bytes and the server gives its first answer again.

mod queue;
mod ticket;

use std::{
    fs::File,
    path::PathBuf,
    sync::{Arc, Weak},
};

use comity_protocol::{
    encoding,
    event::{RawEvent, SignedEvent},
    ids::{Blob, EventId},
    session::Place,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(crate) use queue::Item;
pub use ticket::SendState;
pub(crate) use ticket::{Ticket, cancelled};

use crate::{
    error::{Error, ErrorKind, Result},
    journal::{Journal, framed_bytes},
    limits::{COMPACT_DEAD_BYTES, RECORD_BYTES_MAX, TRACKED_MAX},
};
use queue::Queue;

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Put {
        number: u64,
        event: RawEvent,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<Blob>,
    },
    Done(u64),
}

/// The queue and its file.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) queue: Queue,
    journal: Option<Journal>,
    /// Bytes of the file that belong to waiting events.
    live_bytes: u64,
    dirty: bool,
    /// Accepted events whose replication somebody still watches.
    tracked: BTreeMap<EventId, Weak<Ticket>>,
}

impl Outbox {
    /// Opens the file and takes up what was waiting.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self> {
        let mut outbox = Self::default();
        let Some(path) = path else {
            return Ok(outbox);
        };
        let mut waiting = BTreeMap::new();
        let mut last = 0;
        let journal = Journal::open(&path, |bytes| {
            let size = framed_bytes(bytes.len());
            match encoding::decode_frame(&bytes, RECORD_BYTES_MAX) {
                Ok(Record::Put {
                    number,
                    event,
                    content,
                }) => {
                    last = last.max(number + 1);
                    waiting.insert(number, (event, content, size));
                }
                Ok(Record::Done(number)) => {
                    waiting.remove(&number);
                }
                Err(error) => tracing::warn!(%error, "skipped a record of the outbox"),
            }
        });
        outbox.journal = Some(journal.map_err(|e| Error::storage("opening the outbox", e))?);
        for (number, (raw, content, size)) in waiting {
            // Bytes that this program wrote and a checksum covers: no signature to check.
            match SignedEvent::from_trusted(raw.clone()) {
                Ok(signed) => {
                    let event = signed.event();
                    let ticket = Arc::new(Ticket::new(signed.id(), event.conversation));
                    let mut item = Item::new(raw, content, event.act.target(), ticket);
                    item.file_bytes = size;
                    outbox.queue.push(number, item);
                    outbox.live_bytes += size;
                }
                Err(error) => tracing::warn!(%error, "dropped an unreadable event of the outbox"),
            }
        }
        outbox.queue.start_at(last);
        outbox.compact_if_due();
        Ok(outbox)
    }

    /// Takes an event. When this returns it is in the file.
    pub(crate) fn put(
        &mut self,
        signed: &SignedEvent,
        content: Option<Blob>,
    ) -> Result<Arc<Ticket>> {
        let event = signed.event();
        let ticket = Arc::new(Ticket::new(signed.id(), event.conversation));
        let target = event.act.target();
        let mut item = Item::new(signed.to_raw(), content, target, Arc::clone(&ticket));
        if !self.queue.has_room(item.bytes()) {
            let text = format!("{} events wait to be sent already", self.queue.len());
            return Err(Error::new(ErrorKind::OutboxFull, text));
        }
        let number = self.queue.next_number();
        if let Some(journal) = &mut self.journal {
            let record = encode_put(number, &item);
            let written = journal.append(&record);
            written.map_err(|e| Error::storage("writing the outbox", e))?;
            item.file_bytes = framed_bytes(record.len());
            self.live_bytes += item.file_bytes;
            self.dirty = true;
        }
        self.queue.push(number, item);
        Ok(ticket)
    }

    /// The server has it.
    pub(crate) fn accepted(&mut self, number: u64, place: Place) {
        let Some(item) = self.queue.accepted(number) else {
            return;
        };
        self.strike_out(number, &item);
        item.ticket.set(SendState::Accepted {
            place,
            replicated: 0,
            of: None,
        });
        // Nobody else holds the ticket: nobody can ask.
        if Arc::strong_count(&item.ticket) > 1 {
            if self.tracked.len() >= TRACKED_MAX {
                self.tracked.retain(|_, ticket| ticket.strong_count() > 0);
            }
            if self.tracked.len() < TRACKED_MAX {
                self.tracked
                    .insert(item.ticket.event, Arc::downgrade(&item.ticket));
            }
        }
    }

    /// The server will never take it. Gives the tickets of what was dropped.
    pub(crate) fn rejected(&mut self, number: u64, error: &Error) -> Vec<Arc<Ticket>> {
        let gone = self.queue.rejected(number);
        self.end(gone, &SendState::Rejected(error.clone()))
    }

    /// Takes back an event that never left.
    pub(crate) fn cancel(&mut self, event: &EventId) -> bool {
        let gone = self.queue.cancel(event);
        gone.is_some_and(|gone| !self.end(gone, &SendState::Cancelled).is_empty())
    }

    fn end(&mut self, gone: Vec<(u64, Item)>, state: &SendState) -> Vec<Arc<Ticket>> {
        let ended = gone.into_iter().map(|(number, item)| {
            self.strike_out(number, &item);
            item.ticket.set(state.clone());
            item.ticket
        });
        ended.collect()
    }

    fn strike_out(&mut self, number: u64, item: &Item) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        self.live_bytes = self.live_bytes.saturating_sub(item.file_bytes);
        self.dirty = true;
        // Without this record the event is sent once more after a restart, and counts once.
        if let Err(error) = journal.append(&encoding::encode(&Record::Done(number))) {
            tracing::warn!(%error, "the outbox could not be written");
        }
        self.compact_if_due();
    }

    fn compact_if_due(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let dead = journal.len().saturating_sub(self.live_bytes);
        if dead < COMPACT_DEAD_BYTES || dead < self.live_bytes {
            return;
        }
        let records = self
            .queue
            .iter()
            .map(|(number, item)| encode_put(number, item));
        if let Err(error) = journal.rewrite(records) {
            tracing::warn!(%error, "the outbox could not be rewritten");
        }
    }

    /// On how many servers an accepted event is.
    pub(crate) fn delivered(&mut self, event: &EventId, replicated: u32, of: u32) {
        let Some(ticket) = self.tracked.get(event).and_then(Weak::upgrade) else {
            self.tracked.remove(event);
            return;
        };
        ticket.delivered(replicated, of);
        if replicated >= of {
            self.tracked.remove(event);
        }
    }

    /// A handle for syncing what was written since the last call, if anything was.
    pub(crate) fn take_unsynced(&mut self) -> Option<File> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        self.journal.as_ref()?.sync_handle().ok()
    }

    pub(crate) const fn is_dirty(&self) -> bool {
        self.dirty
    }
}

fn encode_put(number: u64, item: &Item) -> Vec<u8> {
    encoding::encode(&Record::Put {
        number,
        event: item.raw.clone(),
        content: item.content.clone(),
    })
}

#[cfg(test)]
mod tests {
    use comity_protocol::{
        event::{Act, Content, Event, SealedContent},
        ids::{CommitId, ConversationId, Nonce, Salt, UserId},
        role::Role,
        signing::SecretKey,
        time::{Hlc, Timestamp},
    };

    use super::*;

    fn message(n: u64, text: &str) -> (SignedEvent, Blob) {
        let key = SecretKey::from_seed([1; 32]);
        let content = Content::text(Salt::from_bytes([0; 16]), text);
        let sealed = SealedContent::seal(&content).unwrap();
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        let event = Event {
            conversation: ConversationId::from_bytes([1; 32]),
            author: UserId::from_bytes([2; 32]),
            device: key.public(),
            nonce: Nonce::from_bytes(nonce),
            claims: Role::Member,
            act: Act::Message {
                content: sealed.reference(),
            },
            sent_at: Timestamp(n),
        };
        (event.sign(&key), Blob(sealed.into_bytes()))
    }

    fn put(outbox: &mut Outbox, n: u64, text: &str) -> Arc<Ticket> {
        let (signed, content) = message(n, text);
        outbox.put(&signed, Some(content)).unwrap()
    }

    fn place() -> Place {
        Place {
            hlc: Hlc::from_bits(1),
            commit: CommitId::from_bytes([0; 32]),
            index: 0,
        }
    }

    fn texts(outbox: &mut Outbox) -> Vec<String> {
        let mut texts = vec![];
        while let Some((_, item)) = outbox.queue.next(0) {
            let bytes = item.content.clone().unwrap().0;
            texts.push(SealedContent::open(bytes).unwrap().content().text.clone());
        }
        texts
    }

    #[test]
    fn what_was_put_and_not_accepted_is_there_after_a_kill_with_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let mut outbox = Outbox::open(Some(path.clone())).unwrap();
        for (n, text) in [(1, "a"), (2, "b"), (3, "c")] {
            put(&mut outbox, n, text);
        }
        let (number, _) = outbox.queue.next(0).unwrap();
        outbox.accepted(number, place());
        // Not dropped in order, as a kill would not either.
        std::mem::forget(outbox);
        let mut outbox = Outbox::open(Some(path)).unwrap();
        let raw = outbox
            .queue
            .find(&message(2, "b").0.id())
            .unwrap()
            .raw
            .clone();
        assert_eq!(raw, message(2, "b").0.to_raw());
        put(&mut outbox, 4, "d");
        assert_eq!(texts(&mut outbox), ["b", "c", "d"]);
    }

    #[test]
    fn the_file_shrinks_when_most_of_it_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let mut outbox = Outbox::open(Some(path.clone())).unwrap();
        let text = "x".repeat(10_000);
        for n in 0..1_000 {
            put(&mut outbox, n, &text);
            let (number, _) = outbox.queue.next(0).unwrap();
            outbox.accepted(number, place());
        }
        put(&mut outbox, 1_000, "last");
        let len = std::fs::metadata(&path).unwrap().len();
        assert!(len < 2 * COMPACT_DEAD_BYTES, "{len}");
        drop(outbox);
        let mut outbox = Outbox::open(Some(path)).unwrap();
        assert_eq!(texts(&mut outbox), ["last"]);
    }

    #[test]
    fn a_full_outbox_refuses_and_keeps_what_it_has() {
        let mut outbox = Outbox::open(None).unwrap();
        for n in 0..crate::limits::OUTBOX_ITEMS_MAX as u64 {
            put(&mut outbox, n, "");
        }
        let (signed, content) = message(u64::MAX, "");
        let error = outbox.put(&signed, Some(content)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutboxFull);
        assert!(error.is_retryable());
        assert_eq!(outbox.queue.len(), crate::limits::OUTBOX_ITEMS_MAX);
    }

    #[test]
    fn a_ticket_tells_replication_as_it_grows_and_never_shrinks() {
        let mut outbox = Outbox::open(None).unwrap();
        let ticket = put(&mut outbox, 1, "");
        let (number, _) = outbox.queue.next(0).unwrap();
        outbox.accepted(number, place());
        for heard in [2, 1] {
            outbox.delivered(&ticket.event, heard, 3);
        }
        let SendState::Accepted { replicated, of, .. } = ticket.state() else {
            panic!("{:?}", ticket.state());
        };
        assert_eq!((replicated, of), (2, Some(3)));
    }
}
