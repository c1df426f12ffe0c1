//! A history as it is written by homes that follow the rules, commit after commit.

use comity_protocol::{
    commit::{AuthorityChange, Commit, RootRef, SignedCommit},
    event::{Act, Grant, SealedContent, SignedEvent, Target, Tip},
    ids::Blob,
    link::{Bundle, ContentSlot},
    role::Role,
    time::{Hlc, Timestamp},
};

use super::{T0, World};

/// An event and its content.
#[derive(Clone, Debug)]
pub struct Said {
    /// The event.
    pub event: SignedEvent,
    /// Its content, if it names one.
    pub content: Option<SealedContent>,
}

/// A commit with what it holds.
#[derive(Clone, Debug)]
struct Written {
    home: usize,
    commit: SignedCommit,
    events: Vec<Said>,
}

/// A commit with an act: its place, and how many such commits of each home it has seen.
#[derive(Clone, Debug)]
struct Acted {
    tip: Tip,
    seen: Vec<usize>,
}

/// A history in which every home has seen what was written up to [`Chronicle::lag`] commits ago and
/// all acts, unless the homes are [`Chronicle::apart`].
#[derive(Clone, Debug)]
pub struct Chronicle {
    /// Who writes.
    pub world: World,
    /// Commits that are still on their way to other homes.
    pub lag: usize,
    /// The homes hear nothing of each other until [`Chronicle::meet`].
    pub apart: bool,
    written: Vec<Written>,
    /// Of each home: its newest commit.
    ends: Vec<Option<SignedCommit>>,
    /// Of each home: its commits with acts.
    acted: Vec<Vec<Acted>>,
    /// Of each home: its newest commit that the others have heard of.
    heard_ends: Vec<Option<Tip>>,
    /// Of each home: how many of its commits with acts the others have heard of.
    heard: Vec<usize>,
    /// Of each home: how many of each home's its chain has seen.
    seen: Vec<Vec<usize>>,
}

impl Chronicle {
    /// An empty history.
    #[must_use]
    pub fn new(world: World) -> Self {
        let homes = world.homes.len();
        Self {
            world,
            lag: 0,
            apart: false,
            written: Vec::new(),
            ends: vec![None; homes],
            acted: vec![Vec::new(); homes],
            heard_ends: vec![None; homes],
            heard: vec![0; homes],
            seen: vec![vec![0; homes]; homes],
        }
    }

    /// The homes hear of each other again, and of all that was written meanwhile.
    pub fn meet(&mut self) {
        self.apart = false;
        self.heard = self.acted.iter().map(Vec::len).collect();
        self.heard_ends = (0..self.ends.len()).map(|home| self.end(home)).collect();
    }

    /// The owner makes everybody a member, and one user of every other home an admin.
    pub fn found(&mut self) {
        let homes = self.world.homes.len();
        let users: Vec<usize> = (1..self.world.users.len()).collect();
        for some in users.chunks(200) {
            let grants = some
                .iter()
                .map(|user| {
                    let role = if *user < homes {
                        Role::Admin
                    } else {
                        Role::Member
                    };
                    let act = self.grant(*user, role, vec![]);
                    self.world.act(0, Role::Owner, act)
                })
                .collect();
            self.append(0, grants);
        }
    }

    /// A grant for a user at his home.
    #[must_use]
    pub fn grant(&self, user: usize, role: Role, cut: Vec<Tip>) -> Act {
        let user = &self.world.users[user];
        Act::Grant(Grant {
            target: Target::User {
                user: user.id,
                home: self.world.homes[user.home].id,
            },
            role,
            cut,
            ban: false,
            lifts: vec![],
        })
    }

    /// The end of a home's chain.
    #[must_use]
    pub fn end(&self, home: usize) -> Option<Tip> {
        self.ends[home].as_ref().map(SignedCommit::tip)
    }

    /// The end of a home's chain as another home knows it.
    #[must_use]
    pub fn end_known(&self, by: usize, home: usize) -> Option<Tip> {
        if by == home {
            self.end(home)
        } else {
            self.heard_ends[home]
        }
    }

    /// Adds a commit of a home; gives its place.
    ///
    /// # Panics
    ///
    /// If there is no such home.
    pub fn append(&mut self, home: usize, events: Vec<Said>) -> usize {
        let prev = self.ends[home].clone();
        let commit = self
            .commit(home, prev.as_ref(), &events)
            .sign(&self.world.homes[home].key);
        for acted in self.unseen(home) {
            for (seen, more) in self.seen[home].iter_mut().zip(&acted.seen) {
                *seen = (*seen).max(*more);
            }
        }
        let acts = |said: &Said| said.event.event().act.is_authority();
        if events.iter().any(acts) {
            self.seen[home][home] += 1;
            self.acted[home].push(Acted {
                tip: commit.tip(),
                seen: self.seen[home].clone(),
            });
            if !self.apart {
                self.heard[home] = self.acted[home].len();
            }
        }
        self.ends[home] = Some(commit.clone());
        if !self.apart {
            self.heard_ends[home] = self.end(home);
        }
        self.written.push(Written {
            home,
            commit,
            events,
        });
        self.written.len() - 1
    }

    /// Adds a second branch to a home's chain, beside its newest commit.
    ///
    /// # Panics
    ///
    /// If the home has not committed twice.
    pub fn fork(&mut self, home: usize) -> usize {
        let own: Vec<&Written> = self.written.iter().filter(|w| w.home == home).collect();
        let prev = own[own.len() - 2].commit.clone();
        let user = (0..self.world.users.len()).find(|u| self.world.users[*u].home == home);
        let events = vec![self.world.message(user.unwrap_or(0), "the other branch")];
        let commit = self
            .commit(home, Some(&prev), &events)
            .sign(&self.world.homes[home].key);
        self.written.push(Written {
            home,
            commit,
            events,
        });
        self.written.len() - 1
    }

    /// What the next commit of a home names: the newest acts of others that it has heard of and not
    /// seen, but for those that another one of them has seen.
    fn unseen(&self, home: usize) -> Vec<Acted> {
        let newest = |other: usize| self.acted[other].get(self.heard[other].checked_sub(1)?);
        let new: Vec<(usize, &Acted)> = (0..self.acted.len())
            .filter(|other| *other != home && self.heard[*other] > self.seen[home][*other])
            .filter_map(|other| Some((other, newest(other)?)))
            .collect();
        let covered = |of: usize| {
            let by =
                |(other, acted): &(usize, &Acted)| *other != of && acted.seen[of] >= self.heard[of];
            new.iter().any(by)
        };
        let named = new.iter().filter(|(other, _)| !covered(*other));
        named.map(|(_, acted)| (*acted).clone()).collect()
    }

    fn commit(&self, home: usize, prev: Option<&SignedCommit>, events: &[Said]) -> Commit {
        let mut tips: Vec<Tip> = self.unseen(home).iter().map(|acted| acted.tip).collect();
        tips.sort_unstable();
        let root = prev.is_none().then(|| RootRef {
            n: 0,
            id: self.world.genesis.id(),
        });
        let authority =
            (root.is_some() || !tips.is_empty()).then_some(AuthorityChange { tips, root });
        let arrived = self.written.len().saturating_sub(self.lag);
        let others = if self.apart { 0 } else { arrived };
        let other = self.written[..others].iter().rev().find(|w| w.home != home);
        Commit {
            v: 1,
            conversation: self.world.genesis.conversation(),
            origin: self.world.homes[home].id,
            epoch: 1,
            seq: prev.map_or(0, |prev| prev.commit().seq + 1),
            prev: prev.map(SignedCommit::id),
            hlc: Hlc::new(Timestamp(T0 + self.written.len() as u64 + 1), 0),
            parents: other.map(|w| w.commit.id()).into_iter().collect(),
            authority,
            events: events.iter().map(|said| said.event.id()).collect(),
        }
    }

    /// How many commits there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.written.len()
    }

    /// Whether nothing happened.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// A commit.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[must_use]
    pub fn at(&self, at: usize) -> &SignedCommit {
        &self.written[at].commit
    }

    /// The commits, in an order in which each comes after what it names.
    pub fn commits(&self) -> impl Iterator<Item = &SignedCommit> {
        self.written.iter().map(|w| &w.commit)
    }

    /// The events of a commit.
    #[must_use]
    pub fn events(&self, at: usize) -> &[Said] {
        &self.written[at].events
    }

    /// A commit as it is sent.
    #[must_use]
    pub fn bundle(&self, at: usize) -> Bundle {
        let Written { commit, events, .. } = &self.written[at];
        bundle_of(commit, events)
    }

    /// All commits as they are sent.
    #[must_use]
    pub fn bundles(&self) -> Vec<Bundle> {
        (0..self.written.len()).map(|at| self.bundle(at)).collect()
    }
}

/// A commit and what is in it, as it is sent.
#[must_use]
pub fn bundle_of(commit: &SignedCommit, events: &[Said]) -> Bundle {
    let held = |content: &SealedContent| ContentSlot::Held(Blob(content.bytes().to_vec()));
    Bundle {
        commit: commit.to_raw(),
        events: events.iter().map(|said| said.event.to_raw()).collect(),
        contents: events
            .iter()
            .filter_map(|s| s.content.as_ref())
            .map(held)
            .collect(),
    }
}
