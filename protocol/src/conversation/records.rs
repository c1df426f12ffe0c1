//! Root records of a conversation: taking those of others, and making the owner's.
//! Source: `spec/04-authority.md`, section 6.

use std::collections::BTreeMap;

use super::{Changes, Conversation, Devices};
use crate::{
    authority::RecordOutcome,
    commit::RootRef,
    event::Tip,
    history::Twins,
    ids::{CommitId, Nonce, PublicKey, RootId, ServerId, UserId},
    limits::{BRANCHES_MAX, CHECKPOINT_ACTS, CHECKPOINT_MS},
    link::Range,
    root::{
        Ballot, Made, NotVerified, Proposal, RawRoot, Root, RootSignature, RootSigner, SignedRoot,
        Steward,
    },
    session::Code,
    signing::SecretKey,
    time::Timestamp,
};

impl std::fmt::Debug for RecordKeys<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordKeys").finish_non_exhaustive()
    }
}

/// What records are checked with. Each gives none while the log or card is not held.
#[derive(Clone, Copy)]
pub struct RecordKeys<'a> {
    /// The key of a server's epoch.
    pub server: &'a dyn Fn(&ServerId, u64) -> Option<PublicKey>,
    /// Whether a device's key occurs in a user's identity log.
    pub device: &'a Devices<'a>,
    /// Whether a home's key does.
    pub home: &'a Devices<'a>,
}

/// A root record that became part of the conversation, and what it changed.
#[derive(Debug)]
pub struct TakenRecord {
    /// The record as it travels.
    pub raw: RawRoot,
    /// Its number and id.
    pub record: RootRef,
    /// Whether it stands; else a twin does, and both are proof.
    pub stands: bool,
    /// What it changed.
    pub changes: Changes,
}

/// Two records on one: proof that a steward lied or lost its log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProvenTwins {
    /// Both.
    pub twins: Twins,
    /// Stewards that signed both: one at least, if both were signed by majorities. Where it was the
    /// only steward it is proof against that one; else it may have been told a lie.
    pub signed_both: Vec<ServerId>,
}

/// How often checkpoints are made: by default once a day, or after 1,000 acts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CheckpointPace {
    /// After so many acts.
    pub acts: usize,
    /// Or after this many milliseconds, if there were any acts.
    pub ms: u64,
}

impl CheckpointPace {
    /// That of [`CHECKPOINT_ACTS`] and [`CHECKPOINT_MS`].
    pub const DAILY: Self = Self {
        acts: CHECKPOINT_ACTS,
        ms: CHECKPOINT_MS,
    };
}

impl Default for CheckpointPace {
    fn default() -> Self {
        Self::DAILY
    }
}

/// What became of a root record.
#[derive(Debug)]
pub enum ReceivedRecord {
    /// It is part of the conversation now.
    Taken(Box<TakenRecord>),
    /// It was before.
    Known,
    /// Kept in memory until these are had.
    Waiting {
        /// The record before, or it is the card of a steward.
        record: Option<RootId>,
        /// Commits of its frontier.
        commits: Vec<Range>,
        /// The user whose identity log is not held, or lacks the key.
        users: Vec<UserId>,
    },
    /// Refused for good.
    Refused(Code, &'static str),
}

/// Records held, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Record 0; none in a direct conversation.
    pub(super) first: Option<Root>,
    held: BTreeMap<RootId, SignedRoot>,
    /// With what each says, so that it is known without a signature whether it can be taken.
    waiting: BTreeMap<RootId, (RawRoot, Root)>,
}

impl Conversation {
    /// The record that this one is to follow, if it is held.
    pub(super) fn record_before(&self, id: &RootId) -> Option<Root> {
        self.held_record(id).cloned()
    }

    fn held_record(&self, id: &RootId) -> Option<&Root> {
        match self.records.held.get(id) {
            Some(record) => Some(record.root()),
            None if id.as_bytes() == self.id.as_bytes() => self.records.first.as_ref(),
            None => None,
        }
    }

    /// What the newest record that stands says, if this is a group.
    pub(super) fn newest_root(&self) -> Option<&Root> {
        let newest = self.authority.newest_record(&self.graph)?;
        self.held_record(&newest.id)
    }

    /// The newest record that stands, if this is a group.
    #[must_use]
    pub fn newest_record(&self) -> Option<(RootRef, Root)> {
        let newest = self.authority.newest_record(&self.graph)?;
        Some((newest, self.record_before(&newest.id)?))
    }

    /// Whether a held record has a twin.
    #[must_use]
    pub fn twins_of(&self, record: &RootRef) -> Option<ProvenTwins> {
        let twins = self.graph.twins().into_iter().find(|twins| {
            twins.n == record.n && [twins.stands, twins.loses].contains(&record.id)
        })?;
        let signers = |id: &RootId| {
            let held = self.records.held.get(id);
            let signatures = held.map(|held| &held.raw().signatures[..]);
            let steward = |signature: &RootSignature| match signature.by {
                RootSigner::Steward { server, .. } => Some(server),
                _ => None,
            };
            let signed = signatures.unwrap_or_default().iter();
            signed.filter_map(steward).collect::<Vec<_>>()
        };
        let others = signers(&twins.loses);
        let mut signed_both = signers(&twins.stands);
        signed_both.retain(|server| others.contains(server));
        Some(ProvenTwins { twins, signed_both })
    }

    /// Held records from number `from` on, dependencies first: for peers that lack them.
    pub fn records_from(&self, from: u64) -> impl Iterator<Item = &RawRoot> + '_ {
        let mut held: Vec<&SignedRoot> = self.records.held.values().collect();
        held.sort_unstable_by_key(|record| (record.root().n, record.id()));
        held.into_iter()
            .filter(move |record| record.root().n >= from)
            .map(SignedRoot::raw)
    }

    /// Takes a root record from outside.
    pub fn receive_record(&mut self, raw: RawRoot, keys: &RecordKeys<'_>) -> ReceivedRecord {
        let id = SignedRoot::id_of(&raw);
        if self.records.held.contains_key(&id) {
            return ReceivedRecord::Known;
        }
        let Ok(root) = SignedRoot::decode(&raw) else {
            return ReceivedRecord::Refused(Code::Malformed, "no root record");
        };
        let waiting = |record, commits, users| ReceivedRecord::Waiting {
            record,
            commits,
            users,
        };
        let Some(before_id) = root.prev else {
            return ReceivedRecord::Refused(Code::Malformed, "record 0 makes a conversation");
        };
        let Some(before) = self.record_before(&before_id) else {
            self.keep_record(id, raw, root);
            return waiting(Some(before_id), Vec::new(), Vec::new());
        };
        let signed = match SignedRoot::verify(raw.clone(), &before_id, &before, keys.server) {
            Ok(signed) => signed,
            Err(NotVerified::Steward(_)) => {
                self.keep_record(id, raw, root);
                return waiting(None, Vec::new(), Vec::new());
            }
            Err(NotVerified::Refused(_)) => {
                return ReceivedRecord::Refused(
                    Code::WrongSignature,
                    "not signed by the right ones",
                );
            }
        };
        let known = match signed.made() {
            Made::ByOwner(device) => (keys.device)(&before.owner, &device),
            Made::ByHome(key) => (keys.home)(&before.owner, &key),
            Made::Succession => Some(true),
        };
        // A key that is in no entry held here may be in one that is not held yet.
        if known != Some(true) {
            self.keep_record(id, raw, root);
            return waiting(None, Vec::new(), vec![before.owner]);
        }
        match self.take_record(signed) {
            Ok(taken) => ReceivedRecord::Taken(Box::new(taken)),
            Err(RecordOutcome::Missing { record, commits }) => {
                let ranges = self.ranges_of(&root.frontier, &commits);
                self.keep_record(id, raw, root);
                waiting(record, ranges, Vec::new())
            }
            Err(RecordOutcome::Refused(why)) => ReceivedRecord::Refused(Code::Conflict, why),
            Err(_) => ReceivedRecord::Known,
        }
    }

    /// Takes records that waited for what came meanwhile.
    pub fn release_records(&mut self, keys: &RecordKeys<'_>) -> Vec<TakenRecord> {
        let mut all = Vec::new();
        loop {
            let before = all.len();
            for (id, (raw, root)) in std::mem::take(&mut self.records.waiting) {
                if !self.is_founded(&root) {
                    self.records.waiting.insert(id, (raw, root));
                } else if let ReceivedRecord::Taken(taken) = self.receive_record(raw, keys) {
                    all.push(*taken);
                }
            }
            if all.len() == before {
                return all;
            }
        }
    }

    /// Whether what a record builds on is held.
    fn is_founded(&self, root: &Root) -> bool {
        let before = root.prev.is_some_and(|id| self.held_record(&id).is_some());
        let held = |tip: &Tip| self.graph.ix(&tip.id).is_some();
        before && root.frontier.iter().all(held)
    }

    /// Whether records wait for something.
    #[must_use]
    pub fn has_waiting_records(&self) -> bool {
        !self.records.waiting.is_empty()
    }

    /// Records come one a day; who sends more that fit nowhere displaces those.
    fn keep_record(&mut self, id: RootId, raw: RawRoot, root: Root) {
        if self.records.waiting.len() >= BRANCHES_MAX {
            self.records.waiting.pop_first();
        }
        self.records.waiting.insert(id, (raw, root));
    }

    pub(super) fn ranges_of(&self, frontier: &[Tip], missing: &[CommitId]) -> Vec<Range> {
        let lacking = frontier.iter().filter(|tip| missing.contains(&tip.id));
        lacking.map(|tip| self.range_to(tip)).collect()
    }

    fn take_record(&mut self, signed: SignedRoot) -> Result<TakenRecord, RecordOutcome> {
        let raw = signed.raw().clone();
        let record = RootRef {
            n: signed.root().n,
            id: signed.id(),
        };
        match self.authority.insert_record(&mut self.graph, &signed) {
            RecordOutcome::Taken {
                node,
                stands,
                effects,
            } => {
                self.records.held.insert(signed.id(), signed);
                let moved = self.moved(node, BTreeMap::new(), &effects);
                let changed =
                    self.documents
                        .take_record(&self.graph, &self.authority, node, &effects);
                let folded = self
                    .rates
                    .take(&self.graph, &self.authority, node, &effects);
                Ok(TakenRecord {
                    raw,
                    record,
                    stands,
                    changes: self.changes(*effects, changed, moved, folded).1,
                })
            }
            other => Err(other),
        }
    }

    /// Takes a stored record back in, where it was stored among the commits. Nothing new follows.
    ///
    /// # Errors
    ///
    /// The reason, if the store gives what it never took.
    pub fn restore_record(&mut self, raw: RawRoot) -> Result<(), String> {
        let root = SignedRoot::decode(&raw).map_err(|error| error.to_string())?;
        let before = root.prev.and_then(|id| self.record_before(&id));
        let before = before.ok_or("a stored record follows nothing")?;
        let signed = SignedRoot::from_trusted(raw, &before).map_err(|error| error.to_string())?;
        match self.authority.restore_record(&mut self.graph, &signed) {
            RecordOutcome::Taken { node, effects, .. } => {
                self.documents.restore_record(&self.authority);
                self.rates
                    .take(&self.graph, &self.authority, node, &effects);
                self.records.held.insert(signed.id(), signed);
                Ok(())
            }
            RecordOutcome::Known => Ok(()),
            other => Err(format!("a stored record is {other:?}")),
        }
    }

    /// From when on this home is to make a checkpoint, as far as that does not depend on what it
    /// could settle now; none if it has none to make.
    #[must_use]
    pub fn checkpoint_from(&self, pace: CheckpointPace) -> Option<Timestamp> {
        let root = self.newest_root()?;
        let acts = self.authority.unsettled_acts();
        if acts == 0 || !self.speaks_for_owner(root) {
            return None;
        }
        let many = acts >= pace.acts;
        Some(if many {
            Timestamp(0)
        } else {
            root.created_at.plus_ms(pace.ms)
        })
    }

    /// It is the home of the owner, who did not move away since the newest record.
    fn speaks_for_owner(&self, root: &Root) -> bool {
        root.home == self.me && self.home_now(&root.owner) == Some(self.me)
    }

    /// The owner, if his device is to have the usual stewards named: this home speaks for him, it is
    /// the only steward though two others take part, and he never had a record made for the sake of
    /// other stewards. Whoever did decides himself from then on.
    #[must_use]
    pub fn owner_to_name_stewards(&self) -> Option<UserId> {
        let root = self.newest_root()?;
        let alone = root.stewards == [self.me] && self.speaks_for_owner(root);
        if !alone || self.authority.homes().take(3).count() < 3 {
            return None;
        }
        let mut at = self.authority.newest_record(&self.graph)?.id;
        while let Some(held) = self.records.held.get(&at) {
            let before_id = held.root().prev?;
            let before = self.held_record(&before_id)?;
            if before.owner != root.owner {
                break;
            }
            if matches!(held.made(), Made::ByOwner(_)) && held.root().owner == root.owner {
                return None;
            }
            at = before_id;
        }
        Some(root.owner)
    }

    /// Whether this home is to make a checkpoint: it is the owner's, who did not move away since the
    /// last record, there were acts since, and they are many or it is long ago.
    #[must_use]
    pub fn checkpoint_due(&self, now: Timestamp, pace: CheckpointPace) -> bool {
        let (Some(root), Some(from)) = (self.newest_root(), self.checkpoint_from(pace)) else {
            return false;
        };
        let long = now.0 >= root.created_at.plus_ms(pace.ms).0;
        // What a cut names and nobody gave yet is waited for: settled without it, it lets nothing
        // stand.
        let whole = self.authority.unheld_cuts().next().is_none();
        let late = now.0 >= root.created_at.plus_ms(pace.ms.saturating_mul(2)).0;
        if now < from || !(whole || late) {
            return false;
        }
        // Acts that no record can settle yet are no reason to make one after the other.
        let acts = self.authority.acts_to_settle(&self.graph, now);
        acts >= pace.acts || (long && acts > 0)
    }

    /// The record that would follow now, of all that is held: a checkpoint until it is changed. None
    /// in a direct conversation.
    #[must_use]
    pub fn next_root(&self, now: Timestamp, nonce: Nonce) -> Option<Root> {
        let frontier = self.authority.frontier_for_record(&self.graph, now);
        self.root_at(now, nonce, frontier)
    }

    /// The same at a frontier. None as well while that is not held.
    pub(super) fn root_at(&self, now: Timestamp, nonce: Nonce, frontier: Vec<Tip>) -> Option<Root> {
        let (newest, root) = self.newest_record()?;
        let (members, _) = self.authority.members_at(&self.graph, &frontier)?;
        Some(Root {
            n: newest.n + 1,
            prev: Some(newest.id),
            frontier,
            digest: Some(members.digest()),
            nonce,
            created_at: now,
            ..root
        })
    }

    /// Makes a checkpoint where this home is the only steward: signed with the key by which it
    /// speaks for the owner, and noted with its own of `epoch`. None if it is not this home's to
    /// make, or not valid.
    pub fn make_checkpoint(
        &mut self,
        now: Timestamp,
        nonce: Nonce,
        home_key: &SecretKey,
        (epoch, key): (u64, &SecretKey),
    ) -> Option<TakenRecord> {
        let root = self.next_root(now, nonce)?;
        if root.home != self.me || root.stewards != [self.me] {
            return None;
        }
        let (_, bytes) = SignedRoot::encode(&root);
        let made = RawRoot::by_home(bytes, home_key);
        let (newest, before) = self.newest_record()?;
        let whole = self.sign_alone(now, newest, &made, (epoch, key))?;
        let signed = SignedRoot::from_trusted(whole, &before).ok()?;
        self.take_record(signed).ok()
    }

    /// One steward is a majority: it promises, signs and counts in one step. What it signed is
    /// durable with the record itself, before anybody is told of it.
    pub(super) fn sign_alone(
        &self,
        now: Timestamp,
        before: RootRef,
        made: &RawRoot,
        (epoch, key): (u64, &SecretKey),
    ) -> Option<RawRoot> {
        let ballot = Ballot::new(now, 0, self.me, None);
        let mut steward = Steward::after(before);
        let mut proposal = Proposal::new(before, ballot, vec![self.me]);
        let promise = steward.prepare(now, &before, ballot, Vec::new).ok()?;
        proposal.promised(self.me, promise)?;
        proposal.propose(made.clone());
        let note = steward
            .propose(&before, ballot, made, (epoch, key), |_, _| Ok(()))
            .ok()?;
        let own = |_: &ServerId, _| Some(key.public());
        proposal.noted(self.me, note, own).ok()?
    }
}
