//! Users with real identities and devices, and what they do.

mod wishes;

pub(crate) use wishes::{Change, EVERYTHING, grant, make, text, wish, wish_in};

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::{
    encoding,
    event::{Act, Event, SealedContent, SignedEvent},
    identity::{Genesis as IdentityGenesis, IdentityLog, Op, Signer, home_key},
    ids::{Blob, ConversationId, Nonce, ServerId, UserId},
    role::Role,
    root::{Genesis, RawRoot, Root, SignedRoot},
    signing::{Domain, SecretKey},
    time::Timestamp,
};

use crate::{
    random::Random,
    server::{EPOCH_MS, Server},
};

pub(crate) struct User {
    pub(crate) id: UserId,
    /// Index of the home.
    pub(crate) home: usize,
    pub(crate) log: Arc<IdentityLog>,
    home_key: SecretKey,
    devices: Vec<SecretKey>,
    /// Conversations in which he moved to another home.
    moved: BTreeMap<ConversationId, usize>,
    moves: u64,
}

/// What a user sends.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) event: SignedEvent,
    pub(crate) content: Option<SealedContent>,
}

/// What a user wants to do.
pub(crate) enum Wish {
    Send(Box<Made>),
    Direct(UserId),
    AddDevice,
    /// To live elsewhere in a conversation.
    Move(ConversationId),
    /// To make another the owner.
    HandOver(ConversationId),
}

impl User {
    pub(crate) fn new(n: usize, home: usize, server: &Server, random: &mut Random) -> Self {
        let nonce = Nonce::from_bytes(random.bytes());
        let key = home_key(&server.key, &nonce);
        let genesis = IdentityGenesis {
            handle: format!("user{n}").parse().expect("letters and digits"),
            home: server.id,
            home_key: key.public(),
            recovery: None,
            nonce,
        };
        let log = IdentityLog::genesis(genesis, Timestamp(EPOCH_MS), &key);
        let mut user = Self {
            id: log.user(),
            home,
            log: Arc::new(log),
            home_key: key,
            devices: Vec::new(),
            moved: BTreeMap::new(),
            moves: 0,
        };
        user.add_device(random);
        user
    }

    /// One more device; the log that says so.
    pub(crate) fn add_device(&mut self, random: &mut Random) -> Arc<IdentityLog> {
        let device = SecretKey::from_seed(random.bytes());
        let op = Op::AddDevice {
            device: device.public(),
            name: "device".to_owned(),
        };
        let mut log = (*self.log).clone();
        let entry = log.next(op, Timestamp(EPOCH_MS), Signer::Home, &self.home_key);
        let entry = entry.expect("an honest log takes a new device");
        log.extend(&entry).expect("as it was made");
        self.devices.push(device);
        self.log = Arc::new(log);
        Arc::clone(&self.log)
    }

    /// His home in one conversation.
    pub(crate) fn home_in(&self, conversation: &ConversationId) -> usize {
        self.moved.get(conversation).copied().unwrap_or(self.home)
    }

    /// All his homes, that of his identity first.
    pub(crate) fn homes(&self) -> Vec<usize> {
        let mut homes = vec![self.home];
        for home in self.moved.values() {
            if !homes.contains(home) {
                homes.push(*home);
            }
        }
        homes
    }

    pub(crate) fn moved_to(&mut self, conversation: ConversationId, home: usize) {
        self.moved.insert(conversation, home);
    }

    /// A move to another home, with what his present one says that his cut has to name.
    pub(crate) fn move_to(
        &mut self,
        conversation: ConversationId,
        now: &mut Server,
        to: ServerId,
        random: &mut Random,
    ) -> Option<Made> {
        let about = now.grantee(&conversation, &self.id, Some(self.id), None)?;
        self.moves += 1;
        let (n, cut) = (self.moves, about.cut);
        let act = Act::Move { home: to, n, cut };
        let event = self.sign(conversation, Role::None, act, random);
        let content = None;
        Some(Made { event, content })
    }

    /// His signature under a root record.
    pub(crate) fn sign_root(&self, root: &Root) -> RawRoot {
        self.sign_record(SignedRoot::encode(root).1)
    }

    /// The same of bytes that his home gave him.
    pub(crate) fn sign_record(&self, bytes: Blob) -> RawRoot {
        RawRoot::by_device(bytes, &self.devices[0])
    }

    /// Any of his devices.
    fn device(&self, random: &mut Random) -> &SecretKey {
        &self.devices[random.place(self.devices.len())]
    }

    pub(crate) fn sign(
        &self,
        conversation: ConversationId,
        claims: Role,
        act: Act,
        random: &mut Random,
    ) -> SignedEvent {
        self.sign_as(self.id, conversation, claims, act, random)
    }

    /// Signs in somebody's name with an own device.
    pub(crate) fn sign_as(
        &self,
        author: UserId,
        conversation: ConversationId,
        claims: Role,
        act: Act,
        random: &mut Random,
    ) -> SignedEvent {
        let nonce = Nonce::from_bytes(random.bytes());
        let device = self.device(random);
        let event = Event {
            conversation,
            author,
            device: device.public(),
            nonce,
            claims,
            act,
            sent_at: Timestamp(EPOCH_MS),
        };
        event.sign(device)
    }

    /// His log with a device that nobody of his signed for but `key`, and what that device says.
    pub(crate) fn with_foreign_device(
        &self,
        conversation: ConversationId,
        act: Act,
        key: &SecretKey,
        random: &mut Random,
    ) -> (Vec<Blob>, SignedEvent) {
        let device = SecretKey::from_seed(random.bytes());
        let op = Op::AddDevice {
            device: device.public(),
            name: "another".to_owned(),
        };
        let entry = self
            .log
            .next(op, Timestamp(EPOCH_MS), Signer::Home, &self.home_key);
        let mut entry = entry.expect("an honest log takes a new device");
        entry.signature = key.sign(Domain::Identity, entry.id().as_bytes());
        let mut log = self.log.to_travel();
        log.push(Blob(encoding::encode(&entry)));
        let event = Event {
            conversation,
            author: self.id,
            device: device.public(),
            nonce: Nonce::from_bytes(random.bytes()),
            claims: Role::Member,
            act,
            sent_at: Timestamp(EPOCH_MS),
        };
        (log, event.sign(&device))
    }

    pub(crate) fn group(&self, home: ServerId, random: &mut Random) -> Genesis {
        let root = Root {
            v: 1,
            n: 0,
            prev: None,
            owner: self.id,
            home,
            stewards: vec![home],
            frontier: vec![],
            digest: None,
            nonce: Nonce::from_bytes(random.bytes()),
            created_at: Timestamp(EPOCH_MS),
        };
        Genesis::sign(root, self.device(random))
    }
}
