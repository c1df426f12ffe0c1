//! A session over WebSocket, frame by frame.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use comity_protocol::{
    encoding,
    event::{Act, Content, ContentRef, Event, Grant, RawEvent, SealedContent, SignedEvent, Target},
    ids::{Blob, ConversationId, EventId, Nonce, Salt, ServerId, UserId},
    limits::SESSION_FRAME_BYTES_MAX,
    role::Role,
    root::{Genesis, Root},
    session::{
        Accepted, Anchor, Change, ClientFrame, Code, ContentState, Cursor, Grantee, Hello, Item,
        Page, Reply, Request, SUBPROTOCOL_CBOR, ServerFrame, Summary, Welcome, WireError,
        session_message,
    },
    signing::Domain,
    time::Timestamp,
};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::net::{PATIENCE, Person, now};

/// An open session.
pub(super) struct Client {
    socket: WebSocketStream<TcpStream>,
    pub(super) person: Person,
    pub(super) server: ServerId,
    next_id: u64,
    answers: BTreeMap<u64, Result<Reply, WireError>>,
    /// Changes that came and were not looked at.
    pub(super) changes: VecDeque<Change>,
    /// The newest cursor.
    pub(super) cursor: Cursor,
    pub(super) welcome: Option<Welcome>,
    pub(super) bye: Option<WireError>,
    /// The connection is gone.
    pub(super) closed: bool,
}

pub(super) fn nonce() -> Nonce {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    nonce[8..].copy_from_slice(&now().0.to_be_bytes());
    Nonce::from_bytes(nonce)
}

pub(super) fn content(text: &str) -> SealedContent {
    let salt = Salt::from_bytes(*nonce().as_bytes());
    SealedContent::seal(&Content::text(salt, text)).unwrap()
}

/// The text of an item as it reads now.
pub(super) fn text_of(item: &Item) -> Option<String> {
    let state = item.edited.as_ref().map_or(&item.content, |e| &e.content);
    let ContentState::Held(bytes) = state else {
        return None;
    };
    let sealed = SealedContent::open(bytes.0.clone()).unwrap();
    Some(sealed.content().text.clone())
}

pub(super) fn id_of(item: &Item) -> EventId {
    SignedEvent::verify(item.event.clone()).unwrap().id()
}

impl Client {
    pub(super) async fn open(
        address: SocketAddr,
        server: ServerId,
        person: &Person,
        cursor: Option<Cursor>,
    ) -> Result<Self, WireError> {
        let mut client = Self::connect(address, server, person).await;
        client.hello(cursor).await?;
        Ok(client)
    }

    /// Connects without saying anything.
    pub(super) async fn connect(address: SocketAddr, server: ServerId, person: &Person) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let mut request = "ws://localhost/ws".into_client_request().unwrap();
        let protocol = SUBPROTOCOL_CBOR.parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let (socket, _) = client_async(request, tcp).await.unwrap();
        Self {
            socket,
            person: person.clone(),
            server,
            next_id: 1,
            answers: BTreeMap::new(),
            changes: VecDeque::new(),
            cursor: Cursor(Blob(vec![])),
            welcome: None,
            bye: None,
            closed: false,
        }
    }

    pub(super) async fn hello(&mut self, cursor: Option<Cursor>) -> Result<(), WireError> {
        let Reply::Challenge(challenge) = self.ask(Request::Begin { version: 1 }).await? else {
            panic!("a challenge answers");
        };
        let bytes: [u8; 32] = challenge.challenge.0.try_into().unwrap();
        let message = session_message(&bytes, &challenge.server, &self.person.user);
        let hello = Hello {
            user: self.person.user,
            device: self.person.device.public(),
            signature: self.person.device.sign(Domain::Session, &message),
            cursor,
            client: "test/1".into(),
        };
        let Reply::Welcome(welcome) = self.ask(Request::Hello(hello)).await? else {
            panic!("a welcome answers");
        };
        self.cursor = welcome.cursor.clone();
        self.welcome = Some(welcome);
        Ok(())
    }

    /// Sends a request without waiting; gives its id.
    pub(super) async fn start(&mut self, request: Request) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let frame = encoding::encode(&ClientFrame { id, request });
        self.socket
            .send(Message::Binary(frame.into()))
            .await
            .unwrap();
        id
    }

    /// Puts bytes on the wire as they are.
    pub(super) async fn raw(&mut self, bytes: Vec<u8>) {
        let _ = self.socket.send(Message::Binary(bytes.into())).await;
    }

    /// Takes in one frame.
    async fn read(&mut self) {
        let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
        let bytes = match next.expect("a frame comes") {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Close(_)) | Err(_)) | None => {
                self.closed = true;
                return;
            }
            Some(Ok(_)) => return,
        };
        match encoding::decode_frame(&bytes, SESSION_FRAME_BYTES_MAX).unwrap() {
            ServerFrame::Response { id, reply } => drop(self.answers.insert(id, Ok(*reply))),
            ServerFrame::Refused { id, error } => drop(self.answers.insert(id, Err(error))),
            ServerFrame::Update { cursor, changes } => {
                self.changes.extend(changes);
                if let Some(cursor) = cursor {
                    self.cursor = cursor;
                }
            }
            ServerFrame::Bye(error) => self.bye = Some(error),
        }
    }

    /// The answer to a request; the end of the session counts as one.
    pub(super) async fn answer(&mut self, id: u64) -> Result<Reply, WireError> {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            if self.closed {
                let bye = self.bye.clone();
                return Err(bye.unwrap_or_else(|| WireError::new(Code::Silent, "closed")));
            }
            self.read().await;
        }
    }

    pub(super) async fn ask(&mut self, request: Request) -> Result<Reply, WireError> {
        let id = self.start(request).await;
        self.answer(id).await
    }

    /// The code that a request is refused with.
    pub(super) async fn refusal(&mut self, request: Request) -> Code {
        match self.ask(request).await {
            Ok(reply) => panic!("not refused: {reply:?}"),
            Err(error) => error.code,
        }
    }

    /// Reads until a change is what is looked for; those before are given up.
    pub(super) async fn change<T>(&mut self, mut wanted: impl FnMut(&Change) -> Option<T>) -> T {
        loop {
            while let Some(change) = self.changes.pop_front() {
                if let Some(found) = wanted(&change) {
                    return found;
                }
            }
            assert!(!self.closed, "closed: {:?}", self.bye);
            self.read().await;
        }
    }

    /// Reads until the session ends.
    pub(super) async fn end(&mut self) -> WireError {
        while !self.closed {
            self.read().await;
        }
        let bye = self.bye.clone();
        bye.unwrap_or_else(|| WireError::new(Code::Silent, "closed without a word"))
    }

    /// Takes in everything that was sent before now: a ping comes back behind it.
    pub(super) async fn settle(&mut self) {
        self.ask(Request::Ping).await.unwrap();
    }

    /// The next line that appears with a text.
    pub(super) async fn line(&mut self, conversation: ConversationId) -> (EventId, String) {
        self.change(|change| match change {
            Change::Appeared {
                conversation: of,
                item,
            } if *of == conversation => Some((id_of(item), text_of(item)?)),
            _ => None,
        })
        .await
    }

    /// Waits for a conversation to be announced.
    pub(super) async fn announced(&mut self, conversation: ConversationId) -> Summary {
        self.change(|change| match change {
            Change::Conversation(summary) if summary.conversation == conversation => {
                Some((**summary).clone())
            }
            _ => None,
        })
        .await
    }

    pub(super) fn event(&self, conversation: ConversationId, claims: Role, act: Act) -> Event {
        Event {
            conversation,
            author: self.person.user,
            device: self.person.device.public(),
            nonce: nonce(),
            claims,
            act,
            sent_at: now(),
        }
    }

    pub(super) fn sign(&self, conversation: ConversationId, claims: Role, act: Act) -> SignedEvent {
        self.event(conversation, claims, act)
            .sign(&self.person.device)
    }

    /// A message, signed.
    pub(super) fn message(
        &self,
        conversation: ConversationId,
        text: &str,
    ) -> (SignedEvent, SealedContent) {
        let sealed = content(text);
        let act = Act::Message {
            content: sealed.reference(),
        };
        (self.sign(conversation, Role::Member, act), sealed)
    }

    pub(super) async fn send(
        &mut self,
        event: &SignedEvent,
        content: Option<&SealedContent>,
    ) -> Result<Accepted, WireError> {
        match self.ask(send(event, content)).await? {
            Reply::Accepted(accepted) => Ok(accepted),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn say(&mut self, conversation: ConversationId, text: &str) -> EventId {
        let (event, content) = self.message(conversation, text);
        self.send(&event, Some(&content)).await.unwrap().event
    }

    pub(super) async fn act(
        &mut self,
        conversation: ConversationId,
        claims: Role,
        act: Act,
    ) -> Result<EventId, WireError> {
        let event = self.sign(conversation, claims, act);
        Ok(self.send(&event, None).await?.event)
    }

    pub(super) async fn edit(
        &mut self,
        conversation: ConversationId,
        target: EventId,
        text: &str,
    ) -> Result<EventId, WireError> {
        let sealed = content(text);
        let act = Act::Edit {
            target,
            content: sealed.reference(),
        };
        let event = self.sign(conversation, Role::Member, act);
        Ok(self.send(&event, Some(&sealed)).await?.event)
    }

    /// Record 0 of a group of this user's.
    pub(super) fn root(&self) -> Genesis {
        let root = Root {
            v: 1,
            n: 0,
            prev: None,
            owner: self.person.user,
            home: self.server,
            stewards: vec![self.server],
            frontier: vec![],
            digest: None,
            nonce: nonce(),
            created_at: Timestamp(1),
        };
        Genesis::sign(root, &self.person.device)
    }

    pub(super) async fn create(&mut self) -> ConversationId {
        let root = self.root();
        let raw = root.raw().clone();
        match self.ask(Request::Create { root: raw }).await.unwrap() {
            Reply::Conversation(summary) => assert_eq!(summary.conversation, root.conversation()),
            other => panic!("{other:?}"),
        }
        root.conversation()
    }

    pub(super) async fn direct(&mut self, user: UserId) -> Result<ConversationId, WireError> {
        match self.ask(Request::OpenDirect { user }).await? {
            Reply::Conversation(summary) => Ok(summary.conversation),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn grantee(
        &mut self,
        conversation: ConversationId,
        user: UserId,
    ) -> Result<Grantee, WireError> {
        let user = Some(user);
        match self.ask(Request::Grantee { conversation, user }).await? {
            Reply::Grantee(grantee) => Ok(grantee),
            other => panic!("{other:?}"),
        }
    }

    /// Gives somebody a role, `None` removes; with the user's home as it is known.
    pub(super) async fn grant(
        &mut self,
        conversation: ConversationId,
        user: UserId,
        role: Role,
    ) -> Result<EventId, WireError> {
        let known = self.grantee(conversation, user).await?;
        let lowers = role < known.role;
        let grant = Grant {
            target: Target::User {
                user,
                home: known.home.unwrap_or(self.server),
            },
            role,
            cut: if lowers { known.cut } else { vec![] },
            ban: false,
            lifts: if lowers { vec![] } else { known.bans },
        };
        let claims = if lowers {
            known.own_role
        } else {
            Role::try_from(u8::from(role) + 1).unwrap()
        };
        self.act(conversation, claims, Act::Grant(grant)).await
    }

    /// Gives somebody a role who is not known here yet but by his home.
    pub(super) async fn grant_at(
        &mut self,
        conversation: ConversationId,
        user: UserId,
        home: ServerId,
        role: Role,
    ) -> Result<EventId, WireError> {
        let grant = Grant {
            target: Target::User { user, home },
            role,
            cut: vec![],
            ban: false,
            lifts: vec![],
        };
        let claims = Role::try_from(u8::from(role) + 1).unwrap();
        self.act(conversation, claims, Act::Grant(grant)).await
    }

    pub(super) async fn leave(&mut self, conversation: ConversationId) {
        let own = self.grantee(conversation, self.person.user).await.unwrap();
        let act = Act::Leave { cut: own.cut };
        self.act(conversation, Role::None, act).await.unwrap();
    }

    pub(super) async fn page(
        &mut self,
        conversation: ConversationId,
        anchor: Anchor,
        limit: u32,
    ) -> Result<Page, WireError> {
        let request = Request::History {
            conversation,
            anchor,
            limit,
        };
        match self.ask(request).await? {
            Reply::Page(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    /// The whole history, oldest first.
    pub(super) async fn history(&mut self, conversation: ConversationId) -> Vec<Item> {
        let (mut items, mut anchor) = (vec![], Anchor::Oldest);
        loop {
            let page = self.page(conversation, anchor, 100).await.unwrap();
            items.extend(page.items);
            match page.next {
                Some(place) if !page.complete => anchor = Anchor::After(place),
                _ => return items,
            }
        }
    }

    /// Texts of the history, in order.
    pub(super) async fn texts(&mut self, conversation: ConversationId) -> Vec<String> {
        let items = self.history(conversation).await;
        items.iter().filter_map(text_of).collect()
    }

    pub(super) async fn conversations(&mut self) -> Vec<Summary> {
        let (offset, limit) = (0, 500);
        match self.ask(Request::Conversations { offset, limit }).await {
            Ok(Reply::Conversations { summaries, .. }) => summaries,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn send(event: &SignedEvent, content: Option<&SealedContent>) -> Request {
    Request::Send {
        event: event.to_raw(),
        content: content.map(|sealed| Blob(sealed.bytes().to_vec())),
    }
}

pub(super) fn send_raw(event: RawEvent, content: Option<Vec<u8>>) -> Request {
    Request::Send {
        event,
        content: content.map(Blob),
    }
}

/// A reference to bytes, which need not be a content.
pub(super) fn reference(bytes: &[u8]) -> ContentRef {
    ContentRef {
        hash: comity_protocol::ids::ContentHash::from_bytes(*blake3::hash(bytes).as_bytes()),
        len: u32::try_from(bytes.len()).unwrap(),
    }
}
