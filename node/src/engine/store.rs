//! What is stored, as the shard's machine asks for it.

use std::collections::BTreeMap;

use comity_protocol::{
    authority::Span,
    commit::UnverifiedCommit,
    conversation::Conversation,
    event::SignedEvent,
    identity::home_key,
    ids::{Blob, CommitId, ConversationId, DeviceKey, EventId, PublicKey, ServerId, UserId},
    link::{Bundle, ContentSlot},
    replication::ForPeers,
    session::{Code, Place, WireError},
    shard::{Store, Stored},
    signing::SecretKey,
};
use comity_storage::{ContentAt, ContentError, ReadError, StoredRecord};

use super::Shared;
use crate::{
    records::{self, CommitRecord, RootRecord, Slot, kind},
    rows::Rows,
};

impl Store for Shared {
    fn read(&self, conversation: &ConversationId) -> Result<Option<Stored>, WireError> {
        stored(self, conversation).map_err(|error| {
            tracing::error!(%error, "a conversation could not be read");
            WireError::new(Code::Internal, "the store could not be read; try again")
        })
    }

    fn bundle(
        &self,
        conversation: &ConversationId,
        commit: &CommitId,
        with_contents: bool,
    ) -> Option<ForPeers> {
        let number = self.rows.commit_record(conversation, commit).ok().flatten();
        bundle(&self.rows, number?, with_contents)
    }

    fn had_device(&self, user: &UserId, device: &DeviceKey) -> Option<bool> {
        self.identities.had_device(user, device).ok().flatten()
    }

    fn had_home_key(&self, user: &UserId, key: &PublicKey) -> Option<bool> {
        let log = self.identities.get(user).ok().flatten()?;
        Some(log.had_home_key(key))
    }

    fn home_key(&self, user: &UserId) -> Option<SecretKey> {
        let log = self.identities.get(user).ok().flatten()?;
        let key = home_key(&self.users_key, log.nonce());
        (log.home() == self.me && log.had_home_key(&key.public())).then_some(key)
    }

    fn key_of(&self, origin: &ServerId, epoch: u64) -> Option<PublicKey> {
        Self::key_of(self, origin, epoch)
    }

    fn unreached_ms(&self, server: &ServerId) -> u64 {
        self.replication.unreached_ms(server)
    }

    fn withheld(&self, conversation: &ConversationId, within: &Span, limit: usize) -> Vec<Place> {
        match self.rows.withheld(conversation, within, limit) {
            Ok(places) => places,
            Err(error) => {
                tracing::error!(%conversation, %error, "rows could not be read");
                Vec::new()
            }
        }
    }

    fn holds(&self, event: &EventId) -> bool {
        match self.rows.event(event) {
            Ok(row) => row.is_some_and(|row| matches!(row.slot, Slot::Held(_) | Slot::Later(..))),
            Err(error) => {
                tracing::error!(%event, %error, "a row could not be read");
                false
            }
        }
    }

    fn cannot_store(&self) -> Option<WireError> {
        Self::cannot_store(self)
    }
}

fn stored(shared: &Shared, id: &ConversationId) -> Result<Option<Stored>, ReadError> {
    let rows = &shared.rows;
    let Some(machine) = conversation(rows, id, shared.me, shared.epoch)? else {
        return Ok(None);
    };
    let members: Vec<_> = rows
        .members(id, None, usize::MAX)?
        .into_iter()
        .map(|(user, row)| (user, row.home))
        .collect();
    let mut acked = BTreeMap::new();
    for (_, home) in &members {
        if *home != shared.me
            && !acked.contains_key(home)
            && let Some(seq) = rows.acked(home, id)?
        {
            acked.insert(*home, seq);
        }
    }
    let own_end = rows.own_end(id)?;
    Ok(Some(Stored {
        machine,
        members,
        acked,
        own_end,
        steward: rows.steward(id)?,
        due: rows.due(id)?,
    }))
}

/// Reads a conversation back; `None` if it is not known.
fn conversation(
    rows: &Rows,
    id: &ConversationId,
    me: ServerId,
    epoch: u64,
) -> Result<Option<Conversation>, ReadError> {
    let Some(row) = rows.conversation(id)? else {
        return Ok(None);
    };
    let Some(mut conversation) = Conversation::of_offer(&row.offer, me, epoch) else {
        return Ok(None);
    };
    for number in rows.commit_records(id)? {
        if let Err(why) = restore(rows, number, &mut conversation) {
            // The commit is missing in memory then, so it is asked of peers like any other gap.
            tracing::error!(%id, number, %why, "a stored commit could not be taken back in");
        }
    }
    Ok(Some(conversation))
}

fn restore(rows: &Rows, number: u64, conversation: &mut Conversation) -> Result<(), String> {
    let stored = rows.0.record(number).map_err(|error| error.to_string())?;
    let stored = stored.ok_or("the record is gone")?;
    if stored.kind == kind::ROOT {
        let record: RootRecord =
            records::read(number, &stored.body).map_err(|error| error.to_string())?;
        return conversation.restore_record(record.root);
    }
    let record: CommitRecord =
        records::read(number, &stored.body).map_err(|error| error.to_string())?;
    let commit = UnverifiedCommit::decode(record.commit).map_err(|error| error.to_string())?;
    let events: Result<Vec<_>, _> = record
        .events
        .into_iter()
        .map(|entry| SignedEvent::from_trusted(entry.raw))
        .collect();
    conversation.restore(
        &commit.trusted(),
        &events.map_err(|error| error.to_string())?,
    )
}

/// The bundle that a record holds, with its authors. `None` if it cannot be read: logged.
fn bundle(rows: &Rows, number: u64, with_contents: bool) -> Option<ForPeers> {
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
            Slot::Gone | Slot::Expired => contents.push(ContentSlot::Gone),
            Slot::Withheld | Slot::Later(..) if with_contents => {
                contents.push(later(rows, &event.id()));
            }
            Slot::Withheld | Slot::Later(..) => contents.push(ContentSlot::Withheld),
            Slot::Held(_) if !with_contents => contents.push(ContentSlot::Withheld),
            Slot::Held(index) => contents.push(match stored.contents.get(usize::from(index)) {
                Some(Some(bytes)) => ContentSlot::Held(Blob(bytes.clone())),
                _ => ContentSlot::Gone,
            }),
        }
    }
    let events = record.events.into_iter().map(|entry| entry.raw).collect();
    let bundle = Bundle {
        commit: record.commit,
        events,
        contents,
    };
    Some((bundle, authors))
}

/// A content that came withheld with its commit, as it is held now.
fn later(rows: &Rows, event: &EventId) -> ContentSlot {
    let row = rows.event(event).ok().flatten();
    let at = match row.map(|row| (row.record, row.slot)) {
        Some((record, Slot::Held(index)) | (_, Slot::Later(record, index))) => {
            ContentAt { record, index }
        }
        Some((_, Slot::Gone | Slot::Expired)) => return ContentSlot::Gone,
        _ => return ContentSlot::Withheld,
    };
    match rows.0.content(at) {
        Ok(bytes) => ContentSlot::Held(Blob(bytes)),
        Err(ContentError::Gone) => ContentSlot::Gone,
        Err(error) => {
            tracing::error!(%event, %error, "a content could not be read for a peer");
            ContentSlot::Withheld
        }
    }
}
