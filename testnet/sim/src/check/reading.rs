//! What clients are to read, recomputed from the signed commits: lines, their order, edits,
//! deletions, reactions.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    event::Act,
    ids::{EventId, UserId},
    place::Place,
};

use super::{
    history::{At, History},
    oracle::Oracle,
};
use crate::rows::Marks;

/// What counts, and how it reads.
pub(super) struct Reading {
    pub(super) lines: BTreeMap<Place, (EventId, Marks)>,
    /// Events whose text is to be nowhere: deleted by their authors, or by somebody else and settled
    /// by a root record; with all edits.
    pub(super) erased: BTreeSet<EventId>,
}

/// The first standing place of every event.
pub(super) fn shown(history: &History, oracle: &Oracle<'_>) -> BTreeMap<EventId, At> {
    let mut shown: BTreeMap<EventId, At> = BTreeMap::new();
    for y in history.appearances().filter(|y| oracle.counts(*y)) {
        let first = shown.entry(history.id(y)).or_insert(y);
        if history.place(y) < history.place(*first) {
            *first = y;
        }
    }
    shown
}

impl Reading {
    pub(super) fn of(history: &History, oracle: &Oracle<'_>) -> Self {
        let shown = shown(history, oracle);
        let mut about: BTreeMap<EventId, Vec<At>> = BTreeMap::new();
        let (mut deleted, mut settled) = (BTreeSet::new(), BTreeSet::new());
        for y in history.appearances() {
            if let Act::Delete { target } = &history.event(y).act
                && oracle.own_deletion(y)
            {
                deleted.insert(*target);
                settled.insert(*target);
            }
        }
        for y in history.appearances() {
            if let Act::Delete { target } = &history.event(y).act
                && oracle.is_settled(y)
                && oracle.counts(y)
            {
                settled.insert(*target);
            }
        }
        for y in shown.values().copied() {
            match &history.event(y).act {
                Act::Delete { target } => drop(deleted.insert(*target)),
                Act::Edit { target, .. } | Act::React { target, .. } if history.made[y.0].whole => {
                    about.entry(*target).or_default().push(y);
                }
                _ => {}
            }
        }
        let mut erased: BTreeSet<EventId> = settled.clone();
        for y in history.appearances() {
            if let Act::Edit { target, .. } = &history.event(y).act
                && settled.contains(target)
            {
                erased.insert(history.id(y));
            }
        }
        let line = |y: &At| {
            let act = &history.event(*y).act;
            !matches!(
                act,
                Act::Edit { .. } | Act::Delete { .. } | Act::React { .. }
            )
        };
        let lines = shown.iter().filter(|(_, y)| line(y)).map(|(event, y)| {
            let none = Vec::new();
            let about = about.get(event).unwrap_or(&none);
            let marks = if deleted.contains(event) {
                Marks {
                    deleted: true,
                    ..Marks::default()
                }
            } else {
                marks(history, about)
            };
            (history.place(*y), (*event, marks))
        });
        let lines = lines.collect();
        Self { lines, erased }
    }
}

/// Of these, those that no other has seen.
fn last(history: &History, all: &[At]) -> Vec<At> {
    let unseen = |x: &&At| !all.iter().any(|y| history.causally_before(**x, *y));
    all.iter().filter(unseen).copied().collect()
}

fn marks(history: &History, about: &[At]) -> Marks {
    let is_edit = |y: &&At| matches!(history.event(**y).act, Act::Edit { .. });
    let edits: Vec<At> = about.iter().filter(is_edit).copied().collect();
    let edit = last(history, &edits)
        .into_iter()
        .max_by_key(|y| history.place(*y))
        .map(|y| history.id(y));
    let mut keys: BTreeMap<(String, UserId), Vec<At>> = BTreeMap::new();
    for y in about {
        if let Act::React { emoji, .. } = &history.event(*y).act {
            let key = (emoji.clone(), history.event(*y).author);
            keys.entry(key).or_default().push(*y);
        }
    }
    let mut reactions: BTreeMap<String, Vec<UserId>> = BTreeMap::new();
    for ((emoji, user), all) in keys {
        let on = |y: &At| matches!(history.event(*y).act, Act::React { on: true, .. });
        if last(history, &all).iter().any(on) {
            reactions.entry(emoji).or_default().push(user);
        }
    }
    Marks {
        edit,
        deleted: false,
        reactions: reactions.into_iter().collect(),
    }
}
