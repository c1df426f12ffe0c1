//! The policy `keep_days`: contents whose time is over are erased, on every server by itself. Source:
//! `spec/03-history-and-documents.md`, part "History", section 4.
//!
//! Only contents of messages and edits go, never an event, and what went stays gone whatever becomes
//! of the policy. What the driver holds of a content only it knows; it is asked.

use super::{CheckedEvent, Conversation, Slot};
use crate::{
    commit::SignedCommit,
    event::Act,
    history::{Appearance, NodeIx},
    ids::EventId,
    limits::{DAY_MS, RETENTION_BATCH, RETENTION_LOOK},
    time::Timestamp,
};

/// A content whose days are over.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Expired {
    /// The message or edit.
    pub event: EventId,
    /// The message that reads otherwise without it: itself, or what the edit is of.
    pub line: EventId,
}

/// Where a look through the commits is.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// Nothing is left to erase in commits before this, for ever: they are old and were looked at.
    done: u32,
    /// Where the next step goes on.
    next: u32,
}

impl Conversation {
    /// Commits before this time have no contents any more; none if contents are kept for ever.
    #[must_use]
    pub fn kept_from(&self, now: Timestamp) -> Option<Timestamp> {
        let days = self.authority.keep_days(&self.graph)?;
        Some(Timestamp(now.0.saturating_sub(days.saturating_mul(DAY_MS))))
    }

    /// A step of looking for contents whose days are over: at most `RETENTION_BATCH` of them, that
    /// `holds` says are held, and whether the look is through; the next call then begins anew. It is
    /// to be made once what this one gave is erased.
    pub fn expire(
        &mut self,
        now: Timestamp,
        holds: &dyn Fn(&EventId) -> bool,
    ) -> (Vec<Expired>, bool) {
        let mut expired = Vec::new();
        let Some(from) = self.kept_from(now) else {
            self.retention.next = self.retention.done;
            return (expired, true);
        };
        let mut at = self.retention.next.max(self.retention.done);
        let nodes = u32::try_from(self.graph.iter().count()).unwrap_or(u32::MAX);
        for _ in 0..RETENTION_LOOK {
            if at >= nodes {
                self.retention.next = self.retention.done;
                return (expired, true);
            }
            let node = NodeIx(at);
            let old = self.graph.node(node).hlc().timestamp() < from;
            if old {
                self.expire_commit(node, holds, &mut expired);
                if expired.len() >= RETENTION_BATCH {
                    // The commit may hold more.
                    break;
                }
                if self.retention.done == at {
                    self.retention.done = at + 1;
                }
            }
            at += 1;
        }
        self.retention.next = at;
        (expired, false)
    }

    fn expire_commit(
        &self,
        node: NodeIx,
        holds: &dyn Fn(&EventId) -> bool,
        expired: &mut Vec<Expired>,
    ) {
        for (index, event) in (0u16..).zip(self.graph.node(node).events()) {
            let at = Appearance { node, index };
            let Some(line) = self.authority.line_of(&self.graph, at) else {
                continue;
            };
            // What was committed again is as old as it is where it is shown.
            let shown = self.authority.shown(&self.graph, event);
            if shown.is_none_or(|shown| shown == at) && holds(event) {
                let event = *event;
                expired.push(Expired { event, line });
                if expired.len() >= RETENTION_BATCH {
                    return;
                }
            }
        }
    }

    /// Takes from a commit that just comes what is too old to be kept.
    pub(super) fn drop_expired(
        &self,
        now: Timestamp,
        commit: &SignedCommit,
        events: &mut [CheckedEvent],
    ) {
        let from = self.kept_from(now);
        if from.is_none_or(|from| commit.commit().hlc.timestamp() >= from) {
            return;
        }
        for event in events {
            let ages = matches!(
                event.event.event().act,
                Act::Message { .. } | Act::Edit { .. }
            );
            if ages && event.slot != Slot::None {
                event.slot = Slot::Expired;
            }
        }
    }
}
