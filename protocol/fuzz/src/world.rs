//! Homes, users and histories with real signatures, the same at every call: what is attacked, and
//! what speed is measured on.

mod chronicle;

use std::{cell::OnceCell, sync::OnceLock};

use comity_protocol::{
    authority::Authority,
    event::{Act, Content, Event, SealedContent, SignedEvent},
    history::Graph,
    ids::{DeviceKey, Nonce, PublicKey, RootId, Salt, ServerId, UserId},
    role::Role,
    root::{Genesis, Root, SignedRoot},
    session::CursorState,
    signing::SecretKey,
    time::Timestamp,
};

pub use chronicle::{Chronicle, Said, bundle_of};

/// When worlds begin, in milliseconds since the Unix epoch.
pub const T0: u64 = 1_800_000_000_000;
/// The key that cursors are sealed with here: that of the vectors.
pub const CURSOR_KEY: [u8; 32] = [0x77; 32];

/// A record with three stewards, which others follow.
#[must_use]
pub fn record_before() -> (RootId, Root) {
    let root = Root {
        v: 1,
        n: 0,
        prev: None,
        owner: UserId::from_bytes([1; 32]),
        home: ServerId::from_bytes([0x51; 32]),
        stewards: (0x51..0x54)
            .map(|n| ServerId::from_bytes([n; 32]))
            .collect(),
        frontier: vec![],
        digest: None,
        nonce: Nonce::from_bytes([7; 16]),
        created_at: Timestamp(T0),
    };
    (SignedRoot::encode(&root).0, root)
}

/// The key of one of its stewards.
#[must_use]
pub fn steward(server: &ServerId) -> Option<SecretKey> {
    let [n, ..] = *server.as_bytes();
    (0x51..0x54)
        .contains(&n)
        .then(|| SecretKey::from_seed([n; 32]))
}

/// A server.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its id.
    pub id: ServerId,
    /// What it signs commits with.
    pub key: SecretKey,
}

/// A person with one device.
#[derive(Clone, Debug)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// The device's key.
    pub key: SecretKey,
    /// Which of the homes is his.
    pub home: usize,
}

impl User {
    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceKey {
        self.key.public()
    }
}

/// The homes and users of one group. User 0 is its owner, at home 0.
#[derive(Clone, Debug)]
pub struct World {
    /// The servers.
    pub homes: Vec<Home>,
    /// The users; of `n` homes, user `i` is at home `i % n`.
    pub users: Vec<User>,
    /// Record 0.
    pub genesis: Genesis,
    nonces: u64,
}

fn seed(domain: &str, n: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("comity fuzz worlds v1");
    hasher.update(domain.as_bytes());
    hasher.update(&(n as u64).to_be_bytes());
    *hasher.finalize().as_bytes()
}

/// Server number `n`.
#[must_use]
pub fn home(n: usize) -> Home {
    Home {
        id: ServerId::from_bytes(seed("server", n)),
        key: SecretKey::from_seed(seed("server key", n)),
    }
}

fn user(n: usize, homes: usize) -> User {
    User {
        id: UserId::from_bytes(seed("user", n)),
        key: SecretKey::from_seed(seed("device", n)),
        home: n % homes,
    }
}

impl World {
    /// A group of `homes` servers and `users` users, in which nothing has happened.
    #[must_use]
    pub fn new(homes: usize, users: usize) -> Self {
        let homes: Vec<Home> = (0..homes).map(home).collect();
        let users: Vec<User> = (0..users).map(|n| user(n, homes.len())).collect();
        let root = Root {
            v: 1,
            n: 0,
            prev: None,
            owner: users[0].id,
            home: homes[0].id,
            stewards: vec![homes[0].id],
            frontier: vec![],
            digest: None,
            nonce: Nonce::from_bytes([7; 16]),
            created_at: Timestamp(T0),
        };
        let genesis = Genesis::sign(root, &users[0].key);
        Self {
            homes,
            users,
            genesis,
            nonces: 0,
        }
    }

    /// One user more; gives his number.
    pub fn add_user(&mut self) -> usize {
        let n = self.users.len();
        self.users.push(user(n, self.homes.len()));
        n
    }

    fn nonce(&mut self) -> [u8; 16] {
        self.nonces += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.nonces.to_be_bytes());
        nonce
    }

    /// A text with a salt of its own.
    ///
    /// # Panics
    ///
    /// If the text is longer than a content may be.
    #[must_use]
    pub fn content(&mut self, text: &str) -> SealedContent {
        let salt = Salt::from_bytes(self.nonce());
        SealedContent::seal(&Content::text(salt, text)).expect("a text within the limits")
    }

    /// Signs an act of a user.
    #[must_use]
    pub fn sign(&mut self, user: usize, claims: Role, act: Act) -> SignedEvent {
        let nonce = Nonce::from_bytes(self.nonce());
        let author = &self.users[user];
        let event = Event {
            conversation: self.genesis.conversation(),
            author: author.id,
            device: author.device(),
            nonce,
            claims,
            act,
            sent_at: Timestamp(T0),
        };
        event.sign(&author.key)
    }

    /// An act without a content.
    #[must_use]
    pub fn act(&mut self, user: usize, claims: Role, act: Act) -> Said {
        Said {
            event: self.sign(user, claims, act),
            content: None,
        }
    }

    /// A message of a member.
    #[must_use]
    pub fn message(&mut self, user: usize, text: &str) -> Said {
        let content = self.content(text);
        let act = Act::Message {
            content: content.reference(),
        };
        Said {
            event: self.sign(user, Role::Member, act),
            content: Some(content),
        }
    }

    /// A new text for an own message.
    #[must_use]
    pub fn edit(&mut self, user: usize, target: &Said, text: &str) -> Said {
        let content = self.content(text);
        let act = Act::Edit {
            target: target.event.id(),
            content: content.reference(),
        };
        Said {
            event: self.sign(user, Role::Member, act),
            content: Some(content),
        }
    }

    /// Whether a device is a user's: the answer of identity logs.
    #[must_use]
    pub fn has_device(&self, user: &UserId, device: &DeviceKey) -> Option<bool> {
        let known = self.users.iter().find(|known| known.id == *user)?;
        Some(known.device() == *device)
    }

    /// The key of one of the homes, whatever the epoch.
    #[must_use]
    pub fn key_of(&self, server: &ServerId) -> Option<PublicKey> {
        let home = self.homes.iter().find(|home| home.id == *server)?;
        Some(home.key.public())
    }
}

/// The key that signs the commits of the vectors.
#[must_use]
pub fn vector_key() -> PublicKey {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    *KEY.get_or_init(|| crate::seeds::commit_key().unwrap_or(PublicKey::from_bytes([0; 32])))
}

/// The key of the first few servers of any world.
#[must_use]
pub fn key_of(server: &ServerId) -> Option<PublicKey> {
    static KEYS: OnceLock<Vec<(ServerId, PublicKey)>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| (0..8).map(|n| (home(n).id, home(n).key.public())).collect());
    keys.iter()
        .find(|(id, _)| id == server)
        .map(|(_, key)| *key)
}

/// The state of a store that judges cursors: that of the vectors.
#[must_use]
pub fn cursor_now() -> CursorState {
    crate::seeds::cursor_state()
}

/// Calls `call` with a small history, in which one home has forked.
pub(crate) fn with_graph<T>(call: impl FnOnce(&Graph) -> T) -> T {
    thread_local! {
        static GRAPH: OnceCell<Graph> = const { OnceCell::new() };
    }
    GRAPH.with(|graph| call(graph.get_or_init(small_graph)))
}

fn small_graph() -> Graph {
    let world = World::new(3, 6);
    let mut chronicle = Chronicle::new(world);
    chronicle.found();
    for n in 0..12 {
        let said = chronicle.world.message(n % 6, "a line");
        chronicle.append(n % 3, vec![said]);
    }
    chronicle.fork(2);
    let mut graph = Graph::new(chronicle.world.genesis.conversation());
    for commit in chronicle.commits() {
        let _ = graph.insert(commit);
    }
    assert_eq!(
        graph.len(),
        chronicle.commits().count(),
        "the history is whole"
    );
    graph
}

/// An authority that has judged nothing but record 0.
#[must_use]
pub fn authority(world: &World) -> Authority {
    Authority::group(&world.genesis)
}
