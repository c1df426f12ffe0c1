//! Direct conversations: two members for ever, no acts but `move`. Source: `spec/04-authority.md`,
//! section 7.

use super::{
    Authority, Mode, Pass, Reason,
    judge::{Case, Fails, Judge},
    table::{EntryIx, Kind, SubjectIx},
};
use crate::{
    history::{Graph, NodeIx},
    ids::ServerId,
    role::Role,
};

impl Judge<'_> {
    pub(super) fn judge_direct(
        &self,
        graph: &Graph,
        case: &Case<'_>,
        users: [SubjectIx; 2],
    ) -> Result<(), Fails> {
        if !users.contains(&case.author) {
            return Err(Reason::NotMember.into());
        }
        let notes = users[0] == users[1];
        match case.kind {
            Kind::Absent => return Err(Fails::NoTarget),
            Kind::Move => return Authority::names_its_home(case),
            Kind::Message | Kind::Edit | Kind::Delete | Kind::React | Kind::Pin => {}
            // One's own conversation with oneself also keeps one's settings.
            Kind::State | Kind::Name if notes => {}
            _ => return Err(Reason::NotInDirect.into()),
        }
        if case.kind == Kind::Delete && self.is_own(graph, case)? {
            return Ok(());
        }
        if case.claims > Role::Member || case.kind == Kind::Delete {
            return Err(Reason::NotAllowed.into());
        }
        if case.claims < Role::Member {
            return Err(Reason::ClaimTooLow.into());
        }
        let bound = self.bound_home(graph, case.author).or(Some(case.at.home));
        if !self.at_home(graph, case, bound) {
            return Err(Reason::WrongHome.into());
        }
        match case.kind {
            Kind::Edit if !self.is_own(graph, case)? => Err(Reason::NotOwn.into()),
            Kind::React | Kind::Pin => self.target_author(graph, case).map(drop),
            _ => Ok(()),
        }
    }
}

impl Authority {
    pub(super) const fn is_direct(&self) -> bool {
        matches!(self.mode, Mode::Direct(_))
    }

    /// The home of the first commit, in the order of everything, that holds an event of the user.
    pub(super) fn bound_home(&self, graph: &Graph, user: SubjectIx) -> Option<ServerId> {
        let first = self.subjects.get(user.0 as usize)?.standing.first?;
        Some(graph.home(self.entries[first.0 as usize].node))
    }

    /// In a direct conversation: a new event may be its author's first, and bind his home.
    pub(super) fn bind(&mut self, graph: &Graph, ix: EntryIx, pass: &mut Pass) {
        if !self.is_direct() {
            return;
        }
        let entry = self.entries[ix.0 as usize];
        let first = self.subjects[entry.author.0 as usize].standing.first;
        let place = |ix: EntryIx| graph.place(self.entries[ix.0 as usize].at());
        if graph.is_standing(entry.node) && first.is_none_or(|first| place(ix) < place(first)) {
            self.rebind(graph, entry.author, Some(ix), pass);
        }
    }

    /// In a direct conversation: a branch ceased or began to stand, so any event may now be first.
    pub(super) fn follow_bindings(&mut self, graph: &Graph, node: NodeIx, pass: &mut Pass) {
        let Mode::Direct(users) = self.mode else {
            return;
        };
        let _ = node;
        for user in users {
            let standing = self.entries_of(user).iter().copied().filter(|ix| {
                let entry = &self.entries[ix.0 as usize];
                graph.is_standing(entry.node)
            });
            let first = standing.min_by_key(|ix| graph.place(self.entries[ix.0 as usize].at()));
            self.rebind(graph, user, first, pass);
        }
    }

    fn rebind(&mut self, graph: &Graph, user: SubjectIx, first: Option<EntryIx>, pass: &mut Pass) {
        let was = self.bound_home(graph, user);
        self.subjects[user.0 as usize].standing.first = first;
        if was != self.bound_home(graph, user) {
            pass.touched.insert(user);
            for ix in self.entries_of(user) {
                pass.queue_at(self.level(*ix), *ix);
            }
        }
    }
}
