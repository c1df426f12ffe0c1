//! `session.json`: every frame between client and server in both forms, cursors, the bytes that a
//! device signs, and the error codes.

use std::collections::BTreeSet;

use comity_protocol::{
    authority::Cause,
    commit::RootRef,
    encoding,
    event::{Act, Content, Event, RawEvent, SealedContent, Tip},
    ids::{
        Blob, CommitId, ConversationId, DeviceKey, EventId, Nonce, RootId, Salt, ServerId,
        Signature, UserId,
    },
    role::Role,
    root::{Genesis, RawRoot, Root},
    session::{
        Accepted, Anchor, Challenge, Change, ClientFrame, Code, ContentState, Cursor, CursorState,
        CursorVerdict, Edited, FrameBuffer, Grantee, Hello, Item, LookedUp, Member, NextRoot,
        OwnEvent, Page, Place, Reaction, Reply, Request, ServerFrame, StateField, Summary,
        VoidItem, Welcome, WireError, frame_bytes, session_message,
    },
    signing::{Domain, SecretKey, verify},
    time::{Hlc, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::vectors::{self, Frame, frame_vector, hex, tag, unhex};

const FILE: &str = "session.json";
const CURSOR_KEY: [u8; 32] = [0x77; 32];

#[derive(Deserialize, Serialize)]
struct File {
    client: Vec<Frame<ClientFrame>>,
    server: Vec<Frame<ServerFrame>>,
    /// The first two frames of `client` as they go on a QUIC stream.
    stream: String,
    hello: HelloVector,
    cursors: Vec<CursorVector>,
    places: Vec<PlaceVector>,
    codes: Vec<CodeVector>,
}

#[derive(Deserialize, Serialize)]
struct HelloVector {
    device_seed: String,
    challenge: String,
    server: ServerId,
    user: UserId,
    message: String,
    signature: Signature,
}

#[derive(Deserialize, Serialize)]
struct CursorVector {
    about: String,
    key: String,
    server: ServerId,
    incarnation: String,
    newest: u64,
    cursor: String,
    /// Absent: reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resume_after: Option<u64>,
}

#[derive(Deserialize, Serialize)]
struct PlaceVector {
    place: Place,
    key: String,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct CodeVector {
    code: Code,
    retryable: bool,
}

const CONVERSATION: ConversationId = ConversationId::from_bytes([1; 32]);
const USER: UserId = UserId::from_bytes([2; 32]);
const SERVER: ServerId = ServerId::from_bytes([3; 32]);
const EVENT: EventId = EventId::from_bytes([4; 32]);
const PLACE: Place = Place {
    hlc: Hlc::from_bits((1_700_000_000_000 << 16) | 5),
    commit: CommitId::from_bytes([5; 32]),
    index: 3,
};

fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

fn content() -> SealedContent {
    SealedContent::seal(&Content::text(Salt::from_bytes([0x5a; 16]), "hello")).unwrap()
}

fn event(act: Act) -> RawEvent {
    let event = Event {
        conversation: CONVERSATION,
        author: USER,
        device: key().public(),
        nonce: Nonce::from_bytes([6; 16]),
        claims: Role::Member,
        act,
        sent_at: Timestamp(1_700_000_000_000),
    };
    event.sign(&key()).to_raw()
}

fn message() -> RawEvent {
    event(Act::Message {
        content: content().reference(),
    })
}

fn root() -> RawRoot {
    let root = Root {
        v: 1,
        n: 0,
        prev: None,
        owner: USER,
        home: SERVER,
        stewards: vec![SERVER],
        frontier: vec![],
        digest: None,
        nonce: Nonce::from_bytes([6; 16]),
        created_at: Timestamp(1_700_000_000_000),
    };
    Genesis::sign(root, &key()).raw().clone()
}

fn hello() -> HelloVector {
    let challenge = [0xc1; 32];
    let message = session_message(&challenge, &SERVER, &USER);
    HelloVector {
        device_seed: hex([7; 32]),
        challenge: hex(challenge),
        server: SERVER,
        user: USER,
        signature: key().sign(Domain::Session, &message),
        message: hex(message),
    }
}

fn cursor(position: u64) -> Cursor {
    at(position).seal(&CURSOR_KEY)
}

fn at(position: u64) -> CursorState {
    CursorState {
        server: SERVER,
        incarnation: [8; 16],
        position,
    }
}

fn requests() -> Vec<Request> {
    let device: DeviceKey = key().public();
    let hello = |cursor| {
        Request::Hello(Hello {
            user: USER,
            device,
            signature: hello().signature,
            cursor,
            client: "example/1.0".to_owned(),
        })
    };
    let history = |anchor| Request::History {
        conversation: CONVERSATION,
        anchor,
        limit: 50,
    };
    let grantee = |user| Request::Grantee {
        conversation: CONVERSATION,
        user,
    };
    vec![
        Request::Begin { version: 1 },
        hello(None),
        hello(Some(cursor(40))),
        Request::Ping,
        Request::Send {
            event: message(),
            content: Some(Blob(content().bytes().to_vec())),
        },
        Request::Send {
            event: event(Act::Delete { target: EVENT }),
            content: None,
        },
        Request::Create { root: root() },
        Request::OpenDirect { user: USER },
        Request::Conversations {
            offset: 0,
            limit: 20,
        },
        Request::Members {
            conversation: CONVERSATION,
            after: Some(USER),
            limit: 500,
        },
        history(Anchor::Newest),
        history(Anchor::Oldest),
        history(Anchor::Before(PLACE)),
        history(Anchor::After(PLACE)),
        Request::Item {
            conversation: CONVERSATION,
            event: EVENT,
        },
        Request::Own {
            conversation: CONVERSATION,
            event: EVENT,
        },
        Request::State {
            conversation: CONVERSATION,
            after: Some("title".to_owned()),
            limit: 100,
        },
        Request::Identity { user: USER },
        Request::Lookup {
            address: "alice@acme.example".to_owned(),
        },
        grantee(Some(USER)),
        grantee(None),
        Request::Delivery {
            conversation: CONVERSATION,
            event: EVENT,
        },
        Request::NextRoot {
            conversation: CONVERSATION,
            owner: Some(USER),
            stewards: Some(vec![SERVER]),
        },
        Request::NextRoot {
            conversation: CONVERSATION,
            owner: None,
            stewards: None,
        },
        Request::SignRoot {
            conversation: CONVERSATION,
            root: root(),
        },
        Request::Voided {
            conversation: CONVERSATION,
            after: Some(PLACE),
            limit: 100,
        },
    ]
}

fn plain_item() -> Item {
    Item {
        place: PLACE,
        origin: SERVER,
        event: message(),
        content: ContentState::Held(Blob(content().bytes().to_vec())),
        edited: None,
        lost: vec![],
        deleted: None,
        reactions: vec![],
        late: false,
        folded: false,
    }
}

fn rich_item() -> Item {
    Item {
        content: ContentState::Missing,
        edited: Some(Edited {
            event: event(Act::Edit {
                target: EVENT,
                content: content().reference(),
            }),
            content: ContentState::Held(Blob(content().bytes().to_vec())),
        }),
        lost: vec![EVENT],
        reactions: vec![Reaction {
            emoji: "👍".to_owned(),
            users: vec![USER],
            count: 1,
            older: vec![USER],
        }],
        late: true,
        ..plain_item()
    }
}

fn deleted_item() -> Item {
    Item {
        content: ContentState::Gone,
        deleted: Some(EVENT),
        ..plain_item()
    }
}

fn expired_item() -> Item {
    Item {
        content: ContentState::Expired,
        folded: true,
        ..plain_item()
    }
}

fn summary() -> Summary {
    Summary {
        conversation: CONVERSATION,
        direct: false,
        title: Some("Lobby".to_owned()),
        topic: None,
        role: Role::Owner,
        members: 2,
        servers: vec![SERVER],
        newest: Some(PLACE),
        changed_at: Timestamp(1_700_000_000_000),
        names_stewards: false,
    }
}

fn replies() -> Vec<Reply> {
    let member = |handle: Option<&str>| Member {
        user: USER,
        role: Role::Member,
        home: SERVER,
        handle: handle.map(str::to_owned),
        name: handle.map(|_| "Alice A.".to_owned()),
    };
    vec![
        Reply::Challenge(Challenge {
            challenge: Blob(vec![0xc1; 32]),
            server: SERVER,
            name: "acme.example".to_owned(),
        }),
        Reply::Welcome(Welcome {
            cursor: cursor(40),
            reset: false,
            handle: "alice".to_owned(),
            now: Timestamp(1_700_000_000_000),
        }),
        Reply::Pong,
        Reply::Accepted(Accepted {
            event: EVENT,
            place: PLACE,
        }),
        Reply::Conversation(Box::new(summary())),
        Reply::Conversations {
            summaries: vec![summary()],
            complete: true,
        },
        Reply::Members {
            members: vec![member(Some("alice")), member(None)],
            complete: false,
        },
        Reply::Page(Page {
            items: vec![plain_item(), rich_item(), deleted_item(), expired_item()],
            complete: false,
            next: Some(PLACE),
        }),
        Reply::Page(Page {
            items: vec![],
            complete: true,
            next: None,
        }),
        Reply::Item(Box::new(plain_item())),
        Reply::Own(OwnEvent {
            event: message(),
            content: ContentState::Held(Blob(content().bytes().to_vec())),
            void: Some("removed".to_owned()),
        }),
        Reply::Own(OwnEvent {
            event: event(Act::Edit {
                target: EVENT,
                content: content().reference(),
            }),
            content: ContentState::Gone,
            void: None,
        }),
        Reply::State {
            fields: vec![StateField {
                field: "topic".to_owned(),
                item: plain_item(),
            }],
            complete: true,
        },
        Reply::Identity {
            entries: vec![Blob(vec![0xa0])],
        },
        Reply::LookedUp(LookedUp {
            user: USER,
            home: SERVER,
            handle: "alice".to_owned(),
        }),
        Reply::Grantee(Grantee {
            role: Role::Member,
            own_role: Role::Admin,
            home: Some(SERVER),
            cut: vec![Tip {
                home: SERVER,
                epoch: 1,
                seq: 41,
                id: CommitId::from_bytes([5; 32]),
            }],
            bans: vec![EVENT],
        }),
        Reply::Delivery {
            replicated: 1,
            of: 2,
            waiting: vec![SERVER],
        },
        Reply::NextRoot(NextRoot::Sign(root().root)),
        Reply::NextRoot(NextRoot::Stands(RootRef {
            n: 1,
            id: RootId::from_bytes([6; 32]),
        })),
        Reply::Voided {
            items: vec![VoidItem {
                place: PLACE,
                event: plain_item().event,
                content: ContentState::Withheld,
                reason: "removed".to_owned(),
                by: EVENT,
            }],
            next: Some(PLACE),
        },
    ]
}

fn changes() -> Vec<Change> {
    let conversation = CONVERSATION;
    vec![
        Change::Appeared {
            conversation,
            item: Box::new(plain_item()),
        },
        Change::Changed {
            conversation,
            item: Box::new(rich_item()),
        },
        Change::Vanished {
            conversation,
            event: EVENT,
            reason: "removed".to_owned(),
            by: Some(Cause {
                event: EVENT,
                author: USER,
            }),
        },
        Change::Stands {
            conversation,
            event: EVENT,
        },
        Change::Conversation(Box::new(summary())),
        Change::Left {
            conversation,
            by: Some(Cause {
                event: EVENT,
                author: USER,
            }),
        },
        Change::Delivery {
            conversation,
            event: EVENT,
            replicated: 1,
            of: 2,
        },
        Change::Gap { conversation },
    ]
}

fn client_frames() -> Vec<ClientFrame> {
    (1..)
        .zip(requests())
        .map(|(id, request)| ClientFrame { id, request })
        .collect()
}

fn server_frames() -> Vec<ServerFrame> {
    let error = |code, retry_after_ms| WireError {
        code,
        message: "what happened and what to do".to_owned(),
        retry_after_ms,
    };
    let response = |(id, reply)| ServerFrame::Response {
        id,
        reply: Box::new(reply),
    };
    let mut frames: Vec<_> = (1..).zip(replies()).map(response).collect();
    frames.push(ServerFrame::Refused {
        id: 99,
        error: error(Code::NotFound, None),
    });
    frames.push(ServerFrame::Update {
        cursor: Some(cursor(41)),
        changes: changes(),
    });
    frames.push(ServerFrame::Update {
        cursor: None,
        changes: changes().split_off(5),
    });
    frames.push(ServerFrame::Bye(error(Code::Busy, Some(1_000))));
    frames
}

fn about_client(frame: &ClientFrame) -> String {
    tag(&frame.request)
}

fn about_server(frame: &ServerFrame) -> String {
    match frame {
        ServerFrame::Response { reply, .. } => format!("response {}", tag(reply)),
        other => tag(other),
    }
}

fn stream() -> String {
    let two = client_frames().into_iter().take(2);
    two.map(|frame| hex(frame_bytes(&frame).unwrap())).collect()
}

fn cursors() -> Vec<CursorVector> {
    let mut touched = cursor(40);
    touched.0.0[0] ^= 1;
    let other_key = at(40).seal(&[0x78; 32]);
    let other_store = CursorState {
        incarnation: [9; 16],
        ..at(40)
    };
    let case = |about: &str, cursor: &Cursor| CursorVector {
        about: about.to_owned(),
        key: hex(CURSOR_KEY),
        server: SERVER,
        incarnation: hex([8; 16]),
        newest: 100,
        cursor: hex(&cursor.0),
        resume_after: match at(100).judge(&CURSOR_KEY, cursor) {
            CursorVerdict::Resume(position) => Some(position),
            CursorVerdict::Reset => None,
        },
    };
    vec![
        case("behind", &cursor(40)),
        case("at the newest", &cursor(100)),
        case("ahead of the store", &cursor(101)),
        case("of another store", &other_store.seal(&CURSOR_KEY)),
        case("made with another key", &other_key),
        case("touched", &touched),
        case("too short", &Cursor(Blob(vec![1, 2, 3]))),
    ]
}

fn codes() -> Vec<CodeVector> {
    let vector = |code: &Code| CodeVector {
        code: *code,
        retryable: code.is_retryable(),
    };
    Code::ALL.iter().map(vector).collect()
}

#[test]
fn session_json_is_what_this_program_makes() {
    let client = client_frames();
    let server = server_frames();
    let file = File {
        client: client
            .into_iter()
            .map(|frame| frame_vector(about_client(&frame), frame))
            .collect(),
        server: server
            .into_iter()
            .map(|frame| frame_vector(about_server(&frame), frame))
            .collect(),
        stream: stream(),
        hello: hello(),
        cursors: cursors(),
        places: vec![PlaceVector {
            place: PLACE,
            key: hex(PLACE.to_key()),
        }],
        codes: codes(),
    };
    vectors::compare_or_write(FILE, &file);
}

#[test]
fn session_json_is_read_as_it_says() {
    let file: File = vectors::read(FILE);
    file.client.iter().for_each(Frame::check);
    file.server.iter().for_each(Frame::check);
    let mut buffer = FrameBuffer::default();
    buffer.push(&unhex(&file.stream));
    for frame in &file.client[..2] {
        let read: ClientFrame = buffer.next_frame().unwrap().unwrap();
        assert_eq!(read, frame.json);
    }
    let hello = &file.hello;
    let challenge: [u8; 32] = unhex(&hello.challenge).try_into().unwrap();
    let message = session_message(&challenge, &hello.server, &hello.user);
    assert_eq!(hex(&message), hello.message);
    let device = SecretKey::from_seed(unhex(&hello.device_seed).try_into().unwrap());
    verify(
        &device.public(),
        Domain::Session,
        &message,
        &hello.signature,
    )
    .unwrap();
    for case in &file.cursors {
        let store = CursorState {
            server: case.server,
            incarnation: unhex(&case.incarnation).try_into().unwrap(),
            position: case.newest,
        };
        let key = unhex(&case.key).try_into().unwrap();
        let verdict = store.judge(&key, &Cursor(Blob(unhex(&case.cursor))));
        let expected = case
            .resume_after
            .map_or(CursorVerdict::Reset, CursorVerdict::Resume);
        assert_eq!(verdict, expected, "{}", case.about);
    }
    for vector in &file.places {
        assert_eq!(Place::from_key(&unhex(&vector.key)), Some(vector.place));
    }
    assert_eq!(file.codes, codes());
}

#[test]
fn every_form_of_frame_has_a_vector() {
    let file: File = vectors::read(FILE);
    let names = |frames: Vec<String>| -> BTreeSet<String> { frames.into_iter().collect() };
    let requests = names(file.client.iter().map(|f| about_client(&f.json)).collect());
    // Exhaustive, so that a new request or reply cannot be left out here by mistake.
    let request = |request: &Request| match request {
        Request::Begin { .. }
        | Request::Hello(_)
        | Request::Ping
        | Request::Send { .. }
        | Request::Create { .. }
        | Request::OpenDirect { .. }
        | Request::Conversations { .. }
        | Request::Members { .. }
        | Request::History { .. }
        | Request::Item { .. }
        | Request::Own { .. }
        | Request::State { .. }
        | Request::Identity { .. }
        | Request::Lookup { .. }
        | Request::Grantee { .. }
        | Request::Delivery { .. }
        | Request::NextRoot { .. }
        | Request::SignRoot { .. }
        | Request::Voided { .. } => 19,
    };
    assert_eq!(requests.len(), request(&Request::Ping), "{requests:?}");
    let reply = |reply: &Reply| match reply {
        Reply::Challenge(_)
        | Reply::Welcome(_)
        | Reply::Pong
        | Reply::Accepted(_)
        | Reply::Conversation(_)
        | Reply::Conversations { .. }
        | Reply::Members { .. }
        | Reply::Page(_)
        | Reply::Item(_)
        | Reply::Own(_)
        | Reply::State { .. }
        | Reply::Identity { .. }
        | Reply::LookedUp(_)
        | Reply::Grantee(_)
        | Reply::Delivery { .. }
        | Reply::NextRoot(_)
        | Reply::Voided { .. } => 17,
    };
    let frames = names(file.server.iter().map(|f| about_server(&f.json)).collect());
    let others = |frame: &ServerFrame| match frame {
        ServerFrame::Response { .. }
        | ServerFrame::Refused { .. }
        | ServerFrame::Update { .. }
        | ServerFrame::Bye(_) => 3,
    };
    let bye = ServerFrame::Bye(WireError::new(Code::Busy, ""));
    assert_eq!(
        frames.len(),
        reply(&Reply::Pong) + others(&bye),
        "{frames:?}"
    );
    let told = file.server.iter().filter_map(|frame| match &frame.json {
        ServerFrame::Update { changes, .. } => Some(changes),
        _ => None,
    });
    let told: BTreeSet<String> = told.flatten().map(tag).collect();
    let change = |change: &Change| match change {
        Change::Appeared { .. }
        | Change::Changed { .. }
        | Change::Vanished { .. }
        | Change::Stands { .. }
        | Change::Conversation(_)
        | Change::Left { .. }
        | Change::Delivery { .. }
        | Change::Gap { .. } => 8,
    };
    let gap = Change::Gap {
        conversation: CONVERSATION,
    };
    assert_eq!(told.len(), change(&gap), "{told:?}");
}

#[test]
fn a_frame_with_a_field_too_much_is_refused_in_both_forms() {
    let text = r#"{"id":1,"request":{"begin":{"version":1,"extra":2}}}"#;
    assert!(serde_json::from_str::<ClientFrame>(text).is_err());
    // The same, in DAG-CBOR.
    let bytes = unhex("a2626964016772657175657374a165626567696ea2656578747261026776657273696f6e01");
    assert!(encoding::decode_frame::<ClientFrame>(&bytes, 1_024).is_err());
}
