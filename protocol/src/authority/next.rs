//! What a home needs for its next commit: judging events before they are in one, the authority it
//! names, cuts, and the claim an act is best made with.

use super::{
    Authority, Mode, Pass, Reason,
    judge::{At, Case, Fails},
    table::{Act, EntryIx, Kind, NOBODY},
};
use crate::{
    commit::{AuthorityChange, RootRef},
    event::{Act as EventAct, Target, Tip},
    history::{Graph, NodeIx},
    ids::{EventId, ServerId, UserId},
    limits::{AUTHORITY_TIPS_MAX, CUT_TIPS_MAX},
    role::Role,
    time::Timestamp,
};

impl Pass {
    pub(super) fn queue_at(&mut self, level: u8, ix: EntryIx) {
        self.queue.insert((std::cmp::Reverse(level), ix));
    }
}

impl Authority {
    /// Judges an event that is not in a commit, as if `home` were to commit it next, knowing all
    /// that is held. For refusing a client's event before it is promised anything.
    ///
    /// # Errors
    ///
    /// The [`Reason`] for which it would be void.
    pub fn judge_new(
        &self,
        graph: &Graph,
        now: Timestamp,
        home: &ServerId,
        author: &UserId,
        claims: Role,
        act: &EventAct,
    ) -> Result<(), Reason> {
        let author = self.subject_of.get(author).copied().unwrap_or(NOBODY);
        let known = |user: &UserId| self.subject_of.get(user).copied().unwrap_or(NOBODY);
        // No event has this id; it is asked of nothing, since what is judged here was never seen.
        let made = Act::of(EventId::from_bytes([0; 32]), author, claims, act, known);
        let tip = graph.standing_tip(home);
        let mut named = self.next_tips(graph, tip, now, home);
        named.extend(self.next_record(graph, tip));
        let past = graph.hypothetical_past(tip, &named);
        let case = Case {
            at: At {
                branch: tip.map(|tip| graph.node(tip).branch()),
                seq: tip.map_or(0, |tip| graph.node(tip).short_seq() + 1),
                index: 0,
                past: &past,
                node: None,
                home: *home,
            },
            author,
            claims,
            kind: Kind::of(act),
            act: made.as_ref(),
            target: act.target(),
        };
        match self.now().judge(graph, &case) {
            Ok(()) => Ok(()),
            Err(Fails::Void(reason, _)) => Err(reason),
            Err(Fails::NoTarget) => Err(Reason::UnknownTarget),
        }
    }

    /// The commits that the next commit of `home` is to name in its authority: of each other home
    /// the newest standing one that holds an act, is causally whole and at most a minute ahead, and
    /// that the home's chain up to `own` has not named yet.
    fn next_tips(
        &self,
        graph: &Graph,
        own: Option<NodeIx>,
        now: Timestamp,
        home: &ServerId,
    ) -> Vec<NodeIx> {
        let candidates = graph
            .homes()
            .filter(|other| other != home)
            .filter_map(|other| {
                let newest = graph.newest_nameable(graph.standing_tip(&other)?, now)?;
                self.newest_act(graph, newest)
            });
        candidates
            .filter(|tip| own.is_none_or(|own| !graph.in_past(*tip, own)))
            .take(AUTHORITY_TIPS_MAX)
            .collect()
    }

    /// The newest record that stands, if the chain up to `own` has not named it yet.
    fn next_record(&self, graph: &Graph, own: Option<NodeIx>) -> Option<NodeIx> {
        let newest = self.settled.last().copied()?;
        own.is_none_or(|own| !graph.in_past(newest, own))
            .then_some(newest)
    }

    /// The newest commit with an act on the chain that ends in `node`.
    fn newest_act(&self, graph: &Graph, node: NodeIx) -> Option<NodeIx> {
        let mut at = node;
        loop {
            let (branch, seq) = (graph.node(at).branch(), graph.node(at).short_seq());
            if let Some(nodes) = self.act_nodes.get(branch.0 as usize) {
                let upto = nodes.partition_point(|n| graph.node(*n).short_seq() <= seq);
                if let Some(last) = upto.checked_sub(1) {
                    return Some(nodes[last]);
                }
            }
            at = graph.base_of(branch)?;
        }
    }

    /// What the next commit of `home` states of its authority: the change against its last commit,
    /// none if nothing changed; a chain's first commit states it in any case.
    #[must_use]
    pub fn authority_change(
        &self,
        graph: &Graph,
        now: Timestamp,
        home: &ServerId,
    ) -> Option<AuthorityChange> {
        self.authority_change_after(graph, graph.standing_tip(home), now, home)
    }

    /// The same for a commit of `home` whose `prev` is `own`.
    pub(crate) fn authority_change_after(
        &self,
        graph: &Graph,
        own: Option<NodeIx>,
        now: Timestamp,
        home: &ServerId,
    ) -> Option<AuthorityChange> {
        let mut tips: Vec<Tip> = self
            .next_tips(graph, own, now, home)
            .into_iter()
            .map(|tip| graph.tip(tip))
            .collect();
        tips.sort_unstable();
        let news = self.next_record(graph, own).map(|record| RootRef {
            n: graph.node(record).seq(),
            id: graph.record_id(record),
        });
        match (own, &self.mode) {
            (None, Mode::Group(genesis)) => Some(AuthorityChange {
                tips,
                root: news.or(Some(*genesis)),
            }),
            (None, Mode::Direct(_)) => Some(AuthorityChange { tips, root: None }),
            (Some(_), _) if tips.is_empty() && news.is_none() => None,
            (Some(_), _) => Some(AuthorityChange { tips, root: news }),
        }
    }

    /// Every home a user is known to have had, the present one first, then newer moves before older
    /// ones, then those of grants. What is named here is what a cut can let stand.
    #[must_use]
    pub fn homes_of(&self, user: &UserId) -> Vec<ServerId> {
        let Some(subject) = self.subject_of.get(user) else {
            return Vec::new();
        };
        let state = &self.subjects[subject.0 as usize];
        let mut moves = state.moves.clone();
        moves.sort_by_key(|m| std::cmp::Reverse(self.act(*m).n));
        let bound = state.about.iter().rev().chain(&[]);
        let mut homes = state.standing.homes.to_vec();
        for act in moves.iter().chain(bound) {
            if let Some(home) = self.act(*act).home
                && !homes.contains(&home)
            {
                homes.push(home);
            }
        }
        homes
    }

    /// The cut for a removal, demotion, ban, leave or move of `user`: the tips of all homes he is
    /// known to have had, as far as they may be named. Strictly increasing.
    #[must_use]
    pub fn cut_for(&self, graph: &Graph, now: Timestamp, user: &UserId) -> Vec<Tip> {
        let mut cut: Vec<Tip> = self
            .homes_of(user)
            .iter()
            .flat_map(|home| graph.tips(home))
            .filter_map(|tip| graph.newest_nameable(graph.ix(&tip.id)?, now))
            .map(|node| graph.tip(node))
            .take(CUT_TIPS_MAX)
            .collect();
        cut.sort_unstable();
        cut.dedup();
        cut
    }

    /// The claim an act is best made with: for additions the least that suffices, so that it stands
    /// when its author is demoted to that; for removals, demotions, bans and closing doors all the
    /// author has, so that it outranks what it meets.
    #[must_use]
    pub fn claim_for(&self, graph: &Graph, author: &UserId, act: &EventAct) -> Role {
        let own = self.role(author);
        match act {
            EventAct::Message { .. } | EventAct::Edit { .. } | EventAct::React { .. } => {
                self.posting(graph)
            }
            EventAct::State { field, .. } if field == "name" => self.posting(graph),
            EventAct::State { .. } | EventAct::Pin { .. } | EventAct::Delete { .. }
                if self.is_direct() =>
            {
                Role::Member
            }
            EventAct::State { .. } | EventAct::Pin { .. } | EventAct::Delete { .. } => {
                Role::Moderator
            }
            EventAct::Policy { .. } => Role::Admin,
            EventAct::Join { role, .. } => *role,
            EventAct::Leave { .. } | EventAct::Move { .. } => Role::None,
            EventAct::Grant(grant) => {
                let lowers = match &grant.target {
                    Target::User { user, .. } => grant.role < self.role(user),
                    Target::Anyone => false,
                };
                if grant.role == Role::None || lowers {
                    return own;
                }
                let above = Role::try_from(u8::from(grant.role) + 1).unwrap_or(Role::Owner);
                let bans = grant.lifts.iter().filter_map(|ban| {
                    let mut held = graph.find_event(ban).filter_map(|at| self.act_at(at));
                    Some(self.act(held.next()?).claims)
                });
                bans.fold(above, Role::max)
            }
        }
    }
}
