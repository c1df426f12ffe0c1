//! Fetching what a peer holds and this server lacks, one range a conversation at a time.
//! Source: `spec/05-links.md`, section 6.

use std::collections::{BTreeMap, VecDeque};

use super::frame::Range;
use crate::{ids::ConversationId, time::Timestamp};

/// Ranges queued a conversation; the rest is noticed in the next round.
const QUEUED_MAX: usize = 256;
/// Wants under way on one link.
const UNDER_WAY_MAX: usize = 8;
/// A want without answer for this long is given up, to be noticed again in the next round.
const PATIENCE_MS: u64 = 20_000;

#[derive(Debug)]
struct UnderWay {
    range: Range,
    since: Timestamp,
    /// The answer came and is being taken in; how it goes on.
    answered: Option<Option<u64>>,
}

#[derive(Debug, Default)]
pub(super) struct Fetcher {
    /// No queue is empty: one would keep those behind it from their turn.
    queued: BTreeMap<ConversationId, VecDeque<Range>>,
    under_way: BTreeMap<u64, UnderWay>,
    next_id: u64,
}

impl Fetcher {
    pub(super) fn reset(&mut self) {
        self.queued.clear();
        self.under_way.clear();
    }

    pub(super) fn queue(&mut self, range: Range) {
        if range.from > range.to {
            return;
        }
        let covers = |r: &Range| {
            r.home == range.home && r.tip == range.tip && r.from <= range.from && r.to >= range.to
        };
        let known = self
            .under_way
            .values()
            .any(|u| u.range.conversation == range.conversation && covers(&u.range));
        if known {
            return;
        }
        let queue = self.queued.entry(range.conversation).or_default();
        if !queue.iter().any(covers) && queue.len() < QUEUED_MAX {
            queue.push_back(range);
        }
    }

    /// Ranges to ask for now.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<(u64, Range)> {
        if self.under_way.len() >= UNDER_WAY_MAX {
            return None;
        }
        let busy = |c: &ConversationId| self.under_way.values().any(|u| u.range.conversation == *c);
        let conversation = *self.queued.keys().find(|c| !busy(c))?;
        let queue = self.queued.get_mut(&conversation)?;
        let range = queue.pop_front()?;
        if queue.is_empty() {
            self.queued.remove(&conversation);
        }
        self.next_id += 1;
        self.under_way.insert(
            self.next_id,
            UnderWay {
                range,
                since: now,
                answered: None,
            },
        );
        Some((self.next_id, range))
    }

    /// An answer came. `None` if nobody asked.
    pub(super) fn answered(&mut self, id: u64, next: Option<u64>, some: bool) -> Option<Range> {
        let under_way = self
            .under_way
            .get_mut(&id)
            .filter(|u| u.answered.is_none())?;
        // An empty answer with a place to go on from would be a loop.
        under_way.answered = Some(next.filter(|n| some && *n > under_way.range.from));
        Some(under_way.range)
    }

    /// The answer was taken in: the rest of the range follows at the head of the queue.
    pub(super) fn taken(&mut self, id: u64) {
        let Some(under_way) = self.under_way.remove(&id) else {
            return;
        };
        let range = under_way.range;
        if let Some(Some(from)) = under_way.answered
            && from <= range.to
        {
            self.queued
                .entry(range.conversation)
                .or_default()
                .push_front(Range { from, ..range });
        }
    }

    pub(super) fn give_up_old(&mut self, now: Timestamp) {
        self.under_way
            .retain(|_, u| u.answered.is_some() || now.ms_since(u.since) < PATIENCE_MS);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queued.is_empty() && self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CommitId, ServerId};

    fn range(conversation: u8) -> Range {
        Range {
            conversation: ConversationId::from_bytes([conversation; 32]),
            home: ServerId::from_bytes([1; 32]),
            tip: CommitId::from_bytes([2; 32]),
            from: 0,
            to: 9,
        }
    }

    #[test]
    fn a_range_that_is_under_way_already_leaves_nothing_behind_and_holds_up_no_other() {
        let mut fetcher = Fetcher::default();
        fetcher.queue(range(1));
        let (first, _) = fetcher.next(Timestamp(0)).unwrap();
        fetcher.queue(range(1));
        fetcher.answered(first, None, true).unwrap();
        fetcher.taken(first);
        assert!(fetcher.is_idle());
        fetcher.queue(range(2));
        let (second, asked) = fetcher.next(Timestamp(0)).unwrap();
        assert_eq!(asked, range(2));
        fetcher.answered(second, None, true).unwrap();
        fetcher.taken(second);
        assert!(fetcher.is_idle());
    }
}
