//! Commits events again that the home's own chain lost, or has too far ahead of the clock.

use super::{Output, Shard, Store};
use crate::{
    conversation::{CheckedBundle, CheckedEvent},
    ids::{CommitId, ConversationId, EventId},
    time::Timestamp,
};

impl Shard {
    /// Makes the next commit of events that were lost. True if there may be some: then nothing new
    /// is committed before.
    pub(super) fn commit_again(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) -> bool {
        let Some(open) = self.open.get_mut(&id) else {
            return false;
        };
        if open.is_mending() || !(open.machine.has_lost() || open.machine.is_ahead(now)) {
            return false;
        }
        if store.cannot_store().is_some() {
            return true;
        }
        let lost = open.machine.lost(now);
        if lost.is_empty() {
            // None, or not yet: the next tick asks again.
            return open.machine.has_lost() || open.machine.is_ahead(now);
        }
        let mut reader = Reader {
            store,
            conversation: id,
            last: None,
        };
        let mut events = Vec::with_capacity(lost.len());
        for (event, commit) in lost {
            match reader.event(&event, &commit) {
                Some(read) => events.push(read),
                // Damage took it: it is lost for good, and no reason to lose the others.
                None => open.machine.cannot_read_lost(event),
            }
        }
        if let Some(taken) = open.machine.commit_again(now, &self.key, events) {
            self.taken(id, taken, out);
        }
        true
    }
}

/// Reads events out of stored commits; neighbours are mostly of one.
struct Reader<'a> {
    store: &'a dyn Store,
    conversation: ConversationId,
    last: Option<(CommitId, Vec<CheckedEvent>)>,
}

impl Reader<'_> {
    fn event(&mut self, event: &EventId, commit: &CommitId) -> Option<CheckedEvent> {
        if self.last.as_ref().is_none_or(|(last, _)| last != commit) {
            let (bundle, _) = self.store.bundle(&self.conversation, commit, true)?;
            let key = |origin: &_, epoch| self.store.key_of(origin, epoch);
            let checked = CheckedBundle::check(bundle, key).ok()?;
            self.last = Some((*commit, checked.events));
        }
        let (_, events) = self.last.as_ref()?;
        events.iter().find(|e| e.event.id() == *event).cloned()
    }
}
