//! Which acts count: what takes a grant away, what carries an act.

use std::cmp::Reverse;

use comity_protocol::{
    event::{Act, Field, Target},
    ids::{EventId, ServerId, UserId},
    role::Role,
};

use super::{A, At, Oracle, Whose};

impl Oracle<'_> {
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
    pub(super) fn kills(&self, x: A, g: A) -> bool {
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

    pub(super) fn stands(&self, a: A) -> bool {
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
    pub(in crate::check) fn is_settled(&self, y: At) -> bool {
        self.settled.as_ref().is_some_and(|s| s.has_verdict(y))
    }

    /// Whether an appearance counts.
    pub(in crate::check) fn counts(&self, y: At) -> bool {
        self.stands(A::Act(y))
    }

    /// The author of a message; nobody's if it is none or is not held.
    pub(in crate::check) fn message(&self, event: &EventId) -> Option<UserId> {
        let first = self.places(event).next()?;
        let event = self.history.event(first);
        matches!(event.act, Act::Message { .. }).then_some(event.author)
    }

    pub(in crate::check) fn own_deletion(&self, y: At) -> bool {
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

    pub(super) fn is_home(&self, y: At, bound: Option<ServerId>) -> bool {
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
}
