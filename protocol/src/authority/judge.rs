//! The rules, one function each. Source: `spec/04-authority.md`, sections 3 to 5.

use std::{cmp::Reverse, ops::Deref};

use super::{
    Authority, Awaited, Mode, Reason, Verdict,
    settle::View,
    table::{ANYONE, Act, ActIx, EntryIx, Kind, SubjectIx},
};
use crate::{
    event::{Field, Tip},
    history::{Appearance, BranchIx, Graph, NodeIx, Past},
    ids::{EventId, ServerId},
    role::Role,
};

/// Where something is judged: what it has seen, and which home says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) branch: Option<BranchIx>,
    pub(super) seq: u32,
    pub(super) index: u16,
    pub(super) past: &'a Past,
    /// None for an event that is not in a commit: it is inside no cut.
    pub(super) node: Option<NodeIx>,
    pub(super) home: ServerId,
}

impl At<'_> {
    fn holds(&self, act: &Act) -> bool {
        act.is_before(self.branch, self.seq, self.index)
            .unwrap_or_else(|| {
                let (branch, seq) = act.position();
                Graph::past_holds(self.past, branch, seq)
            })
    }

    /// Whether another appearance lies in the past of this one.
    fn holds_at(&self, graph: &Graph, other: Appearance) -> bool {
        let node = graph.node(other.node);
        if Some(node.branch()) == self.branch {
            (node.short_seq(), other.index) < (self.seq, self.index)
        } else {
            Graph::past_holds(self.past, node.branch(), node.short_seq())
        }
    }
}

/// An event to judge, in a commit or not yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) at: At<'a>,
    pub(super) author: SubjectIx,
    pub(super) claims: Role,
    pub(super) kind: Kind,
    pub(super) act: Option<&'a Act>,
    pub(super) target: Option<EventId>,
}

/// Why a case does not stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fails {
    Void(Reason, Option<ActIx>),
    /// What it is about is not held.
    NoTarget,
}

impl From<Reason> for Fails {
    fn from(reason: Reason) -> Self {
        Self::Void(reason, None)
    }
}

/// The rules, and what they are asked of: all that is held, or what a root record has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge<'a> {
    pub(super) authority: &'a Authority,
    pub(super) view: Option<&'a View>,
}

impl Deref for Judge<'_> {
    type Target = Authority;

    fn deref(&self) -> &Authority {
        self.authority
    }
}

impl Authority {
    /// The rules, asked of all that is held.
    pub(super) const fn now(&self) -> Judge<'_> {
        Judge {
            authority: self,
            view: None,
        }
    }

    pub(super) fn act(&self, ix: ActIx) -> &Act {
        &self.acts[ix.0 as usize]
    }

    pub(super) fn at<'a>(&self, graph: &'a Graph, at: Appearance) -> At<'a> {
        let node = graph.node(at.node);
        At {
            branch: Some(node.branch()),
            seq: node.short_seq(),
            index: at.index,
            past: graph.past(at.node),
            node: Some(at.node),
            home: graph.home(at.node),
        }
    }

    /// Where an act was done; record 0 nowhere.
    fn at_act<'a>(&self, graph: &'a Graph, ix: ActIx) -> Option<At<'a>> {
        let act = self.act(ix);
        if let Some(entry) = act.entry {
            return Some(self.at(graph, self.entries[entry.0 as usize].at()));
        }
        if act.is_first_record() {
            return None;
        }
        let (branch, seq) = act.position();
        let node = graph.node_at(branch, seq)?;
        Some(At {
            branch: Some(branch),
            seq,
            index: act.index(),
            past: graph.past(node),
            node: Some(node),
            home: graph.home(node),
        })
    }

    /// `x` is in the past of what is judged at `at`, by event: whichever appearance was seen.
    pub(super) fn seen(&self, x: ActIx, at: &At<'_>) -> bool {
        let act = self.act(x);
        at.holds(act)
            || self.same.get(&act.event).is_some_and(|same| {
                same.len() > 1 && same.iter().any(|other| at.holds(self.act(*other)))
            })
    }

    /// `x` is in the past of the act `y`; nothing is in that of record 0.
    pub(super) fn seen_by(&self, graph: &Graph, x: ActIx, y: ActIx) -> bool {
        self.at_act(graph, y).is_some_and(|at| self.seen(x, &at))
    }

    /// The verdict of an entry, from those of higher levels.
    pub(super) fn decide(&mut self, graph: &Graph, ix: EntryIx) -> Verdict {
        if let Some(settled) = self.entries[ix.0 as usize].settled {
            return settled;
        }
        let verdict = self.now().verdict_of(graph, ix);
        if verdict == Verdict::Waits(Awaited::Target) {
            let target = self.targets[self.entries[ix.0 as usize].detail as usize];
            self.awaiting_target.entry(target).or_default().insert(ix);
        }
        verdict
    }

    pub(super) fn cause_of(&self, graph: &Graph, ix: EntryIx) -> Option<ActIx> {
        match self.now().judge_entry(graph, ix) {
            Err(Fails::Void(_, act)) => act,
            _ => None,
        }
    }

    pub(super) fn names_its_home(case: &Case<'_>) -> Result<(), Fails> {
        if case.act.and_then(|act| act.home) == Some(case.at.home) {
            Ok(())
        } else {
            Err(Reason::WrongHome.into())
        }
    }

    /// The value of the policy with the highest claim, then commit id.
    pub(super) fn strongest(&self, graph: &Graph, policies: &[ActIx]) -> Option<u64> {
        let strength = |p: &&ActIx| {
            let act = self.act(**p);
            let at = act.entry.map(|entry| self.entries[entry.0 as usize].at());
            (
                act.claims,
                at.map(|at| (graph.node(at.node).id(), at.index)),
            )
        };
        let strongest = policies.iter().max_by_key(strength)?;
        self.act(*strongest).policy.map(|(_, value)| value)
    }
}

impl Judge<'_> {
    pub(super) fn stands(&self, ix: ActIx) -> bool {
        let act = self.act(ix);
        match (act.entry, self.view) {
            (None, _) => !act.lost,
            (Some(entry), None) => self.entries[entry.0 as usize].verdict.stands(),
            (Some(entry), Some(view)) => view.stands(self.authority, entry),
        }
    }

    /// The verdict that follows from those of higher levels, whatever was settled.
    pub(super) fn verdict_of(&self, graph: &Graph, ix: EntryIx) -> Verdict {
        match self.judge_entry(graph, ix) {
            Ok(()) => Verdict::Stands,
            Err(Fails::Void(reason, _)) => Verdict::Void(reason),
            Err(Fails::NoTarget) => match self.entries[ix.0 as usize].kind {
                Kind::Absent => Verdict::Waits(Awaited::Event),
                _ => Verdict::Waits(Awaited::Target),
            },
        }
    }

    fn judge_entry(&self, graph: &Graph, ix: EntryIx) -> Result<(), Fails> {
        let entry = &self.entries[ix.0 as usize];
        if entry.kind == Kind::Absent {
            return Err(Fails::NoTarget);
        }
        let act = entry.kind.is_act().then(|| self.act(ActIx(entry.detail)));
        let target = (act.is_none() && entry.detail != u32::MAX)
            .then(|| self.targets[entry.detail as usize]);
        let case = Case {
            at: self.at(graph, entry.at()),
            author: entry.author,
            claims: entry.claims,
            kind: entry.kind,
            act,
            target,
        };
        // An author's deletion of his own message counts wherever it appears: what he erased stays
        // erased, whatever became of his home's branch or of his membership.
        if case.kind == Kind::Delete && self.is_own(graph, &case)? {
            return Ok(());
        }
        if !graph.is_standing(entry.node) {
            return Err(Reason::LostBranch.into());
        }
        let event = graph.event(entry.at());
        let repeated = graph.find_event(&event).any(|other| {
            other != entry.at() && case.at.holds_at(graph, other) && graph.is_standing(other.node)
        });
        if repeated {
            return Err(Reason::Repeated.into());
        }
        self.judge(graph, &case)
    }

    /// The rules for one event, its branch and repeats apart.
    pub(super) fn judge(&self, graph: &Graph, case: &Case<'_>) -> Result<(), Fails> {
        if let Mode::Direct(users) = self.mode {
            return self.judge_direct(graph, case, users);
        }
        match case.kind {
            Kind::Absent => Err(Fails::NoTarget),
            Kind::Record | Kind::Former | Kind::Leave => Ok(()),
            Kind::Move => Authority::names_its_home(case),
            Kind::Join => self.judge_join(graph, case),
            Kind::Grant => self.judge_grant(graph, case),
            Kind::Policy => self.judge_policy(graph, case),
            Kind::Message | Kind::Name => self.judge_posting(graph, case),
            Kind::React => {
                self.judge_posting(graph, case)?;
                self.target_author(graph, case).map(drop)
            }
            Kind::Edit => {
                self.judge_posting(graph, case)?;
                if self.is_own(graph, case)? {
                    Ok(())
                } else {
                    Err(Reason::NotOwn.into())
                }
            }
            Kind::Delete => {
                if self.is_own(graph, case)? {
                    return Ok(());
                }
                self.judge_moderating(graph, case)
            }
            Kind::Pin => {
                self.judge_moderating(graph, case)?;
                self.target_author(graph, case).map(drop)
            }
            Kind::State => self.judge_moderating(graph, case),
        }
    }

    fn judge_join(&self, graph: &Graph, case: &Case<'_>) -> Result<(), Fails> {
        let Some(act) = case.act else {
            return Err(Reason::ClaimTooLow.into());
        };
        if !(Role::Guest..=Role::Member).contains(&act.role) {
            return Err(Reason::ClaimTooLow.into());
        }
        Authority::names_its_home(case)?;
        if !self.at_home(graph, case, act.home) {
            return Err(Reason::WrongHome.into());
        }
        self.carried(graph, case, ANYONE, act.role)
    }

    fn judge_grant(&self, graph: &Graph, case: &Case<'_>) -> Result<(), Fails> {
        let Some(act) = case.act else {
            return Err(Reason::ClaimTooLow.into());
        };
        if act.role >= case.claims {
            return Err(Reason::ClaimTooLow.into());
        }
        self.carried(graph, case, case.author, case.claims)?;
        match self.outranking(graph, case, act.subject) {
            Some(higher) => Err(Fails::Void(Reason::Outranked, Some(higher))),
            None => Ok(()),
        }
    }

    fn judge_policy(&self, graph: &Graph, case: &Case<'_>) -> Result<(), Fails> {
        if case.claims < Role::Admin {
            return Err(Reason::ClaimTooLow.into());
        }
        let valid = match case.act.and_then(|act| act.policy) {
            // Posting open to none would let removals carry messages.
            Some((Field::Posting, value)) => (1..=5).contains(&value),
            Some((Field::History, value)) => value <= 1,
            Some(_) => true,
            None => false,
        };
        if !valid {
            return Err(Reason::InvalidPolicy.into());
        }
        self.carried(graph, case, case.author, case.claims)
    }

    fn judge_posting(&self, graph: &Graph, case: &Case<'_>) -> Result<(), Fails> {
        if case.claims < Role::Guest {
            return Err(Reason::ClaimTooLow.into());
        }
        self.carried(graph, case, case.author, case.claims)?;
        if case.claims < self.posting_at(graph, &case.at) {
            return Err(Reason::PostingRestricted.into());
        }
        Ok(())
    }

    fn judge_moderating(&self, graph: &Graph, case: &Case<'_>) -> Result<(), Fails> {
        if case.claims < Role::Moderator {
            return Err(Reason::ClaimTooLow.into());
        }
        self.carried(graph, case, case.author, case.claims)
    }

    /// The author of the message that a case is about.
    pub(super) fn target_author(&self, graph: &Graph, case: &Case<'_>) -> Result<SubjectIx, Fails> {
        let target = case.target.ok_or(Fails::NoTarget)?;
        let known = graph
            .find_event(&target)
            .filter(|at| self.view.is_none_or(|view| view.holds(graph, at.node)))
            .filter_map(|at| self.entry_at(at))
            .map(|ix| &self.entries[ix.0 as usize])
            .find(|entry| entry.kind != Kind::Absent);
        match known {
            Some(entry) if entry.kind == Kind::Message => Ok(entry.author),
            Some(_) => Err(Reason::WrongTarget.into()),
            None => Err(Fails::NoTarget),
        }
    }

    pub(super) fn is_own(&self, graph: &Graph, case: &Case<'_>) -> Result<bool, Fails> {
        Ok(self.target_author(graph, case)? == case.author)
    }

    /// Some grant in the past gives `holder` what the case needs, and whoever took that away lets
    /// the case stand.
    fn carried(
        &self,
        graph: &Graph,
        case: &Case<'_>,
        holder: SubjectIx,
        need: Role,
    ) -> Result<(), Fails> {
        let nothing = if holder == ANYONE {
            Reason::NoDoor
        } else {
            Reason::NotMember
        };
        // The failure told is that of the grant that came nearest to carrying.
        let mut nearest = (0, nothing, None);
        let mut fail = |stage: u8, reason: Reason, cause: Option<ActIx>| {
            let rank = |cause: Option<ActIx>| cause.map(|cause| Reverse(self.act(cause).event));
            if (stage, rank(cause)) > (nearest.0, rank(nearest.2)) {
                nearest = (stage, reason, cause);
            }
        };
        // The newest first: it mostly is the one that carries, and what came last has seen the rest.
        for b in self.about(holder).iter().rev() {
            let grant = self.act(*b);
            let gives = grant.kind != Kind::Leave && grant.role > Role::None;
            if !gives || !self.seen(*b, &case.at) {
                continue;
            }
            if grant.role < need {
                fail(1, Reason::NotAllowed, None);
                continue;
            }
            if holder != ANYONE && !self.at_home(graph, case, grant.home) {
                fail(2, Reason::WrongHome, None);
                continue;
            }
            if !self.stands(*b) {
                fail(3, Reason::GrantVoid, Some(*b));
                continue;
            }
            let killer = self.about(holder).iter().rev().find(|x| {
                self.act(**x).role < need
                    && self.stands(**x)
                    && self.kills(graph, **x, *b)
                    && !self.inside(graph, case, **x)
            });
            match killer {
                None => return Ok(()),
                Some(killer) => fail(4, Reason::Removed, Some(*killer)),
            }
        }
        let (_, reason, cause) = nearest;
        Err(Fails::Void(reason, cause))
    }

    /// Whether `x` takes away what `g` gives; both are about one user, or about doors.
    pub(super) fn kills(&self, graph: &Graph, x: ActIx, g: ActIx) -> bool {
        let (taker, given) = (self.act(x), self.act(g));
        let lifting = !taker.lifts.is_empty() && taker.role == Role::None;
        if x == g || given.kind == Kind::Leave || lifting {
            return false;
        }
        match taker.kind {
            Kind::Leave => given.kind != Kind::Record && !self.seen_by(graph, x, g),
            Kind::Grant if given.role >= taker.claims => false,
            Kind::Grant if taker.ban => !self.lifted(graph, x, g),
            // What a record says of the former owner claims more than an owner.
            Kind::Grant | Kind::Former => {
                !self.seen_by(graph, x, g) && (given.role > taker.role || self.seen_by(graph, g, x))
            }
            _ => false,
        }
    }

    /// Whether `g`, or an act in its past, ended the ban for `g`.
    fn lifted(&self, graph: &Graph, ban: ActIx, g: ActIx) -> bool {
        let banned = self.act(ban);
        self.about(banned.subject).iter().any(|u| {
            let lift = self.act(*u);
            lift.lifts.contains(&banned.event)
                && lift.claims >= banned.claims
                && (*u == g || self.seen_by(graph, *u, g))
                && self.seen_by(graph, ban, *u)
                && self.stands(*u)
        })
    }

    /// Whether the cut of `x` lets the case stand.
    fn inside(&self, graph: &Graph, case: &Case<'_>, x: ActIx) -> bool {
        let Some(node) = case.at.node else {
            return false;
        };
        let act = self.act(x);
        if act.subject != ANYONE {
            let held = |tip: &Tip| {
                let held = graph.ix(&tip.id);
                held.filter(|tip| self.view.is_none_or(|view| view.holds(graph, *tip)))
            };
            let mut tips = act.cut.iter().filter_map(held);
            return tips.any(|tip| graph.is_at_or_below(node, tip));
        }
        // Whoever closes a door lets stand the joins he had seen; no map of homes could name them.
        act.entry.is_some_and(|entry| {
            let closing = self.at(graph, self.entries[entry.0 as usize].at());
            let case = Appearance {
                node,
                index: case.at.index,
            };
            closing.holds_at(graph, case)
        })
    }

    /// Whether the case comes from its author's home: that of his newest move in its past, else
    /// `bound`; newer moves to another home must have let it stand.
    pub(super) fn at_home(&self, graph: &Graph, case: &Case<'_>, bound: Option<ServerId>) -> bool {
        let moves = self.moves_of(case.author);
        if moves.is_empty() {
            return bound == Some(case.at.home);
        }
        let newness = |m: &ActIx| {
            let act = self.act(*m);
            (act.n, Reverse(act.event))
        };
        let standing = || moves.iter().copied().filter(|m| self.stands(*m));
        let here = standing()
            .filter(|m| self.seen(*m, &case.at))
            .max_by_key(newness);
        let home = here.map_or(bound, |m| self.act(m).home);
        home == Some(case.at.home)
            && standing().all(|m| {
                here.is_some_and(|here| newness(&m) <= newness(&here))
                    || self.act(m).home == Some(case.at.home)
                    || self.inside(graph, case, m)
            })
    }

    /// A standing grant that the case has seen, that nothing there had ended, and that gives the
    /// target as much as the case claims.
    fn outranking(&self, graph: &Graph, case: &Case<'_>, target: SubjectIx) -> Option<ActIx> {
        let about = self.about(target);
        let holds = |g: &&ActIx| {
            let grant = self.act(**g);
            grant.kind != Kind::Leave
                && grant.role >= case.claims
                && self.seen(**g, &case.at)
                && self.stands(**g)
                && !about.iter().rev().any(|x| {
                    self.seen(*x, &case.at) && self.kills(graph, *x, **g) && self.stands(*x)
                })
        };
        about
            .iter()
            .filter(holds)
            .min_by_key(|g| self.act(**g).event)
            .copied()
    }

    /// The role that may post, by the policies in the past of `at`.
    fn posting_at(&self, graph: &Graph, at: &At<'_>) -> Role {
        let seen = |p: &ActIx| self.seen(*p, at);
        let newest = self.newest_policies(graph, &self.posting, seen);
        self.strongest(graph, &newest)
            .and_then(|value| u8::try_from(value).ok())
            .and_then(|value| Role::try_from(value).ok())
            .unwrap_or(Role::Member)
    }

    /// Of the standing policies of `list` that pass `among`, those that no other one has seen.
    /// `list` is in an order in which the past comes first.
    pub(super) fn newest_policies(
        &self,
        graph: &Graph,
        list: &[ActIx],
        among: impl Fn(&ActIx) -> bool,
    ) -> Vec<ActIx> {
        let mut newest: Vec<ActIx> = Vec::new();
        for p in list.iter().rev().filter(|p| self.stands(**p) && among(p)) {
            if !newest.iter().any(|q| self.seen_by(graph, *p, *q)) {
                newest.push(*p);
            }
        }
        newest
    }
}
