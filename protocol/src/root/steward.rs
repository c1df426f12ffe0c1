//! How stewards come to one next record: Paxos for each record that has none behind it, with its
//! stewards as acceptors. Source: `spec/04-authority.md`, section 6; Lamport, "Paxos Made Simple"
//! (2001).
//!
//! A *note* is a steward's signature over a record and the ballot it was proposed in. A majority of
//! notes of one ballot makes a record; that there is only one such record, whatever is lost, late or
//! repeated, rests on stewards that keep what they promised and signed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{RawRoot, RootSignature, RootSigner, root_id};
use crate::{
    commit::RootRef,
    event::Tip,
    ids::{PublicKey, RootId, ServerId, Signature},
    limits::AHEAD_HOLD_MS,
    signing::{self, Domain, SecretKey, WrongSignature},
    time::Timestamp,
};

/// Bits of a round below its time.
const ROUND_RANDOM_BITS: u32 = 16;

/// A round of proposing; of two the higher counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// Grows with every attempt. Milliseconds of the proposer's clock and 16 random bits, so that
    /// one who restarts and remembers nothing proposes in no ballot twice; higher than that if a
    /// higher one is known.
    pub round: u64,
    /// Who proposes; makes ballots of one round different.
    pub by: ServerId,
}

impl Ballot {
    /// A new ballot of `by`, above another that is known. `random` is uniform.
    #[must_use]
    pub fn new(now: Timestamp, random: u64, by: ServerId, above: Option<Self>) -> Self {
        let mask = (1 << ROUND_RANDOM_BITS) - 1;
        let round = (now.0 << ROUND_RANDOM_BITS) | (random & mask);
        let above = above.map_or(0, |above| above.round.saturating_add(1));
        let round = round.max(above);
        Self { round, by }
    }

    /// Whether its time is too far ahead to be an honest proposer's: a round that nobody can go
    /// beyond would end the chain.
    #[must_use]
    pub const fn is_too_far_ahead(&self, now: Timestamp) -> bool {
        self.round >> ROUND_RANDOM_BITS > now.0.saturating_add(AHEAD_HOLD_MS)
    }

    /// What a note signs: the record's id, the round in 8 bytes big-endian, the proposer's id.
    fn message(&self, id: &RootId) -> Vec<u8> {
        [
            &id.as_bytes()[..],
            &self.round.to_be_bytes(),
            self.by.as_bytes(),
        ]
        .concat()
    }

    /// Checks a note of this ballot on a record.
    ///
    /// # Errors
    ///
    /// [`WrongSignature`].
    pub fn check(
        &self,
        id: &RootId,
        key: &PublicKey,
        note: &Signature,
    ) -> Result<(), WrongSignature> {
        signing::verify(key, Domain::Note, &self.message(id), note)
    }
}

/// What a steward signed, and in which ballot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// The ballot.
    pub ballot: Ballot,
    /// The record, with its maker's signature alone.
    pub record: RawRoot,
}

/// A steward's answer to who asks to propose.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    /// The record that the one in question is to follow.
    pub before: RootRef,
    /// The ballot promised.
    pub ballot: Ballot,
    /// What the steward holds: it signs nothing that has seen less. Strictly increasing.
    pub frontier: Vec<Tip>,
    /// What it signed in the highest ballot before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
}

/// A steward's signature under a proposal.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The record that the signed one follows.
    pub before: RootRef,
    /// The ballot.
    pub ballot: Ballot,
    /// Of the key used.
    pub epoch: u64,
    /// Over the record and the ballot.
    pub signature: Signature,
}

/// Why a steward does neither promise nor sign.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Declined {
    /// This is the newest record there: one of the two lags behind.
    #[error("another record is the newest")]
    Elsewhere(RootRef),
    /// It promised a higher ballot.
    #[error("a higher ballot was promised")]
    Outvoted(Ballot),
    /// The ballot's time is more than [`AHEAD_HOLD_MS`] ahead of its clock.
    #[error("the ballot is ahead of the clock")]
    TooFarAhead,
    /// It was not asked to promise the proposal's ballot, so it did not say what it holds.
    #[error("the ballot was not promised")]
    NotPromised,
    /// It lacks commits or an identity log; it may sign once they came.
    #[error("something of the record is not held yet")]
    Waits,
    /// The record has not seen all that the steward answered.
    #[error("the record has not seen what was answered")]
    Uncovered,
    /// A succession, but the owner's server was reached.
    #[error("the owner's server was reached")]
    NotLost,
    /// The record is not valid, or another one was signed in this ballot.
    #[error("the record is not valid")]
    Invalid,
}

/// What a steward has promised and signed for the record after one of a conversation. The caller
/// makes it durable before an answer leaves: a steward that forgets makes twins.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Steward {
    before: RootRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promised: Option<Ballot>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    frontier: Vec<Tip>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<Signed>,
}

impl Steward {
    /// For the record after `before`.
    #[must_use]
    pub const fn after(before: RootRef) -> Self {
        Self {
            before,
            promised: None,
            frontier: Vec::new(),
            signed: None,
        }
    }

    /// The record whose follower it is a steward for.
    #[must_use]
    pub const fn before(&self) -> RootRef {
        self.before
    }

    /// What it signed last, if anything.
    #[must_use]
    pub const fn signed(&self) -> Option<&Signed> {
        self.signed.as_ref()
    }

    /// Whether it signed something: that may be the next record.
    #[must_use]
    pub const fn has_signed(&self) -> bool {
        self.signed.is_some()
    }

    fn is_after(&self, before: &RootRef) -> Result<(), Declined> {
        if *before == self.before {
            Ok(())
        } else {
            Err(Declined::Elsewhere(self.before))
        }
    }

    /// Promises `ballot`, unless a higher one was promised; `frontier` is what is held here now.
    ///
    /// # Errors
    ///
    /// [`Declined`]; nothing was promised.
    pub fn prepare(
        &mut self,
        now: Timestamp,
        before: &RootRef,
        ballot: Ballot,
        frontier: impl FnOnce() -> Vec<Tip>,
    ) -> Result<Promise, Declined> {
        self.is_after(before)?;
        if let Some(promised) = self.promised.filter(|promised| *promised > ballot) {
            return Err(Declined::Outvoted(promised));
        }
        if ballot.is_too_far_ahead(now) {
            return Err(Declined::TooFarAhead);
        }
        // Asked again for the same ballot it answers the same: an answer may have been lost.
        if self.promised != Some(ballot) {
            self.promised = Some(ballot);
            self.frontier = frontier();
        }
        Ok(Promise {
            before: self.before,
            ballot,
            frontier: self.frontier.clone(),
            signed: self.signed.clone(),
        })
    }

    /// Signs a record, if `judge` finds it valid; `judge` is also given the frontier that this
    /// steward answered, which the record has to have seen.
    ///
    /// # Errors
    ///
    /// [`Declined`]; nothing was signed.
    pub fn propose(
        &mut self,
        before: &RootRef,
        ballot: Ballot,
        record: &RawRoot,
        (epoch, key): (u64, &SecretKey),
        judge: impl FnOnce(&RawRoot, &[Tip]) -> Result<(), Declined>,
    ) -> Result<Note, Declined> {
        self.is_after(before)?;
        match self.promised {
            Some(promised) if promised > ballot => return Err(Declined::Outvoted(promised)),
            Some(promised) if promised == ballot => {}
            // Paxos would allow it, but then it would not have said what it holds.
            _ => return Err(Declined::NotPromised),
        }
        match &self.signed {
            // What was right to sign once is right to sign again: a record that a majority signed
            // can always be made, whatever came meanwhile.
            Some(signed) if signed.record.root == record.root => {}
            Some(signed) if signed.ballot == ballot => return Err(Declined::Invalid),
            _ => judge(record, &self.frontier)?,
        }
        self.signed = Some(Signed {
            ballot,
            record: record.clone(),
        });
        let id = root_id(&record.root.0);
        Ok(Note {
            before: self.before,
            ballot,
            epoch,
            signature: key.sign(Domain::Note, &ballot.message(&id)),
        })
    }
}

/// What a proposer may propose once a majority has promised.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Choice {
    /// Anything that has seen these frontiers.
    Free(Vec<Tip>),
    /// This record and no other: it may have been signed by a majority already. More promises may
    /// show that it was not.
    Bound(RawRoot),
}

/// One attempt to make the next record.
#[derive(Clone, Debug)]
pub struct Proposal {
    before: RootRef,
    ballot: Ballot,
    stewards: Vec<ServerId>,
    promises: BTreeMap<ServerId, Promise>,
    record: Option<RawRoot>,
    notes: BTreeMap<ServerId, Note>,
}

impl Proposal {
    /// An attempt at the record after `before`, whose `stewards` are to sign it.
    #[must_use]
    pub const fn new(before: RootRef, ballot: Ballot, stewards: Vec<ServerId>) -> Self {
        Self {
            before,
            ballot,
            stewards,
            promises: BTreeMap::new(),
            record: None,
            notes: BTreeMap::new(),
        }
    }

    /// The record that it is to follow.
    #[must_use]
    pub const fn before(&self) -> RootRef {
        self.before
    }

    /// The ballot.
    #[must_use]
    pub const fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// The stewards asked.
    #[must_use]
    pub fn stewards(&self) -> &[ServerId] {
        &self.stewards
    }

    fn is_majority(&self, count: usize) -> bool {
        count > self.stewards.len() / 2
    }

    /// Stewards that did not answer what is asked of them now: a promise, or a note once something
    /// is proposed. Who promised nothing is asked for no note.
    pub fn awaited(&self) -> impl Iterator<Item = ServerId> + '_ {
        let awaited = |steward: &&ServerId| {
            let promised = self.promises.contains_key(*steward);
            match self.record {
                None => !promised,
                Some(_) => promised && !self.notes.contains_key(*steward),
            }
        };
        self.stewards.iter().filter(awaited).copied()
    }

    /// Whether one note more is a majority.
    #[must_use]
    pub fn lacks_one_note(&self) -> bool {
        self.is_majority(self.notes.len() + 1)
    }

    /// Whether a majority is out of reach if these decline.
    pub fn fails_with(&self, declined: impl Iterator<Item = ServerId>) -> bool {
        let lost = declined.filter(|steward| self.stewards.contains(steward));
        !self.is_majority(self.stewards.len() - lost.count())
    }

    /// Takes a promise; gives the choice as it is then, once a majority has promised and until a
    /// record is proposed.
    pub fn promised(&mut self, from: ServerId, promise: Promise) -> Option<Choice> {
        let fits = promise.before == self.before && promise.ballot == self.ballot;
        // It cannot have signed in a ballot that it had not promised yet.
        let ahead = |signed: &Signed| signed.ballot > promise.ballot;
        let fits = fits && !promise.signed.as_ref().is_some_and(ahead);
        if !fits || !self.stewards.contains(&from) || self.promises.contains_key(&from) {
            return None;
        }
        self.promises.insert(from, promise);
        if self.record.is_some() || !self.is_majority(self.promises.len()) {
            return None;
        }
        let signed = self.promises.values().filter_map(|p| p.signed.as_ref());
        if let Some(highest) = signed.clone().max_by_key(|signed| signed.ballot) {
            // Whatever was made is what was signed in the highest ballot, and each of those who made
            // it says so: if a majority says otherwise, nothing was made.
            let same = signed.filter(|signed| signed.record.root == highest.record.root);
            let others = self.promises.len() - same.count();
            if !self.is_majority(others) {
                return Some(Choice::Bound(highest.record.clone()));
            }
        }
        let tips = self.promises.values().flat_map(|p| &p.frontier);
        let union: std::collections::BTreeSet<Tip> = tips.copied().collect();
        Some(Choice::Free(union.into_iter().collect()))
    }

    /// Whether every steward promised, or is among these.
    pub fn is_answered_with(&self, others: impl Fn(&ServerId) -> bool) -> bool {
        let mut stewards = self.stewards.iter();
        stewards.all(|steward| self.promises.contains_key(steward) || others(steward))
    }

    /// What is proposed to all who promised: a record with its maker's signature alone.
    pub fn propose(&mut self, record: RawRoot) {
        self.record.get_or_insert(record);
    }

    /// What is proposed, once it is.
    #[must_use]
    pub const fn record(&self) -> Option<&RawRoot> {
        self.record.as_ref()
    }

    /// Takes a note; gives the complete record once a majority has signed it.
    ///
    /// # Errors
    ///
    /// [`WrongSignature`]; it does not count.
    pub fn noted(
        &mut self,
        from: ServerId,
        note: Note,
        key_of: impl Fn(&ServerId, u64) -> Option<PublicKey>,
    ) -> Result<Option<RawRoot>, WrongSignature> {
        let Some(record) = self.record.as_ref() else {
            return Ok(None);
        };
        let fits = note.before == self.before && note.ballot == self.ballot;
        if !fits || !self.stewards.contains(&from) || self.notes.contains_key(&from) {
            return Ok(None);
        }
        let key = key_of(&from, note.epoch).ok_or(WrongSignature)?;
        self.ballot
            .check(&root_id(&record.root.0), &key, &note.signature)?;
        self.notes.insert(from, note);
        if !self.is_majority(self.notes.len()) {
            return Ok(None);
        }
        let notes = self.notes.iter().map(|(server, note)| RootSignature {
            by: RootSigner::Steward {
                server: *server,
                epoch: note.epoch,
            },
            signature: note.signature,
        });
        let mut signatures: Vec<RootSignature> =
            record.signatures.iter().copied().chain(notes).collect();
        signatures.sort_by_key(|signature| signature.by);
        Ok(Some(RawRoot {
            root: record.root.clone(),
            ballot: Some(self.ballot),
            signatures,
        }))
    }
}

#[cfg(test)]
mod tests;
