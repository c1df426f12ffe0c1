//! Who sees which part of the history. Source: `spec/04-authority.md`, section 10.
//!
//! Like verdicts, sight is a function of the set of commits held: memberships begin and end at
//! places in the order, and so do the values of the policy `history`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Authority, Mode,
    table::{ActIx, Kind, SubjectIx},
};
use crate::{
    event::Field,
    history::{Appearance, Graph},
    ids::{CommitId, ServerId, UserId},
    place::Place,
    role::Role,
    time::Hlc,
};

/// Changes of the policy `history` that count by themselves; what lies before the newest of them is
/// as if it were `joined`.
pub const SWITCHES_MAX: usize = 256;

/// Acts about one user that are looked at, the newest in the order; what was before them he does not
/// see.
const MEMBERSHIP_ACTS_MAX: usize = 1_024;
/// Spans of members that are put together in one go.
const SPANS_AT_ONCE: usize = 4_096;

/// Before everything.
const START: Place = Place {
    hlc: Hlc::from_bits(0),
    commit: CommitId::from_bytes([0; 32]),
    index: 0,
};

/// A stretch of the order, both ends included.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Its first place.
    pub from: Place,
    /// Its last place; none while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Place>,
}

impl Span {
    /// The whole order.
    pub const ALL: Self = Self {
        from: START,
        to: None,
    };

    /// Whether a place lies in it.
    #[must_use]
    pub fn holds(&self, place: Place) -> bool {
        self.from <= place && self.to.is_none_or(|to| place <= to)
    }
}

/// From a place on, the value of the policy `history`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// The place of the policy that counts from here on.
    pub at: Place,
    /// `joined`: what is said is for who is a member then. Otherwise `shared`: for every member.
    pub joined: bool,
}

/// A union of spans: sorted, none touches the next.
fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut all: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match all.last_mut() {
            Some(last) if last.to.is_none_or(|to| span.from <= to) => {
                last.to = last.to.and_then(|to| span.to.map(|other| to.max(other)));
            }
            _ => all.push(span),
        }
    }
    all
}

/// What a member sees, or all members of one home together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sight(Vec<Span>);

impl Sight {
    /// Who sees everything.
    #[must_use]
    pub fn everything() -> Self {
        Self(vec![Span::ALL])
    }

    /// Who was a member during `spans`, where the policy was switched like this. `switches` in the
    /// order of places.
    #[must_use]
    pub fn new(spans: &[Span], switches: &[Switch]) -> Self {
        let mut all = spans.to_vec();
        let mut shared_from = Some(START);
        for switch in switches {
            match (shared_from, switch.joined) {
                (Some(from), true) => {
                    // The policy's own line is the first of the new time.
                    if from < switch.at {
                        all.push(Span {
                            from,
                            to: Some(before(switch.at)),
                        });
                    }
                    shared_from = None;
                }
                (None, false) => shared_from = Some(switch.at),
                _ => {}
            }
        }
        all.extend(shared_from.map(|from| Span { from, to: None }));
        Self(union(all))
    }

    /// Whether what is at a place is seen.
    #[must_use]
    pub fn sees(&self, place: Place) -> bool {
        let after = self.0.partition_point(|span| span.from <= place);
        after > 0 && self.0[after - 1].holds(place)
    }

    /// Whether everything from one place to another is seen.
    #[must_use]
    pub fn sees_all(&self, first: Place, last: Place) -> bool {
        self.0
            .iter()
            .any(|span| span.holds(first) && span.holds(last))
    }

    /// Adds what one more member sees.
    pub fn add(&mut self, span: Span) {
        self.0.push(span);
        self.0 = union(std::mem::take(&mut self.0));
    }

    /// What is seen, in the order.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.0
    }
}

/// The place right before another one.
fn before(place: Place) -> Place {
    let mut key = place.to_key();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    Place::from_key(&key).unwrap_or(START)
}

impl Authority {
    /// When a user was a member: each standing grant gives from its place on to that of the first
    /// act in the order that takes it away. Nobody's, of somebody who never was.
    #[must_use]
    pub fn memberships(&self, graph: &Graph, user: &UserId) -> Vec<Span> {
        let Some(subject) = self.subject_of.get(user) else {
            return Vec::new();
        };
        if let Mode::Direct(users) = self.mode {
            let member = users.contains(subject);
            return member.then_some(Span::ALL).into_iter().collect();
        }
        self.spans_of(graph, *subject)
    }

    /// Whether any act is about somebody at a home: it takes part, or once did.
    #[must_use]
    pub fn is_named(&self, home: &ServerId) -> bool {
        let mut subjects = self.subjects.iter();
        subjects.any(|subject| self.name(&subject.about, home) || self.name(&subject.moves, home))
    }

    fn name(&self, acts: &[ActIx], home: &ServerId) -> bool {
        acts.iter().any(|a| self.act(*a).home == Some(*home))
    }

    /// What the members at a home see together. One that has none any more still gets what is from
    /// before its last one went: what those who were members there saw.
    #[must_use]
    pub fn sight_of_home(&self, graph: &Graph, home: &ServerId) -> Sight {
        let switches = self.history_switches(graph);
        if switches.is_empty() || matches!(self.mode, Mode::Direct(_)) {
            return Sight::everything();
        }
        let takes_part = self.takes_part(home);
        let had = |acts: &[ActIx]| self.name(acts, home);
        let mut spans = Vec::new();
        for (ix, subject) in (0u32..).zip(&self.subjects).skip(1) {
            let counts = if takes_part {
                subject.standing.role > Role::None && subject.standing.homes.contains(home)
            } else {
                had(&subject.about) || had(&subject.moves)
            };
            if counts {
                spans.extend(self.spans_of(graph, SubjectIx(ix)));
                if spans.len() >= SPANS_AT_ONCE {
                    spans = union(spans);
                }
            }
        }
        Sight::new(&spans, &switches)
    }

    fn spans_of(&self, graph: &Graph, subject: SubjectIx) -> Vec<Span> {
        let now = self.now();
        let mut placed: Vec<(Place, Role, ActIx)> = self
            .about(subject)
            .iter()
            .filter(|a| now.stands(**a))
            .map(|a| (self.place_of_act(graph, *a), self.act(*a).role, *a))
            .collect();
        // Each is asked of each other: who came and went all day must not cost the square of that.
        let early = placed.len().saturating_sub(MEMBERSHIP_ACTS_MAX);
        if early > 0 {
            placed.sort_unstable();
            placed.drain(..early);
        }
        let gives = |(_, role, g): &&(Place, Role, ActIx)| {
            self.act(*g).kind != Kind::Leave && *role > Role::None
        };
        let span = |(from, _, g): &(Place, Role, ActIx)| {
            let takes = |(_, _, x): &&(Place, Role, ActIx)| now.kills(graph, *x, *g);
            let to = placed.iter().filter(takes).map(|(place, ..)| *place).min();
            // Taken away before it was given, in the order: a ban that had not seen it.
            let from = *from;
            to.is_none_or(|to| from < to).then_some(Span { from, to })
        };
        let mut spans: Vec<Span> = placed.iter().filter(gives).filter_map(span).collect();
        // Whatever was left out, who is a member sees what comes.
        let grant = self.subjects[subject.0 as usize].standing.grant;
        if let Some(grant) = grant.filter(|_| early > 0) {
            let from = self.place_of_act(graph, grant);
            spans.push(Span { from, to: None });
        }
        union(spans)
    }

    /// Where an act counts in the order. A record has no clock: it comes behind all it has seen.
    fn place_of_act(&self, graph: &Graph, ix: ActIx) -> Place {
        let act = self.act(ix);
        if let Some(entry) = act.entry {
            return graph.place(self.entries[entry.0 as usize].at());
        }
        let (branch, seq) = act.position();
        let seen = (!act.is_first_record()).then(|| graph.node_at(branch, seq));
        let Some(node) = seen.flatten() else {
            return START;
        };
        let places = graph.named_by_record(node).iter().map(|node| {
            graph.place(Appearance {
                node: *node,
                index: u16::MAX,
            })
        });
        places.max().unwrap_or(START)
    }

    /// Where the policy `history` changed, in the order: up to each place the value is that of the
    /// standing policies before it, as in section 3. Without any it is `shared`.
    #[must_use]
    pub fn history_switches(&self, graph: &Graph) -> Vec<Switch> {
        let is_history = |p: &&ActIx| self.act(**p).sets(Field::History);
        let mut placed: BTreeMap<(Place, ActIx), ActIx> = BTreeMap::new();
        for p in self.settings.iter().filter(is_history) {
            if self.now().stands(*p) {
                placed.insert((self.place_of_act(graph, *p), *p), *p);
            }
        }
        let (mut newest, mut switches): (Vec<ActIx>, Vec<Switch>) = (Vec::new(), Vec::new());
        for ((at, _), p) in placed {
            if newest.iter().any(|q| self.seen_by(graph, p, *q)) {
                continue;
            }
            newest.retain(|q| !self.seen_by(graph, *q, p));
            newest.push(p);
            let joined = self.strongest(graph, &newest) == Some(1);
            if switches.last().map_or(joined, |last| last.joined != joined) {
                switches.push(Switch { at, joined });
            }
        }
        if switches.len() > SWITCHES_MAX {
            switches.drain(..switches.len() - SWITCHES_MAX);
            let joined = Switch {
                at: START,
                joined: true,
            };
            switches.insert(0, joined);
        }
        switches
    }
}
