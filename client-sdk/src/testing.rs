//! A home server played by the test: frames over memory, people with real keys and identity logs.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use comity_protocol::{
    encoding,
    event::{Act, Content, Event, SealedContent, SignedEvent},
    identity::{Genesis, IdentityLog, Op, Signer, home_key},
    ids::{Blob, CommitId, ConversationId, EventId, Nonce, Salt, ServerId, UserId},
    role::Role,
    session::{
        Accepted, Challenge, Change, ClientFrame, ContentState, Cursor, FrameBuffer, Hello, Item,
        Place, Reply, Request, ServerFrame, Summary, Welcome, WireError, frame_bytes,
        session_message,
    },
    signing::{self, Domain, SecretKey},
    time::{Hlc, Timestamp},
};
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time,
};

use crate::{
    Client,
    builder::{first_session, start},
    client::Me,
    error::{Error, ErrorKind, Result},
    events::{Event as Told, Events, Via},
    store::Store,
    transport::{Dial, Dialed, StreamLink},
};

pub(crate) const SERVER: ServerId = ServerId::from_bytes([0x5e; 32]);
pub(crate) const ROOM: ConversationId = ConversationId::from_bytes([0xc0; 32]);
const WIRE_BYTES: usize = 256 * 1024;

/// A user with one device.
pub(crate) struct Person {
    pub(crate) log: IdentityLog,
    pub(crate) key: SecretKey,
}

impl Person {
    pub(crate) fn new(number: u8) -> Self {
        let nonce = Nonce::from_bytes([number; 16]);
        let home = home_key(&SecretKey::from_seed([0xee; 32]), &nonce);
        let genesis = Genesis {
            handle: format!("user{number}").parse().unwrap(),
            home: SERVER,
            home_key: home.public(),
            recovery: None,
            nonce,
        };
        let key = SecretKey::from_seed([number; 32]);
        let mut log = IdentityLog::genesis(genesis, Timestamp(1), &home);
        let op = Op::AddDevice {
            device: key.public(),
            name: "test".to_owned(),
        };
        let entry = log.next(op, Timestamp(2), Signer::Home, &home).unwrap();
        log.extend(&entry).unwrap();
        Self { log, key }
    }

    /// The same user, signed in with one more device, which speaks from here on.
    pub(crate) fn with_another_device(mut self) -> Self {
        let home = home_key(&SecretKey::from_seed([0xee; 32]), self.log.nonce());
        self.key = SecretKey::from_seed([0xdd; 32]);
        let op = Op::AddDevice {
            device: self.key.public(),
            name: "another".to_owned(),
        };
        let entry = self.log.next(op, Timestamp(3), Signer::Home, &home);
        self.log.extend(&entry.unwrap()).unwrap();
        self
    }

    pub(crate) fn user(&self) -> UserId {
        self.log.user()
    }

    pub(crate) fn entries(&self) -> Reply {
        let entries = self.log.entries().map(|e| Blob(encoding::encode(e)));
        Reply::Identity {
            entries: entries.collect(),
        }
    }

    pub(crate) fn sign(&self, number: u64, act: Act) -> SignedEvent {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        let event = Event {
            conversation: ROOM,
            author: self.user(),
            device: self.key.public(),
            nonce: Nonce::from_bytes(nonce),
            claims: Role::Member,
            act,
            sent_at: Timestamp(number),
        };
        event.sign(&self.key)
    }

    /// A message as the server shows it.
    pub(crate) fn says(&self, number: u64, text: &str) -> Item {
        let sealed = sealed(text);
        let act = Act::Message {
            content: sealed.reference(),
        };
        item(number, &self.sign(number, act), Some(&sealed))
    }
}

pub(crate) fn sealed(text: &str) -> SealedContent {
    SealedContent::seal(&Content::text(Salt::from_bytes([7; 16]), text)).unwrap()
}

pub(crate) fn item(number: u64, signed: &SignedEvent, content: Option<&SealedContent>) -> Item {
    Item {
        place: place(number),
        origin: SERVER,
        event: signed.to_raw(),
        content: content.map_or(ContentState::None, |c| {
            ContentState::Held(Blob(c.bytes().to_vec()))
        }),
        edited: None,
        deleted: None,
        lost: vec![],
        reactions: vec![],
        late: false,
        folded: false,
    }
}

pub(crate) fn place(number: u64) -> Place {
    Place {
        hlc: Hlc::new(Timestamp(number), 0),
        commit: CommitId::from_bytes([1; 32]),
        index: 0,
    }
}

pub(crate) fn appeared(item: &Item) -> Change {
    Change::Appeared {
        conversation: ROOM,
        item: Box::new(item.clone()),
    }
}

pub(crate) fn appeared_in(conversation: ConversationId, item: &Item) -> Change {
    Change::Appeared {
        conversation,
        item: Box::new(item.clone()),
    }
}

pub(crate) fn changed(item: &Item) -> Change {
    Change::Changed {
        conversation: ROOM,
        item: Box::new(item.clone()),
    }
}

pub(crate) fn summary(newest: Option<u64>) -> Summary {
    Summary {
        conversation: ROOM,
        direct: false,
        title: None,
        topic: None,
        role: Role::Owner,
        members: 2,
        servers: vec![SERVER],
        newest: newest.map(place),
        changed_at: Timestamp(newest.unwrap_or(0)),
        names_stewards: false,
    }
}

pub(crate) fn cursor(n: u8) -> Cursor {
    Cursor(Blob(vec![n]))
}

/// The client's side of the wire.
#[derive(Debug)]
struct Wire {
    links: mpsc::UnboundedSender<DuplexStream>,
    down: Arc<AtomicBool>,
}

impl Dial for Wire {
    fn dial(&mut self) -> BoxFuture<'_, Result<Dialed>> {
        let (ours, theirs) = tokio::io::duplex(WIRE_BYTES);
        let refused = self.down.load(Ordering::Relaxed) || self.links.send(theirs).is_err();
        async move {
            if refused {
                return Err(Error::new(ErrorKind::Offline, "connection refused"));
            }
            Ok(Dialed {
                link: Box::new(StreamLink::new(ours, ())),
                via: Via::Memory,
            })
        }
        .boxed()
    }
}

/// Where clients connect to.
pub(crate) struct Home {
    links: mpsc::UnboundedReceiver<DuplexStream>,
    to_links: mpsc::UnboundedSender<DuplexStream>,
    pub(crate) down: Arc<AtomicBool>,
    pub(crate) alice: Person,
    /// Cursors that clients resumed with.
    pub(crate) resumed: Mutex<Vec<Option<Cursor>>>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let (to_links, links) = mpsc::unbounded_channel();
        Self {
            links,
            to_links,
            down: Arc::default(),
            alice: Person::new(1),
            resumed: Mutex::default(),
        }
    }

    /// Starts Alice's client without waiting for a session.
    pub(crate) fn start(&self, store: Store) -> Client {
        let me = Me {
            address: "user1@eu.example".to_owned(),
            user: self.alice.user(),
            server: SERVER,
            key: self.alice.key.clone(),
        };
        let wire = Wire {
            links: self.to_links.clone(),
            down: Arc::clone(&self.down),
        };
        start(me, store, Box::new(wire), crate::Verified::default()).unwrap()
    }

    /// Starts Alice's client and opens its first session.
    pub(crate) async fn connect(&mut self) -> (Client, Session) {
        self.connect_with(Store::memory()).await
    }

    pub(crate) async fn connect_with(&mut self, store: Store) -> (Client, Session) {
        let client = self.start(store);
        let session = self.session(false).await;
        first_session(&client).await.unwrap();
        (client, session)
    }

    /// The next connection, before anything was said on it.
    pub(crate) async fn link(&mut self) -> Session {
        Session {
            stream: self.links.recv().await.unwrap(),
            frames: FrameBuffer::default(),
        }
    }

    /// The next connection with its session open. A first session is given the room in the list.
    pub(crate) async fn session(&mut self, reset: bool) -> Session {
        let mut session = self.link().await;
        let cursor_of_client = session.greet(&self.alice, reset).await;
        let first = cursor_of_client.is_none();
        self.resumed.lock().unwrap().push(cursor_of_client);
        if first {
            session.list(vec![summary(None)]).await;
        }
        session
    }
}

/// The server's side of one session.
pub(crate) struct Session {
    stream: DuplexStream,
    frames: FrameBuffer,
}

impl Session {
    /// The next request that is no ping; pings are answered.
    pub(crate) async fn request(&mut self) -> (u64, Request) {
        loop {
            let frame = self.raw_request().await.expect("the client left");
            match frame.request {
                Request::Ping => self.reply(frame.id, Reply::Pong).await,
                request => return (frame.id, request),
            }
        }
    }

    /// The next frame; `None` when the client ended the connection.
    pub(crate) async fn raw_request(&mut self) -> Option<ClientFrame> {
        loop {
            if let Some(frame) = self.frames.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = vec![0; 16 * 1024];
            let n = self.stream.read(&mut buffer).await.unwrap_or(0);
            if n == 0 {
                return None;
            }
            self.frames.push(&buffer[..n]);
        }
    }

    /// The next event sent.
    pub(crate) async fn sent(&mut self) -> (u64, SignedEvent, Option<Blob>) {
        match self.request().await {
            (id, Request::Send { event, content }) => {
                (id, SignedEvent::verify(event).unwrap(), content)
            }
            (_, other) => panic!("{other:?}"),
        }
    }

    /// Takes the next event in, at a place, and gives its text.
    pub(crate) async fn accept(&mut self, number: u64) -> (SignedEvent, String) {
        let (id, signed, content) = self.sent().await;
        self.accepted(id, signed.id(), number).await;
        (signed, text(content))
    }

    pub(crate) async fn accepted(&mut self, id: u64, event: EventId, number: u64) {
        let place = place(number);
        self.reply(id, Reply::Accepted(Accepted { event, place }))
            .await;
    }

    pub(crate) async fn reply(&mut self, id: u64, reply: Reply) {
        let reply = Box::new(reply);
        self.frame(&ServerFrame::Response { id, reply }).await;
    }

    pub(crate) async fn refuse(&mut self, id: u64, error: WireError) {
        self.frame(&ServerFrame::Refused { id, error }).await;
    }

    pub(crate) async fn update(&mut self, at: u8, changes: Vec<Change>) {
        let cursor = Some(cursor(at));
        self.frame(&ServerFrame::Update { cursor, changes }).await;
    }

    pub(crate) async fn bye(&mut self, error: WireError) {
        self.frame(&ServerFrame::Bye(error)).await;
    }

    async fn frame(&mut self, frame: &ServerFrame) {
        let bytes = frame_bytes(frame).unwrap();
        self.bytes(&bytes).await;
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        // The client may have left meanwhile: the test sees that by its next request.
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn challenge(&mut self, server: ServerId) {
        let (id, Request::Begin { version: 1 }) = self.request().await else {
            panic!("a session begins with begin");
        };
        let challenge = Challenge {
            challenge: Blob(vec![9; 32]),
            server,
            name: "eu.example".to_owned(),
        };
        self.reply(id, Reply::Challenge(challenge)).await;
    }

    pub(crate) async fn hello(&mut self, alice: &Person) -> (u64, Hello) {
        let (id, Request::Hello(hello)) = self.request().await else {
            panic!("a challenge is answered by hello");
        };
        assert_eq!(
            (hello.user, hello.device),
            (alice.user(), alice.key.public())
        );
        let message = session_message(&[9; 32], &SERVER, &hello.user);
        signing::verify(&hello.device, Domain::Session, &message, &hello.signature).unwrap();
        (id, hello)
    }

    async fn greet(&mut self, alice: &Person, reset: bool) -> Option<Cursor> {
        self.challenge(SERVER).await;
        let (id, hello) = self.hello(alice).await;
        let welcome = Welcome {
            cursor: hello
                .cursor
                .clone()
                .filter(|_| !reset)
                .unwrap_or(cursor(100)),
            reset,
            handle: "user1".to_owned(),
            now: Timestamp(0),
        };
        self.reply(id, Reply::Welcome(welcome)).await;
        hello.cursor
    }

    /// Answers a request for the list.
    pub(crate) async fn list(&mut self, summaries: Vec<Summary>) {
        let (id, Request::Conversations { offset: 0, .. }) = self.request().await else {
            panic!("the list is asked for");
        };
        let reply = Reply::Conversations {
            summaries,
            complete: true,
        };
        self.reply(id, reply).await;
    }

    /// Answers a request for an identity.
    pub(crate) async fn identify(&mut self, person: &Person) {
        let (id, request) = self.request().await;
        assert_eq!(
            request,
            Request::Identity {
                user: person.user()
            }
        );
        self.reply(id, person.entries()).await;
    }

    /// Waits until the client ends the connection.
    pub(crate) async fn ended(&mut self) {
        while self.raw_request().await.is_some() {}
    }
}

pub(crate) fn text(content: Option<Blob>) -> String {
    let bytes = content.expect("a content").0;
    SealedContent::open(bytes).unwrap().content().text.clone()
}

/// The next event that is neither about the connection nor the list.
pub(crate) async fn next(events: &mut Events) -> Told {
    loop {
        let event = time::timeout(time::Duration::from_secs(3_600), events.next());
        match event
            .await
            .expect("an event within an hour")
            .expect("the stream goes on")
        {
            Told::Connection(_) | Told::ConversationUpdated(_) => {}
            event => return event,
        }
    }
}

/// The next event, which has to be a message.
pub(crate) async fn next_text(events: &mut Events) -> String {
    match next(events).await {
        Told::Message(message) => message.text().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// Lets every task run until nothing is left to do.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
