//! Who may do what, said as plainly as `spec/04-authority.md` says it: sets and recursion over the
//! signed commits, nothing kept between looks, nothing shared with the code under test.

mod members;
mod policies;
mod verdicts;

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use comity_protocol::{
    event::{Act, Target, Tip},
    ids::{CommitId, EventId, RootId, ServerId, UserId},
    role::Role,
};

use super::history::{At, History, Set};

/// Who is the owner by record 0, and where he lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) user: UserId,
    pub(super) home: ServerId,
    /// Record 0.
    pub(super) record: RootId,
}

impl Owner {
    /// Of a conversation that has none.
    pub(super) const NOBODY: Self = Self {
        user: UserId::from_bytes([0; 32]),
        home: ServerId::from_bytes([0; 32]),
        record: RootId::from_bytes([0; 32]),
    };
}

/// What gives or takes a role.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum A {
    /// Record 0.
    First,
    /// A later record: that its owner is the owner.
    Owner(usize),
    /// The same: that the owner before is an admin.
    Former(usize),
    /// An appearance of an act.
    Act(At),
}

/// Whose grants: a user's, or those to anyone.
type Whose = Option<UserId>;

/// The verdicts of one who holds some of a history.
pub(super) struct Oracle<'a> {
    history: &'a History,
    owner: Owner,
    held: Set,
    /// The root records that stand, oldest first.
    chain: Vec<usize>,
    /// What the newest of them saw: its verdicts stay for ever.
    settled: Option<Box<Self>>,
    live: Vec<bool>,
    about: BTreeMap<Whose, Vec<A>>,
    moves: BTreeMap<UserId, Vec<At>>,
    policies: Vec<At>,
    memo: RefCell<BTreeMap<At, bool>>,
}

/// A member, by the rules.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member {
    pub(super) role: Role,
    pub(super) home: ServerId,
}

impl<'a> Oracle<'a> {
    /// Of one who holds all of it.
    pub(super) fn new(history: &'a History, owner: Owner) -> Self {
        let mut all = Set::default();
        (0..history.made.len()).for_each(|c| all.add(c));
        let mut chain: Vec<usize> = Vec::new();
        let follows = |last: Option<usize>| {
            let records = history.records.iter().enumerate();
            let next = records.filter(|(_, record)| record.prev == last);
            next.min_by_key(|(_, record)| record.id).map(|(r, _)| r)
        };
        while let Some(next) = follows(chain.last().copied()) {
            chain.push(next);
        }
        Self::within(history, owner, all, chain)
    }

    /// Of one who holds what a record has seen, and the records before it.
    pub(super) fn at_record(history: &'a History, owner: Owner, record: usize) -> Self {
        let before = |r: &usize| history.records[*r].prev;
        let mut chain: Vec<usize> = std::iter::successors(before(&record), before).collect();
        chain.reverse();
        let past = history.records[record].past.clone();
        Self::within(history, owner, past, chain)
    }

    fn within(history: &'a History, owner: Owner, held: Set, chain: Vec<usize>) -> Self {
        let settled = chain.last().map(|last| {
            let settled = Self::at_record(history, owner, *last);
            Box::new(settled)
        });
        let mut oracle = Self {
            history,
            owner,
            held,
            chain,
            settled,
            live: Vec::new(),
            about: BTreeMap::new(),
            moves: BTreeMap::new(),
            policies: Vec::new(),
            memo: RefCell::default(),
        };
        oracle.choose_branches();
        oracle.sort_records();
        oracle.sort_acts();
        oracle
    }

    fn commits(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.history.made.len()).filter(|c| self.held.has(*c))
    }

    /// At each fork the branch stands that a record settled, else the one with the higher epoch,
    /// else the one with the lower id.
    fn choose_branches(&mut self) {
        let history = self.history;
        let rank = |c: usize| {
            let settled = self.settled.as_ref();
            let settled = settled.is_some_and(|settled| settled.held.has(c) && settled.live[c]);
            let made = &history.made[c];
            (Reverse(settled), Reverse(made.commit.epoch), made.id)
        };
        let mut best = BTreeMap::new();
        for c in self.commits() {
            let made = &history.made[c];
            let fork = best.entry((made.commit.origin, made.prev)).or_insert(c);
            if rank(c) < rank(*fork) {
                *fork = c;
            }
        }
        // Those before a commit are known: each comes after what it builds on.
        let mut live = vec![false; history.made.len()];
        for c in self.commits() {
            let made = &history.made[c];
            let below = made.prev.is_none_or(|prev| live[prev]);
            live[c] = below && best[&(made.commit.origin, made.prev)] == c;
        }
        self.live = live;
    }

    fn sort_records(&mut self) {
        let mut owner = self.owner.user;
        self.about.insert(Some(owner), vec![A::First]);
        for r in &self.chain {
            let next = self.history.records[*r].root.owner;
            self.about.entry(Some(next)).or_default().push(A::Owner(*r));
            if next != owner {
                let former = self.about.entry(Some(owner)).or_default();
                former.push(A::Former(*r));
            }
            owner = next;
        }
    }

    fn sort_acts(&mut self) {
        let history = self.history;
        for y in history.appearances().filter(|y| self.held.has(y.0)) {
            let event = history.event(y);
            match &event.act {
                Act::Grant(grant) => {
                    let whose = match grant.target {
                        Target::User { user, .. } => Some(user),
                        Target::Anyone => None,
                    };
                    self.about.entry(whose).or_default().push(A::Act(y));
                }
                Act::Join { .. } | Act::Leave { .. } => {
                    let whose = Some(event.author);
                    self.about.entry(whose).or_default().push(A::Act(y));
                }
                Act::Move { .. } => self.moves.entry(event.author).or_default().push(y),
                Act::Policy { .. } => self.policies.push(y),
                _ => {}
            }
        }
    }

    fn about(&self, whose: Whose) -> &[A] {
        self.about.get(&whose).map_or(&[][..], Vec::as_slice)
    }

    fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        self.about.keys().filter_map(|whose| *whose)
    }

    /// Commits on branches that lost, of which every event was committed again by their home: a
    /// frontier names only the newest fork of a home, so older ones need not get everywhere.
    pub(super) fn made_up_for(&self) -> BTreeSet<CommitId> {
        let made = &self.history.made;
        let again = |c: usize, event: &EventId| {
            let home = made[c].commit.origin;
            let mut places = self.places(event);
            places.any(|z| self.live[z.0] && made[z.0].commit.origin == home)
        };
        let lost = self.commits().filter(|c| !self.live[*c]);
        lost.filter(|c| made[*c].events.iter().all(|(event, _)| again(*c, event)))
            .map(|c| made[c].id)
            .collect()
    }

    /// Whether a record stands.
    pub(super) fn has_record(&self, id: &RootId) -> bool {
        let mut chain = self.chain.iter();
        chain.any(|r| self.history.records[*r].id == *id)
    }

    /// The newest record that stands.
    pub(super) fn newest_record(&self) -> Option<RootId> {
        let last = self.chain.last();
        last.map(|last| self.history.records[*last].id)
    }

    /// Owner and home before a record of the chain.
    fn home_before(&self, r: usize) -> ServerId {
        let before = self.history.records[r].prev;
        before.map_or(self.owner.home, |b| self.history.records[b].root.home)
    }

    fn act(&self, a: A) -> Option<&Act> {
        match a {
            A::Act(y) => Some(&self.history.event(y).act),
            _ => None,
        }
    }

    fn claims(&self, a: A) -> Role {
        match a {
            A::Act(y) => self.history.event(y).claims,
            _ => Role::Owner,
        }
    }

    fn gives(&self, a: A) -> Role {
        match a {
            A::First | A::Owner(_) => Role::Owner,
            A::Former(_) => Role::Admin,
            A::Act(y) => match &self.history.event(y).act {
                Act::Grant(grant) => grant.role,
                Act::Join { role, .. } => *role,
                _ => Role::None,
            },
        }
    }

    fn is_leave(&self, a: A) -> bool {
        matches!(self.act(a), Some(Act::Leave { .. }))
    }

    fn home(&self, a: A) -> Option<ServerId> {
        match a {
            A::First => Some(self.owner.home),
            A::Owner(r) => Some(self.history.records[r].root.home),
            A::Former(r) => Some(self.home_before(r)),
            A::Act(y) => match &self.history.event(y).act {
                Act::Grant(grant) => match grant.target {
                    Target::User { home, .. } => Some(home),
                    Target::Anyone => None,
                },
                Act::Join { home, .. } | Act::Move { home, .. } => Some(*home),
                _ => None,
            },
        }
    }

    fn cut(&self, a: A) -> &[Tip] {
        match self.act(a) {
            Some(Act::Grant(grant)) => &grant.cut,
            Some(Act::Leave { cut } | Act::Move { cut, .. }) => cut,
            _ => &[],
        }
    }

    fn lifts(&self, a: A) -> &[EventId] {
        match self.act(a) {
            Some(Act::Grant(grant)) => &grant.lifts,
            _ => &[],
        }
    }

    fn places(&self, event: &EventId) -> impl Iterator<Item = At> + '_ {
        let all = self.history.places.get(event).into_iter().flatten();
        all.copied().filter(|z| self.held.has(z.0))
    }

    /// Some appearance of x, or the record, lies in the past of y.
    fn seen(&self, x: A, y: A) -> bool {
        let (past, records) = match y {
            A::First => return false,
            A::Owner(r) | A::Former(r) => {
                let record = &self.history.records[r];
                (&record.past, &record.records)
            }
            A::Act(y) => {
                let made = &self.history.made[y.0];
                (&made.past, &made.records)
            }
        };
        match x {
            A::First => true,
            A::Owner(r) | A::Former(r) => records.has(r),
            A::Act(x) => {
                let before = |z: At| match y {
                    A::Act(y) => self.history.before(z, y),
                    _ => past.has(z.0),
                };
                self.places(&self.history.id(x)).any(before)
            }
        }
    }
}
