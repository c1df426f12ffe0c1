//! A causal order for changes that came in any order.

use std::collections::BTreeMap;

use super::{Seen, engine::Actor, part::Entry};

/// Sorts so that every entry follows those it has seen.
///
/// The result depends on the set alone, even where `seen` contradicts itself: then some entry
/// comes before one that it claims to have seen. At most `n * (lanes + log n)` questions are asked.
pub(super) fn causal(mut entries: Vec<Entry>, seen: &Seen<'_>) -> Vec<Entry> {
    entries.sort_unstable_by_key(|entry| entry.event);
    let mut lanes: BTreeMap<Actor, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        let lane = lanes.entry(entry.actor).or_default();
        // Not `sort_by`: it may panic when the answers are no total order.
        let before = |other: &Entry| seen(other.event, entry.event);
        let at = match lane.last() {
            Some(last) if !before(last) => lane.partition_point(before),
            _ => lane.len(),
        };
        lane.insert(at, entry);
    }
    let lanes = lanes.into_values().map(|lane| lane.into_iter().peekable());
    let mut lanes: Vec<_> = lanes.collect();
    let mut sorted = Vec::new();
    let mut on_path = vec![false; lanes.len()];
    let mut at = 0;
    loop {
        let Some(next) = lanes[at..]
            .iter_mut()
            .position(|lane| lane.peek().is_some())
        else {
            // The lanes before `at` are used up, too: `at` moves on past empty lanes only.
            return sorted;
        };
        at += next;
        // Follow whatever blocks the first entry of a lane; a circle is cut where it closes.
        on_path.fill(false);
        let mut lane = at;
        while let Some(blocker) = blocker(&mut lanes, lane, seen) {
            on_path[lane] = true;
            if on_path[blocker] {
                break;
            }
            lane = blocker;
        }
        sorted.extend(lanes[lane].next());
    }
}

/// A lane whose first entry has to come before the first of `lane`.
fn blocker<I: Iterator<Item = Entry>>(
    lanes: &mut [std::iter::Peekable<I>],
    lane: usize,
    seen: &Seen<'_>,
) -> Option<usize> {
    let event = lanes[lane].peek()?.event;
    let blocks = |(other, entries): (usize, &mut std::iter::Peekable<I>)| {
        let first = entries.peek()?;
        (other != lane && seen(first.event, event)).then_some(other)
    };
    lanes.iter_mut().enumerate().find_map(blocks)
}
