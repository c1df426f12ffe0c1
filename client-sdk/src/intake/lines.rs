//! Which lines were told, and in which version: what tells a repeated line from a new one, and an
//! edit from a reaction. Bounded; the line told first is forgotten first.

use std::collections::{HashMap, VecDeque};

use comity_protocol::{event::Act, ids::EventId};

use crate::{
    events::LineEvent,
    limits::LINES_REMEMBERED,
    message::{Body, Line},
};

#[derive(Clone, Debug)]
struct Told {
    version: u64,
    /// Its text was shown.
    shown: bool,
    details: Option<Details>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Details {
    edited: Option<EventId>,
    lost: Vec<EventId>,
    deleted: bool,
    held: bool,
}

impl Details {
    fn of(line: &Line) -> Self {
        Self {
            edited: line.edited.as_ref().map(|(id, _)| *id),
            lost: line.lost.clone(),
            deleted: line.deleted.is_some(),
            held: matches!(line.body, Body::Held(_)),
        }
    }
}

/// The lines told last.
#[derive(Debug, Default)]
pub(super) struct Lines {
    told: HashMap<EventId, Told>,
    order: VecDeque<EventId>,
}

impl Lines {
    /// What an earlier process told.
    pub(super) fn new(handled: impl Iterator<Item = (EventId, u64)>) -> Self {
        let mut lines = Self::default();
        for (event, version) in handled {
            let told = Told {
                version,
                shown: true,
                details: None,
            };
            lines.insert(event, told);
        }
        lines
    }

    fn insert(&mut self, event: EventId, told: Told) {
        if self.told.insert(event, told).is_some() {
            return;
        }
        self.order.push_back(event);
        // A forgotten line leaves its place in the order behind, so the order is the longer one.
        while self.order.len() > LINES_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.told.remove(&oldest);
            }
        }
    }

    /// Whether this line was told in this version.
    pub(super) fn has(&self, event: &EventId, version: u64) -> bool {
        self.told
            .get(event)
            .is_some_and(|told| told.version == version)
    }

    pub(super) fn knows(&self, event: &EventId) -> bool {
        self.told.contains_key(event)
    }

    pub(super) fn forget(&mut self, event: &EventId) {
        self.told.remove(event);
    }

    /// Notes a line and gives what to tell about it, with the edits that are new among the lost.
    pub(super) fn take(&mut self, line: &Line, appeared: bool) -> (LineEvent, Vec<EventId>) {
        let before = self.told.get(&line.id).cloned();
        let details = Details::of(line);
        let known = before.as_ref().and_then(|told| told.details.as_ref());
        let lost = line.lost.iter().filter(|edit| {
            let told = known.is_some_and(|known| known.lost.contains(edit));
            !told && line.edited.is_some()
        });
        let lost = lost.copied().collect();
        let kind = kind(line, before.as_ref(), &details, appeared);
        let first = matches!(kind, LineEvent::Message | LineEvent::Activity);
        let told = Told {
            version: line.version,
            shown: first || before.is_some_and(|told| told.shown),
            details: Some(details),
        };
        self.insert(line.id, told);
        (kind, lost)
    }
}

fn kind(line: &Line, before: Option<&Told>, now: &Details, appeared: bool) -> LineEvent {
    let message = matches!(line.event.act, Act::Message { .. });
    let was = before.and_then(|told| told.details.as_ref());
    let fresh = before.map_or(appeared, |told| !told.shown);
    if fresh && !now.deleted && (now.held || !message) {
        return if message {
            LineEvent::Message
        } else {
            LineEvent::Activity
        };
    }
    if now.deleted {
        return if was.is_some_and(|was| was.deleted) {
            LineEvent::Changed
        } else {
            LineEvent::Deleted
        };
    }
    match was {
        Some(was) if was.edited != now.edited || was.lost != now.lost => LineEvent::Edited,
        Some(was) if was == now && message => LineEvent::Reacted,
        None if now.edited.is_some() && before.is_none() && !appeared => LineEvent::Edited,
        _ => LineEvent::Changed,
    }
}
