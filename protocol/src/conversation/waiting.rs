//! The waiting room: bundles that name what is not held yet. Bounded; the oldest goes first, since
//! it can be fetched again.

use std::collections::{BTreeSet, VecDeque};

use super::{CheckedBundle, Devices};
use crate::{
    commit::RootRef,
    history::Graph,
    ids::{CommitId, UserId},
    limits::{WAITING_BYTES_MAX, WAITING_ITEMS_MAX},
    time::Timestamp,
};

#[derive(Clone, Debug, Default)]
pub(super) struct WaitsFor {
    pub(super) commits: BTreeSet<CommitId>,
    /// A root record that the commit names.
    pub(super) record: Option<RootRef>,
    pub(super) users: BTreeSet<UserId>,
    pub(super) until: Option<Timestamp>,
}

impl WaitsFor {
    pub(super) fn is_nothing(&self) -> bool {
        self.commits.is_empty()
            && self.record.is_none()
            && self.users.is_empty()
            && self.until.is_none()
    }
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    items: VecDeque<(CheckedBundle, WaitsFor)>,
    bytes: usize,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn holds(&self, id: &CommitId) -> bool {
        self.items.iter().any(|(held, _)| held.commit.id() == *id)
    }

    /// Bundles that wait for identity logs, and whose.
    pub(super) fn for_users(&self) -> impl Iterator<Item = (CommitId, &BTreeSet<UserId>)> {
        let items = self
            .items
            .iter()
            .filter(|(_, waits)| !waits.users.is_empty());
        items.map(|(bundle, waits)| (bundle.commit.id(), &waits.users))
    }

    /// Keeps a bundle; gives the ids of those dropped for want of room.
    pub(super) fn add(&mut self, bundle: CheckedBundle, waits: WaitsFor) -> Vec<CommitId> {
        let mut dropped = Vec::new();
        if self.holds(&bundle.commit.id()) {
            return dropped;
        }
        self.bytes += bundle.size();
        self.items.push_back((bundle, waits));
        while self.items.len() > WAITING_ITEMS_MAX || self.bytes > WAITING_BYTES_MAX {
            let Some((oldest, _)) = self.items.pop_front() else {
                break;
            };
            self.bytes -= oldest.size();
            dropped.push(oldest.commit.id());
        }
        dropped
    }

    /// Takes out whatever waits for nothing any more, oldest clock first.
    pub(super) fn ready(
        &mut self,
        now: Timestamp,
        graph: &Graph,
        devices: &Devices<'_>,
    ) -> Vec<CheckedBundle> {
        let mut ready = Vec::new();
        let mut kept = VecDeque::with_capacity(self.items.len());
        for (bundle, mut waits) in std::mem::take(&mut self.items) {
            waits.commits.retain(|id| graph.ix(id).is_none());
            waits.record = waits.record.filter(|root| graph.record(&root.id).is_none());
            if waits.until.is_some_and(|until| until <= now) {
                waits.until = None;
            }
            if !waits.users.is_empty() {
                let known = |user: &UserId| {
                    let mut events = bundle.events.iter().map(|e| e.event.event());
                    events.all(|e| e.author != *user || devices(user, &e.device) == Some(true))
                };
                waits.users.retain(|user| !known(user));
            }
            if waits.is_nothing() {
                self.bytes -= bundle.size();
                ready.push(bundle);
            } else {
                kept.push_back((bundle, waits));
            }
        }
        self.items = kept;
        ready.sort_by_key(|bundle| bundle.commit.commit().hlc);
        ready
    }
}
