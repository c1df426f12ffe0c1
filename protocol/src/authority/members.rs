//! Who is a member, in which role, at which home; what policies say. All by the whole set.

use std::collections::BTreeMap;

use super::{
    Authority, Mode,
    judge::Judge,
    table::{ActIx, EntryIx, Kind, SubjectIx},
};
use crate::{
    event::Field,
    history::{Appearance, Graph, NodeIx},
    ids::{EventId, ServerId, UserId},
    role::Role,
};

/// A member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// The highest role of the standing grants that nothing took away.
    pub role: Role,
    /// The home that speaks for him: that of the newest move, else of the grant. None in a direct
    /// conversation as long as he said nothing.
    pub home: Option<ServerId>,
    /// The grant or join that gives the role, the first in the order if several do; none for the
    /// owner and in direct conversations.
    pub grant: Option<EventId>,
}

/// What a user's grants amount to, kept up to date.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Standing {
    pub(super) role: Role,
    /// The best grant.
    pub(super) grant: Option<ActIx>,
    /// Homes that take part for this user. Sorted, unique.
    pub(super) homes: Box<[ServerId]>,
    /// In a direct conversation: this user's first event.
    pub(super) first: Option<EntryIx>,
}

impl Judge<'_> {
    /// What a user's grants amount to.
    pub(super) fn standing_of(&self, subject: SubjectIx, graph: Option<&Graph>) -> Standing {
        let newest_move = self
            .moves_of(subject)
            .iter()
            .filter(|m| self.stands(**m))
            .max_by_key(|m| {
                let act = self.act(**m);
                (act.n, std::cmp::Reverse(act.event))
            })
            .and_then(|m| self.act(*m).home);
        if let Mode::Direct(users) = self.mode {
            let bound = graph.and_then(|graph| self.bound_home(graph, subject));
            let member = users.contains(&subject);
            return Standing {
                role: if member { Role::Member } else { Role::None },
                homes: newest_move
                    .or(bound)
                    .filter(|_| member)
                    .into_iter()
                    .collect(),
                ..Standing::default()
            };
        }
        let grants = self.grants_of(subject, graph);
        let place = |g: &ActIx| {
            let entry = self.act(*g).entry;
            entry.and_then(|e| Some(graph?.place(self.entries[e.0 as usize].at())))
        };
        let best = grants
            .iter()
            .copied()
            .min_by_key(|g| (std::cmp::Reverse(self.act(*g).role), place(g)));
        let mut homes: Vec<ServerId> = match newest_move {
            Some(home) if best.is_some() => vec![home],
            _ => grants.iter().filter_map(|g| self.act(*g).home).collect(),
        };
        homes.sort_unstable();
        homes.dedup();
        // Of a hundred thousand members each byte counts: what is kept has no room to grow.
        let homes = homes.into_boxed_slice();
        Standing {
            role: best.map_or(Role::None, |g| self.act(g).role),
            grant: best,
            homes,
            first: None,
        }
    }

    /// The standing grants of a user that no standing act took away.
    fn grants_of(&self, subject: SubjectIx, graph: Option<&Graph>) -> Vec<ActIx> {
        let about = self.about(subject);
        let holds = |g: &ActIx| {
            let grant = self.act(*g);
            let taken =
                |x: &ActIx| self.stands(*x) && graph.is_some_and(|graph| self.kills(graph, *x, *g));
            grant.kind != Kind::Leave
                && grant.role > Role::None
                && self.stands(*g)
                // What came last has mostly seen the rest: of somebody who came and went a thousand
                // times each grant finds at once what took it away.
                && !about.iter().rev().any(taken)
        };
        about.iter().copied().filter(holds).collect()
    }
}

impl Authority {
    /// Works out a user's role and homes anew; `before` collects which homes took part until now.
    pub(super) fn restand(
        &mut self,
        subject: SubjectIx,
        graph: Option<&Graph>,
        before: &mut BTreeMap<ServerId, bool>,
    ) {
        let first = self.subjects[subject.0 as usize].standing.first;
        let standing = Standing {
            first,
            ..self.now().standing_of(subject, graph)
        };
        let old = std::mem::replace(&mut self.subjects[subject.0 as usize].standing, standing);
        let new = self.subjects[subject.0 as usize].standing.homes.clone();
        for home in old.homes.iter().chain(&new) {
            let takes_part = self.homes.contains_key(home);
            before.entry(*home).or_insert(takes_part);
        }
        for home in new {
            *self.homes.entry(home).or_insert(0) += 1;
        }
        for home in old.homes {
            if let Some(members) = self.homes.get_mut(&home) {
                *members -= 1;
                if *members == 0 {
                    self.homes.remove(&home);
                }
            }
        }
    }

    fn known(&self, user: &UserId) -> Option<SubjectIx> {
        self.subject_of.get(user).copied()
    }

    /// A user's role; none = not a member.
    #[must_use]
    pub fn role(&self, user: &UserId) -> Role {
        self.known(user).map_or(Role::None, |subject| {
            self.subjects[subject.0 as usize].standing.role
        })
    }

    /// One member.
    #[must_use]
    pub fn member(&self, user: &UserId) -> Option<Member> {
        self.member_at(self.known(user)?)
    }

    pub(super) fn member_at(&self, subject: SubjectIx) -> Option<Member> {
        self.member_by(subject, &self.subjects[subject.0 as usize].standing)
    }

    /// The member that a standing makes of a user.
    pub(super) fn member_by(&self, subject: SubjectIx, standing: &Standing) -> Option<Member> {
        if standing.role == Role::None {
            return None;
        }
        let grant = standing.grant.map(|g| self.act(g));
        let bound = grant.and_then(|g| g.home);
        let homes = &standing.homes;
        Some(Member {
            user: self.subjects[subject.0 as usize].id?,
            role: standing.role,
            home: bound
                .filter(|home| homes.contains(home))
                .or(homes.first().copied()),
            grant: grant.filter(|g| g.entry.is_some()).map(|g| g.event),
        })
    }

    /// All members, by user id.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.subject_of
            .values()
            .filter_map(|subject| self.member_at(*subject))
    }

    /// The homes that take part: those of the members. Sorted.
    pub fn homes(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.homes.keys().copied()
    }

    /// Whether a home takes part.
    #[must_use]
    pub fn takes_part(&self, home: &ServerId) -> bool {
        self.homes.contains_key(home)
    }

    /// The standing bans of a user, which a grant lifts when it brings him back. Sorted.
    #[must_use]
    pub fn standing_bans(&self, user: &UserId) -> Vec<EventId> {
        let about = self
            .known(user)
            .map_or(&[][..], |subject| self.about(subject));
        let standing = about
            .iter()
            .filter(|x| self.act(**x).ban && self.now().stands(**x));
        let mut bans: Vec<EventId> = standing.map(|x| self.act(*x).event).collect();
        bans.sort_unstable();
        bans.dedup();
        bans
    }

    /// The value of a policy: of the standing ones that no other standing one had seen the one of
    /// the highest claim, then commit id. None if nobody set it.
    #[must_use]
    pub fn policy(&self, graph: &Graph, field: Field) -> Option<u64> {
        let list = if field == Field::Posting {
            &self.posting
        } else {
            &self.settings
        };
        let of_field = |p: &ActIx| self.act(*p).sets(field);
        let newest = self.now().newest_policies(graph, list, of_field);
        self.strongest(graph, &newest)
    }

    /// The least role that may post.
    #[must_use]
    pub fn posting(&self, graph: &Graph) -> Role {
        self.policy(graph, Field::Posting)
            .and_then(|value| u8::try_from(value).ok())
            .and_then(|value| Role::try_from(value).ok())
            .unwrap_or(Role::Member)
    }

    /// Whether anybody ever set a policy of this field.
    pub(crate) fn has_policy(&self, field: Field) -> bool {
        let mut policies = self.settings.iter().chain(&self.posting);
        policies.any(|p| self.act(*p).sets(field))
    }

    /// The policy of this field that an appearance is, if it is one.
    pub(crate) fn is_policy(&self, at: Appearance, field: Field) -> bool {
        self.act_at(at).is_some_and(|act| self.act(act).sets(field))
    }

    /// The value of a policy, other than who may post, by what a commit has seen.
    pub(crate) fn policy_at(&self, graph: &Graph, node: NodeIx, field: Field) -> Option<u64> {
        let at = self.at(graph, Appearance { node, index: 0 });
        let seen = |p: &ActIx| self.act(*p).sets(field) && self.now().seen(*p, &at);
        let newest = self.now().newest_policies(graph, &self.settings, seen);
        self.strongest(graph, &newest)
    }

    /// Days that contents are kept; none for ever. A shorter time counts once a root record settled
    /// it, a longer one at once: what is erased by a policy that turns void later is gone all the
    /// same.
    #[must_use]
    pub fn keep_days(&self, graph: &Graph) -> Option<u64> {
        let settled = |p: &ActIx| {
            let act = self.act(*p);
            let entry = act.entry.map(|entry| &self.entries[entry.0 as usize]);
            act.sets(Field::KeepDays) && entry.is_some_and(|entry| entry.settled.is_some())
        };
        let newest = self.now().newest_policies(graph, &self.settings, settled);
        let before = self.strongest(graph, &newest).filter(|days| *days > 0)?;
        let now = self
            .policy(graph, Field::KeepDays)
            .filter(|days| *days > 0)?;
        Some(before.max(now))
    }

    /// The line whose text an appearance gives: of a message itself, of an edit its target's.
    pub(crate) fn line_of(&self, graph: &Graph, at: Appearance) -> Option<EventId> {
        let entry = &self.entries[self.entry_at(at)?.0 as usize];
        match entry.kind {
            Kind::Message => Some(graph.event(at)),
            Kind::Edit => self.targets.get(entry.detail as usize).copied(),
            _ => None,
        }
    }

    /// The messages of a commit, by their place in it.
    pub(crate) fn messages_of(
        &self,
        graph: &Graph,
        node: NodeIx,
    ) -> impl Iterator<Item = Appearance> + '_ {
        let entries = self.entries_of_node(graph, node);
        let entries = entries.map(|ix| &self.entries[ix.0 as usize]);
        entries
            .filter(|entry| entry.kind == Kind::Message)
            .map(super::table::Entry::at)
    }

    /// The author of an event that is held; none while only its id is known.
    #[must_use]
    pub fn author_of(&self, graph: &Graph, event: &EventId) -> Option<UserId> {
        let mut held = graph.find_event(event).filter_map(|at| self.entry_at(at));
        // An appearance whose event is not held yet has no author; another may.
        held.find_map(|ix| {
            let author = self.entries[ix.0 as usize].author;
            self.subjects.get(author.0 as usize)?.id
        })
    }
}
