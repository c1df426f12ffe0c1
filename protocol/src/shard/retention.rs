//! Erases contents whose days are over, conversation by conversation and batch by batch.

use std::collections::{BTreeSet, VecDeque};

use super::{Output, Shard, Store, What, work::Work};
use crate::{ids::ConversationId, limits::RETENTION_MS, time::Timestamp};

/// Conversations that are to be looked through, and what is under way.
#[derive(Debug)]
pub(super) struct Retention {
    /// Each once; no more than the store keeps contents in for days.
    queue: VecDeque<ConversationId>,
    /// When all of them were last asked for.
    looked: Option<Timestamp>,
    /// A batch is on its way to the disk: what is looked at next must not be it once more.
    on_the_way: bool,
}

impl Retention {
    pub(super) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            looked: None,
            on_the_way: false,
        }
    }

    pub(super) fn look_at(&mut self, id: ConversationId) {
        if !self.queue.contains(&id) {
            self.queue.push_back(id);
        }
    }

    pub(super) const fn stored(&mut self) {
        self.on_the_way = false;
    }
}

impl Shard {
    /// Whether all conversations in which somebody ever set the policy `keep_days` are to be given to
    /// [`Self::retain_in`]; true once in `RETENTION_MS`, and at first.
    pub fn retention_due(&mut self, now: Timestamp) -> bool {
        // A clock that was set back must not make this wait for ever.
        let pause = |looked: &Timestamp| (*looked..looked.plus_ms(RETENTION_MS)).contains(&now);
        let due = !self.retention.looked.as_ref().is_some_and(pause);
        if due {
            self.retention.looked = Some(now);
        }
        due
    }

    /// Conversations to be looked through for contents whose days are over.
    pub fn retain_in(&mut self, ids: impl IntoIterator<Item = ConversationId>) {
        // What is in the queue is mostly the same, in the same order, or nothing.
        let mut known: BTreeSet<_> = self.retention.queue.iter().copied().collect();
        let new = ids.into_iter().filter(|id| known.insert(*id));
        self.retention.queue.extend(new);
    }

    /// A step of that: at most one batch is on its way to the disk at a time. To be called every
    /// second.
    pub fn retain(&mut self, now: Timestamp, store: &dyn Store, out: &mut Vec<Output>) {
        if self.retention.on_the_way || store.cannot_store().is_some() {
            return;
        }
        let Some(id) = self.retention.queue.pop_front() else {
            return;
        };
        let open = match self.opened(&id, store) {
            Ok(Some(open)) => open,
            Ok(None) => return,
            // It is being read back.
            Err(_) => return self.retention.queue.push_back(id),
        };
        let (expired, through) = open.machine.expire(now, &|event| store.holds(event));
        let locals = open.locals();
        if !through {
            self.retention.queue.push_back(id);
        }
        if !expired.is_empty() {
            self.retention.on_the_way = true;
            let what = What::Expired(expired);
            self.submit(id, what, locals, None, Work::Expired, out);
        }
    }
}
