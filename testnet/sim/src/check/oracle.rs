//! Who may do what, said as plainly as `spec/04-authority.md` says it: sets and recursion over the
//! signed commits, nothing kept between looks, nothing shared with the code under test.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use comity_protocol::{
    event::{Act, Field, Target, Tip},
    ids::{CommitId, Digest, EventId, RootId, ServerId, UserId},
    place::Place,
    role::Role,
    root::{MemberLeaf, Members},
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

    fn is_inside(&self, y: At, x: A, door: bool) -> bool {
        if door {
            return matches!(x, A::Act(x) if self.history.before(y, x));
        }
        self.cut(x).iter().any(|tip| {
            let end = self.history.ix.get(&tip.id);
            let end = end.filter(|end| self.held.has(**end));
            end.is_some_and(|end| self.history.made[*end].chain.has(y.0))
        })
    }

    /// x kills g.
    fn kills(&self, x: A, g: A) -> bool {
        if x == g || self.is_leave(g) {
            return false;
        }
        let unseen = || {
            let known = self.seen(g, x) || self.gives(g) > self.gives(x);
            !self.seen(x, g) && known
        };
        let grant = match x {
            A::First | A::Owner(_) => return false,
            // It claims more than any role.
            A::Former(_) => return unseen(),
            A::Act(y) => match &self.history.event(y).act {
                Act::Leave { .. } => {
                    return !matches!(g, A::First | A::Owner(_)) && !self.seen(x, g);
                }
                Act::Grant(grant) => grant,
                _ => return false,
            },
        };
        if (grant.role == Role::None && !grant.lifts.is_empty()) || self.gives(g) >= self.claims(x)
        {
            return false;
        }
        if grant.ban {
            return !self.is_lifted(x, g);
        }
        unseen()
    }

    /// g, or an act in its past, lifts the ban.
    fn is_lifted(&self, ban: A, g: A) -> bool {
        let (A::Act(at), Some(Act::Grant(grant))) = (ban, self.act(ban)) else {
            return false;
        };
        let Target::User { user, .. } = grant.target else {
            return false;
        };
        self.about(Some(user)).iter().any(|lift| {
            self.lifts(*lift).contains(&self.history.id(at))
                && (*lift == g || self.seen(*lift, g))
                && self.seen(ban, *lift)
                && self.claims(*lift) >= self.claims(ban)
                && self.stands(*lift)
        })
    }

    fn stands(&self, a: A) -> bool {
        // Of records only those are here that stand.
        let A::Act(y) = a else { return true };
        if let Some(settled) = self.settled.as_ref().filter(|s| s.has_verdict(y)) {
            return settled.stands(a);
        }
        if let Some(known) = self.memo.borrow().get(&y) {
            return *known;
        }
        let verdict = self.own_deletion(y) || {
            let mut earlier = self.places(&self.history.id(y)).filter(|z| *z != y);
            let repeated = earlier.any(|z| self.history.before(z, y) && self.live[z.0]);
            self.live[y.0] && !repeated && self.passes(y)
        };
        self.memo.borrow_mut().insert(y, verdict);
        verdict
    }

    /// Held, with what it is about.
    fn has_verdict(&self, y: At) -> bool {
        let target = self.history.event(y).act.target();
        let known = |target: EventId| self.places(&target).next().is_some();
        self.held.has(y.0) && target.is_none_or(known)
    }

    /// Whether a record settled it.
    pub(super) fn is_settled(&self, y: At) -> bool {
        self.settled.as_ref().is_some_and(|s| s.has_verdict(y))
    }

    /// Whether an appearance counts.
    pub(super) fn counts(&self, y: At) -> bool {
        self.stands(A::Act(y))
    }

    /// The author of a message; nobody's if it is none or is not held.
    pub(super) fn message(&self, event: &EventId) -> Option<UserId> {
        let first = self.places(event).next()?;
        let event = self.history.event(first);
        matches!(event.act, Act::Message { .. }).then_some(event.author)
    }

    pub(super) fn own_deletion(&self, y: At) -> bool {
        let event = self.history.event(y);
        match &event.act {
            Act::Delete { target } => self.message(target) == Some(event.author),
            _ => false,
        }
    }

    fn passes(&self, y: At) -> bool {
        let event = self.history.event(y);
        let claims = event.claims;
        let mine = || self.is_carried(y, Some(event.author), claims);
        let posts = || claims >= Role::Guest && claims >= self.posting(y) && mine();
        match &event.act {
            Act::Message { .. } => posts(),
            Act::Edit { target, .. } => self.message(target) == Some(event.author) && posts(),
            Act::React { target, .. } => self.message(target).is_some() && posts(),
            Act::State { field, .. } if field == "name" => posts(),
            Act::State { .. } => claims >= Role::Moderator && mine(),
            Act::Delete { target } | Act::Pin { target, .. } => {
                self.message(target).is_some() && claims >= Role::Moderator && mine()
            }
            Act::Policy { field, value } => {
                let valid = match field {
                    Field::Posting => (1..=5).contains(value),
                    Field::History => *value <= 1,
                    _ => true,
                };
                valid && claims >= Role::Admin && mine()
            }
            Act::Grant(grant) => {
                let whose = match grant.target {
                    Target::User { user, .. } => Some(user),
                    Target::Anyone => None,
                };
                grant.role < claims && !self.is_outranked(y, whose) && mine()
            }
            Act::Join { role, home } => {
                (Role::Guest..=Role::Member).contains(role)
                    && *home == self.history.made[y.0].commit.origin
                    && self.is_home(y, Some(*home))
                    && self.is_carried(y, None, *role)
            }
            Act::Leave { .. } => true,
            Act::Move { home, .. } => *home == self.history.made[y.0].commit.origin,
            _ => false,
        }
    }

    /// The target holds as high a role as the act claims.
    fn is_outranked(&self, y: At, whose: Whose) -> bool {
        let all = self.about(whose);
        let claims = self.history.event(y).claims;
        all.iter().any(|g| {
            let ended = |x: &A| self.seen(*x, A::Act(y)) && self.kills(*x, *g) && self.stands(*x);
            self.gives(*g) >= claims
                && !self.is_leave(*g)
                && self.seen(*g, A::Act(y))
                && self.stands(*g)
                && !all.iter().any(ended)
        })
    }

    /// Some grant in the past of y carries it.
    fn is_carried(&self, y: At, whose: Whose, need: Role) -> bool {
        let all = self.about(whose);
        let able = |b: &&A| {
            self.gives(**b) > Role::None
                && self.gives(**b) >= need
                && self.seen(**b, A::Act(y))
                && (whose.is_none() || self.is_home(y, self.home(**b)))
                && self.stands(**b)
        };
        all.iter().filter(able).any(|b| {
            all.iter().all(|x| {
                self.gives(*x) >= need
                    || !self.kills(*x, *b)
                    || !self.stands(*x)
                    || self.is_inside(y, *x, whose.is_none())
            })
        })
    }

    fn is_home(&self, y: At, bound: Option<ServerId>) -> bool {
        let author = self.history.event(y).author;
        let moves = self.moves.get(&author).map_or(&[][..], Vec::as_slice);
        let counts = |m: &&At| {
            let origin = self.history.made[m.0].commit.origin;
            self.live[m.0] && self.home(A::Act(**m)) == Some(origin)
        };
        let moves: Vec<At> = moves.iter().filter(counts).copied().collect();
        let rank = |m: At| match &self.history.event(m).act {
            Act::Move { n, .. } => Some((*n, Reverse(self.history.id(m)))),
            _ => None,
        };
        let seen = moves
            .iter()
            .copied()
            .filter(|m| self.seen(A::Act(*m), A::Act(y)));
        let newest = seen.max_by_key(|m| rank(*m));
        let from = self.history.made[y.0].commit.origin;
        newest.map_or(bound, |m| self.home(A::Act(m))) == Some(from)
            && moves.iter().all(|m| {
                rank(*m) <= newest.and_then(rank)
                    || self.home(A::Act(*m)) == Some(from)
                    || self.is_inside(y, A::Act(*m), false)
            })
    }

    fn posting(&self, y: At) -> Role {
        let value = |p: At| match self.history.event(p).act {
            Act::Policy {
                field: Field::Posting,
                value,
            } => Some(value),
            _ => None,
        };
        let counts = |p: &At| {
            value(*p).is_some() && self.seen(A::Act(*p), A::Act(y)) && self.stands(A::Act(*p))
        };
        let standing: Vec<At> = self.policies.iter().copied().filter(counts).collect();
        let last = standing
            .iter()
            .filter(|p| !standing.iter().any(|q| self.seen(A::Act(**p), A::Act(*q))))
            .max_by_key(|p| {
                let commit = self.history.made[p.0].id;
                (self.history.event(**p).claims, commit, p.1)
            });
        last.and_then(|p| value(*p))
            .and_then(|value| Role::try_from(u8::try_from(value).ok()?).ok())
            .unwrap_or(Role::Member)
    }

    /// Standing grants of a user that nothing takes away.
    fn grants(&self, user: UserId) -> Vec<A> {
        let all = self.about(Some(user));
        let holds = |g: &A| {
            !self.is_leave(*g)
                && self.gives(*g) > Role::None
                && self.stands(*g)
                && !all.iter().any(|x| self.kills(*x, *g) && self.stands(*x))
        };
        all.iter().copied().filter(holds).collect()
    }

    /// The newest standing move of a user.
    fn moved_to(&self, user: UserId) -> Option<ServerId> {
        let moves = self.moves.get(&user).map_or(&[][..], Vec::as_slice);
        let standing = moves.iter().filter(|m| self.counts(**m));
        let newest = standing.max_by_key(|m| match &self.history.event(**m).act {
            Act::Move { n, .. } => (*n, Reverse(self.history.id(**m))),
            _ => (0, Reverse(self.history.id(**m))),
        })?;
        self.home(A::Act(*newest))
    }

    /// Homes that take part for a user: that of his newest move, else those of his grants.
    fn homes_of(&self, user: UserId) -> BTreeSet<ServerId> {
        let grants = self.grants(user);
        match self.moved_to(user) {
            Some(home) if !grants.is_empty() => [home].into(),
            _ => grants.iter().filter_map(|g| self.home(*g)).collect(),
        }
    }

    /// Homes that take part.
    pub(super) fn homes(&self) -> BTreeSet<ServerId> {
        self.users().flat_map(|user| self.homes_of(user)).collect()
    }

    /// The grant that a user's role is of: the highest, then that of a record, then the first.
    fn best(&self, user: UserId) -> Option<A> {
        let place = |a: &A| match a {
            A::Act(y) => Some(self.history.place(*y)),
            _ => None,
        };
        let grants = self.grants(user);
        grants.into_iter().min_by_key(|g| {
            let record: Option<Place> = place(g);
            (Reverse(self.gives(*g)), record)
        })
    }

    /// The members, with role and home.
    pub(super) fn members(&self) -> BTreeMap<UserId, Member> {
        let member = |user| {
            let best = self.best(user)?;
            let (homes, bound) = (self.homes_of(user), self.home(best));
            let home = bound.filter(|home| homes.contains(home));
            let home = home.or_else(|| homes.first().copied())?;
            let role = self.gives(best);
            Some((user, Member { role, home }))
        };
        self.users().filter_map(member).collect()
    }

    /// The digest of the members.
    pub(super) fn digest(&self) -> Digest {
        let leaf = |(user, member): (UserId, Member)| {
            let grant = match self.best(user)? {
                A::First => *self.owner.record.as_bytes(),
                A::Owner(r) | A::Former(r) => *self.history.records[r].id.as_bytes(),
                A::Act(y) => *self.history.id(y).as_bytes(),
            };
            Some(MemberLeaf {
                user,
                role: member.role,
                home: member.home,
                grant: Digest::from_bytes(grant),
            })
        };
        Members::new(self.members().into_iter().filter_map(leaf)).digest()
    }
}
