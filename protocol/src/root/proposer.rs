//! Who proposes the next record: attempts until one is made, in ballots that rise, with pauses that
//! grow. Source: `spec/04-authority.md`, section 6.
//!
//! Nothing of it has to survive a restart: what may have been made is found again with the stewards.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Ballot, Choice, Declined, Note, Promise, Proposal, RawRoot};
use crate::{
    commit::RootRef,
    event::Tip,
    ids::{PublicKey, ServerId},
    time::Timestamp,
};

/// An attempt that no majority answered is given up after this long, in milliseconds.
const ATTEMPT_MS: u64 = 8_000;
/// Who did not answer is asked again after this long, in milliseconds.
const ASK_AGAIN_MS: u64 = 1_000;
/// Shortest and longest pause between two attempts, in milliseconds. The pause doubles, so that of
/// several proposers one is alone in time.
const REST_MIN_MS: u64 = 500;
const REST_MAX_MS: u64 = 60_000;

/// What servers say to each other about the record that is to follow another.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StewardMessage {
    /// Asks a steward for a promise.
    Prepare {
        /// The newest record.
        before: RootRef,
        /// To be promised.
        ballot: Ballot,
    },
    /// Answers it.
    Promise(Promise),
    /// Asks for a note.
    Propose {
        /// The newest record.
        before: RootRef,
        /// The one promised.
        ballot: Ballot,
        /// With its maker's signature alone.
        record: RawRoot,
    },
    /// Answers it.
    Note(Note),
    /// Answers either.
    Declined {
        /// As asked.
        before: RootRef,
        /// As asked.
        ballot: Ballot,
        /// Why.
        why: Declined,
    },
}

impl StewardMessage {
    /// Whether a steward is asked, and not answers.
    #[must_use]
    pub const fn is_question(&self) -> bool {
        matches!(self, Self::Prepare { .. } | Self::Propose { .. })
    }
}

/// What followed from an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Heard {
    /// Nothing to do but to ask on.
    Nothing,
    /// A majority promised, and what is proposed is to be chosen: [`Proposer::propose`] a record
    /// that has seen these.
    Free(Vec<Tip>),
    /// The record is made.
    Made(RawRoot),
    /// A steward holds a newer record.
    Lags(RootRef),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// For promises.
    Asking,
    /// A majority promised, the record is not chosen yet.
    Choosing,
    /// For notes.
    Proposing,
    /// Until the next attempt.
    Resting,
}

/// One server that wants the next record made.
#[derive(Clone, Debug)]
pub struct Proposer {
    me: ServerId,
    proposal: Proposal,
    phase: Phase,
    declined: BTreeMap<ServerId, Declined>,
    /// What a majority may have signed before, until the rest of the stewards said whether it can
    /// have.
    bound: Option<RawRoot>,
    /// This server is a steward itself and was asked for its note.
    asked_self: bool,
    highest: Ballot,
    attempts: u32,
    /// Of the phase.
    ends: Timestamp,
    asked_at: Option<Timestamp>,
}

/// Whether `at` has come. Clocks step: what is due later than anything is set for is due.
const fn is_due(now: Timestamp, at: Timestamp) -> bool {
    now.0 >= at.0 || at.0 - now.0 > 2 * REST_MAX_MS
}

impl Proposer {
    /// Begins to propose the record after `before`, which its `stewards` have to sign. `random` is
    /// uniform.
    #[must_use]
    pub fn new(
        me: ServerId,
        before: RootRef,
        stewards: Vec<ServerId>,
        now: Timestamp,
        random: u64,
    ) -> Self {
        let ballot = Ballot::new(now, random, me, None);
        Self {
            me,
            proposal: Proposal::new(before, ballot, stewards),
            phase: Phase::Asking,
            declined: BTreeMap::new(),
            bound: None,
            asked_self: false,
            highest: ballot,
            attempts: 0,
            ends: now.plus_ms(ATTEMPT_MS),
            asked_at: None,
        }
    }

    /// The record that the next is to follow.
    #[must_use]
    pub const fn before(&self) -> RootRef {
        self.proposal.before()
    }

    /// Whether a record is to be chosen now.
    #[must_use]
    pub fn is_choosing(&self) -> bool {
        self.phase == Phase::Choosing
    }

    /// Failed attempts so far.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What to say now and to whom, once at first and again after a while. This server is asked for
    /// its own note last, when that makes the record: nobody is bound by what it alone signed.
    pub fn ask(&mut self, now: Timestamp) -> Vec<(ServerId, StewardMessage)> {
        let before = self.proposal.before();
        let ballot = self.proposal.ballot();
        let message = match (self.phase, self.proposal.record()) {
            (Phase::Asking, _) => StewardMessage::Prepare { before, ballot },
            (Phase::Proposing, Some(record)) => StewardMessage::Propose {
                before,
                ballot,
                record: record.clone(),
            },
            _ => return Vec::new(),
        };
        let again = |at: Timestamp| is_due(now, at.plus_ms(ASK_AGAIN_MS));
        let due = self.asked_at.is_none_or(again);
        let proposing = self.phase == Phase::Proposing;
        let last = proposing && self.proposal.lacks_one_note();
        let me = self.me;
        let now_self = last && !self.asked_self;
        self.asked_self |= last;
        let asks = |steward: &ServerId| {
            if proposing && *steward == me {
                last && (due || now_self)
            } else {
                due
            }
        };
        if due {
            self.asked_at = Some(now);
        }
        let awaited = self.proposal.awaited();
        let awaited = awaited.filter(|steward| !self.declined.contains_key(steward));
        let asked = awaited.filter(asks);
        asked.map(|steward| (steward, message.clone())).collect()
    }

    /// Takes an answer. `key_of` gives a server's key of an epoch.
    pub fn heard(
        &mut self,
        now: Timestamp,
        random: u64,
        from: ServerId,
        message: StewardMessage,
        key_of: impl Fn(&ServerId, u64) -> Option<PublicKey>,
    ) -> Heard {
        match message {
            StewardMessage::Promise(promise) => {
                match (self.proposal.promised(from, promise), self.phase) {
                    (Some(Choice::Bound(record)), Phase::Asking) => {
                        self.bound = Some(record);
                        self.propose_bound(now, false);
                        Heard::Nothing
                    }
                    (Some(Choice::Free(seen)), Phase::Asking) => {
                        (self.phase, self.ends) = (Phase::Choosing, now.plus_ms(ATTEMPT_MS));
                        Heard::Free(seen)
                    }
                    _ => Heard::Nothing,
                }
            }
            StewardMessage::Note(note) => match self.proposal.noted(from, note, key_of) {
                Ok(Some(made)) => Heard::Made(made),
                Ok(None) | Err(_) => Heard::Nothing,
            },
            StewardMessage::Declined {
                before,
                ballot,
                why,
            } if before == self.before() && ballot == self.proposal.ballot() => {
                self.was_declined(now, random, from, why)
            }
            _ => Heard::Nothing,
        }
    }

    fn was_declined(
        &mut self,
        now: Timestamp,
        random: u64,
        from: ServerId,
        why: Declined,
    ) -> Heard {
        match why {
            // Asked again after a while.
            Declined::Waits => return Heard::Nothing,
            Declined::Outvoted(by) => self.highest = self.highest.max(by),
            _ => {}
        }
        self.declined.insert(from, why);
        self.propose_bound(now, false);
        let declined = self.declined.keys().copied();
        if self.phase != Phase::Resting && self.proposal.fails_with(declined) {
            self.rest(now, random);
        }
        match why {
            Declined::Elsewhere(newest) if newest.n > self.before().n => Heard::Lags(newest),
            _ => Heard::Nothing,
        }
    }

    /// Chooses what is proposed: a record with its maker's signature alone.
    pub fn propose(&mut self, now: Timestamp, record: RawRoot) {
        self.proposal.propose(record);
        (self.phase, self.ends) = (Phase::Proposing, now.plus_ms(ATTEMPT_MS));
        self.asked_at = None;
    }

    /// Proposes what it is bound to, once nobody is left who could say that it was not made, or
    /// those who are left take too long.
    fn propose_bound(&mut self, now: Timestamp, late: bool) {
        let declined = &self.declined;
        let all = |steward: &ServerId| declined.contains_key(steward);
        if self.phase == Phase::Asking
            && (late || self.proposal.is_answered_with(all))
            && let Some(record) = self.bound.take()
        {
            self.propose(now, record);
        }
    }

    /// Leaves this long for the choice.
    pub const fn choose_for(&mut self, now: Timestamp, ms: u64) {
        self.ends = now.plus_ms(ms);
    }

    fn rest(&mut self, now: Timestamp, random: u64) {
        self.attempts += 1;
        let longest = (REST_MIN_MS << self.attempts.min(16)).min(REST_MAX_MS);
        let pause = longest / 2 + random % (longest / 2 + 1);
        (self.phase, self.ends) = (Phase::Resting, now.plus_ms(pause));
    }

    /// Gives up an attempt whose time is over, and begins another when the pause is. `random` is
    /// uniform.
    pub fn tick(&mut self, now: Timestamp, random: u64) {
        let again = |at: Timestamp| is_due(now, at.plus_ms(ASK_AGAIN_MS));
        if self.asked_at.is_some_and(again) {
            self.propose_bound(now, true);
        }
        if !is_due(now, self.ends) {
            return;
        }
        if self.phase != Phase::Resting {
            return self.rest(now, random);
        }
        let ballot = Ballot::new(now, random, self.me, Some(self.highest));
        self.highest = ballot;
        let stewards = self.proposal.stewards().to_vec();
        self.proposal = Proposal::new(self.before(), ballot, stewards);
        self.declined = BTreeMap::new();
        (self.phase, self.bound, self.asked_at) = (Phase::Asking, None, None);
        self.asked_self = false;
        self.ends = now.plus_ms(ATTEMPT_MS);
    }

    /// Stewards that answered nothing in this attempt.
    #[must_use]
    pub fn silent(&self) -> BTreeSet<ServerId> {
        let awaited = self.proposal.awaited();
        let silent = awaited.filter(|steward| !self.declined.contains_key(steward));
        silent.collect()
    }
}

#[cfg(test)]
mod tests;
