//! A commit that became part of the conversation, with everything it changed.

use std::collections::BTreeMap;

use super::{CheckedBundle, Conversation, Slot, documents::Changed};
use crate::{
    authority::{Cause, Effects, Span, Switch, Verdict},
    commit::SignedCommit,
    document::MessageState,
    event::{Act, Event, SignedEvent},
    history::{Appearance, NodeIx, Place},
    ids::{Blob, EventId, ServerId, UserId},
    link::{Bundle, ContentSlot},
    role::Role,
};

/// A role that changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RoleChange {
    /// Whose.
    pub user: UserId,
    /// The role now; none: no member any more.
    pub role: Role,
    /// The user's home.
    pub home: ServerId,
}

/// When a user was a member, now that this may have changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SightChange {
    /// Who.
    pub user: UserId,
    /// His home.
    pub home: ServerId,
    /// The stretches of the order in which he was a member. Sorted, apart.
    pub spans: Vec<Span>,
}

/// Homes that began or ceased to take part.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Homes {
    /// Have a standing member now.
    pub joined: Vec<ServerId>,
    /// Have none any more.
    pub left: Vec<ServerId>,
}

/// An event of a commit, as it counts.
#[derive(Clone, Debug)]
pub struct TakenEvent {
    /// The event.
    pub event: SignedEvent,
    /// Its content.
    pub slot: Slot,
    /// Code of why it does not count, if it does not.
    pub void: Option<&'static str>,
    /// The act that took it away before it came, where one did.
    pub void_by: Option<Cause>,
    /// It is a line of its own: everything but edits, deletions and reactions.
    pub shown: bool,
    /// A message beyond the policy `rate`: clients fold it, nobody is woken by it.
    pub folded: bool,
}

/// An event that does not count any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Voided {
    /// The event.
    pub event: EventId,
    /// The reason's code.
    pub reason: &'static str,
    /// The act that took it away, where one did.
    pub by: Option<Cause>,
    /// Its author and his home, if he is no member any more: nobody but that home tells him.
    pub outside: Option<(UserId, ServerId)>,
}

/// What a commit or root record changed of what was there before.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Events that do not count any more.
    pub voided: Vec<Voided>,
    /// Events that count now: an earlier appearance does, or, of an event that is no line, one in
    /// this commit after void ones. A line that is committed again is among the commit's own.
    pub stands_again: Vec<EventId>,
    /// Events that are shown, or shown again, at another place than the one where they were.
    pub moved: Vec<(EventId, Place)>,
    /// Earlier messages, and whether they are beyond the policy `rate`, where that may be otherwise
    /// than before.
    pub folded: Vec<(EventId, bool)>,
    /// Messages that read otherwise now.
    pub touched: Vec<(EventId, MessageState)>,
    /// Events whose contents are to be erased, for good.
    pub erase: Vec<EventId>,
    /// Roles that changed.
    pub roles: Vec<RoleChange>,
    /// Users who are no members any more, and the act that ended it, where one did.
    pub ended_by: Vec<(UserId, Cause)>,
    /// Homes that began or ceased to take part.
    pub homes: Homes,
    /// Users whose memberships may have begun or ended elsewhere.
    pub sights: Vec<SightChange>,
    /// Where the policy `history` changes, all of it, if that is new.
    pub history: Option<Vec<Switch>>,
    /// State fields, `name|` and a user's id for his display name, and the event that holds the
    /// value; none: cleared.
    pub state: Vec<(String, Option<EventId>)>,
}

/// A commit and what it changed.
#[derive(Debug)]
pub struct Taken {
    /// The commit.
    pub commit: SignedCommit,
    /// Its events.
    pub events: Vec<TakenEvent>,
    /// Later lines were shown here before.
    pub late: bool,
    /// What it changed of what was there before.
    pub changes: Changes,
}

impl Taken {
    /// The bundle that peers get, with the authors whose identity logs it needs.
    #[must_use]
    pub fn to_bundle(&self) -> (Bundle, Vec<UserId>) {
        let mut authors = Vec::new();
        for event in &self.events {
            let author = event.event.event().author;
            if !authors.contains(&author) {
                authors.push(author);
            }
        }
        let slot = |event: &TakenEvent| match &event.slot {
            Slot::None => None,
            Slot::Held(content) => Some(ContentSlot::Held(Blob(content.bytes().to_vec()))),
            Slot::Gone | Slot::Expired => Some(ContentSlot::Gone),
            Slot::Withheld => Some(ContentSlot::Withheld),
        };
        let bundle = Bundle {
            commit: self.commit.to_raw(),
            events: self.events.iter().map(|e| e.event.to_raw()).collect(),
            contents: self.events.iter().filter_map(slot).collect(),
        };
        (bundle, authors)
    }
}

pub(super) const fn is_line(act: &Act) -> bool {
    !matches!(
        act,
        Act::Edit { .. } | Act::Delete { .. } | Act::React { .. }
    )
}

/// The code of a verdict that is not `Stands`.
pub(super) const fn void_code(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Stands => None,
        Verdict::Void(reason) => Some(reason.code()),
        Verdict::Waits(_) => Some("waits"),
    }
}

impl Conversation {
    pub(super) fn taken(&mut self, node: NodeIx, bundle: CheckedBundle) -> Taken {
        let late = self.note_newest(node);
        let named: Vec<(EventId, &Event)> = bundle
            .events
            .iter()
            .map(|e| (e.event.id(), e.event.event()))
            .collect();
        let shown_before: Vec<_> = named
            .iter()
            .map(|(id, _)| self.authority.shown(&self.graph, id))
            .collect();
        let effects = self.authority.insert(&self.graph, node, &named);
        let shown_before = named.iter().map(|(id, _)| *id).zip(shown_before);
        let shown_before: BTreeMap<_, _> = shown_before.collect();
        let revived: Vec<_> = named
            .iter()
            .zip(&effects.verdicts)
            .filter(|((id, event), verdict)| {
                let was_void = shown_before[id].is_none() && self.graph.find_event(id).count() > 1;
                verdict.stands() && was_void && !is_line(&event.act)
            })
            .map(|((id, _), _)| *id)
            .collect();
        let moved = self.moved(node, shown_before, &effects);
        let changed = self
            .documents
            .take(&self.graph, &self.authority, node, &named, &effects);
        let folded = self
            .rates
            .take(&self.graph, &self.authority, node, &effects);
        let (verdicts, mut changes) = self.changes(effects, changed, moved, folded);
        changes.stands_again.extend(revived);
        let places = (0u16..).map(|index| Appearance { node, index });
        let events = bundle.events.into_iter().zip(verdicts).zip(places);
        let events = events.map(|((event, verdict), at)| TakenEvent {
            shown: is_line(&event.event.event().act),
            folded: self.is_folded(at),
            event: event.event,
            slot: event.slot,
            void: void_code(verdict),
            void_by: void_code(verdict).and_then(|_| self.authority.cause(&self.graph, at)),
        });
        Taken {
            commit: bundle.commit,
            events: events.collect(),
            late,
            changes,
        }
    }

    /// What follows from verdicts and documents for those who read, and the verdicts of the new
    /// events themselves.
    pub(super) fn changes(
        &self,
        effects: Effects,
        changed: Changed,
        moved: Vec<(EventId, Place)>,
        folded: Vec<(EventId, bool)>,
    ) -> (Vec<Verdict>, Changes) {
        let Effects {
            verdicts,
            changed: verdict_changes,
            roles,
            sights,
            history,
            homes_began,
            homes_ceased,
        } = effects;
        let (mut voided, mut stands_again) = (Vec::new(), Vec::new());
        for change in verdict_changes {
            let event = self.graph.event(change.at);
            match void_code(change.now) {
                // Another appearance of the event may still stand: then nothing changes for it.
                Some(code) if self.authority.shown(&self.graph, &event).is_none() => {
                    voided.push(Voided {
                        event,
                        reason: code,
                        by: self.authority.cause(&self.graph, change.at),
                        outside: self.outside(&event),
                    });
                }
                Some(_) => {}
                None => stands_again.push(event),
            }
        }
        let ended = roles.iter().filter(|change| change.now == Role::None);
        let ended_by = ended.filter_map(|change| {
            let by = self.authority.ended_by(&self.graph, &change.user)?;
            Some((change.user, by))
        });
        let ended_by = ended_by.collect();
        let roles = roles.into_iter().map(|change| RoleChange {
            user: change.user,
            role: change.now,
            home: self.home_of(&change.user),
        });
        let sights = sights.into_iter().filter_map(|user| {
            Some(SightChange {
                user,
                home: *self.authority.homes_of(&user).first()?,
                spans: self.authority.memberships(&self.graph, &user),
            })
        });
        // What is not shown reads like nothing; once it stands it is told with all that was done to
        // it.
        let is_shown =
            |(event, _): &(EventId, _)| self.authority.shown(&self.graph, event).is_some();
        let changes = Changes {
            folded: self.folded_again(folded, &stands_again, &moved),
            voided,
            stands_again,
            moved,
            touched: changed.touched.into_iter().filter(is_shown).collect(),
            erase: changed.erase,
            roles: roles.collect(),
            ended_by,
            sights: sights.collect(),
            history: history.then(|| self.authority.history_switches(&self.graph)),
            homes: Homes {
                joined: homes_began,
                left: homes_ceased,
            },
            state: changed.state,
        };
        (verdicts, changes)
    }

    /// Events that are shown elsewhere now than before this commit: those in it, and those with an
    /// appearance whose verdict changed.
    pub(super) fn moved(
        &self,
        node: NodeIx,
        mut before: BTreeMap<EventId, Option<Appearance>>,
        effects: &Effects,
    ) -> Vec<(EventId, Place)> {
        let was: BTreeMap<Appearance, bool> = effects
            .changed
            .iter()
            .map(|change| (change.at, change.was.stands()))
            .collect();
        for at in was.keys() {
            let stood = |at: &Appearance| {
                let stands = || self.authority.verdict(*at).stands();
                at.node != node && was.get(at).copied().unwrap_or_else(stands)
            };
            let event = self.graph.event(*at);
            before.entry(event).or_insert_with(|| {
                let stood = self.graph.find_event(&event).filter(stood);
                stood.min_by_key(|at| self.graph.place(*at))
            });
        }
        let place = |(event, before): (EventId, Option<Appearance>)| {
            let now = self.authority.shown(&self.graph, &event)?;
            // What was not shown before is shown where it is, unless that is elsewhere than here.
            let moved = before.map_or(now.node != node, |before| before != now);
            moved.then(|| (event, self.graph.place(now)))
        };
        before.into_iter().filter_map(place).collect()
    }

    /// The author of an event and the home he had, if he is no member any more.
    fn outside(&self, event: &EventId) -> Option<(UserId, ServerId)> {
        let author = self.authority.author_of(&self.graph, event)?;
        let is_outside = self.authority.role(&author) == Role::None;
        is_outside.then(|| (author, self.home_of(&author)))
    }

    /// The home a user is, or was last, bound to here.
    fn home_of(&self, user: &UserId) -> ServerId {
        let member = self.authority.member(user).and_then(|member| member.home);
        let was = || self.authority.homes_of(user).first().copied();
        member.or_else(was).unwrap_or(self.me)
    }
}
