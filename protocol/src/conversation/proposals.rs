//! Proposals of root records: what a steward signs, and what a proposer makes. Source:
//! `spec/04-authority.md`, section 6.

use super::{Conversation, RecordKeys};
use crate::{
    authority::RecordOutcome,
    commit::RootRef,
    event::Tip,
    ids::{Nonce, RootId, ServerId, UserId},
    limits::STEWARDS_MAX,
    link::Range,
    role::Role,
    root::{Declined, Made, RawRoot, Root, SignedRoot},
    time::Timestamp,
};

/// Why a steward does not sign a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotSigned {
    /// As the proposer is told.
    pub why: Declined,
    /// Commits that it lacks.
    pub commits: Vec<Range>,
    /// Users whose identity log is not held, or lacks the key.
    pub users: Vec<UserId>,
}

impl NotSigned {
    const fn of(why: Declined) -> Self {
        Self {
            why,
            commits: Vec::new(),
            users: Vec::new(),
        }
    }
}

/// What the owner wants of the next record. What is absent stays as it is, but stewards: without
/// any named it has those that [`Conversation::usual_stewards`] gives.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RootChange {
    /// Who owns the conversation from then on: a member.
    pub owner: Option<UserId>,
    /// Strictly increasing.
    pub stewards: Option<Vec<ServerId>>,
}

impl Conversation {
    /// Whether a record is held.
    #[must_use]
    pub fn holds_record(&self, record: &RootRef) -> bool {
        let genesis = record.n == 0 && record.id.as_bytes() == self.id().as_bytes();
        genesis || self.graph().record(&record.id).is_some()
    }

    /// Whether a record is the newest that stands.
    #[must_use]
    pub fn is_newest(&self, record: &RootRef) -> bool {
        self.authority().newest_record(self.graph()) == Some(*record)
    }

    /// Who may propose the next record: the stewards, and the owner's home by the newest record or
    /// by what he did since.
    #[must_use]
    pub fn may_propose(&self, server: &ServerId) -> bool {
        let Some(root) = self.newest_root() else {
            return false;
        };
        root.home == *server
            || root.stewards.contains(server)
            || self.home_now(&root.owner) == Some(*server)
    }

    /// Where a member is at home by all that he did.
    pub(super) fn home_now(&self, user: &UserId) -> Option<ServerId> {
        self.authority().member(user).and_then(|member| member.home)
    }

    /// What a steward says that it holds.
    #[must_use]
    pub fn frontier_for_promise(&self, now: Timestamp) -> Vec<Tip> {
        self.authority().frontier_for_record(self.graph(), now)
    }

    /// The owner; none in a direct conversation.
    #[must_use]
    pub fn owner(&self) -> Option<UserId> {
        self.newest_root().map(|root| root.owner)
    }

    /// Whether this home alone signs the next record.
    #[must_use]
    pub fn is_only_steward(&self) -> bool {
        let newest = self.newest_root();
        newest.is_some_and(|root| root.stewards == [self.me])
    }

    /// Whether a server is a steward of the next record.
    #[must_use]
    pub fn is_steward(&self, server: &ServerId) -> bool {
        let newest = self.newest_root();
        newest.is_some_and(|root| root.stewards.contains(server))
    }

    /// The owner's home, if `me` is a steward who would name who follows him: not that home itself.
    #[must_use]
    pub fn succession_of(&self, me: &ServerId) -> Option<ServerId> {
        let root = self.newest_root()?;
        (root.home != *me && root.stewards.contains(me)).then_some(root.home)
    }

    /// How to ask for those of `tips` that are not held.
    #[must_use]
    pub fn unheld_of(&self, tips: &[Tip]) -> Vec<Range> {
        let lacking = tips.iter().filter(|tip| self.graph().ix(&tip.id).is_none());
        lacking.map(|tip| self.range_to(tip)).collect()
    }

    /// Whether a proposal is valid here and has seen all of `seen`, which is held.
    #[must_use]
    pub fn has_seen(&self, raw: &RawRoot, seen: &[Tip]) -> bool {
        let held = seen.iter().all(|tip| self.graph().ix(&tip.id).is_some());
        held && self.proposed(raw).is_some_and(|(signed, _)| {
            self.authority().would_take(self.graph(), &signed, seen) == Ok(true)
        })
    }

    /// A proposal of the record after the newest, and that one; none if it is no such proposal.
    fn proposed(&self, raw: &RawRoot) -> Option<(SignedRoot, Root)> {
        let (newest, before) = self.newest_record()?;
        let signed = SignedRoot::proposed(raw.clone(), &newest.id, &before).ok()?;
        Some((signed, before))
    }

    /// Judges a record that a steward is asked to sign, of which it answered `seen`. `lost`:
    /// whether the owner's server was not reached for as long as a succession needs.
    ///
    /// # Errors
    ///
    /// [`NotSigned`].
    pub fn judge_proposal(
        &self,
        raw: &RawRoot,
        seen: &[Tip],
        keys: &RecordKeys<'_>,
        lost: impl FnOnce(&ServerId) -> bool,
    ) -> Result<(), NotSigned> {
        let invalid = || NotSigned::of(Declined::Invalid);
        let (signed, before) = self.proposed(raw).ok_or_else(invalid)?;
        let known = match signed.made() {
            Made::ByOwner(device) => (keys.device)(&before.owner, &device),
            Made::ByHome(key) => (keys.home)(&before.owner, &key),
            Made::Succession if lost(&before.home) => Some(true),
            Made::Succession => return Err(NotSigned::of(Declined::NotLost)),
        };
        if known != Some(true) {
            return Err(NotSigned {
                users: vec![before.owner],
                ..NotSigned::of(Declined::Waits)
            });
        }
        // What the owner or his home signed, his home made of all that there was then. It may have been
        // signed by others since, and then is to be made whatever came meanwhile.
        let own = before.home == self.me && signed.made() != Made::Succession;
        let seen = if own { &[] } else { seen };
        match self.authority().would_take(self.graph(), &signed, seen) {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotSigned::of(Declined::Uncovered)),
            Err(RecordOutcome::Missing { commits, .. }) => Err(NotSigned {
                commits: self.ranges_of(&signed.root().frontier, &commits),
                ..NotSigned::of(Declined::Waits)
            }),
            Err(_) => Err(invalid()),
        }
    }

    /// Whether what another steward says it signed is a proposal at all: nobody is bound to less.
    #[must_use]
    pub fn is_proposal(&self, raw: &RawRoot) -> bool {
        self.proposed(raw).is_some()
    }

    /// The record that would follow now and has seen all of `seen`: a checkpoint until it is
    /// changed. None in a direct conversation.
    ///
    /// # Errors
    ///
    /// What is to be fetched first.
    pub fn next_root_with(
        &self,
        now: Timestamp,
        nonce: Nonce,
        seen: &[Tip],
    ) -> Result<Option<Root>, Vec<Range>> {
        if self.newest_root().is_none() {
            return Ok(None);
        }
        let frontier = self.authority().frontier_with(self.graph(), now, seen);
        let frontier = frontier.map_err(|lacking| {
            lacking
                .iter()
                .map(|tip| self.range_to(tip))
                .collect::<Vec<_>>()
        })?;
        let unheld = self.authority().unheld_below(self.graph(), &frontier);
        if !unheld.is_empty() {
            return Err(self.ranges_of(&frontier, &unheld));
        }
        Ok(self.root_at(now, nonce, frontier))
    }

    /// `root` as a succession; none if nobody is there to follow.
    #[must_use]
    pub fn to_succession(&self, root: Root) -> Option<Root> {
        let (_, heir) = self.authority().members_at(self.graph(), &root.frontier)?;
        let heir = heir?;
        Some(Root {
            owner: heir.user,
            home: heir.home?,
            ..root
        })
    }

    /// Whether the newest record is already what `asker` wants of it: he was the owner before it,
    /// and it changed what is named.
    #[must_use]
    pub fn has_changed(&self, asker: &UserId, change: &RootChange) -> bool {
        let Some(root) = self.newest_root() else {
            return false;
        };
        let before = root.prev.and_then(|id: RootId| self.record_before(&id));
        let Some(before) = before.filter(|before| before.owner == *asker) else {
            return false;
        };
        let stewards = match (&change.stewards, change.owner) {
            (Some(wanted), _) => *wanted == root.stewards,
            (None, Some(_)) => true,
            (None, None) => self.usual_stewards(&root.home) == root.stewards,
        };
        let differs = before.owner != root.owner || before.stewards != root.stewards;
        differs && change.owner.unwrap_or(before.owner) == root.owner && stewards
    }

    /// Who is a steward if nobody says: the owner's home, and with two more taking part those of
    /// the members with the highest roles, of equals the lower id.
    #[must_use]
    pub fn usual_stewards(&self, home: &ServerId) -> Vec<ServerId> {
        let members = self.authority().members();
        let others = members.filter_map(|member| {
            let other = member.home.filter(|other| other != home)?;
            Some((std::cmp::Reverse(member.role), other))
        });
        let mut best = std::collections::BTreeMap::<ServerId, std::cmp::Reverse<Role>>::new();
        for (role, other) in others {
            let held = best.entry(other).or_insert(role);
            *held = (*held).min(role);
        }
        let mut ranked: Vec<_> = best
            .into_iter()
            .map(|(server, role)| (role, server))
            .collect();
        ranked.sort_unstable();
        let mut stewards = vec![*home];
        if ranked.len() >= 2 {
            stewards.extend(ranked[..2].iter().map(|(_, server)| *server));
        }
        stewards.sort_unstable();
        stewards
    }

    /// Whether these can be stewards: 1, 3, 5 or 7, in order, each taking part.
    #[must_use]
    pub fn can_be_stewards(&self, stewards: &[ServerId]) -> bool {
        let odd = stewards.len() % 2 == 1 && stewards.len() <= STEWARDS_MAX;
        let takes_part = |server: &ServerId| {
            let mut members = self.authority().members();
            members.any(|member| member.home == Some(*server))
        };
        odd && crate::encoding::strictly_increasing(stewards) && stewards.iter().all(takes_part)
    }
}
