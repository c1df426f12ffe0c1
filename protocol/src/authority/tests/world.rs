//! Histories made by hand or at random: real commits and events, sets of commits as bit masks.

use super::super::{Authority, Effects, RecordOutcome, Span, Switch, table::Entry};
use crate::{
    commit::{AuthorityChange, Commit, RawCommit, RootRef, SignedCommit, UnverifiedCommit},
    event::{Act, ContentRef, Event, Grant, Target, Tip},
    history::{Appearance, Graph, Inserted, NodeIx},
    ids::{
        Blob, CommitId, ContentHash, ConversationId, EventId, Nonce, PublicKey, ServerId,
        Signature, UserId,
    },
    role::Role,
    root::{Genesis, Root, SignedRoot, direct_conversation},
    signing::SecretKey,
    time::{Hlc, Timestamp},
};

/// The default time of everything; far below every clock a test asks with.
pub(super) const NOW: Timestamp = Timestamp(1_000_000);

pub(super) fn user(name: char) -> UserId {
    UserId::from_bytes([name as u8; 32])
}

/// The home that stands for the chain of root records.
pub(super) const RECORDS: ServerId = ServerId::from_bytes([0; 32]);

pub(super) fn home(name: char) -> ServerId {
    ServerId::from_bytes([name as u8; 32])
}

pub(super) fn genesis() -> Genesis {
    let root = Root {
        v: 1,
        n: 0,
        prev: None,
        owner: user('O'),
        home: home('o'),
        stewards: vec![home('o')],
        frontier: vec![],
        digest: None,
        nonce: Nonce::from_bytes([3; 16]),
        created_at: Timestamp(1),
    };
    Genesis::sign(root, &SecretKey::from_seed([1; 32]))
}

/// Small pseudo-random numbers (splitmix64), so that a seed says everything.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.below(items.len())])
    }

    pub(super) fn bits(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// One commit of a [`World`].
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// None for a root record.
    pub(super) commit: Option<SignedCommit>,
    pub(super) record: Option<SignedRoot>,
    pub(super) events: Vec<(EventId, Event)>,
    pub(super) home: ServerId,
    pub(super) prev: Option<usize>,
    /// Commits in its past, not itself.
    pub(super) past: u128,
    /// Itself and its `prev` chain.
    pub(super) chain: u128,
}

impl Made {
    pub(super) fn signed(&self) -> &SignedCommit {
        self.commit.as_ref().expect("a commit and no record")
    }
}

/// Everything that was ever committed, dependencies first; root records too, at a home of their
/// own.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) genesis: Option<Genesis>,
    pub(super) pair: Option<(UserId, UserId)>,
    pub(super) made: Vec<Made>,
    nonce: u64,
}

/// What a commit is made of beside its events.
#[derive(Clone, Debug, Default)]
pub(super) struct How {
    /// Commits the home knows, closed by the world.
    pub(super) seen: u128,
    pub(super) prev: Option<usize>,
    pub(super) epoch: u64,
    /// Its clock, where `prev` allows it.
    pub(super) at_ms: u64,
}

impl World {
    pub(super) fn group() -> Self {
        Self {
            genesis: Some(genesis()),
            pair: None,
            made: Vec::new(),
            nonce: 0,
        }
    }

    pub(super) fn direct(a: UserId, b: UserId) -> Self {
        Self {
            genesis: None,
            pair: Some((a, b)),
            made: Vec::new(),
            nonce: 0,
        }
    }

    pub(super) fn conversation(&self) -> ConversationId {
        match (&self.genesis, &self.pair) {
            (Some(genesis), _) => genesis.conversation(),
            (None, Some((a, b))) => direct_conversation(a, b),
            (None, None) => unreachable!("a world is one or the other"),
        }
    }

    pub(super) fn all(&self) -> u128 {
        (1u128 << self.made.len()) - 1
    }

    pub(super) fn event(&mut self, author: UserId, claims: Role, act: Act) -> (EventId, Event) {
        self.nonce += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonce.to_be_bytes());
        let event = Event {
            conversation: self.conversation(),
            author,
            device: PublicKey::from_bytes([0; 32]),
            nonce: Nonce::from_bytes(nonce),
            claims,
            act,
            sent_at: Timestamp(0),
        };
        let id = EventId::from_bytes(*blake3::hash(&event.to_bytes()).as_bytes());
        (id, event)
    }

    pub(super) fn closed(&self, seen: u128) -> u128 {
        let within = |i: &usize| seen >> i & 1 == 1;
        (0..self.made.len())
            .filter(within)
            .fold(seen, |all, i| all | self.made[i].past)
    }

    /// The newest commits of `mask`, one or more a home.
    pub(super) fn maximal(&self, mask: u128) -> Vec<usize> {
        let within: Vec<usize> = (0..self.made.len())
            .filter(|i| mask >> i & 1 == 1)
            .collect();
        let below = |i: usize| {
            within
                .iter()
                .any(|j| *j != i && self.made[*j].chain >> i & 1 == 1)
        };
        within.iter().copied().filter(|i| !below(*i)).collect()
    }

    pub(super) fn tip(&self, i: usize) -> Tip {
        self.made[i].signed().tip()
    }

    pub(super) fn newest_of(&self, of: ServerId) -> Option<usize> {
        (0..self.made.len())
            .rev()
            .find(|i| self.made[*i].home == of)
    }

    pub(super) fn commit(
        &mut self,
        of: ServerId,
        how: &How,
        events: Vec<(EventId, Event)>,
    ) -> usize {
        let prev = how.prev.map(|i| self.made[i].clone());
        let known = prev.as_ref().map_or(0, |p| p.past | p.chain);
        let news = self.closed(how.seen) & !known;
        let tips = self.maximal(news & !self.records());
        let record = self.named_record(news);
        let past = tips.iter().chain(&record).fold(known, |past, i| {
            past | self.made[*i].past | self.made[*i].chain
        });
        let after = prev
            .as_ref()
            .map_or(Hlc::default(), |p| p.signed().commit().hlc);
        let mut named: Vec<Tip> = tips.iter().map(|i| self.tip(*i)).collect();
        named.sort_unstable();
        let first = self
            .genesis
            .as_ref()
            .filter(|_| prev.is_none())
            .map(|genesis| RootRef {
                n: 0,
                id: genesis.id(),
            });
        let newest = record.and_then(|i| self.made[i].record.as_ref());
        let root = newest
            .map(|record| RootRef {
                n: record.root().n,
                id: record.id(),
            })
            .or(first);
        let change = AuthorityChange { tips: named, root };
        let commit = Commit {
            v: 1,
            conversation: self.conversation(),
            origin: of,
            epoch: how.epoch,
            seq: prev.as_ref().map_or(0, |p| p.signed().commit().seq + 1),
            prev: prev.as_ref().map(|p| p.signed().id()),
            hlc: after.next(Timestamp(how.at_ms)),
            parents: vec![],
            authority: (prev.is_none() || change.root.is_some() || !change.tips.is_empty())
                .then_some(change),
            events: events.iter().map(|(id, _)| *id).collect(),
        };
        let raw = RawCommit {
            commit: Blob(commit.to_bytes()),
            signature: Signature::from_bytes([0; 64]),
        };
        let i = self.made.len();
        assert!(i < 128, "worlds are masks of 128 bits");
        self.made.push(Made {
            commit: Some(UnverifiedCommit::decode(raw).unwrap().trusted()),
            record: None,
            events,
            home: of,
            prev: how.prev,
            past,
            chain: prev.as_ref().map_or(0, |p| p.chain) | 1 << i,
        });
        i
    }

    /// Root records among the commits.
    pub(super) fn records(&self) -> u128 {
        let is = |i: &usize| self.made[*i].record.is_some();
        (0..self.made.len())
            .filter(is)
            .fold(0, |all, i| all | 1 << i)
    }

    /// The record that one who knows `mask` names: of the newest the one with the lowest id.
    fn named_record(&self, mask: u128) -> Option<usize> {
        let key = |i: &usize| {
            let record = self.made[*i].record.as_ref()?;
            Some((std::cmp::Reverse(record.root().n), record.id()))
        };
        (0..self.made.len())
            .filter(|i| (mask & self.records()) >> i & 1 == 1)
            .min_by_key(key)
    }

    /// Makes a root record on `prev`, of what one who knows `seen` knows.
    pub(super) fn record(
        &mut self,
        owner: UserId,
        at: ServerId,
        seen: u128,
        prev: Option<usize>,
    ) -> usize {
        let below = prev.map_or(0, |p| self.made[p].past | self.made[p].chain);
        let tips = self.maximal(self.closed(seen) & !self.records());
        let past = tips.iter().fold(below, |past, i| {
            past | self.made[*i].past | self.made[*i].chain
        });
        let mut frontier: Vec<Tip> = tips.iter().map(|i| self.tip(*i)).collect();
        frontier.sort_unstable();
        let mut server = Server::new(self);
        for i in (0..self.made.len()).filter(|i| past >> i & 1 == 1) {
            server.take(self, i);
        }
        let before = prev.map(|p| server.nodes[p].unwrap());
        let (members, _) = server
            .authority
            .members_below(&server.graph, &frontier, before)
            .unwrap();
        let mut chain: Vec<usize> = std::iter::successors(prev, |p| self.made[*p].prev).collect();
        chain.reverse();
        let oracle = super::oracle::Oracle::with_records(self, past, None, chain);
        for leaf in members.leaves() {
            assert_eq!(oracle.role(leaf.user), leaf.role, "the digest's members");
        }
        self.nonce += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonce.to_be_bytes());
        let genesis = self.genesis.as_ref().unwrap();
        let (n, id) = match prev.and_then(|p| self.made[p].record.as_ref()) {
            Some(record) => (record.root().n, record.id()),
            None => (0, genesis.id()),
        };
        let root = Root {
            n: n + 1,
            prev: Some(id),
            owner,
            home: at,
            frontier,
            digest: Some(members.digest()),
            nonce: Nonce::from_bytes(nonce),
            ..genesis.root().clone()
        };
        let device = PublicKey::from_bytes([0; 32]);
        let i = self.made.len();
        assert!(i < 128, "worlds are masks of 128 bits");
        self.made.push(Made {
            commit: None,
            record: Some(SignedRoot::unsigned(
                root,
                crate::root::Made::ByOwner(device),
            )),
            events: Vec::new(),
            home: RECORDS,
            prev,
            past,
            chain: prev.map_or(0, |p| self.made[p].chain) | 1 << i,
        });
        i
    }

    /// The homes that `who` is known to have had by the commits of `mask`.
    pub(super) fn homes_of(&self, who: UserId, mask: u128) -> Vec<ServerId> {
        let mut homes: Vec<ServerId> = self
            .genesis
            .iter()
            .filter_map(|g| (g.root().owner == who).then_some(g.root().home))
            .collect();
        let records = (0..self.made.len()).filter(|i| mask >> i & 1 == 1);
        for record in records.filter_map(|i| self.made[i].record.as_ref()) {
            if record.root().owner == who {
                homes.push(record.root().home);
            }
        }
        for (_, event) in self.events_of(mask) {
            match &event.act {
                Act::Grant(Grant {
                    target: Target::User { user, home },
                    ..
                }) if *user == who => homes.push(*home),
                Act::Join { home, .. } | Act::Move { home, .. } if event.author == who => {
                    homes.push(*home);
                }
                _ => {}
            }
        }
        homes
    }

    pub(super) fn events_of(&self, mask: u128) -> impl Iterator<Item = &(EventId, Event)> {
        (0..self.made.len())
            .filter(move |i| mask >> i & 1 == 1)
            .flat_map(|i| &self.made[i].events)
    }

    /// What an honest author knowing `mask` lets stand of `who`.
    pub(super) fn cut(&self, who: UserId, mask: u128) -> Vec<Tip> {
        let homes = self.homes_of(who, mask);
        let at_them = (0..self.made.len()).filter(|i| homes.contains(&self.made[*i].home));
        let theirs = at_them.fold(0, |all, i| all | mask & 1 << i);
        let mut cut: Vec<Tip> = self.maximal(theirs).iter().map(|i| self.tip(*i)).collect();
        cut.sort_unstable();
        cut.truncate(crate::limits::CUT_TIPS_MAX);
        cut
    }

    pub(super) fn authority(&self) -> Authority {
        match (&self.genesis, self.pair) {
            (Some(genesis), _) => Authority::group(genesis),
            (None, Some((a, b))) => Authority::direct(a, b),
            (None, None) => unreachable!("a world is one or the other"),
        }
    }
}

pub(super) fn content() -> ContentRef {
    ContentRef {
        hash: ContentHash::from_bytes([5; 32]),
        len: 20,
    }
}

pub(super) fn message() -> Act {
    Act::Message { content: content() }
}

pub(super) fn grant(name: char, at: char, role: Role) -> Grant {
    Grant {
        target: Target::User {
            user: user(name),
            home: home(at),
        },
        role,
        cut: vec![],
        ban: false,
        lifts: vec![],
    }
}

/// A graph and its authority, fed commit by commit, with what the effects told on the way.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) graph: Graph,
    pub(super) authority: Authority,
    pub(super) nodes: Vec<Option<NodeIx>>,
    told: std::collections::BTreeMap<Appearance, super::super::Verdict>,
    told_roles: std::collections::BTreeMap<UserId, Role>,
    told_homes: std::collections::BTreeSet<ServerId>,
    told_sights: std::collections::BTreeMap<UserId, Vec<Span>>,
    told_history: Vec<Switch>,
}

impl Server {
    pub(super) fn new(world: &World) -> Self {
        let authority = world.authority();
        Self {
            graph: Graph::new(world.conversation()),
            told_roles: authority.members().map(|m| (m.user, m.role)).collect(),
            told_homes: authority.homes().collect(),
            told_sights: std::collections::BTreeMap::new(),
            told_history: Vec::new(),
            authority,
            nodes: Vec::new(),
            told: std::collections::BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, world: &World, i: usize) -> NodeIx {
        self.take_only(world, i, |_| true)
    }

    /// Takes a commit with those of its events that are `had`.
    pub(super) fn take_only(
        &mut self,
        world: &World,
        i: usize,
        had: impl Fn(usize) -> bool,
    ) -> NodeIx {
        let made = &world.made[i];
        if let Some(record) = &made.record {
            return self.take_record(i, record);
        }
        let node = match self.graph.insert_named(made.signed()) {
            Inserted::New(node) => node,
            other => panic!("commit {i}: {other:?}"),
        };
        self.nodes.resize(self.nodes.len().max(i + 1), None);
        self.nodes[i] = Some(node);
        self.tell(world, i, had);
        node
    }

    pub(super) fn tell(&mut self, world: &World, i: usize, had: impl Fn(usize) -> bool) {
        let node = self.nodes[i].unwrap();
        let events: Vec<(EventId, &Event)> = world.made[i]
            .events
            .iter()
            .enumerate()
            .filter(|(at, _)| had(*at))
            .map(|(_, (id, event))| (*id, event))
            .collect();
        let effects = self.authority.insert(&self.graph, node, &events);
        self.note(node, &effects);
    }

    fn take_record(&mut self, i: usize, record: &SignedRoot) -> NodeIx {
        match self.authority.insert_record(&mut self.graph, record) {
            RecordOutcome::Taken { node, effects, .. } => {
                self.nodes.resize(self.nodes.len().max(i + 1), None);
                self.nodes[i] = Some(node);
                self.note(node, &effects);
                node
            }
            other => panic!("record {i}: {other:?}"),
        }
    }

    fn note(&mut self, node: NodeIx, effects: &Effects) {
        for change in &effects.changed {
            // A change of the reason alone is not told.
            let was = self.told.insert(change.at, change.now).unwrap();
            assert_eq!(was.stands(), change.was.stands());
            assert_ne!(change.was, change.now);
        }
        for (index, verdict) in (0u16..).zip(&effects.verdicts) {
            self.told.insert(Appearance { node, index }, *verdict);
        }
        for change in &effects.roles {
            let was = self.told_roles.insert(change.user, change.now);
            assert_eq!(was.unwrap_or(Role::None), change.was);
        }
        for user in &effects.sights {
            let spans = self.authority.memberships(&self.graph, user);
            self.told_sights.insert(*user, spans);
        }
        if effects.history {
            self.told_history = self.authority.history_switches(&self.graph);
        }
        for began in &effects.homes_began {
            assert!(self.told_homes.insert(*began));
        }
        for ceased in &effects.homes_ceased {
            assert!(self.told_homes.remove(ceased));
        }
    }

    /// Everything that was told equals everything that can be asked.
    pub(super) fn assert_told(&self) {
        for (at, verdict) in &self.told {
            let now = self.authority.verdict(*at);
            assert_eq!(
                verdict.stands(),
                now.stands(),
                "{at:?}: {verdict:?} {now:?}"
            );
        }
        let members: Vec<(UserId, Role)> =
            self.authority.members().map(|m| (m.user, m.role)).collect();
        let told = self.told_roles.iter().filter(|(_, r)| **r > Role::None);
        assert_eq!(members, told.map(|(u, r)| (*u, *r)).collect::<Vec<_>>());
        assert!(self.authority.homes().eq(self.told_homes.iter().copied()));
        for (user, told) in &self.told_sights {
            let now = self.authority.memberships(&self.graph, user);
            assert_eq!(*told, now, "{user}");
            // Whoever is a member sees what comes next, and nobody else does.
            let goes_on = now.last().is_some_and(|span| span.to.is_none());
            assert_eq!(goes_on, self.authority.role(user) > Role::None, "{user}");
        }
        assert_eq!(
            self.told_history,
            self.authority.history_switches(&self.graph)
        );
        let open = |entry: &&Entry| entry.kind.is_act() && entry.settled.is_none();
        let unsettled = self.authority.entries.iter().filter(open).count();
        assert_eq!(self.authority.unsettled_acts(), unsettled);
    }

    pub(super) fn verdict(&self, i: usize, index: u16) -> super::super::Verdict {
        let node = self.nodes[i].unwrap();
        self.authority.verdict(Appearance { node, index })
    }
}

/// An id that is lower than a given one is found by trying; used where a fork is to be won.
pub(super) fn is_lower(a: &Made, b: CommitId) -> bool {
    a.signed().id() < b
}
