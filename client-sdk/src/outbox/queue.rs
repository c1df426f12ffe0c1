//! The order in which waiting events are sent: pure, no clock, no file.
//!
//! Each conversation is a lane. Within a lane events leave in the order they were written; lanes
//! take turns. An event about one that is still waiting (an edit, a reaction) leaves once that one
//! was accepted. A refusal that may pass holds the lane, and after it one event goes ahead alone,
//! so that nothing overtakes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use comity_protocol::{
    event::RawEvent,
    ids::{Blob, ConversationId, EventId},
};

use super::ticket::Ticket;
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_ITEMS_MAX, RESEND_MAX_MS, RESEND_MIN_MS};

/// A waiting event.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) raw: RawEvent,
    pub(crate) content: Option<Blob>,
    /// The event this one is about.
    pub(crate) target: Option<EventId>,
    pub(crate) ticket: Arc<Ticket>,
    /// Bytes of its record in the file.
    pub(crate) file_bytes: u64,
    in_flight: bool,
    tries: u32,
    refusals: u32,
}

impl Item {
    pub(crate) fn new(
        raw: RawEvent,
        content: Option<Blob>,
        target: Option<EventId>,
        ticket: Arc<Ticket>,
    ) -> Self {
        Self {
            raw,
            content,
            target,
            ticket,
            file_bytes: 0,
            in_flight: false,
            tries: 0,
            refusals: 0,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.raw.event.0.len() + self.content.as_ref().map_or(0, |c| c.0.len()) + 256
    }
}

#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeSet<u64>,
    in_flight: usize,
    held: bool,
    /// One at a time, until one is accepted.
    careful: bool,
    queued: bool,
}

/// The waiting events.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: BTreeMap<u64, Item>,
    by_event: HashMap<EventId, u64>,
    lanes: BTreeMap<ConversationId, Lane>,
    turns: VecDeque<ConversationId>,
    holds: BTreeSet<(u64, ConversationId)>,
    next_number: u64,
    bytes: usize,
}

impl Queue {
    /// Whether an item of this size still fits.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.items.len() < OUTBOX_ITEMS_MAX && self.bytes + bytes <= OUTBOX_BYTES_MAX
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// The number that the next item gets: higher than any before.
    pub(crate) const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Gives no number below this one again.
    pub(crate) fn start_at(&mut self, number: u64) {
        self.next_number = self.next_number.max(number);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Item)> {
        self.items.iter().map(|(number, item)| (*number, item))
    }

    /// The event under a number.
    pub(crate) fn event(&self, number: u64) -> Option<EventId> {
        self.items.get(&number).map(|item| item.ticket.event)
    }

    #[cfg(test)]
    pub(crate) fn find(&self, event: &EventId) -> Option<&Item> {
        self.items.get(self.by_event.get(event)?)
    }

    /// Adds an item under a number that is higher than any before.
    pub(crate) fn push(&mut self, number: u64, item: Item) {
        let conversation = item.ticket.conversation;
        self.next_number = self.next_number.max(number + 1);
        self.bytes += item.bytes();
        self.by_event.insert(item.ticket.event, number);
        self.items.insert(number, item);
        self.lane(conversation).waiting.insert(number);
        self.queue(conversation);
    }

    fn lane(&mut self, conversation: ConversationId) -> &mut Lane {
        self.lanes.entry(conversation).or_default()
    }

    fn queue(&mut self, conversation: ConversationId) {
        let Some(lane) = self.lanes.get_mut(&conversation) else {
            return;
        };
        if lane.waiting.is_empty() && lane.in_flight == 0 && !lane.held {
            self.lanes.remove(&conversation);
        } else if !lane.waiting.is_empty() && !lane.held && !lane.queued {
            lane.queued = true;
            self.turns.push_back(conversation);
        }
    }

    /// The next event to send at `now` (milliseconds of any clock that does not go back).
    pub(crate) fn next(&mut self, now: u64) -> Option<(u64, &Item)> {
        while let Some((until, conversation)) = self.holds.first().copied() {
            if until > now {
                break;
            }
            self.holds.pop_first();
            if let Some(lane) = self.lanes.get_mut(&conversation) {
                lane.held = false;
            }
            self.queue(conversation);
        }
        while let Some(conversation) = self.turns.pop_front() {
            let Some(lane) = self.lanes.get_mut(&conversation) else {
                continue;
            };
            lane.queued = false;
            // A lane that cannot go on now is queued again by what it waits for.
            if lane.held || lane.careful && lane.in_flight > 0 {
                continue;
            }
            let Some(number) = lane.waiting.first().copied() else {
                continue;
            };
            let target = self.items.get(&number).and_then(|item| item.target);
            if target.is_some_and(|target| self.by_event.contains_key(&target)) {
                continue;
            }
            lane.waiting.pop_first();
            lane.in_flight += 1;
            self.queue(conversation);
            let item = self.items.get_mut(&number)?;
            item.in_flight = true;
            item.tries += 1;
            return Some((number, item));
        }
        None
    }

    /// When a held lane goes on, if any.
    pub(crate) fn next_hold(&self) -> Option<u64> {
        self.holds.first().map(|(until, _)| *until)
    }

    fn remove(&mut self, number: u64) -> Option<Item> {
        let item = self.items.remove(&number)?;
        self.bytes -= item.bytes();
        self.by_event.remove(&item.ticket.event);
        let lane = self.lane(item.ticket.conversation);
        lane.waiting.remove(&number);
        lane.in_flight -= usize::from(item.in_flight);
        Some(item)
    }

    /// The event is durable at home: it leaves the queue.
    pub(crate) fn accepted(&mut self, number: u64) -> Option<Item> {
        let item = self.remove(number)?;
        self.lane(item.ticket.conversation).careful = false;
        self.queue(item.ticket.conversation);
        Some(item)
    }

    /// The event was refused for good: it leaves the queue, and what is about it leaves with it.
    pub(crate) fn rejected(&mut self, number: u64) -> Vec<(u64, Item)> {
        let mut gone = vec![];
        let mut next = vec![number];
        while let Some(number) = next.pop() {
            let Some(item) = self.remove(number) else {
                continue;
            };
            let about = Some(item.ticket.event);
            let mut later = self.items.range(number..);
            next.extend(
                later
                    .by_ref()
                    .filter(|(_, i)| i.target == about)
                    .map(|(n, _)| *n),
            );
            self.queue(item.ticket.conversation);
            gone.push((number, item));
        }
        gone
    }

    /// The event was refused for now: its lane waits for at least `after_ms`, longer each time.
    pub(crate) fn refused(&mut self, number: u64, now: u64, after_ms: Option<u64>) {
        let Some(item) = self.items.get_mut(&number) else {
            return;
        };
        let doubled = RESEND_MIN_MS << item.refusals.min(6);
        let wait = after_ms.unwrap_or(doubled.min(RESEND_MAX_MS));
        item.refusals += 1;
        let conversation = item.ticket.conversation;
        self.put_back(number);
        let lane = self.lane(conversation);
        lane.careful = true;
        if !lane.held {
            lane.held = true;
            self.holds.insert((now.saturating_add(wait), conversation));
        }
    }

    fn put_back(&mut self, number: u64) {
        let Some(item) = self.items.get_mut(&number).filter(|i| i.in_flight) else {
            return;
        };
        item.in_flight = false;
        let conversation = item.ticket.conversation;
        let lane = self.lane(conversation);
        lane.in_flight -= 1;
        lane.waiting.insert(number);
        self.queue(conversation);
    }

    /// The session ended: every unanswered event waits again, in its old order.
    pub(crate) fn session_lost(&mut self) {
        let lost: Vec<u64> = self
            .iter()
            .filter(|(_, i)| i.in_flight)
            .map(|(n, _)| n)
            .collect();
        for number in lost {
            self.put_back(number);
        }
    }

    /// Takes back an event that never left, with what is about it. `None` if it left already.
    pub(crate) fn cancel(&mut self, event: &EventId) -> Option<Vec<(u64, Item)>> {
        let number = *self.by_event.get(event)?;
        if self.items.get(&number)?.tries > 0 {
            return None;
        }
        Some(self.rejected(number))
    }
}

#[cfg(test)]
mod tests;
