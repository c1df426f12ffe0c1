//! Root records from 1 on: who owns the conversation, and what is settled for ever. Source:
//! `spec/04-authority.md`, section 6.
//!
//! What lies in the past of a record keeps the verdict that follows from that past alone. To find
//! it, the same rules are asked of that past ([`Authority::view`]), and only of what no earlier
//! record settled; no verdict depends on when a server learnt of the record.

mod chain;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

#[cfg(test)]
pub(super) use chain::SETTLED_LATE;
pub(super) use chain::Settlement;

use super::{
    Authority, Effects, Mode, Pass, Reach, Verdict,
    judge::Judge,
    members::{Member, Standing},
    table::{ANYONE, Act, ActIx, EntryIx, Kind, Subject, SubjectIx},
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

/// What one who holds nothing but the past of a record makes of it.
#[derive(Debug)]
pub(super) struct View {
    past: Past,
    /// Of what no earlier record settled.
    verdicts: BTreeMap<EntryIx, Verdict>,
    /// Of users whose standing may be another than by all that is held.
    standings: BTreeMap<SubjectIx, Standing>,
}

impl View {
    /// Whether the commit lies in that past.
    pub(super) fn holds(&self, graph: &Graph, node: NodeIx) -> bool {
        graph.lies_in(node, &self.past)
    }

    /// Whether an entry stands there; what lies outside of the past stands nowhere. Nothing within
    /// has seen any of that, so it is all one whether it is void or not there.
    pub(super) fn stands(&self, authority: &Authority, ix: EntryIx) -> bool {
        let settled = || authority.entries[ix.0 as usize].settled;
        let verdict = self.verdicts.get(&ix).copied().or_else(settled);
        verdict.is_some_and(Verdict::stands)
    }

    fn standing<'a>(&'a self, authority: &'a Authority, subject: SubjectIx) -> &'a Standing {
        let other = self.standings.get(&subject);
        other.unwrap_or(&authority.subjects[subject.0 as usize].standing)
    }
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
        self.take_record(graph, record, true)
    }

    /// The same for a record that was taken before and stored: what it says of the members is not
    /// looked at again.
    pub fn restore_record(&mut self, graph: &mut Graph, record: &SignedRoot) -> RecordOutcome {
        self.take_record(graph, record, false)
    }

    fn take_record(&mut self, graph: &mut Graph, record: &SignedRoot, new: bool) -> RecordOutcome {
        let (ground, view) = match self.examine(graph, record, new) {
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
        let followed = graph.node(node).prev() == self.settled.last().copied();
        match view {
            Some(view) if stands && followed => {
                self.settle(graph, node, &past, &view, &mut pass);
                self.follow_records(graph, &mut pass);
            }
            _ if standing == self.settled => self.follow_records(graph, &mut pass),
            _ => {
                // A twin with a lower id came late: what another settled was never settled.
                self.settle_chain(graph, &standing);
                self.choose_records(&standing);
                self.queue_everything(&mut pass);
            }
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
        let (ground, _) = self.examine(graph, record, true)?;
        let within = |tip: &Tip| {
            let held = graph.ix(&tip.id);
            held.is_none_or(|node| graph.lies_in(node, &ground.past))
        };
        Ok(seen.iter().all(within))
    }

    /// What a record builds on, and the verdicts that follow from that alone. What a `new` one says of
    /// the members has to follow from it too; of one that is not new and follows no record that
    /// stands nothing is asked, and no verdicts are given.
    fn examine(
        &self,
        graph: &Graph,
        record: &SignedRoot,
        new: bool,
    ) -> Result<(Ground, Option<View>), RecordOutcome> {
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
        if !new && before != self.settled.last().copied() {
            return Ok((ground, None));
        }
        let view = self.view(graph, &ground.past, before);
        if new && let Err(why) = self.allows(graph, &view, before, record) {
            return Err(RecordOutcome::Refused(why));
        }
        Ok((ground, Some(view)))
    }

    /// Commits below a frontier whose events are not held; it is held itself.
    #[must_use]
    pub fn unheld_below(&self, graph: &Graph, frontier: &[Tip]) -> Vec<CommitId> {
        self.unheld_within(graph, &Self::past_below(graph, frontier, None))
    }

    /// The past of a record with this frontier, as far as that is held, that follows `before`.
    fn past_below(graph: &Graph, frontier: &[Tip], before: Option<NodeIx>) -> Past {
        let tips = frontier.iter().filter_map(|tip| graph.ix(&tip.id));
        graph.hypothetical_past(None, &tips.chain(before).collect::<Vec<_>>())
    }

    /// Whether an entry lies in a past.
    fn is_within(&self, graph: &Graph, past: &Past, ix: EntryIx) -> bool {
        graph.lies_in(self.entries[ix.0 as usize].node, past)
    }

    fn unheld_within(&self, graph: &Graph, past: &Past) -> Vec<CommitId> {
        let absent = |ix: &EntryIx| self.entries[ix.0 as usize].kind == Kind::Absent;
        let unheld = self.open_within(graph, past).into_iter().filter(absent);
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
    pub fn unsettled_acts(&self) -> usize {
        self.unsettled.len()
    }

    /// Of these, those that a record made now would settle: not what its home cannot name, as what
    /// builds on a commit that nobody gives.
    #[must_use]
    pub fn acts_to_settle(&self, graph: &Graph, now: Timestamp) -> usize {
        let frontier = self.frontier_for_record(graph, now);
        let past = Self::past_below(graph, &frontier, self.settled.last().copied());
        let within = |act: &&ActIx| {
            let entry = self.act(**act).entry;
            entry.is_some_and(|entry| self.is_within(graph, &past, entry))
        };
        self.unsettled.iter().filter(within).count()
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
        if frontier.iter().any(|tip| graph.ix(&tip.id).is_none()) {
            return None;
        }
        let past = Self::past_below(graph, frontier, before);
        let view = self.view(graph, &past, before);
        Some((self.leaves(&view), self.heir(graph, &view, before)))
    }

    fn leaves(&self, view: &View) -> Members {
        let leaf = |subject: &SubjectIx| {
            let standing = view.standing(self, *subject);
            let member = self.member_by(*subject, standing)?;
            Some(MemberLeaf {
                user: member.user,
                role: member.role,
                home: member.home?,
                grant: Digest::from_bytes(*self.act(standing.grant?).event.as_bytes()),
            })
        };
        Members::sorted(self.subject_of.values().filter_map(leaf).collect())
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
    fn heir(&self, graph: &Graph, view: &View, before: Option<NodeIx>) -> Option<Member> {
        let (owner, _) = self.owner_at(before)?;
        let others = self.subject_of.values().filter(|other| **other != owner);
        let heir = others
            .filter_map(|other| {
                let standing = view.standing(self, *other);
                let grant = standing.grant?;
                let order = match self.act(grant).entry {
                    Some(e) => (u64::MAX, Some(graph.place(self.entries[e.0 as usize].at()))),
                    None => (self.record_of(graph, grant), None),
                };
                Some((Reverse(standing.role), order, *other))
            })
            .min()?;
        self.member_by(heir.2, view.standing(self, heir.2))
    }

    /// The number of the record that is a grant. Subjects are numbered as they came, which is not the
    /// same everywhere: of two former owners they must not decide.
    fn record_of(&self, graph: &Graph, grant: ActIx) -> u64 {
        let is_grant = |record: &&Record| record.grant == grant || record.former == Some(grant);
        let record = self.records.iter().find(is_grant);
        record.map_or(0, |record| graph.node(record.node).seq())
    }

    /// What a record says of the history has to follow from its past.
    fn allows(
        &self,
        graph: &Graph,
        view: &View,
        before: Option<NodeIx>,
        record: &SignedRoot,
    ) -> Result<(), &'static str> {
        let root = record.root();
        if root.digest != Some(self.leaves(view).digest()) {
            return Err("the digest is not that of the members at its frontier");
        }
        if record.made() == Made::Succession {
            let heir = self.heir(graph, view, before);
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
        let standing: BTreeSet<NodeIx> = standing.iter().copied().collect();
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

    fn follow_records(&mut self, graph: &Graph, pass: &mut Pass) {
        let standing = self.settled.clone();
        for act in self.choose_records(&standing) {
            pass.touched.insert(self.act(act).subject);
            // Whoever has seen a record names it, and waits for it: nothing judged has seen it.
            self.touch(graph, act, Reach::New, pass);
        }
    }

    fn queue_everything(&self, pass: &mut Pass) {
        for ix in self.all_entries() {
            pass.queue_at(self.level(ix), ix);
        }
        let subjects = (0u32..).map(SubjectIx).take(self.subjects.len());
        pass.touched.extend(subjects.skip(1));
    }

    /// What lies in `past` and no record settled.
    fn open_within(&self, graph: &Graph, past: &Past) -> Vec<EntryIx> {
        let settled = self.settled.last().map(|node| graph.past(*node));
        let new = graph.nodes_beyond(past, settled).into_iter();
        let new = new.flat_map(|node| self.entries_of_node(graph, node));
        // What was left open by a record may lie beyond another one that does not follow it.
        let within = |ix: &EntryIx| self.is_within(graph, past, *ix);
        new.chain(self.left_open.iter().copied().filter(within))
            .collect()
    }

    /// What one makes of `past` who holds nothing but that, with the records up to `before`.
    fn view(&self, graph: &Graph, past: &Past, before: Option<NodeIx>) -> View {
        if before != self.settled.last().copied() {
            let (mut at, mut copy) = (graph.clone(), self.clone());
            copy.settle_chain(&mut at, &graph.records_to(before));
            return copy.view_of_copy(&at, past);
        }
        if !graph.stands_alike_within(past) {
            return self.view_of_copy(graph, past);
        }
        let view = self.view_in_place(graph, past);
        #[cfg(test)]
        self.assert_same_view(graph, &view);
        view
    }

    /// The same by the records that settle now, if of each home the same stands there as here. It
    /// costs what is new in that past and outside of it, not what was settled.
    fn view_in_place(&self, graph: &Graph, past: &Past) -> View {
        let mut view = View {
            past: past.clone(),
            verdicts: BTreeMap::new(),
            standings: BTreeMap::new(),
        };
        let open = self.open_within(graph, past).into_iter();
        let mut order: Vec<_> = open.map(|ix| (Reverse(self.level(ix)), ix)).collect();
        order.sort_unstable();
        for (_, ix) in order {
            let judge = Judge {
                authority: self,
                view: Some(&view),
            };
            let verdict = judge.verdict_of(graph, ix);
            view.verdicts.insert(ix, verdict);
        }
        let open = self.unsettled.iter().map(|act| self.act(*act));
        let subjects = open.filter(|act| act.kind != Kind::Policy && act.subject != ANYONE);
        let subjects: BTreeSet<SubjectIx> = subjects.map(|act| act.subject).collect();
        for subject in subjects {
            let judge = Judge {
                authority: self,
                view: Some(&view),
            };
            let standing = judge.standing_of(subject, Some(graph));
            view.standings.insert(subject, standing);
        }
        view
    }

    /// The same for any past, by a copy that holds nothing else.
    fn view_of_copy(&self, graph: &Graph, past: &Past) -> View {
        let at = graph.restricted(past);
        let mut copy = self.restricted(graph, past);
        copy.choose_records(&self.settled);
        let held = graph.nodes_beyond(past, None).into_iter();
        let mut order: Vec<(Reverse<u8>, EntryIx)> = held
            .flat_map(|node| copy.entries_of_node(graph, node))
            .map(|ix| (Reverse(copy.level(ix)), ix))
            .collect();
        order.sort_unstable();
        for (_, ix) in order {
            let verdict = copy.decide(&at, ix);
            copy.entries[ix.0 as usize].verdict = verdict;
        }
        let verdict = |ix: EntryIx| (ix, copy.entries[ix.0 as usize].verdict);
        let subjects = (0u32..).map(SubjectIx).take(copy.subjects.len());
        let standing = |subject| (subject, copy.now().standing_of(subject, Some(&at)));
        View {
            past: past.clone(),
            verdicts: self
                .open_within(graph, past)
                .into_iter()
                .map(verdict)
                .collect(),
            standings: subjects.skip(1).map(standing).collect(),
        }
    }

    /// Both ways to a view lead to the same.
    #[cfg(test)]
    fn assert_same_view(&self, graph: &Graph, view: &View) {
        let copy = self.view_of_copy(graph, &view.past);
        assert_eq!(view.verdicts, copy.verdicts);
        for (subject, standing) in &copy.standings {
            assert_eq!(view.standing(self, *subject), standing);
        }
    }

    /// A copy that knows of nothing but `past`; nothing is judged in it yet.
    fn restricted(&self, graph: &Graph, past: &Past) -> Self {
        let mut copy = self.clone();
        for (node, first) in graph.iter().zip(&mut copy.first) {
            if !graph.lies_in(node, past) {
                *first = u32::MAX;
            }
        }
        let entry_in = |ix: &EntryIx| self.is_within(graph, past, *ix);
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
            *standing = Standing::default();
        }
        copy.same.retain(|_, same| {
            same.retain(act_in);
            same.len() > 1
        });
        copy.posting.retain(act_in);
        copy.settings.retain(act_in);
        copy.awaiting_target = BTreeMap::<_, BTreeSet<_>>::new();
        copy.awaiting_cut = BTreeMap::new();
        copy.homes = BTreeMap::new();
        copy
    }
}
