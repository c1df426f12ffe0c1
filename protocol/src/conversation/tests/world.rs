//! The homes, their users, and what each home was told.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    commit::{Commit, SignedCommit},
    conversation::{
        BundleError, Changes, CheckedBundle, CheckedEvent, Conversation, Devices, Received,
        Refusal, Slot, Taken, TakenRecord, Voided,
    },
    document::MessageState,
    event::{Act, Content, Event, Grant, SealedContent, SignedEvent, Target, Tip},
    ids::{CommitId, ConversationId, DeviceKey, EventId, Nonce, PublicKey, Salt, ServerId, UserId},
    link::{Bundle, ContentSlot},
    role::Role,
    root::{Genesis, Root},
    signing::SecretKey,
    time::{Hlc, Timestamp},
};

pub(super) const T0: u64 = 1_800_000_000_000;

/// A person with one device.
#[derive(Clone)]
pub(super) struct User {
    pub(super) id: UserId,
    pub(super) key: SecretKey,
    /// Index of the home.
    pub(super) home: usize,
}

pub(super) fn user(n: u8, home: usize) -> User {
    User {
        id: UserId::from_bytes([n; 32]),
        key: SecretKey::from_seed([n; 32]),
        home,
    }
}

pub(super) fn server(n: usize) -> ServerId {
    ServerId::from_bytes([0xa0 + u8::try_from(n).unwrap(); 32])
}

pub(super) fn server_key(n: usize) -> SecretKey {
    SecretKey::from_seed([0xa0 + u8::try_from(n).unwrap(); 32])
}

/// The key of a home by its id, for every epoch.
pub(super) fn key_of(id: &ServerId, _: u64) -> Option<PublicKey> {
    (0..5)
        .find(|n| server(*n) == *id)
        .map(|n| server_key(n).public())
}

pub(super) fn checked(bundle: &Bundle) -> Result<CheckedBundle, BundleError> {
    CheckedBundle::check(bundle.clone(), key_of)
}

/// One home: the machine, and everything it said.
pub(super) struct Home {
    pub(super) n: usize,
    pub(super) machine: Conversation,
    /// Commits in the order they were taken, as a store has them.
    pub(super) records: Vec<(SignedCommit, Vec<SignedEvent>)>,
    /// Events that are lines of their own, whether they count or not.
    lines: BTreeSet<EventId>,
    /// Lines that count.
    pub(super) shown: BTreeSet<EventId>,
    pub(super) states: BTreeMap<EventId, MessageState>,
    pub(super) fields: BTreeMap<String, EventId>,
    pub(super) erased: BTreeSet<EventId>,
    /// Messages, and whether they are folded, as told.
    pub(super) folded: BTreeMap<EventId, bool>,
    /// Events of any kind, and whether the last that was told is that they count.
    pub(super) told: BTreeMap<EventId, bool>,
    pub(super) roles: BTreeMap<UserId, Role>,
    /// Bundles in the order they were taken.
    pub(super) bundles: Vec<Bundle>,
}

impl Home {
    pub(super) fn new(n: usize, machine: Conversation) -> Self {
        Self {
            n,
            machine,
            records: vec![],
            lines: BTreeSet::new(),
            shown: BTreeSet::new(),
            states: BTreeMap::new(),
            fields: BTreeMap::new(),
            erased: BTreeSet::new(),
            folded: BTreeMap::new(),
            told: BTreeMap::new(),
            roles: BTreeMap::new(),
            bundles: vec![],
        }
    }

    /// Takes note of what a commit changed, as a driver does.
    pub(super) fn note(&mut self, taken: &Taken) {
        let events = taken.events.iter().map(|e| e.event.clone()).collect();
        self.records.push((taken.commit.clone(), events));
        self.bundles.push(bundle_of(taken));
        for event in &taken.events {
            let (id, counts) = (event.event.id(), event.void.is_none());
            let replaces = counts && !self.shown.contains(&id);
            if replaces || !self.folded.contains_key(&id) {
                self.folded.insert(id, event.folded);
            }
            // A void copy takes nothing from one that counts, and what is no line and was void is
            // told by name when it counts again.
            let told = self.told.entry(id).or_insert(counts);
            *told |= counts && event.shown;
            if event.shown {
                self.lines.insert(event.event.id());
            }
            if event.void.is_none() && event.shown {
                self.shown.insert(event.event.id());
            }
        }
        self.changed(&taken.changes);
    }

    fn changed(&mut self, changes: &Changes) {
        for Voided { event, .. } in &changes.voided {
            self.told.insert(*event, false);
            self.shown.remove(event);
            self.states.remove(event);
        }
        self.told
            .extend(changes.stands_again.iter().map(|id| (*id, true)));
        let again = changes.stands_again.iter();
        self.shown
            .extend(again.filter(|id| self.lines.contains(id)));
        self.folded.extend(changes.folded.iter().copied());
        for (target, state) in &changes.touched {
            self.states.insert(*target, state.clone());
        }
        for (field, value) in &changes.state {
            match value {
                Some(event) => drop(self.fields.insert(field.clone(), *event)),
                None => drop(self.fields.remove(field)),
            }
        }
        self.erased.extend(&changes.erase);
        for change in &changes.roles {
            self.roles.insert(change.user, change.role);
        }
    }

    /// Takes over which lines another home showed after its first so many records, as rows that
    /// are made of the same records do.
    pub(super) fn shown_again(&mut self, other: &Self, records: usize) {
        for (_, events) in &other.records[..records] {
            for event in events {
                let line = event.id();
                if other.lines.contains(&line) {
                    self.lines.insert(line);
                    if self
                        .machine
                        .authority()
                        .shown(self.machine.graph(), &line)
                        .is_some()
                    {
                        self.shown.insert(line);
                    }
                }
            }
        }
        self.roles = other.roles.clone();
    }

    pub(super) fn receive(
        &mut self,
        now: Timestamp,
        bundle: &Bundle,
        devices: &Devices<'_>,
    ) -> Received {
        let received = self.machine.receive(now, checked(bundle).unwrap(), devices);
        if let Received::Taken(all) = &received {
            all.iter().for_each(|taken| self.note(taken));
        }
        received
    }

    pub(super) fn release(&mut self, now: Timestamp, devices: &Devices<'_>) -> usize {
        let all = self.machine.release_waiting(now, devices);
        all.iter().for_each(|taken| self.note(taken));
        all.len()
    }

    /// Makes the next commit and calls it durable.
    pub(super) fn commit(&mut self, now: Timestamp) -> Option<Taken> {
        let taken = self.machine.next_commit(now, &server_key(self.n))?;
        self.note(&taken);
        self.machine.durable(&taken.commit.id());
        Some(taken)
    }

    pub(super) fn submit(
        &mut self,
        now: Timestamp,
        signed: (SignedEvent, Option<SealedContent>),
    ) -> Result<EventId, Refusal> {
        let id = signed.0.id();
        self.machine.submit(now, signed.0, signed.1)?;
        Ok(id)
    }

    /// Takes note of what a root record changed, as a driver does.
    pub(super) fn note_record(&mut self, taken: &TakenRecord) {
        assert!(
            taken.changes.state.is_empty(),
            "no record here voids a state"
        );
        self.changed(&taken.changes);
    }

    pub(super) fn role(&self, user: &User) -> Role {
        self.machine.authority().role(&user.id)
    }

    /// What every home that holds the same commits agrees on.
    pub(super) fn digest(&self) -> impl Eq + std::fmt::Debug + use<> {
        let members: Vec<_> = self
            .machine
            .authority()
            .members()
            .map(|m| (m.user, m.role, m.home, m.grant))
            .collect();
        (
            self.machine.frontier(),
            members,
            self.shown.clone(),
            self.fields.clone(),
            self.erased.clone(),
        )
    }
}

pub(super) fn bundle_of(taken: &Taken) -> Bundle {
    let slot = |slot: &Slot| match slot {
        Slot::None => None,
        Slot::Held(content) => Some(ContentSlot::Held(crate::ids::Blob(
            content.bytes().to_vec(),
        ))),
        Slot::Gone | Slot::Expired => Some(ContentSlot::Gone),
        Slot::Withheld => Some(ContentSlot::Withheld),
    };
    Bundle {
        commit: taken.commit.to_raw(),
        events: taken.events.iter().map(|e| e.event.to_raw()).collect(),
        contents: taken.events.iter().filter_map(|e| slot(&e.slot)).collect(),
    }
}

/// Homes 0, 1 and 2 of one group.
pub(super) struct World {
    pub(super) homes: Vec<Home>,
    pub(super) users: Vec<User>,
    pub(super) conversation: ConversationId,
    pub(super) now: u64,
    nonces: u64,
}

/// The owner at home 0, an admin at home 1, members at homes 1 and 2.
pub(super) const OWNER: usize = 0;
pub(super) const ADMIN: usize = 1;
pub(super) const MEMBER: usize = 2;
pub(super) const OTHER: usize = 3;
pub(super) const THIRD: usize = 4;

impl World {
    /// A group of three homes that all hold its first commits.
    pub(super) fn group() -> Self {
        let users = vec![user(1, 0), user(2, 1), user(3, 1), user(4, 2), user(5, 2)];
        let root = Root {
            v: 1,
            n: 0,
            prev: None,
            owner: users[OWNER].id,
            home: server(0),
            stewards: vec![server(0)],
            frontier: vec![],
            digest: None,
            nonce: Nonce::from_bytes([7; 16]),
            created_at: Timestamp(T0),
        };
        let genesis = Genesis::sign(root, &users[OWNER].key);
        let machine = |n| Conversation::group(&genesis, server(n), 1);
        let homes = (0..3).map(|n| Home::new(n, machine(n))).collect();
        let mut world = Self {
            homes,
            users,
            conversation: genesis.conversation(),
            now: T0,
            nonces: 0,
        };
        for (user, role) in [
            (ADMIN, Role::Admin),
            (MEMBER, Role::Member),
            (OTHER, Role::Member),
            (THIRD, Role::Member),
        ] {
            let act = world.grant(0, user, role);
            world.act(OWNER, act).unwrap();
        }
        world.commit(0);
        world.gossip(0, 1);
        world.gossip(0, 2);
        world
    }

    pub(super) fn time(&self) -> Timestamp {
        Timestamp(self.now)
    }

    pub(super) fn nonce(&mut self) -> Nonce {
        self.nonces += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonces.to_be_bytes());
        Nonce::from_bytes(nonce)
    }

    pub(super) fn content(&mut self, text: &str) -> SealedContent {
        let salt = Salt::from_bytes(*self.nonce().as_bytes());
        SealedContent::seal(&Content::text(salt, text)).unwrap()
    }

    /// Signs an act of a user with these claims.
    pub(super) fn sign(&mut self, user: usize, claims: Role, act: Act) -> SignedEvent {
        let nonce = self.nonce();
        let author = &self.users[user];
        let event = Event {
            conversation: self.conversation,
            author: author.id,
            device: author.key.public(),
            nonce,
            claims,
            act,
            sent_at: Timestamp(self.now),
        };
        event.sign(&author.key)
    }

    pub(super) fn claims(&self, user: usize, act: &Act) -> Role {
        let home = self.users[user].home.min(self.homes.len() - 1);
        let machine = &self.homes[home].machine;
        machine
            .authority()
            .claim_for(machine.graph(), &self.users[user].id, act)
    }

    /// Submits an act without content at its author's home.
    pub(super) fn act(&mut self, user: usize, act: Act) -> Result<EventId, Refusal> {
        let claims = self.claims(user, &act);
        let event = self.sign(user, claims, act);
        let (home, now) = (self.users[user].home, self.time());
        self.homes[home].submit(now, (event, None))
    }

    pub(super) fn say(&mut self, user: usize, text: &str) -> Result<EventId, Refusal> {
        let signed = self.message(user, text);
        let (home, now) = (self.users[user].home, self.time());
        self.homes[home].submit(now, signed)
    }

    pub(super) fn message(
        &mut self,
        user: usize,
        text: &str,
    ) -> (SignedEvent, Option<SealedContent>) {
        let sealed = self.content(text);
        let act = Act::Message {
            content: sealed.reference(),
        };
        let claims = self.claims(user, &act);
        (self.sign(user, claims, act), Some(sealed))
    }

    /// A user moves to another home, which commits that next. His device knows the end of his old
    /// home's chain, whether his new home does or not.
    pub(super) fn move_to(&mut self, user: usize, home: usize) {
        let machine = &self.homes[self.users[user].home].machine;
        let now = self.time();
        let cut = machine
            .authority()
            .cut_for(machine.graph(), now, &self.users[user].id);
        self.users[user].home = home;
        let act = Act::Move {
            home: server(home),
            n: 1,
            cut,
        };
        self.act(user, act).unwrap();
    }

    pub(super) fn edit(
        &mut self,
        user: usize,
        target: EventId,
        text: &str,
    ) -> Result<EventId, Refusal> {
        let sealed = self.content(text);
        let act = Act::Edit {
            target,
            content: sealed.reference(),
        };
        let claims = self.claims(user, &act);
        let event = self.sign(user, claims, act);
        let (home, now) = (self.users[user].home, self.time());
        self.homes[home].submit(now, (event, Some(sealed)))
    }

    /// Submits a message, commits it, and gives both ids.
    pub(super) fn said(&mut self, user: usize, text: &str) -> EventId {
        let id = self.say(user, text).unwrap();
        self.commit(self.users[user].home);
        id
    }

    /// A grant as somebody at `home` makes it for a user.
    pub(super) fn grant(&self, home: usize, target: usize, role: Role) -> Act {
        let machine = &self.homes[home].machine;
        let target = &self.users[target];
        let lowers = role < machine.authority().role(&target.id);
        let cut = if lowers {
            machine
                .authority()
                .cut_for(machine.graph(), self.time(), &target.id)
        } else {
            vec![]
        };
        let lifts = if lowers {
            vec![]
        } else {
            machine.authority().standing_bans(&target.id)
        };
        Act::Grant(Grant {
            target: Target::User {
                user: target.id,
                home: server(target.home),
            },
            role,
            cut,
            ban: false,
            lifts,
        })
    }

    pub(super) fn commit(&mut self, home: usize) -> Option<Taken> {
        self.now += 10;
        let now = self.time();
        self.homes[home].commit(now)
    }

    /// What a driver does at each tick: commits again what the home lost.
    pub(super) fn commit_lost(&mut self, home: usize) -> Option<Taken> {
        self.now += 10;
        let now = self.time();
        let home = &mut self.homes[home];
        let lost = home.machine.lost(now);
        let all: Vec<CheckedEvent> = home
            .bundles
            .iter()
            .flat_map(|bundle| checked(bundle).unwrap().events)
            .collect();
        let read = |id: &EventId| all.iter().find(|e| e.event.id() == *id).cloned().unwrap();
        let events = lost.iter().map(|(event, _)| read(event)).collect();
        let taken = home
            .machine
            .commit_again(now, &server_key(home.n), events)?;
        home.note(&taken);
        home.machine.durable(&taken.commit.id());
        Some(taken)
    }

    pub(super) fn commit_all_lost(&mut self, home: usize) -> Vec<Taken> {
        std::iter::from_fn(|| self.commit_lost(home)).collect()
    }

    /// Whether a device is in its user's identity log: all are.
    pub(super) fn devices(&self) -> impl Fn(&UserId, &DeviceKey) -> Option<bool> + use<> {
        let keys: BTreeMap<UserId, DeviceKey> = self
            .users
            .iter()
            .map(|user| (user.id, user.key.public()))
            .collect();
        move |user, device| keys.get(user).map(|key| key == device)
    }

    /// Hands everything that one home holds to another, in the order it was taken.
    pub(super) fn gossip(&mut self, from: usize, to: usize) {
        let (devices, now) = (self.devices(), self.time());
        for bundle in self.homes[from].bundles.clone() {
            self.homes[to].receive(now, &bundle, &devices);
        }
    }

    /// Until all hold the same.
    pub(super) fn gossip_all(&mut self) {
        for (from, to) in [(0, 1), (2, 1), (1, 0), (1, 2)] {
            self.gossip(from, to);
        }
    }

    /// Hands one bundle to one home.
    pub(super) fn give(&mut self, to: usize, bundle: &Bundle) -> Received {
        let (devices, now) = (self.devices(), self.time());
        self.homes[to].receive(now, bundle, &devices)
    }

    /// A commit that a home signs by hand on `prev`, whatever its rules say.
    pub(super) fn forge(
        &self,
        origin: usize,
        prev: Option<&SignedCommit>,
        at_ms: u64,
        events: &[(SignedEvent, Option<SealedContent>)],
    ) -> Bundle {
        let tips = match prev {
            Some(_) => vec![],
            None => self.homes[0]
                .machine
                .graph()
                .tips(&server(0))
                .collect::<Vec<Tip>>(),
        };
        let authority = prev
            .is_none()
            .then_some(crate::commit::AuthorityChange { tips, root: None });
        let commit = Commit {
            v: 1,
            conversation: self.conversation,
            origin: server(origin),
            epoch: 1,
            seq: prev.map_or(0, |p| p.commit().seq + 1),
            prev: prev.map(SignedCommit::id),
            hlc: Hlc::new(Timestamp(at_ms), 0),
            parents: vec![],
            authority,
            events: events.iter().map(|(e, _)| e.id()).collect(),
        };
        Bundle {
            commit: commit.sign(&server_key(origin)).to_raw(),
            events: events.iter().map(|(e, _)| e.to_raw()).collect(),
            contents: events
                .iter()
                .filter_map(|(_, c)| c.as_ref())
                .map(|c| ContentSlot::Held(crate::ids::Blob(c.bytes().to_vec())))
                .collect(),
        }
    }

    /// The newest own commit of a home.
    pub(super) fn newest(&self, home: usize) -> Option<SignedCommit> {
        let own = |(c, _): &&(SignedCommit, _)| c.commit().origin == server(home);
        let newest = self.homes[home].records.iter().rev().find(own);
        newest.map(|(c, _)| c.clone())
    }
}

pub(super) fn commit_of(bundle: &Bundle) -> SignedCommit {
    checked(bundle).unwrap().commit
}

pub(super) fn id_of(bundle: &Bundle) -> CommitId {
    commit_of(bundle).id()
}

pub(super) fn is_taken(received: &Received) -> bool {
    matches!(received, Received::Taken(_))
}
