//! The rules as plainly as they can be said: sets, recursion, no order of arrival, nothing kept.
//! Each can be broken on purpose, to see that the search would notice.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::world::World;
use crate::{
    event::{Act, Event, Field, Target, Tip},
    ids::{EventId, ServerId, UserId},
    role::Role,
    root::SignedRoot,
};

/// A rule, broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Broken {
    CarriedByTheFirstGrantOnly,
    CarrierNeedNotStand,
    CutsHoldNothing,
    CutsOfOneHome,
    CutsOnRemovalsThatLeaveEnough,
    KillerNeedNotStand,
    KillsItsEquals,
    KillsWhatSawIt,
    KillsOnlyWhatItSaw,
    BanIsARemoval,
    LiftByAnybody,
    LiftAlsoRemoves,
    LeaveTakesOnlyWhatItSaw,
    LeaveTakesOwnership,
    ClosedDoorHoldsNobodyBack,
    TargetMayBeEqual,
    ClaimNeedNotExceedRole,
    EventCountsTwice,
    EpochDecidesNoFork,
    AnyHome,
    MovesCutNothing,
    PostingForAll,
    OldPoliciesCount,
    CommitIsOneMoment,
    OwnDeletionIsJudged,
    AnybodyEdits,
    NothingIsSettled,
    SettledDecidesNoFork,
    LateHasSeenWhatIsSettled,
    FormerOwnerStays,
}

pub(super) const BROKEN: [Broken; 30] = [
    Broken::CarriedByTheFirstGrantOnly,
    Broken::CarrierNeedNotStand,
    Broken::CutsHoldNothing,
    Broken::CutsOfOneHome,
    Broken::CutsOnRemovalsThatLeaveEnough,
    Broken::KillerNeedNotStand,
    Broken::KillsItsEquals,
    Broken::KillsWhatSawIt,
    Broken::KillsOnlyWhatItSaw,
    Broken::BanIsARemoval,
    Broken::LiftByAnybody,
    Broken::LiftAlsoRemoves,
    Broken::LeaveTakesOnlyWhatItSaw,
    Broken::LeaveTakesOwnership,
    Broken::ClosedDoorHoldsNobodyBack,
    Broken::TargetMayBeEqual,
    Broken::ClaimNeedNotExceedRole,
    Broken::EventCountsTwice,
    Broken::EpochDecidesNoFork,
    Broken::AnyHome,
    Broken::MovesCutNothing,
    Broken::PostingForAll,
    Broken::OldPoliciesCount,
    Broken::CommitIsOneMoment,
    Broken::OwnDeletionIsJudged,
    Broken::AnybodyEdits,
    Broken::NothingIsSettled,
    Broken::SettledDecidesNoFork,
    Broken::LateHasSeenWhatIsSettled,
    Broken::FormerOwnerStays,
];

/// An appearance, or record 0. Of a later record, event 0 is that its owner is the owner, event 1
/// that the one before is an admin.
type A = Option<(usize, usize)>;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Who {
    User(UserId),
    Anyone,
}

/// The verdicts of the commits in `held`.
pub(super) struct Oracle<'a> {
    world: &'a World,
    held: u128,
    broken: Option<Broken>,
    memo: RefCell<BTreeMap<(usize, usize), Option<bool>>>,
    /// The records that count, oldest first.
    records: Vec<usize>,
    /// What the newest of them holds: its verdicts stay.
    settled: Option<Box<Self>>,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(world: &'a World, held: u128, broken: Option<Broken>) -> Self {
        let mut records: Vec<usize> = Vec::new();
        while let Some(next) = (0..world.made.len())
            .filter(|c| held >> c & 1 == 1 && world.made[*c].record.is_some())
            .filter(|c| world.made[*c].prev == records.last().copied())
            .min_by_key(|c| world.made[*c].record.as_ref().map(SignedRoot::id))
        {
            records.push(next);
        }
        Self::with_records(world, held, broken, records)
    }

    /// With these records, whatever others `held` has.
    pub(super) fn with_records(
        world: &'a World,
        held: u128,
        broken: Option<Broken>,
        records: Vec<usize>,
    ) -> Self {
        let settled = records
            .split_last()
            .filter(|_| broken != Some(Broken::NothingIsSettled))
            .map(|(last, before)| {
                let past = world.made[*last].past;
                Box::new(Self::with_records(world, past, broken, before.to_vec()))
            });
        Self {
            world,
            held,
            broken,
            memo: RefCell::default(),
            records,
            settled,
        }
    }

    fn record(&self, a: A) -> Option<&'a SignedRoot> {
        self.world.made[a?.0].record.as_ref()
    }

    fn is_former(&self, a: A) -> bool {
        self.record(a).is_some() && a.is_some_and(|y| y.1 == 1)
    }

    /// Owner and home by the record before `c`.
    fn owner_before(&self, c: usize) -> Option<(UserId, ServerId)> {
        let root = match self.world.made[c].prev {
            Some(prev) => self.world.made[prev].record.as_ref()?.root(),
            None => self.world.genesis.as_ref()?.root(),
        };
        Some((root.owner, root.home))
    }

    fn broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    fn commits(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.world.made.len()).filter(|c| self.held >> c & 1 == 1)
    }

    pub(super) fn appearances(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.commits()
            .flat_map(|c| (0..self.world.made[c].events.len()).map(move |i| (c, i)))
    }

    fn id(&self, y: (usize, usize)) -> EventId {
        self.world.made[y.0].events[y.1].0
    }

    fn event(&self, y: (usize, usize)) -> &'a Event {
        &self.world.made[y.0].events[y.1].1
    }

    fn act(&self, a: A) -> Option<&'a Act> {
        let y = a.filter(|_| self.record(a).is_none())?;
        Some(&self.event(y).act)
    }

    /// Record 0 claims as the owner; nothing ever asks more.
    fn claims(&self, a: A) -> Role {
        match a.filter(|_| self.record(a).is_none()) {
            None => Role::Owner,
            Some(y) => self.event(y).claims,
        }
    }

    fn gives(&self, a: A) -> Role {
        match self.act(a) {
            None if self.is_former(a) => Role::Admin,
            None => Role::Owner,
            Some(Act::Grant(grant)) => grant.role,
            Some(Act::Join { role, .. }) => *role,
            _ => Role::None,
        }
    }

    fn is_leave(&self, a: A) -> bool {
        matches!(self.act(a), Some(Act::Leave { .. }))
    }

    fn home_of(&self, a: A) -> Option<ServerId> {
        match self.act(a) {
            None => match (a, self.record(a)) {
                (Some(y), Some(_)) if y.1 == 1 => self.owner_before(y.0).map(|(_, home)| home),
                (_, Some(record)) => Some(record.root().home),
                _ => self.world.genesis.as_ref().map(|g| g.root().home),
            },
            Some(Act::Grant(grant)) => match grant.target {
                Target::User { home, .. } => Some(home),
                Target::Anyone => None,
            },
            Some(Act::Join { home, .. } | Act::Move { home, .. }) => Some(*home),
            _ => None,
        }
    }

    fn cut(&self, a: A) -> &'a [Tip] {
        match self.act(a) {
            Some(Act::Grant(grant)) => &grant.cut,
            Some(Act::Leave { cut } | Act::Move { cut, .. }) => cut,
            _ => &[],
        }
    }

    fn lifts(&self, a: A) -> &'a [EventId] {
        match self.act(a) {
            Some(Act::Grant(grant)) => &grant.lifts,
            _ => &[],
        }
    }

    fn bans(&self, a: A) -> bool {
        matches!(self.act(a), Some(Act::Grant(grant)) if grant.ban)
    }

    fn about(&self, who: Who) -> Vec<A> {
        let root = self.world.genesis.as_ref().map(|g| g.root().owner);
        let is = |y: &(usize, usize)| match &self.event(*y).act {
            Act::Grant(grant) => match grant.target {
                Target::User { user, .. } => who == Who::User(user),
                Target::Anyone => who == Who::Anyone,
            },
            Act::Join { .. } | Act::Leave { .. } => who == Who::User(self.event(*y).author),
            _ => false,
        };
        let first = root.filter(|owner| who == Who::User(*owner)).map(|_| None);
        let records = self.commits().flat_map(|c| {
            let owner = self.record(Some((c, 0))).map(|r| r.root().owner);
            let former = self.owner_before(c).map(|(user, _)| user);
            let former = former.filter(|former| owner.is_some_and(|owner| owner != *former));
            let is = |user: Option<UserId>| user.is_some_and(|user| who == Who::User(user));
            let former = is(former) && !self.broken(Broken::FormerOwnerStays);
            [is(owner).then_some((c, 0)), former.then_some((c, 1))]
        });
        first
            .into_iter()
            .chain(records.flatten().map(Some))
            .chain(self.appearances().filter(is).map(Some))
            .collect()
    }

    // ---- pasts and branches ----

    fn before(&self, x: (usize, usize), y: (usize, usize)) -> bool {
        if x.0 == y.0 {
            return !self.broken(Broken::CommitIsOneMoment) && x.1 < y.1;
        }
        let made = &self.world.made[y.0];
        (made.past | made.chain) >> x.0 & 1 == 1
    }

    fn seen(&self, x: A, y: A) -> bool {
        let Some(y) = y else { return false };
        let Some(x) = x else { return true };
        if self.broken(Broken::LateHasSeenWhatIsSettled)
            && let Some(settled) = &self.settled
            && settled.held >> x.0 & 1 == 1
            && settled.held >> y.0 & 1 == 0
        {
            return true;
        }
        if self.record(Some(x)).is_some() {
            return self.before(x, y);
        }
        if self.broken(Broken::EventCountsTwice) {
            return self.before(x, y);
        }
        self.appearances()
            .any(|z| self.id(z) == self.id(x) && self.before(z, y))
    }

    fn rank(&self, c: usize) -> impl Ord + use<> {
        let tip = self.world.made[c].signed().tip();
        let epoch = if self.broken(Broken::EpochDecidesNoFork) {
            0
        } else {
            tip.epoch
        };
        let settled = self.settled.as_ref().is_some_and(|settled| {
            settled.held >> c & 1 == 1
                && settled.live(c)
                && !self.broken(Broken::SettledDecidesNoFork)
        });
        (Reverse(settled), Reverse(epoch), tip.id)
    }

    pub(super) fn live(&self, c: usize) -> bool {
        if self.world.made[c].record.is_some() {
            return self.records.contains(&c);
        }
        let made = &self.world.made[c];
        made.prev.is_none_or(|prev| self.live(prev))
            && self.commits().all(|other| {
                let o = &self.world.made[other];
                (o.home, o.prev) != (made.home, made.prev) || self.rank(c) <= self.rank(other)
            })
    }

    fn on_chain(&self, tip: &Tip, c: usize) -> bool {
        self.commits().any(|t| {
            let made = &self.world.made[t];
            made.record.is_none() && made.signed().id() == tip.id && made.chain >> c & 1 == 1
        })
    }

    // ---- verdicts ----

    fn stands(&self, a: A) -> bool {
        let Some(y) = a else { return true };
        if self.record(a).is_some() {
            return self.live(y.0);
        }
        if let Some(settled) = self.settled.as_ref().filter(|settled| settled.settles(y)) {
            return settled.stands(a);
        }
        match self.memo.borrow().get(&y) {
            Some(Some(known)) => return *known,
            Some(None) => panic!("cyclic dependence at {y:?}"),
            None => {}
        }
        self.memo.borrow_mut().insert(y, None);
        let verdict = self.is_own_deletion(y) || {
            let again = !self.broken(Broken::EventCountsTwice)
                && self.appearances().any(|z| {
                    z != y && self.id(z) == self.id(y) && self.before(z, y) && self.live(z.0)
                });
            self.live(y.0) && !again && self.judge(y)
        };
        self.memo.borrow_mut().insert(y, Some(verdict));
        verdict
    }

    pub(super) fn verdict(&self, y: (usize, usize)) -> bool {
        self.stands(Some(y))
    }

    /// Whether `y` is held and what it is about too, so that there is a verdict to keep.
    fn settles(&self, y: (usize, usize)) -> bool {
        let target = self.event(y).act.target();
        let known = |target: EventId| self.appearances().any(|z| self.id(z) == target);
        self.held >> y.0 & 1 == 1 && target.is_none_or(known)
    }

    fn message_author(&self, target: &EventId) -> Option<UserId> {
        let y = self.appearances().find(|z| self.id(*z) == *target)?;
        matches!(self.event(y).act, Act::Message { .. }).then_some(self.event(y).author)
    }

    fn is_own_deletion(&self, y: (usize, usize)) -> bool {
        let Act::Delete { target } = &self.event(y).act else {
            return false;
        };
        !self.broken(Broken::OwnDeletionIsJudged)
            && self.message_author(target) == Some(self.event(y).author)
    }

    fn judge(&self, y: (usize, usize)) -> bool {
        let event = self.event(y);
        let claims = event.claims;
        let mine = |need: Role| self.carried(y, Who::User(event.author), need);
        let posts = || {
            claims >= Role::Guest
                && (self.broken(Broken::PostingForAll) || claims >= self.posting(y))
                && mine(claims)
        };
        match &event.act {
            Act::Leave { .. } => true,
            Act::Move { home, .. } => *home == self.world.made[y.0].home,
            Act::Join { role, home } => {
                (Role::Guest..=Role::Member).contains(role)
                    && *home == self.world.made[y.0].home
                    && self.at_home(y, Some(*home))
                    && self.carried(y, Who::Anyone, *role)
            }
            Act::Grant(grant) => {
                let target = match grant.target {
                    Target::User { user, .. } => Who::User(user),
                    Target::Anyone => Who::Anyone,
                };
                (grant.role < claims || self.broken(Broken::ClaimNeedNotExceedRole))
                    && self.outranks(y, target)
                    && mine(claims)
            }
            Act::Policy { field, value } => {
                let valid = match field {
                    Field::Posting => (1..=5).contains(value),
                    Field::History => *value < 2,
                    _ => true,
                };
                claims >= Role::Admin && valid && mine(claims)
            }
            Act::Message { .. } => posts(),
            Act::State { field, .. } if field == "name" => posts(),
            Act::React { target, .. } => posts() && self.message_author(target).is_some(),
            Act::Edit { target, .. } => {
                let author = self.message_author(target);
                posts()
                    && author.is_some()
                    && (author == Some(event.author) || self.broken(Broken::AnybodyEdits))
            }
            Act::Delete { target } | Act::Pin { target, .. } => {
                claims >= Role::Moderator && mine(claims) && self.message_author(target).is_some()
            }
            Act::State { .. } => claims >= Role::Moderator && mine(claims),
        }
    }

    fn carried(&self, y: (usize, usize), holder: Who, need: Role) -> bool {
        let about = self.about(holder);
        let able: Vec<A> = about
            .iter()
            .copied()
            .filter(|b| {
                self.seen(*b, Some(y))
                    && !self.is_leave(*b)
                    && self.gives(*b) > Role::None
                    && self.gives(*b) >= need
            })
            .collect();
        let able = if self.broken(Broken::CarriedByTheFirstGrantOnly) {
            &able[..able.len().min(1)]
        } else {
            &able[..]
        };
        able.iter().any(|b| {
            (holder == Who::Anyone || self.at_home(y, self.home_of(*b)))
                && (self.broken(Broken::CarrierNeedNotStand) || self.stands(*b))
                && about.iter().all(|x| {
                    let takes =
                        self.gives(*x) < need || self.broken(Broken::CutsOnRemovalsThatLeaveEnough);
                    !(takes
                        && self.kills(*x, *b)
                        && (self.broken(Broken::KillerNeedNotStand) || self.stands(*x)))
                        || self.inside(y, *x, holder)
                })
        })
    }

    fn inside(&self, y: (usize, usize), x: A, holder: Who) -> bool {
        if holder == Who::Anyone {
            let before = x.is_some_and(|x| self.before(y, x));
            return before || self.broken(Broken::ClosedDoorHoldsNobodyBack);
        }
        let mut cut = self.cut(x);
        if self.broken(Broken::CutsHoldNothing) {
            cut = &[];
        }
        if self.broken(Broken::CutsOfOneHome) {
            cut = &cut[..cut.len().min(1)];
        }
        cut.iter().any(|tip| self.on_chain(tip, y.0))
    }

    fn at_home(&self, y: (usize, usize), bound: Option<ServerId>) -> bool {
        if self.broken(Broken::AnyHome) {
            return true;
        }
        let author = self.event(y).author;
        let moves: Vec<(usize, usize)> = self
            .appearances()
            .filter(|m| {
                let event = self.event(*m);
                event.author == author
                    && matches!(event.act, Act::Move { .. })
                    && self.live(m.0)
                    && self.home_of(Some(*m)) == Some(self.world.made[m.0].home)
            })
            .collect();
        let newest = |m: (usize, usize)| match &self.event(m).act {
            Act::Move { n, .. } => Some((*n, Reverse(self.id(m)))),
            _ => None,
        };
        let here = moves
            .iter()
            .copied()
            .filter(|m| self.seen(Some(*m), Some(y)))
            .max_by_key(|m| newest(*m));
        let from = self.world.made[y.0].home;
        here.map_or(bound, |m| self.home_of(Some(m))) == Some(from)
            && moves.iter().all(|m| {
                self.broken(Broken::MovesCutNothing)
                    || newest(*m) <= here.and_then(newest)
                    || self.home_of(Some(*m)) == Some(from)
                    || self.inside(y, Some(*m), Who::User(author))
            })
    }

    fn kills(&self, x: A, g: A) -> bool {
        if self.is_former(x) {
            // It claims more than an owner.
            return x != g
                && !self.is_leave(g)
                && !self.seen(x, g)
                && (self.gives(g) > self.gives(x) || self.seen(g, x));
        }
        let joins = matches!(self.act(x), None | Some(Act::Join { .. }));
        let lifting = !self.lifts(x).is_empty()
            && self.gives(x) == Role::None
            && !self.broken(Broken::LiftAlsoRemoves);
        if x == g || joins || self.is_leave(g) || lifting {
            return false;
        }
        if self.is_leave(x) {
            let ownership = self.act(g).is_none() && !self.is_former(g);
            return (!ownership || self.broken(Broken::LeaveTakesOwnership))
                && !self.seen(x, g)
                && (self.seen(g, x) || !self.broken(Broken::LeaveTakesOnlyWhatItSaw));
        }
        if self.gives(g) >= self.claims(x) && !self.broken(Broken::KillsItsEquals) {
            return false;
        }
        if self.bans(x) && !self.broken(Broken::BanIsARemoval) {
            return !self.lifted(x, g);
        }
        (!self.seen(x, g) || self.broken(Broken::KillsWhatSawIt))
            && (self.seen(g, x)
                || (self.gives(g) > self.gives(x) && !self.broken(Broken::KillsOnlyWhatItSaw)))
    }

    fn lifted(&self, ban: A, g: A) -> bool {
        let Some(banned) = ban else { return false };
        let Some(Act::Grant(grant)) = self.act(ban) else {
            return false;
        };
        let Target::User { user, .. } = grant.target else {
            return false;
        };
        self.about(Who::User(user)).iter().any(|u| {
            self.lifts(*u).contains(&self.id(banned))
                && self.seen(ban, *u)
                && (*u == g || self.seen(*u, g))
                && (self.broken(Broken::LiftByAnybody)
                    || self.claims(*u) >= self.claims(ban) && self.stands(*u))
        })
    }

    fn outranks(&self, y: (usize, usize), target: Who) -> bool {
        let about = self.about(target);
        self.broken(Broken::TargetMayBeEqual)
            || !about.iter().any(|g| {
                self.gives(*g) >= self.event(y).claims
                    && self.seen(*g, Some(y))
                    && !self.is_leave(*g)
                    && self.stands(*g)
                    && !about
                        .iter()
                        .any(|x| self.seen(*x, Some(y)) && self.kills(*x, *g) && self.stands(*x))
            })
    }

    fn posting(&self, y: (usize, usize)) -> Role {
        let value = |p: (usize, usize)| match self.event(p).act {
            Act::Policy {
                field: Field::Posting,
                value,
            } => Some(value),
            _ => None,
        };
        let standing: Vec<(usize, usize)> = self
            .appearances()
            .filter(|p| {
                value(*p).is_some() && self.seen(Some(*p), Some(y)) && self.stands(Some(*p))
            })
            .collect();
        let newest = standing.iter().copied().filter(|p| {
            self.broken(Broken::OldPoliciesCount)
                || !standing.iter().any(|q| self.seen(Some(*p), Some(*q)))
        });
        newest
            .max_by_key(|p| {
                let id = self.world.made[p.0].signed().id();
                (self.event(*p).claims, id, p.1)
            })
            .and_then(value)
            .and_then(|value| u8::try_from(value).ok())
            .and_then(|value| Role::try_from(value).ok())
            .unwrap_or(Role::Member)
    }

    pub(super) fn role(&self, user: UserId) -> Role {
        let about = self.about(Who::User(user));
        let holds = |g: &&A| {
            !self.is_leave(**g)
                && self.stands(**g)
                && !about.iter().any(|x| self.kills(*x, **g) && self.stands(*x))
        };
        about
            .iter()
            .filter(holds)
            .map(|g| self.gives(*g))
            .max()
            .unwrap_or_default()
    }
}
