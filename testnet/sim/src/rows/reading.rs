//! What rows and records together say: items as peers get them, events as their authors signed them.

use std::collections::BTreeSet;

use comity_protocol::{
    authority::Span,
    commit::UnverifiedCommit,
    event::{RawEvent, SignedEvent},
    ids::{Blob, CommitId, ConversationId, EventId, ServerId},
    link::ContentSlot,
    place::Place,
};

use super::{Body, Kept, Marks, Record, Rows};

impl Rows {
    /// Whether the content of an event went because its days were over.
    pub(crate) fn is_expired(&self, event: &EventId) -> bool {
        let row = self.events.get(event);
        row.is_some_and(|row| row.kept == Kept::Expired)
    }

    /// Whether the content of an event is held.
    pub(crate) fn holds(&self, event: &EventId) -> bool {
        let row = self.events.get(event);
        row.is_some_and(|row| matches!(row.kept, Kept::Held(_) | Kept::Later(..)))
    }

    /// Where contents are that came withheld and are so still, within a span.
    pub(crate) fn withheld(
        &self,
        conversation: &ConversationId,
        within: &Span,
        limit: usize,
        log: &[Record],
    ) -> Vec<Place> {
        let mut places = Vec::new();
        let known = self.known.get(conversation);
        for number in known.into_iter().flat_map(|known| &known.order) {
            let Body::Commit(record) = &log[*number].body else {
                continue;
            };
            let Ok(commit) = UnverifiedCommit::decode(record.commit.clone()) else {
                continue;
            };
            for (index, entry) in (0u16..).zip(&record.events) {
                let (hlc, commit) = (commit.commit().hlc, record.id);
                let place = Place { hlc, commit, index };
                let row = self.events.get(&entry.id);
                let is = row.is_some_and(|row| row.kept == Kept::Withheld);
                if is && entry.kept == Kept::Withheld && within.holds(place) {
                    places.push(place);
                }
            }
        }
        places.sort_unstable();
        places.truncate(limit);
        places
    }

    /// Conversations in which some are.
    pub(crate) fn withheld_in(&self) -> BTreeSet<ConversationId> {
        let withheld = self.events.values();
        let withheld = withheld.filter(|row| row.kept == Kept::Withheld);
        withheld.map(|row| row.conversation).collect()
    }

    /// A content that came withheld with its commit, as it is held now.
    fn later(&self, event: &EventId, log: &[Record]) -> ContentSlot {
        match self.events.get(event).map(|row| row.kept) {
            Some(Kept::Later(number, index)) => match &log[number].contents[index] {
                Some(bytes) => ContentSlot::Held(Blob(bytes.clone())),
                None => ContentSlot::Gone,
            },
            Some(Kept::Gone | Kept::Expired) => ContentSlot::Gone,
            _ => ContentSlot::Withheld,
        }
    }

    /// What a peer gets of a commit.
    pub(crate) fn bundle(
        &self,
        conversation: &ConversationId,
        commit: &CommitId,
        with_contents: bool,
        log: &[Record],
    ) -> Option<comity_protocol::replication::ForPeers> {
        let number = *self.known.get(conversation)?.commits.get(commit)?;
        let Body::Commit(record) = &log[number].body else {
            return None;
        };
        let (mut authors, mut contents) = (Vec::new(), Vec::new());
        for entry in &record.events {
            let event = SignedEvent::from_trusted(entry.raw.clone()).ok()?;
            if !authors.contains(&event.event().author) {
                authors.push(event.event().author);
            }
            match entry.kept {
                Kept::None => {}
                Kept::Gone | Kept::Expired => contents.push(ContentSlot::Gone),
                Kept::Withheld | Kept::Later(..) if with_contents => {
                    contents.push(self.later(&entry.id, log));
                }
                Kept::Withheld | Kept::Later(..) => contents.push(ContentSlot::Withheld),
                Kept::Held(_) if !with_contents => contents.push(ContentSlot::Withheld),
                Kept::Held(index) => contents.push(match &log[number].contents[index] {
                    Some(bytes) => ContentSlot::Held(Blob(bytes.clone())),
                    None => ContentSlot::Gone,
                }),
            }
        }
        let bundle = comity_protocol::link::Bundle {
            commit: record.commit.clone(),
            events: record.events.iter().map(|e| e.raw.clone()).collect(),
            contents,
        };
        Some((bundle, authors))
    }

    /// The home whose commit the row of an event is of.
    pub(crate) fn origin(&self, log: &[Record], event: &EventId) -> Option<ServerId> {
        let row = self.events.get(event)?;
        let known = self.known.get(&row.conversation)?;
        let number = *known.commits.get(&row.place.commit)?;
        let Body::Commit(record) = &log.get(number)?.body else {
            return None;
        };
        let commit = UnverifiedCommit::decode(record.commit.clone()).ok()?;
        Some(commit.commit().origin)
    }

    /// An event as its author signed it.
    pub(crate) fn raw(&self, log: &[Record], event: &EventId) -> Option<RawEvent> {
        let row = self.events.get(event)?;
        let known = self.known.get(&row.conversation)?;
        let number = *known.commits.get(&row.place.commit)?;
        let Body::Commit(record) = &log.get(number)?.body else {
            return None;
        };
        let entry = record.events.iter().find(|entry| entry.id == *event);
        entry.map(|entry| entry.raw.clone())
    }

    /// A planted bug: the line of an event once more.
    pub(crate) fn repeat_line(&mut self, event: &EventId) {
        let Some(row) = self.events.get(event) else {
            return;
        };
        let mut place = row.place;
        place.index = place.index.saturating_add(1_000);
        if let Some(known) = self.known.get_mut(&row.conversation) {
            known.lines.insert(place, (*event, Marks::default()));
        }
    }
}
