//! Root records from 1 on: who owns the conversation, and what is settled for ever. Source:
//! `spec/04-authority.md`, section 6.
//!
//! What lies in the past of a record keeps the verdict that follows from that past alone. To find
//! it, the same rules run over a copy that holds nothing else ([`Authority::view`]); that is once a
//! record, and no verdict depends on when a server learnt of the record.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Authority, Effects, Mode, Pass, Reach, Verdict,
    members::Member,
    table::{Act, ActIx, EntryIx, Kind, Subject, SubjectIx},
};
use crate::{
    commit::RootRef,
    event::Tip,
    history::{Graph, Ground, NoGround, NodeIx, Past},
    ids::{CommitId, Digest, RootId, ServerId},
    limits::AUTHORITY_TIPS_MAX,
    root::{Made, MemberLeaf, Members, Root, SignedRoot},
    time::Timestamp,
};

/// A root record that is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) node: NodeIx,
    owner: SubjectIx,
    home: ServerId,
    /// That he is the owner.
    grant: ActIx,
    /// That the owner before is an admin, if he was another.
    former: Option<ActIx>,
}

/// What became of a root record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RecordOutcome {
    /// It is taken.
    Taken {
        /// Where.
        node: NodeIx,
        /// Whether it stands; else a twin does.
        stands: bool,
        /// What it brought about.
        effects: Box<Effects>,
    },
    /// It was held already.
    Known,
    /// What it builds on is not held: nothing was kept, offer it again once that is.
    Missing {
        /// The record before.
        record: Option<RootId>,
        /// Commits of its frontier, or below it with events that are not held.
        commits: Vec<CommitId>,
    },
    /// Refused for ever, with the reason; the same on every server.
    Refused(&'static str),
}

impl Authority {
    /// Takes a root record whose signatures were checked. That its device or home key is the
    /// previous owner's is for the caller to have asked of his identity log.
    pub fn insert_record(&mut self, graph: &mut Graph, record: &SignedRoot) -> RecordOutcome {
        let (ground, view) = match self.examine(graph, record) {
            Ok(examined) => examined,
            Err(outcome) => return outcome,
        };
        let past = ground.past.clone();
        let Some(node) = graph.insert_record(record, ground) else {
            return RecordOutcome::Refused("one more twin of proven twins");
        };
        self.reserve(graph, node);
        self.note_record(graph, node, record);
        let mut pass = Pass::default();
        let standing = graph.standing_records();
        let stands = standing.last() == Some(&node);
        if stands
            && standing
                .split_last()
                .is_some_and(|(_, rest)| rest == self.settled)
        {
            graph.settle_branches(&past);
            self.settle_by(graph, &past, &view, &mut pass);
            self.settled.push(node);
            self.follow_records(&mut pass);
        } else if standing == self.settled {
            self.follow_records(&mut pass);
        } else {
            // A twin with a lower id came late: what another settled was never settled.
            self.settle_chain(graph, &standing);
            self.choose_records(&standing);
            self.queue_everything(&mut pass);
        }
        self.follow_all_forks(graph, &mut pass);
        self.judge_queue(graph, &mut pass);
        RecordOutcome::Taken {
            node,
            stands,
            effects: Box::new(self.effects(graph, node, &pass)),
        }
    }

    /// Whether [`Self::insert_record`] would take a record, and whether it has seen the commits of
    /// `seen`, as far as they are held.
    ///
    /// # Errors
    ///
    /// Why not, as that says.
    pub fn would_take(
        &self,
        graph: &Graph,
        record: &SignedRoot,
        seen: &[Tip],
    ) -> Result<bool, RecordOutcome> {
        let (ground, _) = self.examine(graph, record)?;
        let within = |tip: &Tip| {
            graph.ix(&tip.id).is_none_or(|ix| {
                let node = graph.node(ix);
                Graph::past_holds(&ground.past, node.branch(), node.short_seq())
            })
        };
        Ok(seen.iter().all(within))
    }

    /// What a record builds on, and the verdicts that follow from that alone.
    fn examine(&self, graph: &Graph, record: &SignedRoot) -> Result<(Ground, Self), RecordOutcome> {
        if !matches!(self.mode, Mode::Group(_)) {
            let why = "a direct conversation has no root records";
            return Err(RecordOutcome::Refused(why));
        }
        let ground = graph.ground(record).map_err(|none| match none {
            NoGround::Missing { record, commits } => RecordOutcome::Missing { record, commits },
            NoGround::Invalid(invalid) => RecordOutcome::Refused(invalid.code()),
            NoGround::Held => RecordOutcome::Known,
        })?;
        // A verdict that is kept for ever is not made of less than everything.
        let commits = self.unheld_within(graph, &ground.past);
        if !commits.is_empty() {
            let record = None;
            return Err(RecordOutcome::Missing { record, commits });
        }
        let before = record.root().prev.and_then(|id| graph.record(&id));
        let (_, view) = self.view(graph, &ground.past, before);
        match view.allows(graph, before, record) {
            Ok(()) => Ok((ground, view)),
            Err(why) => Err(RecordOutcome::Refused(why)),
        }
    }

    /// Commits below a frontier whose events are not held; it is held itself.
    #[must_use]
    pub fn unheld_below(&self, graph: &Graph, frontier: &[Tip]) -> Vec<CommitId> {
        let links: Vec<NodeIx> = frontier
            .iter()
            .filter_map(|tip| graph.ix(&tip.id))
            .collect();
        self.unheld_within(graph, &graph.hypothetical_past(None, &links))
    }

    fn unheld_within(&self, graph: &Graph, past: &Past) -> Vec<CommitId> {
        let absent = |ix: &EntryIx| self.entries[ix.0 as usize].kind == Kind::Absent;
        let unheld = self.entries_within(graph, past).into_iter().filter(absent);
        let unheld: BTreeSet<_> = unheld
            .map(|ix| graph.node(self.entries[ix.0 as usize].node).id())
            .collect();
        unheld.into_iter().collect()
    }

    /// The newest record that stands.
    #[must_use]
    pub fn newest_record(&self, graph: &Graph) -> Option<RootRef> {
        let Mode::Group(genesis) = self.mode else {
            return None;
        };
        Some(self.settled.last().map_or(genesis, |node| RootRef {
            n: graph.node(*node).seq(),
            id: graph.record_id(*node),
        }))
    }

    /// Whether a record settled what appears there: nothing changes that verdict any more.
    #[must_use]
    pub fn is_settled(&self, at: crate::history::Appearance) -> bool {
        self.entry_at(at)
            .is_some_and(|ix| self.entries[ix.0 as usize].settled.is_some())
    }

    /// Acts that no record settled yet.
    #[must_use]
    pub const fn unsettled_acts(&self) -> usize {
        self.unsettled
    }

    /// What the next record names as its frontier: of each home the newest standing commit that is
    /// causally whole and at most a minute ahead of `now`. Strictly increasing.
    #[must_use]
    pub fn frontier_for_record(&self, graph: &Graph, now: Timestamp) -> Vec<Tip> {
        let newest = |home: ServerId| graph.newest_nameable(graph.standing_tip(&home)?, now);
        Self::frontier_of(graph, graph.homes().filter_map(newest).collect())
    }

    /// The same with what others named for it as well; the commits that are not held, if any.
    ///
    /// # Errors
    ///
    /// Those of `seen` that are not held.
    pub fn frontier_with(
        &self,
        graph: &Graph,
        now: Timestamp,
        seen: &[Tip],
    ) -> Result<Vec<Tip>, Vec<Tip>> {
        let lacking: Vec<Tip> = seen
            .iter()
            .filter(|tip| graph.ix(&tip.id).is_none())
            .copied()
            .collect();
        if !lacking.is_empty() {
            return Err(lacking);
        }
        let own = self.frontier_for_record(graph, now);
        let all = own.iter().chain(seen).filter_map(|tip| graph.ix(&tip.id));
        let all: BTreeSet<NodeIx> = all.collect();
        let later = |x: &NodeIx| {
            let mut others = all.iter();
            others.any(|y| graph.home(*x) == graph.home(*y) && graph.in_past(*x, *y))
        };
        let ends = all.iter().filter(|x| !later(x)).copied();
        Ok(Self::frontier_of(graph, ends.collect()))
    }

    fn frontier_of(graph: &Graph, mut nodes: Vec<NodeIx>) -> Vec<Tip> {
        if nodes.len() > AUTHORITY_TIPS_MAX {
            // Those that others have seen come in with these.
            let seen = |x: &NodeIx| nodes.iter().any(|y| graph.in_past(*x, *y));
            let mut unseen: Vec<NodeIx> = nodes.iter().copied().filter(|x| !seen(x)).collect();
            unseen.truncate(AUTHORITY_TIPS_MAX);
            nodes = unseen;
        }
        let mut tips: Vec<Tip> = nodes.into_iter().map(|node| graph.tip(node)).collect();
        tips.sort_unstable();
        tips
    }

    /// What a record with this frontier says of the members, and who would follow a lost owner;
    /// none while the frontier is not held.
    #[must_use]
    pub fn members_at(&self, graph: &Graph, frontier: &[Tip]) -> Option<(Members, Option<Member>)> {
        self.members_below(graph, frontier, self.settled.last().copied())
    }

    /// The same for a record that follows `before`.
    pub(super) fn members_below(
        &self,
        graph: &Graph,
        frontier: &[Tip],
        before: Option<NodeIx>,
    ) -> Option<(Members, Option<Member>)> {
        let nodes: Option<Vec<NodeIx>> = frontier.iter().map(|tip| graph.ix(&tip.id)).collect();
        let links: Vec<NodeIx> = nodes?.into_iter().chain(before).collect();
        let past = graph.hypothetical_past(None, &links);
        let (at, view) = self.view(graph, &past, before);
        Some((view.leaves(), view.heir(&at, before)))
    }

    fn leaves(&self) -> Members {
        let leaf = |member: Member| {
            let subject = self.subject_of.get(&member.user)?;
            let grant = self.subjects[subject.0 as usize].standing.grant?;
            Some(MemberLeaf {
                user: member.user,
                role: member.role,
                home: member.home?,
                grant: Digest::from_bytes(*self.act(grant).event.as_bytes()),
            })
        };
        Members::new(self.members().filter_map(leaf))
    }

    fn owner_at(&self, before: Option<NodeIx>) -> Option<(SubjectIx, ServerId)> {
        match before {
            Some(node) => {
                let record = self.records.iter().find(|record| record.node == node)?;
                Some((record.owner, record.home))
            }
            None => {
                let record = self.acts.first()?;
                Some((record.subject, record.home?))
            }
        }
    }

    /// Of those with the highest role beside the owner the one whose grant is the first in the
    /// order.
    fn heir(&self, graph: &Graph, before: Option<NodeIx>) -> Option<Member> {
        let (owner, _) = self.owner_at(before)?;
        let others = self.subject_of.values().filter(|other| **other != owner);
        let heir = others
            .filter_map(|other| {
                let standing = &self.subjects[other.0 as usize].standing;
                let entry = self.act(standing.grant?).entry;
                let place = entry.map(|e| graph.place(self.entries[e.0 as usize].at()));
                Some((Reverse(standing.role), place, *other))
            })
            .min()?;
        self.member(&self.subjects[heir.2.0 as usize].id?)
    }

    /// What a record says of the history has to follow from its past.
    fn allows(
        &self,
        graph: &Graph,
        before: Option<NodeIx>,
        record: &SignedRoot,
    ) -> Result<(), &'static str> {
        let root = record.root();
        if root.digest != Some(self.leaves().digest()) {
            return Err("the digest is not that of the members at its frontier");
        }
        if record.made() == Made::Succession {
            let heir = self.heir(graph, before);
            let follows = |heir: &Member| heir.user == root.owner && heir.home == Some(root.home);
            if !heir.as_ref().is_some_and(follows) {
                return Err("not who follows the owner");
            }
        }
        Ok(())
    }

    fn note_record(&mut self, graph: &Graph, node: NodeIx, record: &SignedRoot) {
        let Root { owner, home, .. } = record.root();
        let held = graph.node(node);
        let before = self.owner_at(held.prev());
        let owner = self.subject(owner);
        let position = (held.branch(), held.short_seq());
        let grant = self.add_record_act(Act::record(owner, *home, record.id()).at(position, 0));
        let former = before.filter(|(before, _)| *before != owner).map(|before| {
            let act = Act::former(before.0, before.1, record.id());
            self.add_record_act(act.at(position, 1))
        });
        self.records.push(Record {
            node,
            owner,
            home: *home,
            grant,
            former,
        });
    }

    fn add_record_act(&mut self, act: Act) -> ActIx {
        let ix = ActIx(u32::try_from(self.acts.len()).unwrap_or(u32::MAX));
        self.subjects[act.subject.0 as usize].about.push(ix);
        self.acts.push(act);
        ix
    }

    /// The records in `standing` give, the others do not.
    fn choose_records(&mut self, standing: &[NodeIx]) -> Vec<ActIx> {
        let mut changed = Vec::new();
        for record in &self.records {
            let lost = !standing.contains(&record.node);
            for act in std::iter::once(record.grant).chain(record.former) {
                let was = std::mem::replace(&mut self.acts[act.0 as usize].lost, lost);
                if was != lost {
                    changed.push(act);
                }
            }
        }
        changed
    }

    fn follow_records(&mut self, pass: &mut Pass) {
        let standing = self.settled.clone();
        for act in self.choose_records(&standing) {
            pass.touched.insert(self.act(act).subject);
            // Whoever has seen a record names it, and waits for it: nothing judged has seen it.
            self.touch(act, Reach::New, pass);
        }
    }

    /// Keeps the verdicts of `view` for ever, and queues what they change.
    fn settle_by(&mut self, graph: &Graph, past: &Past, view: &Self, pass: &mut Pass) {
        for ix in self.entries_within(graph, past) {
            let entry = &mut self.entries[ix.0 as usize];
            let verdict = view.entries[ix.0 as usize].verdict;
            if entry.settled.is_some() || matches!(verdict, Verdict::Waits(_)) {
                continue;
            }
            entry.settled = Some(verdict);
            if entry.kind.is_act() {
                self.unsettled -= 1;
            }
            if entry.verdict != verdict {
                pass.queue_at(self.level(ix), ix);
            }
        }
    }

    /// Works out anew what the records of `chain` settle, and nothing else. Verdicts are left as they
    /// were.
    fn settle_chain(&mut self, graph: &mut Graph, chain: &[NodeIx]) {
        for entry in &mut self.entries {
            if entry.settled.take().is_some() && entry.kind.is_act() {
                self.unsettled += 1;
            }
        }
        graph.unsettle_branches();
        self.settled.clear();
        for node in chain {
            let past = graph.past(*node).clone();
            let (_, view) = self.view_now(graph, &past);
            self.settle_by(graph, &past, &view, &mut Pass::default());
            graph.settle_branches(&past);
            self.settled.push(*node);
        }
    }

    fn queue_everything(&self, pass: &mut Pass) {
        for ix in self.all_entries() {
            pass.queue_at(self.level(ix), ix);
        }
        let subjects = (0u32..).map(SubjectIx).take(self.subjects.len());
        pass.touched.extend(subjects.skip(1));
    }

    fn entries_within(&self, graph: &Graph, past: &Past) -> Vec<EntryIx> {
        let within = |ix: &EntryIx| {
            let node = graph.node(self.entries[ix.0 as usize].node);
            Graph::past_holds(past, node.branch(), node.short_seq())
        };
        self.all_entries().filter(within).collect()
    }

    /// The history and the verdicts of one who holds nothing but `past`, with the records up to
    /// `before`.
    fn view(&self, graph: &Graph, past: &Past, before: Option<NodeIx>) -> (Graph, Self) {
        let chain = graph.records_to(before);
        if chain == self.settled {
            return self.view_now(graph, past);
        }
        let (mut at, mut copy) = (graph.clone(), self.clone());
        copy.settle_chain(&mut at, &chain);
        copy.view_now(&at, past)
    }

    /// The same with the records that settle now.
    fn view_now(&self, graph: &Graph, past: &Past) -> (Graph, Self) {
        let at = graph.restricted(past);
        let mut view = self.restricted(graph, past);
        view.choose_records(&self.settled);
        let mut order: Vec<(Reverse<u8>, EntryIx)> = view
            .entries_within(graph, past)
            .into_iter()
            .map(|ix| (Reverse(view.level(ix)), ix))
            .collect();
        order.sort_unstable();
        for (_, ix) in order {
            let verdict = view.decide(&at, ix);
            view.entries[ix.0 as usize].verdict = verdict;
        }
        let subjects = (0u32..).map(SubjectIx).take(view.subjects.len());
        for subject in subjects.skip(1).collect::<Vec<_>>() {
            view.restand(subject, Some(&at), &mut BTreeMap::new());
        }
        (at, view)
    }

    /// A copy that knows of nothing but `past`; nothing is judged in it yet.
    fn restricted(&self, graph: &Graph, past: &Past) -> Self {
        let mut copy = self.clone();
        let within = |node: NodeIx| {
            let node = graph.node(node);
            Graph::past_holds(past, node.branch(), node.short_seq())
        };
        for (node, first) in graph.iter().zip(&mut copy.first) {
            if !within(node) {
                *first = u32::MAX;
            }
        }
        let entry_in = |ix: &EntryIx| within(self.entries[ix.0 as usize].node);
        let act_in = |ix: &ActIx| match self.act(*ix).entry {
            Some(entry) => entry_in(&entry),
            None => {
                self.act(*ix).is_first_record() || {
                    let (branch, seq) = self.act(*ix).position();
                    Graph::past_holds(past, branch, seq)
                }
            }
        };
        for Subject {
            about,
            moves,
            entries,
            standing,
            ..
        } in &mut copy.subjects
        {
            about.retain(act_in);
            moves.retain(act_in);
            entries.retain(entry_in);
            *standing = super::members::Standing::default();
        }
        copy.same.retain(|_, same| {
            same.retain(act_in);
            !same.is_empty()
        });
        copy.posting.retain(act_in);
        copy.settings.retain(act_in);
        copy.awaiting_target = BTreeMap::<_, BTreeSet<_>>::new();
        copy.awaiting_cut = BTreeMap::new();
        copy.homes = BTreeMap::new();
        copy
    }
}
