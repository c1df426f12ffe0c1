//! Servers, and the network between them.

use std::cell::Cell;

use super::super::*;
use crate::{
    commit::SignedCommit,
    conversation::RootChange,
    event::{Grant, Target},
    link::{Bundle, ContentSlot},
    root::{RawRoot, SignedRoot, Steward, StewardMessage},
    session::NextRoot,
};

pub(super) fn user(n: u8) -> (UserId, SecretKey) {
    match n {
        1 => owner(),
        n => (UserId::from_bytes([n; 32]), SecretKey::from_seed([n; 32])),
    }
}

/// The key by which home `n` speaks for its user.
pub(super) fn speaks_for(n: u8) -> SecretKey {
    SecretKey::from_seed([70 + n; 32])
}

pub(super) fn group() -> Genesis {
    let root = Root {
        v: 1,
        n: 0,
        prev: None,
        owner: owner().0,
        home: server(1),
        stewards: [1, 2, 3].map(server).to_vec(),
        frontier: vec![],
        digest: None,
        nonce: Nonce::from_bytes([1; 16]),
        created_at: T0,
    };
    Genesis::sign(root, &owner().1)
}

pub(super) fn group_id() -> ConversationId {
    group().conversation()
}

#[derive(Clone)]
pub(super) enum Entry {
    Commit(SignedCommit, Vec<SignedEvent>),
    Record(RawRoot),
    Steward(Steward),
}

/// What one server stored.
pub(super) struct Log {
    pub(super) me: u8,
    pub(super) log: RefCell<Vec<Entry>>,
    pub(super) unreached_ms: Cell<u64>,
    pub(super) due: Cell<Due>,
}

impl Store for Log {
    fn read(&self, id: &ConversationId) -> Result<Option<Stored>, WireError> {
        assert_eq!(*id, group_id());
        let mut machine = Conversation::group(&group(), server(self.me), 1);
        let mut steward = None;
        for entry in self.log.borrow().iter() {
            match entry {
                Entry::Commit(commit, events) => machine.restore(commit, events).unwrap(),
                Entry::Record(raw) => machine.restore_record(raw.clone()).unwrap(),
                Entry::Steward(newest) => steward = Some(newest.clone()),
            }
        }
        let members = machine.authority().members();
        let members = members.map(|member| (member.user, member.home.unwrap()));
        Ok(Some(Stored {
            members: members.collect(),
            machine,
            acked: BTreeMap::new(),
            own_end: None,
            steward,
            due: self.due.get(),
        }))
    }

    fn bundle(&self, _: &ConversationId, _: &CommitId, _: bool) -> Option<ForPeers> {
        None
    }

    fn had_device(&self, of: &UserId, device: &DeviceKey) -> Option<bool> {
        let mut users = (1..=3).map(user);
        Some(users.any(|(user, key)| user == *of && key.public() == *device))
    }

    fn had_home_key(&self, of: &UserId, key: &PublicKey) -> Option<bool> {
        let mut users = (1..=3).map(|n| (user(n).0, speaks_for(n)));
        Some(users.any(|(user, speaks)| user == *of && speaks.public() == *key))
    }

    fn home_key(&self, of: &UserId) -> Option<SecretKey> {
        (user(self.me).0 == *of).then(|| speaks_for(self.me))
    }

    fn key_of(&self, origin: &ServerId, _: u64) -> Option<PublicKey> {
        (1..=3)
            .find(|n| server(*n) == *origin)
            .map(|n| server_key(n).public())
    }

    fn holds(&self, _: &EventId) -> bool {
        false
    }

    fn withheld(&self, _: &ConversationId, _: &Span, _: usize) -> Vec<Place> {
        Vec::new()
    }

    fn unreached_ms(&self, server: &ServerId) -> u64 {
        if *server == super::server(self.me) {
            return 0;
        }
        self.unreached_ms.get()
    }

    fn cannot_store(&self) -> Option<WireError> {
        None
    }
}

#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Steward(Box<StewardMessage>),
    Records(Vec<RawRoot>),
    Bundle(Box<Bundle>),
}

pub(super) struct Server {
    pub(super) shard: Shard,
    pub(super) disk: Log,
    pub(super) up: bool,
    pub(super) lives: u8,
}

pub(super) struct Net {
    pub(super) now: Timestamp,
    pub(super) servers: Vec<Server>,
    pub(super) post: Vec<(u8, u8, Parcel)>,
    pub(super) answers: Vec<(ReplyTo, Result<NextRoot, Code>)>,
    /// Every record that any server took: number, record before, id.
    pub(super) records: BTreeSet<(u64, Option<crate::ids::RootId>, crate::ids::RootId)>,
    pub(super) heard: usize,
    pub(super) nonce: u32,
}

impl Net {
    /// A group of the owner at server 1, an admin at 2 and a member at 3.
    pub(super) fn new() -> Self {
        let server = |n: u8| Server {
            shard: Shard::new(server(n), 1, server_key(n), [n; 32]),
            disk: Log {
                me: n,
                log: RefCell::default(),
                unreached_ms: Cell::new(0),
                due: Cell::default(),
            },
            up: true,
            lives: 1,
        };
        let mut net = Self {
            now: T0,
            servers: (1..=3).map(server).collect(),
            post: Vec::new(),
            answers: Vec::new(),
            records: BTreeSet::new(),
            heard: 0,
            nonce: 0,
        };
        net.grant(2, Role::Admin);
        net.grant(3, Role::Member);
        net.quiet();
        net
    }

    pub(super) fn with<T>(
        &mut self,
        n: u8,
        f: impl FnOnce(&mut Shard, &Log, &mut Vec<Output>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let server = &mut self.servers[usize::from(n) - 1];
        assert!(server.up, "server {n} is stopped");
        let given = f(&mut server.shard, &server.disk, &mut out);
        self.perform(n, out);
        given
    }

    /// Does what a shard says; the disk is as fast as it is sure.
    pub(super) fn perform(&mut self, n: u8, mut out: Vec<Output>) {
        loop {
            let server = &mut self.servers[usize::from(n) - 1];
            if out.is_empty() && server.shard.is_at_rest() {
                return;
            }
            if out.is_empty() {
                server.shard.commit(self.now, &server.disk, &mut out);
            }
            for output in std::mem::take(&mut out) {
                match output {
                    Output::Store(submission) => self.store(n, *submission, &mut out),
                    Output::Say(to, id, message) => {
                        assert_eq!(id, group_id());
                        let to = to.as_bytes()[0];
                        self.post.push((n, to, Parcel::Steward(message)));
                    }
                    Output::NextRoot(to, answer) => {
                        self.answers.push((to, answer.map_err(|error| error.code)));
                    }
                    Output::Heard(..) => self.heard += 1,
                    Output::Refused(_, why) => panic!("refused: {why}"),
                    _ => {}
                }
            }
        }
    }

    fn store(&mut self, n: u8, submission: Submission, out: &mut Vec<Output>) {
        let (mut parcel, mut entry) = (None, None);
        match &submission.what {
            What::Conversation { .. } | What::Expired(_) | What::Contents(_) => {}
            What::Commit { taken, .. } => {
                let events = taken.events.iter().map(|e| e.event.clone()).collect();
                entry = Some(Entry::Commit(taken.commit.clone(), events));
                let own = taken.commit.commit().origin == server(n);
                parcel = own.then(|| Parcel::Bundle(Box::new(taken.to_bundle().0)));
            }
            What::Record { taken, .. } => {
                let root = SignedRoot::decode(&taken.raw).unwrap();
                let id = SignedRoot::id_of(&taken.raw);
                self.records.insert((root.n, root.prev, id));
                entry = Some(Entry::Record(taken.raw.clone()));
                parcel = Some(Parcel::Records(vec![taken.raw.clone()]));
            }
            What::Steward(steward) => entry = Some(Entry::Steward((**steward).clone())),
        }
        let server = &mut self.servers[usize::from(n) - 1];
        server.disk.log.borrow_mut().extend(entry);
        server
            .disk
            .due
            .set(submission.due.unwrap_or_else(|| server.disk.due.get()));
        server.shard.stored(submission.done, Ok(()), out);
        for to in (1..=3).filter(|to| *to != n) {
            self.post
                .extend(parcel.clone().map(|parcel| (n, to, parcel)));
        }
    }

    pub(super) fn deliver(&mut self, (from, to, parcel): (u8, u8, Parcel)) {
        if !self.servers[usize::from(to) - 1].up {
            return;
        }
        let (now, of) = (self.now, of_peer(from));
        self.with(to, |shard, disk, out| match parcel {
            Parcel::Steward(message) => shard.steward(now, of, *message, disk, out),
            Parcel::Records(records) => shard.records(now, of, records, disk, out),
            Parcel::Bundle(bundle) => {
                let ticket = Ticket::Fetched {
                    peer: server(from),
                    session: 1,
                    id: 1,
                };
                shard.judge(now, *bundle, ticket, disk, out);
            }
        });
    }

    /// Delivers everything, in order.
    pub(super) fn quiet(&mut self) {
        for _ in 0..10_000 {
            if self.post.is_empty() {
                return;
            }
            let parcel = self.post.remove(0);
            self.deliver(parcel);
        }
        panic!("servers talk without end");
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        let now = self.now;
        for n in 1..=3 {
            if self.servers[usize::from(n) - 1].up {
                self.with(n, |shard, disk, out| {
                    if shard.wants_due(now).is_some() {
                        shard.give_due(now, [(group_id(), disk.due.get())], None, disk);
                    }
                    shard.wake(disk);
                    shard.release(now, disk, out);
                    shard.tend(now, disk, out);
                });
            }
        }
    }

    pub(super) fn seconds(&mut self, count: u64) {
        for _ in 0..count {
            self.pass(1_000);
            self.quiet();
        }
    }

    /// Stopped, with what was on its way to it and of it lost.
    pub(super) fn stop(&mut self, n: u8) {
        self.servers[usize::from(n) - 1].up = false;
        self.post.retain(|(from, to, _)| *from != n && *to != n);
    }

    /// Starts from its log, and nobody uses it.
    pub(super) fn start_unused(&mut self, n: u8) {
        let server = &mut self.servers[usize::from(n) - 1];
        server.lives += 1;
        let mut seed = [n; 32];
        seed[0] = server.lives;
        server.shard = Shard::new(super::server(n), 1, server_key(n), seed);
        server.up = true;
    }

    /// Starts from its log, and is given what the others made meanwhile.
    pub(super) fn start(&mut self, n: u8) {
        self.start_unused(n);
        self.sync();
        // As its first use would, so that it is open.
        let id = group_id();
        self.with(n, |shard, disk, _| {
            shard.known(&id, disk).map(|_| ()).unwrap()
        });
    }

    /// Everybody sends everything to everybody, as rounds do.
    pub(super) fn sync(&mut self) {
        for from in 1..=3u8 {
            let log = self.servers[usize::from(from) - 1]
                .disk
                .log
                .borrow()
                .clone();
            for entry in log {
                let parcel = match entry {
                    Entry::Record(raw) => Parcel::Records(vec![raw]),
                    Entry::Commit(commit, events) => {
                        let texts = events.iter().filter(|e| e.event().act.content().is_some());
                        let contents = texts.map(|_| ContentSlot::Withheld).collect();
                        Parcel::Bundle(Box::new(Bundle {
                            commit: commit.to_raw(),
                            events: events.iter().map(SignedEvent::to_raw).collect(),
                            contents,
                        }))
                    }
                    Entry::Steward(_) => continue,
                };
                for to in (1..=3).filter(|to| *to != from) {
                    self.post.push((from, to, parcel.clone()));
                }
            }
        }
    }

    pub(super) fn send(&mut self, n: u8, claims: Role, act: Act, content: Option<SealedContent>) {
        self.nonce += 1;
        let (author, key) = user(n);
        let event = Event {
            conversation: group_id(),
            author,
            device: key.public(),
            nonce: Nonce::from_bytes(u128::from(self.nonce).to_be_bytes()),
            claims,
            act,
            sent_at: self.now,
        };
        let now = self.now;
        self.with(n, |shard, disk, out| {
            shard.send(now, event.sign(&key), content, ReplyTo(0), disk, out);
        });
    }

    pub(super) fn grant(&mut self, n: u8, role: Role) {
        let target = Target::User {
            user: user(n).0,
            home: server(n),
        };
        let act = Act::Grant(Grant {
            target,
            role,
            cut: vec![],
            ban: false,
            lifts: vec![],
        });
        self.send(1, Role::Owner, act, None);
    }

    pub(super) fn say(&mut self, n: u8) {
        let salt = Salt::from_bytes(u128::from(self.nonce).to_be_bytes());
        let content = SealedContent::seal(&Content::text(salt, "hello")).unwrap();
        let act = Act::Message {
            content: content.reference(),
        };
        self.send(n, Role::Member, act, Some(content));
    }

    pub(super) fn newest(&mut self, n: u8) -> (crate::commit::RootRef, Root) {
        let id = group_id();
        self.with(n, |shard, disk, _| {
            let open = shard.known(&id, disk).unwrap();
            open.machine.newest_record().unwrap()
        })
    }

    /// Server `n` is asked for the next record by anybody.
    pub(super) fn ask_as(&mut self, n: u8, asker: UserId, reply: u64) {
        let now = self.now;
        self.with(n, |shard, disk, out| {
            let change = RootChange::default();
            shard.next_root(now, asks(asker, reply), change, disk, out);
        });
    }

    /// Server `n` is asked for the next record by its user.
    pub(super) fn next_root(&mut self, n: u8, change: &RootChange, reply: u64) {
        let (now, asker, change) = (self.now, user(n).0, change.clone());
        self.with(n, |shard, disk, out| {
            shard.next_root(now, asks(asker, reply), change, disk, out);
        });
    }

    pub(super) fn sign_root(&mut self, n: u8, root: &crate::ids::Blob, reply: u64) {
        let (now, (asker, key)) = (self.now, user(n));
        let raw = RawRoot::by_device(root.clone(), &key);
        self.with(n, |shard, disk, out| {
            shard.sign_root(now, asks(asker, reply), raw, disk, out);
        });
    }

    pub(super) fn answer(&mut self, reply: u64) -> Option<Result<NextRoot, Code>> {
        let at = self.answers.iter().position(|(to, _)| to.0 == reply)?;
        Some(self.answers.remove(at).1)
    }

    /// The bytes to sign; the network is quiet.
    pub(super) fn given_to_sign(&mut self, n: u8, change: &RootChange) -> crate::ids::Blob {
        self.next_root(n, change, 900);
        self.quiet();
        match self.answer(900) {
            Some(Ok(NextRoot::Sign(root))) => root,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn asks(asker: UserId, reply: u64) -> OwnerAsks {
    OwnerAsks {
        conversation: group_id(),
        asker,
        reply: ReplyTo(reply),
    }
}

pub(super) fn of_peer(n: u8) -> RecordsOf {
    RecordsOf {
        peer: server(n),
        session: 1,
        conversation: group_id(),
    }
}

pub(super) fn to(n: u8) -> RootChange {
    RootChange {
        owner: Some(user(n).0),
        stewards: None,
    }
}

pub(super) fn days(n: u64) -> u64 {
    n * 24 * 3_600_000
}
