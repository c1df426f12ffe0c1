//! Contents that come after their commit, which came without them.

use std::collections::BTreeSet;

use super::{CheckedBundle, Conversation, Slot};
use crate::{event::Act, ids::EventId, time::Timestamp};

/// What a peer gave of a content that was not held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Came {
    /// The event that names the content.
    pub event: EventId,
    /// The line that reads otherwise with it: itself, or what the edit is of.
    pub line: EventId,
    /// The content, or why there will be none: never `None` nor `Withheld`.
    pub slot: Slot,
}

impl Conversation {
    /// What a bundle of a commit that is held brings for these of its events, by index. What is too
    /// old to be kept is not taken.
    #[must_use]
    pub fn came(&self, now: Timestamp, bundle: &CheckedBundle, lacks: &BTreeSet<u16>) -> Vec<Came> {
        let events = (0u16..).zip(&bundle.events);
        let wanted = events.filter(|(index, _)| lacks.contains(index));
        let mut wanted: Vec<_> = wanted.map(|(_, event)| event.clone()).collect();
        self.drop_expired(now, &bundle.commit, &mut wanted);
        let given = wanted
            .into_iter()
            .filter(|event| !matches!(event.slot, Slot::None | Slot::Withheld));
        let came = given.map(|given| {
            let event = given.event.id();
            let line = match given.event.event().act {
                Act::Edit { target, .. } => target,
                _ => event,
            };
            let slot = given.slot;
            Came { event, line, slot }
        });
        came.collect()
    }
}
