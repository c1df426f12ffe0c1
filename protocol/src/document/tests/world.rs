//! A small network: homes that act and learn of each other's acts, and what documents must say.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    document::{Change, ChangeKind, Edited, MessageState},
    event::ContentRef,
    ids::{CommitId, ContentHash, EventId, ServerId, UserId},
    session::Place,
    time::Hlc,
};

/// Homes that act, each with one user of the same number.
#[derive(Default)]
pub(super) struct World {
    pub(super) changes: Vec<Change>,
    past: BTreeMap<EventId, BTreeSet<EventId>>,
    known: BTreeMap<u8, BTreeSet<EventId>>,
    epochs: BTreeMap<u8, u64>,
}

pub(super) fn message(n: u8) -> EventId {
    EventId::from_bytes([n; 32])
}

pub(super) fn user(n: u8) -> UserId {
    UserId::from_bytes([n; 32])
}

pub(super) fn numbered(domain: &str, n: usize) -> [u8; 32] {
    *blake3::hash(format!("{domain} {n}").as_bytes()).as_bytes()
}

impl World {
    /// A home does something, knowing what it knows.
    pub(super) fn act(
        &mut self,
        home: u8,
        kind: impl FnOnce(Place, ContentRef) -> ChangeKind,
    ) -> EventId {
        let n = self.changes.len();
        let event = EventId::from_bytes(numbered("event", n));
        let at = Place {
            hlc: Hlc::from_bits(n as u64),
            commit: CommitId::from_bytes(numbered("commit", n)),
            index: 0,
        };
        let content = ContentRef {
            hash: ContentHash::from_bytes(numbered("content", n)),
            len: 7,
        };
        let known = self.known.entry(home).or_default();
        self.past.insert(event, known.clone());
        known.insert(event);
        self.changes.push(Change {
            event,
            home: ServerId::from_bytes([home; 32]),
            epoch: self.epochs.get(&home).copied().unwrap_or(1),
            kind: kind(at, content),
        });
        event
    }

    pub(super) fn react(&mut self, home: u8, target: u8, on: bool) -> EventId {
        self.act(home, |_, _| ChangeKind::React {
            target: message(target),
            emoji: "👍".to_owned(),
            // Concurrent reactions of one user need two homes: everyone is user 1 on emoji 👍.
            user: user(1),
            on,
            version: None,
        })
    }

    pub(super) fn react_as_self(&mut self, home: u8, target: u8, emoji: &str, on: bool) -> EventId {
        self.act(home, |_, _| ChangeKind::React {
            target: message(target),
            emoji: emoji.to_owned(),
            user: user(home),
            on,
            version: None,
        })
    }

    pub(super) fn edit(&mut self, home: u8, target: u8) -> EventId {
        self.act(home, |at, content| ChangeKind::Edit {
            target: message(target),
            content,
            author: user(home),
            at,
        })
    }

    pub(super) fn delete(&mut self, home: u8, target: u8) -> EventId {
        self.act(home, |_, _| ChangeKind::Delete {
            target: message(target),
            by: user(home),
        })
    }

    /// `to` learns all that `from` knows.
    pub(super) fn sync(&mut self, from: u8, to: u8) {
        let news = self.known.get(&from).cloned().unwrap_or_default();
        self.known.entry(to).or_default().extend(news);
    }

    pub(super) fn new_epoch(&mut self, home: u8) {
        *self.epochs.entry(home).or_insert(1) += 1;
    }

    pub(super) fn seen(&self) -> impl Fn(EventId, EventId) -> bool + '_ {
        |earlier, later| {
            self.past
                .get(&later)
                .is_some_and(|past| past.contains(&earlier))
        }
    }

    /// The changes that no other change on the same thing has seen.
    fn standing<'a>(&'a self, among: &[&'a Change]) -> Vec<&'a Change> {
        let seen = self.seen();
        let replaced = |change: &Change| among.iter().any(|other| seen(change.event, other.event));
        among
            .iter()
            .copied()
            .filter(|change| !replaced(change))
            .collect()
    }

    /// What a document of `changes` must say of a message, worked out without one.
    pub(super) fn expected(&self, changes: &[Change], target: EventId) -> MessageState {
        let deletions = changes
            .iter()
            .filter(|c| matches!(c.kind, ChangeKind::Delete { target: t, .. } if t == target));
        if let Some(deletion) = deletions.map(|c| c.event).max() {
            return MessageState {
                deleted_by: Some(deletion),
                ..MessageState::default()
            };
        }
        let mut edits: Vec<&Change> = Vec::new();
        let mut keys: BTreeMap<(String, UserId), Vec<&Change>> = BTreeMap::new();
        for change in changes {
            match &change.kind {
                ChangeKind::Edit { target: t, .. } if *t == target => edits.push(change),
                ChangeKind::React {
                    target: t,
                    emoji,
                    user,
                    ..
                } if *t == target => keys.entry((emoji.clone(), *user)).or_default().push(change),
                _ => {}
            }
        }
        let mut edits: Vec<(Place, Edited)> =
            self.standing(&edits).into_iter().map(edited).collect();
        edits.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let mut edits = edits.into_iter().map(|(_, edited)| edited);
        let edit = edits.next();
        let shown = edit.map(|edit| edit.event);
        let mut reactions: BTreeMap<String, Vec<UserId>> = BTreeMap::new();
        let mut older = reactions.clone();
        for ((emoji, user), among) in keys {
            let on = self
                .standing(&among)
                .into_iter()
                .filter_map(|c| match c.kind {
                    ChangeKind::React {
                        on: true, version, ..
                    } => Some(version),
                    _ => None,
                });
            let on: Vec<_> = on.collect();
            if !on.is_empty() {
                reactions.entry(emoji.clone()).or_default().push(user);
                if !on.contains(&shown) {
                    older.entry(emoji).or_default().push(user);
                }
            }
        }
        MessageState {
            edit,
            lost: edits.collect(),
            deleted_by: None,
            reactions: reactions.into_iter().collect(),
            older: older.into_iter().collect(),
        }
    }
}

fn edited(change: &Change) -> (Place, Edited) {
    match change.kind {
        ChangeKind::Edit {
            content,
            author,
            at,
            ..
        } => (
            at,
            Edited {
                event: change.event,
                content,
                author,
            },
        ),
        _ => unreachable!("only edits are asked for"),
    }
}
