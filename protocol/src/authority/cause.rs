//! Which act took something away: what its author is told, whoever it was about, and who did it.

use serde::{Deserialize, Serialize};

use super::{
    Authority,
    table::{ActIx, EntryIx, Kind},
};
use crate::{
    history::{Appearance, Graph},
    ids::{EventId, UserId},
    role::Role,
};

/// The act that took an event away.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// The act.
    pub event: EventId,
    /// Who signed it.
    pub author: UserId,
}

impl Authority {
    /// The standing act that made an appearance void, where one did: also through other acts that it
    /// made void before.
    #[must_use]
    pub fn cause(&self, graph: &Graph, at: Appearance) -> Option<Cause> {
        self.cause_at(graph, self.entry_at(at)?)
    }

    /// The act that ended a user's membership, where one did: a removal, his own leaving, or what
    /// made the newest grant void that he had it by.
    #[must_use]
    pub fn ended_by(&self, graph: &Graph, user: &UserId) -> Option<Cause> {
        let about = self.about(*self.subject_of.get(user)?);
        let mut given = about.iter().rev().copied().filter(|g| {
            let act = self.act(*g);
            act.role > Role::None && act.kind != Kind::Leave
        });
        given.find_map(|g| match self.act(g).entry {
            Some(entry) if !self.entries[entry.0 as usize].verdict.stands() => {
                self.cause_at(graph, entry)
            }
            _ => {
                let judge = self.now();
                let mut takers = about.iter().rev().copied();
                let taker = takers.find(|x| judge.stands(*x) && judge.kills(graph, *x, g));
                self.named(taker?)
            }
        })
    }

    fn cause_at(&self, graph: &Graph, ix: EntryIx) -> Option<Cause> {
        let mut cause = self.cause_of(graph, ix)?;
        // What would have carried an act is void only by acts that claim more than it did.
        for _ in 0..=u8::from(Role::Owner) {
            let entry = self.act(cause).entry?;
            if self.entries[entry.0 as usize].verdict.stands() {
                return self.named(cause);
            }
            cause = self.cause_of(graph, entry)?;
        }
        None
    }

    /// Root records are not named.
    fn named(&self, ix: ActIx) -> Option<Cause> {
        let act = self.act(ix);
        let author = self.entries[act.entry?.0 as usize].author;
        Some(Cause {
            event: act.event,
            author: self.subjects[author.0 as usize].id?,
        })
    }
}
