//! Servers with directories of their own, linked with each other.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use comity_node::{
    admin::{self, AdminReply, AdminRequest},
    config::{Config, Listen, Network, Peer, Profile, ServerKeys, TlsFiles},
    server::{Faults, Server, StartError},
};
use comity_protocol::{
    card::CardFields,
    ids::{ConversationId, ServerId, UserId},
    role::Role,
    session::Request,
    signing::SecretKey,
    time::Timestamp,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::client::Client;

/// Every wait of a test ends, by failing.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something that servers do by themselves is true.
pub(super) async fn until<F, R>(what: &str, mut is_true: F)
where
    F: FnMut() -> R,
    R: Future<Output = bool>,
{
    let start = Instant::now();
    while !is_true().await {
        assert!(
            start.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// A server's directory, and the server while it runs.
pub(super) struct Node {
    pub(super) dir: PathBuf,
    pub(super) config: Config,
    pub(super) id: ServerId,
    pub(super) keys: ServerKeys,
    server: Option<Server>,
}

/// Servers linked each with each.
pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    temp: tempfile::TempDir,
}

/// A user with one device.
#[derive(Clone)]
pub(super) struct Person {
    pub(super) handle: String,
    pub(super) user: UserId,
    pub(super) device: SecretKey,
    pub(super) node: usize,
}

/// A certificate authority that the servers of one test believe.
pub(super) struct Authority {
    root: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new(dir: &Path) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::new(vec![]).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let path = dir.join("ca.pem");
        std::fs::write(&path, root.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            root: path,
            issuer: rcgen::Issuer::new(root, key),
        }
    }

    /// Writes a certificate for `localhost` and its key.
    fn issue(&self, dir: &Path) -> TlsFiles {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        let files = TlsFiles {
            certificate: dir.join("tls.pem"),
            key: dir.join("tls.key"),
        };
        std::fs::write(&files.certificate, leaf.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// Two people at two servers, their clients, and a room of both.
pub(super) struct Pair {
    pub(super) alice: Person,
    pub(super) bob: Person,
    pub(super) a: Client,
    pub(super) b: Client,
    pub(super) room: ConversationId,
}

impl Net {
    /// Prepares servers `a`, `b`, `c`... and starts them.
    pub(super) async fn start(count: usize) -> Self {
        let mut net = Self::prepare(count);
        for n in 0..count {
            net.up(n).await;
        }
        net
    }

    /// Keys, cards and configurations of servers that know each other.
    pub(super) fn prepare(count: usize) -> Self {
        Self::prepare_knowing(count, |_, _| true)
    }

    /// The same, of which each has those in its configuration that it `knows`.
    pub(super) fn prepare_knowing(count: usize, knows: impl Fn(usize, usize) -> bool) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut nodes: Vec<Node> = (0..count).map(|n| Node::prepare(temp.path(), n)).collect();
        let peers: Vec<Peer> = nodes.iter().map(Node::as_peer).collect();
        for (n, node) in nodes.iter_mut().enumerate() {
            let others = peers.iter().enumerate();
            let others = others.filter(|(other, _)| *other != n && knows(n, *other));
            node.config.peers = others.map(|(_, peer)| peer.clone()).collect();
        }
        Self { nodes, temp }
    }

    /// Keys and configurations of servers that do not know each other and may be met by name.
    pub(super) fn strangers(count: usize) -> (Self, Authority) {
        let mut net = Self::prepare_knowing(count, |_, _| false);
        let authority = Authority::new(net.root());
        for node in &mut net.nodes {
            node.at_a_name(&authority);
        }
        (net, authority)
    }

    pub(super) fn root(&self) -> &Path {
        self.temp.path()
    }

    pub(super) async fn up(&mut self, n: usize) {
        self.up_with(n, Faults::default()).await;
    }

    pub(super) async fn up_with(&mut self, n: usize, faults: Faults) {
        let node = &mut self.nodes[n];
        let start = Instant::now();
        loop {
            match Server::start(&node.dir, &node.config, faults.clone()).await {
                Ok(server) => break node.server = Some(server),
                // The sockets of a server that stopped are closed, and its last reader of the store
                // lets go, in tasks that end after it: in this process, that is, and in no other.
                Err(
                    error @ (StartError::Links(_)
                    | StartError::Gateway(_)
                    | StartError::Storage {
                        source: comity_storage::OpenError::InUse(_),
                        ..
                    }),
                ) => {
                    assert!(start.elapsed() < PATIENCE, "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(super) async fn down(&mut self, n: usize) {
        self.nodes[n].server.take().unwrap().stop().await.unwrap();
    }

    pub(super) async fn restart(&mut self, n: usize) {
        self.down(n).await;
        self.up(n).await;
    }

    /// Makes an account with one device on a server.
    pub(super) async fn person(&self, n: usize, handle: &str) -> Person {
        self.nodes[n].add_user(handle).await;
        let mut person = Person {
            handle: handle.to_owned(),
            user: UserId::from_bytes([0; 32]),
            device: random_key(),
            node: n,
        };
        person.user = self.enroll(&person).await;
        person
    }

    /// The same person with another device.
    pub(super) async fn another_device(&self, person: &Person) -> Person {
        let person = Person {
            device: random_key(),
            ..person.clone()
        };
        self.enroll(&person).await;
        person
    }

    async fn enroll(&self, person: &Person) -> UserId {
        let node = &self.nodes[person.node];
        let token = node
            .ask(&AdminRequest::Token {
                user: Some(person.handle.clone()),
                uses: 1,
                valid_ms: 60_000,
            })
            .await;
        let body = json!({
            "token": token["token"],
            "device": person.device.public(),
            "device_name": "test",
        });
        let (status, answer) = http(node.http(), "POST", "/v1/enroll", Some(&body)).await;
        assert_eq!(status, 200, "{answer}");
        answer["user"].as_str().unwrap().parse().unwrap()
    }

    pub(super) async fn connect(&self, person: &Person) -> Client {
        self.resume(person, None).await
    }

    /// Opens a session, at a cursor if there is one.
    pub(super) async fn resume(
        &self,
        person: &Person,
        cursor: Option<comity_protocol::session::Cursor>,
    ) -> Client {
        let node = &self.nodes[person.node];
        Client::open(node.http(), node.id, person, cursor)
            .await
            .unwrap()
    }

    /// Alice, at home at the first server, and bob, at the second, in a room of hers, where he has a
    /// role.
    pub(super) async fn pair(&self, bobs: Role) -> Pair {
        let (alice, bob) = (self.person(0, "alice").await, self.person(1, "bob").await);
        self.linked().await;
        let (mut a, mut b) = (self.connect(&alice).await, self.connect(&bob).await);
        let room = a.create().await;
        let address = "bob@b.localhost".into();
        a.ask(Request::Lookup { address }).await.unwrap();
        a.grant(room, bob.user, bobs).await.unwrap();
        b.announced(room).await;
        Pair {
            alice,
            bob,
            a,
            b,
            room,
        }
    }

    /// Waits until each running server is linked with each other one.
    pub(super) async fn linked(&self) {
        let running: Vec<_> = self.nodes.iter().filter(|n| n.server.is_some()).collect();
        until("links", || async {
            running.iter().all(|node| {
                let up = |p: &&Value| p["connected"] == json!(true);
                node.status().peers.iter().filter(up).count() >= running.len() - 1
            })
        })
        .await;
    }
}

fn random_key() -> SecretKey {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    SecretKey::from_seed(*blake3::hash(&[next.as_slice(), b"device"].concat()).as_bytes())
}

impl Node {
    fn prepare(root: &Path, n: usize) -> Self {
        let letter = char::from(b'a' + u8::try_from(n).unwrap());
        let dir = root.join(letter.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let port = free_port();
        let fields = CardFields {
            name: format!("{letter}.localhost").parse().unwrap(),
            addresses: vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1")],
            https: None,
            region: None,
        };
        let keys = ServerKeys::create(&dir, fields.clone(), now()).unwrap();
        let config = Config {
            name: fields.name,
            region: None,
            data: dir.join("data"),
            profile: Profile::Dev,
            listen: Listen {
                https: None,
                http: Some(([127, 0, 0, 1], 0).into()),
                quic: None,
                links: ([127, 0, 0, 1], port).into(),
            },
            tls: None,
            peers: vec![],
            network: Network::default(),
        };
        Self {
            dir,
            config,
            id: keys.server(),
            keys,
            server: None,
        }
    }

    /// Serves HTTPS at a name of its own, with a certificate of this authority, and may be met there.
    fn at_a_name(&mut self, authority: &Authority) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = port.local_addr().unwrap().port();
        self.take_name(&format!("localhost:{port}"), authority);
    }

    /// The same at this name, which may be another server's.
    pub(super) fn take_name(&mut self, name: &str, authority: &Authority) {
        std::fs::remove_dir_all(&self.dir).unwrap();
        std::fs::create_dir_all(&self.dir).unwrap();
        let links = self.config.listen.links.port();
        let fields = CardFields {
            name: name.parse().unwrap(),
            addresses: vec![format!("/ip4/127.0.0.1/udp/{links}/quic-v1")],
            https: None,
            region: None,
        };
        let (_, port) = name.rsplit_once(':').unwrap();
        self.keys = ServerKeys::create(&self.dir, fields.clone(), now()).unwrap();
        self.id = self.keys.server();
        self.config.name = fields.name;
        self.config.listen.https = Some(([127, 0, 0, 1], port.parse().unwrap()).into());
        self.config.tls = Some(authority.issue(&self.dir));
        self.config.network = Network {
            closed: false,
            ca: Some(authority.root.clone()),
            allow: vec!["127.0.0.0/8".to_owned()],
        };
    }

    /// This server as another one's configuration names it.
    pub(super) fn as_peer(&self) -> Peer {
        let port = self.config.listen.links.port();
        Peer {
            card: self.keys.cards.to_text().unwrap(),
            addresses: vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1")],
        }
    }

    pub(super) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(super) fn take(&mut self) -> Server {
        self.server.take().unwrap()
    }

    pub(super) fn http(&self) -> SocketAddr {
        self.server().addresses().http.unwrap()
    }

    pub(super) fn status(&self) -> comity_node::server::Status {
        self.server().status()
    }

    pub(super) async fn add_user(&self, handle: &str) {
        let request = AdminRequest::AddUser {
            handle: handle.to_owned(),
            password: None,
        };
        self.ask(&request).await;
    }

    /// Asks as the operator.
    pub(super) async fn ask(&self, request: &AdminRequest) -> Value {
        match admin::ask(&self.config.data, request).await.unwrap() {
            AdminReply::Done(value) => value,
            AdminReply::Refused(error) => panic!("{error}"),
        }
    }
}

/// One request over HTTP/1.1; the body of the answer as JSON, or as text in a JSON string.
pub(super) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let body = body.map_or_else(String::new, Value::to_string);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = socket.read_to_end(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let value = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    (status, value)
}
