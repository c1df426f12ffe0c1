//! How stewards come to one next record: Paxos for each number of the chain, with stewards as
//! acceptors. Source: `spec/04-authority.md`, section 6; Lamport, "Paxos Made Simple" (2001).
//!
//! A *note* is a steward's signature over a record and the ballot it was proposed in. A majority of
//! notes of one ballot makes a record; that there is only one such record, whatever is lost, late or
//! repeated, rests on stewards that keep what they promised and signed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{RawRoot, RootSignature, RootSigner, root_id};
use crate::{
    event::Tip,
    ids::{PublicKey, RootId, ServerId, Signature},
    signing::{self, Domain, SecretKey, WrongSignature},
};

/// A round of proposing; of two the higher counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// Grows with every attempt.
    pub round: u64,
    /// Who proposes; makes ballots of one round different.
    pub by: ServerId,
}

impl Ballot {
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
    /// Number of the record in question.
    pub n: u64,
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
    /// Number of the record.
    pub n: u64,
    /// The ballot.
    pub ballot: Ballot,
    /// Of the key used.
    pub epoch: u64,
    /// Over the record and the ballot.
    pub signature: Signature,
}

/// Why a steward does neither promise nor sign.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Declined {
    /// It holds a record of that number: the proposer lags behind.
    #[error("record {0} is held already")]
    Decided(u64),
    /// It lacks records before that one.
    #[error("only record {0} is next here")]
    Behind(u64),
    /// It promised a higher ballot.
    #[error("a higher ballot was promised")]
    Outvoted(Ballot),
    /// It has signed nothing for the proposal's ballot, and was not asked to promise it.
    #[error("the ballot was not promised")]
    NotPromised,
    /// The record does not hold what the steward answered, or is not valid.
    #[error("{0}")]
    Record(&'static str),
}

/// What a steward has promised and signed for the next record of one conversation. The caller makes
/// it durable before an answer leaves: a steward that forgets makes twins.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Steward {
    n: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promised: Option<Ballot>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    frontier: Vec<Tip>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<Signed>,
}

impl Steward {
    /// For the record after `newest`.
    #[must_use]
    pub const fn after(newest: u64) -> Self {
        Self {
            n: newest + 1,
            promised: None,
            frontier: Vec::new(),
            signed: None,
        }
    }

    /// Record `newest` is held: what was promised for it or one before is done with.
    pub fn decided(&mut self, newest: u64) {
        if newest >= self.n {
            *self = Self::after(newest);
        }
    }

    /// The number of the record it is a steward for.
    #[must_use]
    pub const fn n(&self) -> u64 {
        self.n
    }

    fn is_for(&self, n: u64) -> Result<(), Declined> {
        match n.cmp(&self.n) {
            std::cmp::Ordering::Less => Err(Declined::Decided(self.n - 1)),
            std::cmp::Ordering::Greater => Err(Declined::Behind(self.n)),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    /// Promises `ballot`, unless a higher one was promised; `frontier` is what is held here now.
    ///
    /// # Errors
    ///
    /// [`Declined`]; nothing was promised.
    pub fn prepare(
        &mut self,
        n: u64,
        ballot: Ballot,
        frontier: Vec<Tip>,
    ) -> Result<Promise, Declined> {
        self.is_for(n)?;
        if let Some(promised) = self.promised.filter(|promised| *promised > ballot) {
            return Err(Declined::Outvoted(promised));
        }
        // Asked again for the same ballot it answers the same: an answer may have been lost.
        if self.promised != Some(ballot) {
            self.promised = Some(ballot);
            self.frontier = frontier;
        }
        Ok(Promise {
            n,
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
        n: u64,
        ballot: Ballot,
        record: &RawRoot,
        (epoch, key): (u64, &SecretKey),
        judge: impl FnOnce(&RawRoot, &[Tip]) -> Result<(), &'static str>,
    ) -> Result<Note, Declined> {
        self.is_for(n)?;
        match self.promised {
            Some(promised) if promised > ballot => return Err(Declined::Outvoted(promised)),
            Some(promised) if promised == ballot => {}
            // Paxos would allow it, but then it would not have said what it holds.
            _ => return Err(Declined::NotPromised),
        }
        let signed = self.signed.as_ref();
        if let Some(other) = signed.filter(|signed| signed.ballot == ballot)
            && other.record.root != record.root
        {
            return Err(Declined::Record("another record was signed in this ballot"));
        }
        judge(record, &self.frontier).map_err(Declined::Record)?;
        self.signed = Some(Signed {
            ballot,
            record: record.clone(),
        });
        let id = root_id(&record.root.0);
        Ok(Note {
            n,
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
    /// This record and no other: it may have been signed by a majority already.
    Bound(RawRoot),
}

/// One attempt to make the next record.
#[derive(Clone, Debug)]
pub struct Proposal {
    n: u64,
    ballot: Ballot,
    stewards: Vec<ServerId>,
    promises: BTreeMap<ServerId, Promise>,
    record: Option<RawRoot>,
    notes: BTreeMap<ServerId, Note>,
}

impl Proposal {
    /// An attempt at record `n`, which the `stewards` of the record before are to sign.
    #[must_use]
    pub const fn new(n: u64, ballot: Ballot, stewards: Vec<ServerId>) -> Self {
        Self {
            n,
            ballot,
            stewards,
            promises: BTreeMap::new(),
            record: None,
            notes: BTreeMap::new(),
        }
    }

    /// Number of the record.
    #[must_use]
    pub const fn n(&self) -> u64 {
        self.n
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

    /// Takes a promise; gives the choice once, when a majority has promised.
    pub fn promised(&mut self, from: ServerId, promise: Promise) -> Option<Choice> {
        let fits = promise.n == self.n && promise.ballot == self.ballot;
        if !fits || !self.stewards.contains(&from) || self.promises.contains_key(&from) {
            return None;
        }
        let before = self.promises.len();
        self.promises.insert(from, promise);
        if self.is_majority(before) || !self.is_majority(self.promises.len()) {
            return None;
        }
        let signed = self.promises.values().filter_map(|p| p.signed.as_ref());
        if let Some(highest) = signed.max_by_key(|signed| signed.ballot) {
            return Some(Choice::Bound(highest.record.clone()));
        }
        let tips = self.promises.values().flat_map(|p| &p.frontier);
        let union: std::collections::BTreeSet<Tip> = tips.copied().collect();
        Some(Choice::Free(union.into_iter().collect()))
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
        let fits = note.n == self.n && note.ballot == self.ballot;
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
