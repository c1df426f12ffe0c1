//! Who may do what, said as plainly as `spec/04-authority.md` says it: sets and recursion over the
//! signed commits, nothing kept between looks, nothing shared with the code under test.

use std::{cell::RefCell, cmp::Reverse, collections::BTreeMap};

use comity_protocol::{
    event::{Act, Field, Target, Tip},
    ids::{EventId, ServerId, UserId},
    role::Role,
};

use super::history::{At, History};

/// Who is the owner by record 0, and where he lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) user: UserId,
    pub(super) home: ServerId,
}

/// An appearance of an act, or record 0.
type A = Option<At>;

/// Whose grants: a user's, or those to anyone.
type Whose = Option<UserId>;

pub(super) struct Oracle<'a> {
    history: &'a History,
    owner: Owner,
    about: BTreeMap<Whose, Vec<A>>,
    moves: BTreeMap<UserId, Vec<At>>,
    policies: Vec<At>,
    memo: RefCell<BTreeMap<At, bool>>,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(history: &'a History, owner: Owner) -> Self {
        let mut about: BTreeMap<Whose, Vec<A>> = BTreeMap::new();
        about.insert(Some(owner.user), vec![None]);
        let (mut moves, mut policies): (BTreeMap<UserId, Vec<At>>, _) =
            (BTreeMap::new(), Vec::new());
        for y in history.appearances() {
            let event = history.event(y);
            match &event.act {
                Act::Grant(grant) => {
                    let whose = match grant.target {
                        Target::User { user, .. } => Some(user),
                        Target::Anyone => None,
                    };
                    about.entry(whose).or_default().push(Some(y));
                }
                Act::Join { .. } | Act::Leave { .. } => {
                    about.entry(Some(event.author)).or_default().push(Some(y));
                }
                Act::Move { .. } => moves.entry(event.author).or_default().push(y),
                Act::Policy { .. } => policies.push(y),
                _ => {}
            }
        }
        Self {
            history,
            owner,
            about,
            moves,
            policies,
            memo: RefCell::default(),
        }
    }

    fn about(&self, whose: Whose) -> &[A] {
        self.about.get(&whose).map_or(&[][..], Vec::as_slice)
    }

    pub(super) fn users(&self) -> impl Iterator<Item = UserId> + '_ {
        self.about.keys().filter_map(|whose| *whose)
    }

    fn act(&self, a: A) -> Option<&Act> {
        a.map(|y| &self.history.event(y).act)
    }

    fn claims(&self, a: A) -> Role {
        a.map_or(Role::Owner, |y| self.history.event(y).claims)
    }

    fn gives(&self, a: A) -> Role {
        match self.act(a) {
            None => Role::Owner,
            Some(Act::Grant(grant)) => grant.role,
            Some(Act::Join { role, .. }) => *role,
            Some(_) => Role::None,
        }
    }

    fn is_leave(&self, a: A) -> bool {
        matches!(self.act(a), Some(Act::Leave { .. }))
    }

    fn home(&self, a: A) -> Option<ServerId> {
        match self.act(a) {
            None => Some(self.owner.home),
            Some(Act::Grant(grant)) => match grant.target {
                Target::User { home, .. } => Some(home),
                Target::Anyone => None,
            },
            Some(Act::Join { home, .. } | Act::Move { home, .. }) => Some(*home),
            Some(_) => None,
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

    /// Some appearance of x lies in the past of y.
    fn seen(&self, x: A, y: A) -> bool {
        let Some(y) = y else { return false };
        let Some(x) = x else { return true };
        let all = &self.history.places[&self.history.id(x)];
        all.iter().any(|z| self.history.before(*z, y))
    }

    fn is_inside(&self, y: At, x: A, door: bool) -> bool {
        if door {
            return x.is_some_and(|x| self.history.before(y, x));
        }
        self.cut(x).iter().any(|tip| {
            let end = self.history.ix.get(&tip.id);
            end.is_some_and(|end| self.history.made[*end].chain.has(y.0))
        })
    }

    /// x kills g.
    fn kills(&self, x: A, g: A) -> bool {
        if x == g || self.is_leave(g) || matches!(self.act(x), None | Some(Act::Join { .. })) {
            return false;
        }
        if self.is_leave(x) {
            return g.is_some() && !self.seen(x, g);
        }
        let Some(Act::Grant(grant)) = self.act(x) else {
            return false;
        };
        if (grant.role == Role::None && !grant.lifts.is_empty()) || self.gives(g) >= self.claims(x)
        {
            return false;
        }
        if grant.ban {
            return !self.is_lifted(x, g);
        }
        !self.seen(x, g) && (self.seen(g, x) || self.gives(g) > grant.role)
    }

    /// g, or an act in its past, lifts the ban.
    fn is_lifted(&self, ban: A, g: A) -> bool {
        let (Some(at), Some(Act::Grant(grant))) = (ban, self.act(ban)) else {
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
        let Some(y) = a else { return true };
        if let Some(known) = self.memo.borrow().get(&y) {
            return *known;
        }
        let verdict = self.own_deletion(y) || {
            let all = &self.history.places[&self.history.id(y)];
            let mut earlier = all.iter().filter(|z| **z != y);
            let repeated = earlier.any(|z| self.history.before(*z, y) && self.history.live(z.0));
            self.history.live(y.0) && !repeated && self.passes(y)
        };
        self.memo.borrow_mut().insert(y, verdict);
        verdict
    }

    /// Whether an appearance counts.
    pub(super) fn counts(&self, y: At) -> bool {
        self.stands(Some(y))
    }

    /// The author of a message; nobody's if it is none or is not held.
    pub(super) fn message(&self, event: &EventId) -> Option<UserId> {
        let first = self.history.places.get(event)?.first()?;
        let event = self.history.event(*first);
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
            let ended = |x: &A| self.seen(*x, Some(y)) && self.kills(*x, *g) && self.stands(*x);
            self.gives(*g) >= claims
                && !self.is_leave(*g)
                && self.seen(*g, Some(y))
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
                && self.seen(**b, Some(y))
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
            self.history.live(m.0) && self.home(Some(**m)) == Some(origin)
        };
        let moves: Vec<At> = moves.iter().filter(counts).copied().collect();
        let rank = |m: At| match &self.history.event(m).act {
            Act::Move { n, .. } => Some((*n, Reverse(self.history.id(m)))),
            _ => None,
        };
        let seen = moves
            .iter()
            .copied()
            .filter(|m| self.seen(Some(*m), Some(y)));
        let newest = seen.max_by_key(|m| rank(*m));
        let from = self.history.made[y.0].commit.origin;
        newest.map_or(bound, |m| self.home(Some(m))) == Some(from)
            && moves.iter().all(|m| {
                rank(*m) <= newest.and_then(rank)
                    || self.home(Some(*m)) == Some(from)
                    || self.is_inside(y, Some(*m), false)
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
        let counts =
            |p: &At| value(*p).is_some() && self.seen(Some(*p), Some(y)) && self.stands(Some(*p));
        let standing: Vec<At> = self.policies.iter().copied().filter(counts).collect();
        let last = standing
            .iter()
            .filter(|p| !standing.iter().any(|q| self.seen(Some(**p), Some(*q))))
            .max_by_key(|p| {
                let commit = self.history.made[p.0].id;
                (self.history.event(**p).claims, commit, p.1)
            });
        last.and_then(|p| value(*p))
            .and_then(|value| Role::try_from(u8::try_from(value).ok()?).ok())
            .unwrap_or(Role::Member)
    }

    /// The role of a user, over the whole set.
    pub(super) fn role(&self, user: UserId) -> Role {
        let all = self.about(Some(user));
        let holds = |g: &&A| {
            !self.is_leave(**g)
                && self.stands(**g)
                && !all.iter().any(|x| self.kills(*x, **g) && self.stands(*x))
        };
        let held = all.iter().filter(holds);
        held.map(|g| self.gives(*g)).max().unwrap_or_default()
    }
}
