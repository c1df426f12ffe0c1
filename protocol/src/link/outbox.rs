//! The outbox of one conversation towards one peer: positions in the own chain, no copies.
//! Source: `spec/05-links.md`, section 4.

use std::collections::BTreeSet;

/// How far a peer is, as seqs of the own chain. `None` is before the first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Newest own commit.
    pub tip: Option<u64>,
    /// The peer stored everything up to here.
    pub acked: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) tip: Option<u64>,
    /// The peer takes nothing beyond this: its last member left in it.
    pub(super) until: Option<u64>,
    pub(super) acked: Option<u64>,
    /// Handed to the link or being read.
    pub(super) sent: Option<u64>,
    /// Sent, not stored yet.
    pub(super) outstanding: BTreeSet<u64>,
    /// The peer's frontier is known on this link, so pushing may begin.
    pub(super) synced: bool,
    pub(super) reading: bool,
    /// What is being read is of a branch that lost since.
    pub(super) skip_read: bool,
}

pub(super) fn after(position: Option<u64>) -> u64 {
    position.map_or(0, |seq| seq.saturating_add(1))
}

impl Outbox {
    pub(super) fn progress(&self) -> Progress {
        Progress {
            tip: self.tip,
            acked: self.acked,
        }
    }

    /// The peer takes part, or has not stored yet the act that ended that.
    pub(super) fn is_open(&self) -> bool {
        self.until.is_none_or(|until| self.acked < Some(until))
    }

    /// The link is new: the peer says again what it has.
    pub(super) fn reset(&mut self) {
        self.outstanding.clear();
        self.synced = false;
        self.reading = false;
        self.sent = self.acked;
    }

    /// The own chain goes on from an earlier commit now: this is the new branch's first seq.
    pub(super) fn rewind(&mut self, seq: u64) {
        let base = seq.checked_sub(1);
        self.tip = Some(seq);
        self.acked = self.acked.min(base);
        self.sent = self.sent.min(base);
        self.outstanding.retain(|sent| Some(*sent) <= base);
        self.skip_read |= self.reading;
    }

    /// The peer's frontier names this end of the own chain. True if the position moved.
    pub(super) fn peer_holds(&mut self, theirs: Option<u64>) -> bool {
        // A peer that holds less than it acknowledged was restored from an older state.
        let moved = self.acked != theirs;
        self.acked = theirs;
        if !self.synced || self.sent < theirs {
            self.sent = theirs;
            self.outstanding.retain(|seq| Some(*seq) > theirs);
        }
        self.synced = true;
        moved
    }

    /// What to read next: first seq, or nothing now.
    pub(super) fn next_read(&self) -> Option<u64> {
        let from = after(self.sent);
        (self.synced && !self.reading && self.is_for_peer(from)).then_some(from)
    }

    /// This seq exists and is not beyond what the peer may have.
    pub(super) fn is_for_peer(&self, seq: u64) -> bool {
        Some(seq) <= self.tip && self.until.is_none_or(|until| seq <= until)
    }

    /// The peer stored (or for good refused) this one. True if the position moved.
    pub(super) fn settled(&mut self, seq: u64) -> bool {
        if !self.outstanding.remove(&seq) {
            return false;
        }
        let acked = match self.outstanding.first() {
            Some(0) => None,
            Some(first) => Some(first - 1),
            None => self.sent,
        };
        let moved = acked > self.acked;
        self.acked = self.acked.max(acked);
        moved
    }
}
