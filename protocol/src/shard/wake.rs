//! Conversations in which something is due though nobody uses them: they are opened for it. Source:
//! `spec/04-authority.md`, section 6.
//!
//! What a conversation waits for is a function of what is stored of it, so it is stored beside what
//! changes it, and the driver gives it back without the conversation being read.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Shard, Store, open::Open};
use crate::{
    conversation::CheckpointPace,
    ids::{ConversationId, ServerId, UserId},
    limits::{SUCCESSION_MS, WAKE_MS},
    time::Timestamp,
};

/// Conversations opened by one call.
const WAKE_EACH: usize = 4;

/// What a conversation waits for that nobody asks for. By default nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Due {
    /// From when on this home is to make a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Timestamp>,
    /// The owner's server, if this one is a steward that would name who follows him.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<ServerId>,
    /// This home signed a record that is not known to be made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// The owner, at home here, whose device is to have the usual stewards named. Nothing that this
    /// home could do by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stewards: Option<UserId>,
}

impl Due {
    /// Whether this home is to do something now. `unreached_ms`: as [`Store::unreached_ms`].
    #[must_use]
    pub fn is_now(&self, now: Timestamp, unreached_ms: impl FnOnce(&ServerId) -> u64) -> bool {
        let lost = |home: &ServerId| unreached_ms(home) >= SUCCESSION_MS;
        self.unfinished
            || self.checkpoint.is_some_and(|from| from <= now)
            || self.succession.as_ref().is_some_and(lost)
    }
}

/// Where the look through what is due is.
#[derive(Debug)]
pub(super) struct Waking {
    /// To be opened.
    queue: VecDeque<ConversationId>,
    /// Looked at last; none before the first.
    after: Option<ConversationId>,
    /// When the last look ended, if none is under way.
    ended: Option<Timestamp>,
}

impl Waking {
    pub(super) const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            after: None,
            ended: None,
        }
    }
}

impl Open {
    /// What this conversation waits for.
    pub(super) fn due(&self, me: &ServerId, pace: CheckpointPace) -> Due {
        Due {
            checkpoint: self.machine.checkpoint_from(pace),
            succession: self.machine.succession_of(me),
            unfinished: self.is_unfinished(),
            stewards: self.machine.owner_to_name_stewards(),
        }
    }

    /// The same if it is another than is stored, or on its way there.
    pub(super) fn new_due(&mut self, me: &ServerId, pace: CheckpointPace) -> Option<Due> {
        let due = self.due(me, pace);
        let before = std::mem::replace(&mut self.due, due);
        (before != due).then_some(due)
    }
}

impl Shard {
    /// From which conversation on, without it, the driver is to give what is stored as [`Due`], in
    /// the order of ids, to [`Self::give_due`]; none while nothing is to be looked at. A look through
    /// all of it begins `WAKE_MS` after the one before.
    #[must_use]
    pub fn wants_due(&self, now: Timestamp) -> Option<Option<ConversationId>> {
        let waking = &self.waking;
        // A clock that was set back must not make this wait for ever.
        let pause = |ended: &Timestamp| (*ended..ended.plus_ms(WAKE_MS)).contains(&now);
        let rests = waking.ended.as_ref().is_some_and(pause);
        (waking.queue.is_empty() && !rests).then_some(waking.after)
    }

    /// Takes in what is stored of some conversations, up to and with `to`; none: up to the last.
    pub fn give_due(
        &mut self,
        now: Timestamp,
        due: impl IntoIterator<Item = (ConversationId, Due)>,
        to: Option<ConversationId>,
        store: &dyn Store,
    ) {
        // What is open is looked at each second as it is.
        let is_due = |(id, due): &(ConversationId, Due)| {
            !self.open.contains_key(id) && due.is_now(now, |home| store.unreached_ms(home))
        };
        let due: Vec<_> = due.into_iter().filter(is_due).map(|(id, _)| id).collect();
        self.waking.queue.extend(due);
        self.waking.after = to;
        self.waking.ended = to.is_none().then_some(now);
    }

    /// Opens a few of the conversations in which something is due: what follows is
    /// [`Self::tend`]'s. To be called every second.
    pub fn wake(&mut self, store: &dyn Store) {
        if store.cannot_store().is_some() {
            return;
        }
        for _ in 0..WAKE_EACH {
            let Some(id) = self.waking.queue.pop_front() else {
                return;
            };
            // One that is being read back, or cannot be read, is found again by the next look.
            if self.opened(&id, store).is_ok() {
                self.counts.woken += 1;
            }
        }
    }
}
