//! A history as it is written by homes that follow the rules, commit after commit.

use comity_protocol::{
    commit::{AuthorityChange, Commit, RootRef, SignedCommit},
    event::{Act, Grant, SealedContent, SignedEvent, Target, Tip},
    ids::{Blob, CommitId},
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

/// A history in which every home has seen what was written up to [`Chronicle::lag`] commits ago.
#[derive(Clone, Debug)]
pub struct Chronicle {
    /// Who writes.
    pub world: World,
    /// Commits that are still on their way to other homes.
    pub lag: usize,
    written: Vec<Written>,
    /// Of each home: its newest commit.
    ends: Vec<Option<SignedCommit>>,
    /// The newest commit with an act; it has seen all acts before it.
    newest_act: Option<(usize, Tip)>,
    /// Of each home: the act that its chain has seen last.
    seen_act: Vec<Option<CommitId>>,
}

impl Chronicle {
    /// An empty history.
    #[must_use]
    pub fn new(world: World) -> Self {
        let homes = world.homes.len();
        Self {
            world,
            lag: 0,
            written: Vec::new(),
            ends: vec![None; homes],
            newest_act: None,
            seen_act: vec![None; homes],
        }
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
        let acts = events
            .iter()
            .any(|said| said.event.event().act.is_authority());
        if let Some((_, tip)) = self.newest_act {
            self.seen_act[home] = Some(tip.id);
        }
        if acts {
            self.newest_act = Some((home, commit.tip()));
            self.seen_act[home] = Some(commit.id());
        }
        self.ends[home] = Some(commit.clone());
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

    fn commit(&self, home: usize, prev: Option<&SignedCommit>, events: &[Said]) -> Commit {
        let unseen = self
            .newest_act
            .filter(|(of, tip)| *of != home && self.seen_act[home] != Some(tip.id));
        let tips: Vec<Tip> = unseen.into_iter().map(|(_, tip)| tip).collect();
        let root = prev.is_none().then(|| RootRef {
            n: 0,
            id: self.world.genesis.id(),
        });
        let authority =
            (root.is_some() || !tips.is_empty()).then_some(AuthorityChange { tips, root });
        let arrived = self.written.len().saturating_sub(self.lag);
        let other = self.written[..arrived]
            .iter()
            .rev()
            .find(|w| w.home != home);
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
