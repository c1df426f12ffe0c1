//! Who is a member, with which role, where he is at home, and what a record has to say of that.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use comity_protocol::{
    event::Act,
    ids::{Digest, ServerId, UserId},
    place::Place,
    role::Role,
    root::{MemberLeaf, Members},
};

use super::{A, Member, Oracle};

impl Oracle<'_> {
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
    pub(in crate::check) fn homes(&self) -> BTreeSet<ServerId> {
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
    pub(in crate::check) fn members(&self) -> BTreeMap<UserId, Member> {
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

    /// Who follows an owner that is lost, and where he lives: of those with the highest role the one
    /// whose grant is the first, records before acts and in their own order.
    pub(in crate::check) fn heir(&self, owner: UserId) -> Option<(UserId, ServerId)> {
        let members = self.members();
        let rank = |user: UserId| {
            let grant = match self.best(user)? {
                A::First => (0, None),
                A::Owner(r) | A::Former(r) => (self.history.records[r].root.n, None),
                A::Act(y) => (u64::MAX, Some(self.history.place(y))),
            };
            Some((Reverse(members.get(&user)?.role), grant, user))
        };
        let others = members.keys().filter(|user| **user != owner);
        let (_, _, heir) = others.filter_map(|user| rank(*user)).min()?;
        Some((heir, members[&heir].home))
    }

    /// The digest of the members.
    pub(in crate::check) fn digest(&self) -> Digest {
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
