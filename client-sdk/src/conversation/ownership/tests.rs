//! What the owner's device signs, and what of it nobody has to ask for.

use comity_protocol::{
    commit::RootRef,
    encoding,
    ids::{Blob, Nonce, RootId, ServerId, UserId},
    limits::RECONNECT_MAX_MS,
    role::Role,
    root::{RawRoot, Root, RootSigner},
    session::{Change, Code, NextRoot, Reply, Request, Summary, WireError},
    signing::{self, Domain},
    time::Timestamp,
};
use tokio::time;

use crate::{ErrorKind, Result, testing::*};

fn bob() -> UserId {
    UserId::from_bytes([0xb0; 32])
}

fn servers() -> Vec<ServerId> {
    let mut all = vec![
        SERVER,
        ServerId::from_bytes([0xb1; 32]),
        ServerId::from_bytes([0xb2; 32]),
    ];
    all.sort_unstable();
    all
}

/// Record 1 of the room as its home would give it.
fn record(owner: UserId, stewards: Vec<ServerId>) -> Root {
    Root {
        v: 1,
        n: 1,
        prev: Some(RootId::from_bytes(*ROOM.as_bytes())),
        owner,
        home: SERVER,
        stewards,
        frontier: vec![],
        digest: None,
        nonce: Nonce::from_bytes([4; 16]),
        created_at: Timestamp(1),
    }
}

fn sign(root: &Root) -> Reply {
    Reply::NextRoot(NextRoot::Sign(Blob(encoding::encode(root))))
}

fn stands() -> Reply {
    let id = RootId::from_bytes([6; 32]);
    Reply::NextRoot(NextRoot::Stands(RootRef { n: 1, id }))
}

fn overtaken() -> WireError {
    WireError::new(Code::Overtaken, "more is held")
}

/// The next request, which has to ask for a record: the owner and stewards that it names.
async fn asked(session: &mut Session) -> (u64, Option<UserId>, Option<Vec<ServerId>>) {
    match session.request().await {
        (
            id,
            Request::NextRoot {
                conversation: ROOM,
                owner,
                stewards,
            },
        ) => (id, owner, stewards),
        (_, other) => panic!("{other:?}"),
    }
}

/// The next request, which has to bring `root` signed by Alice's device.
async fn signed(session: &mut Session, alice: &Person, root: &Root) -> u64 {
    let (id, request) = session.request().await;
    let Request::SignRoot {
        conversation: ROOM,
        root:
            RawRoot {
                root: bytes,
                ballot: None,
                signatures,
            },
    } = request
    else {
        panic!("{request:?}");
    };
    assert_eq!(bytes.0, encoding::encode(root));
    let [signature] = &signatures[..] else {
        panic!("{signatures:?}");
    };
    assert_eq!(signature.by, RootSigner::Device(alice.key.public()));
    let (key, hash) = (alice.key.public(), blake3::hash(&bytes.0));
    signing::verify(&key, Domain::Root, hash.as_bytes(), &signature.signature).unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn a_transfer_is_signed_by_the_device_and_again_after_it_was_overtaken() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let (outcome, ()) = tokio::join!(room.transfer_ownership(bob()), async {
        let (id, owner, stewards) = asked(&mut session).await;
        assert_eq!((owner, stewards), (Some(bob()), None));
        let first = record(bob(), servers());
        session.reply(id, sign(&first)).await;
        let id = signed(&mut session, &home.alice, &first).await;
        session.refuse(id, overtaken()).await;
        let (id, owner, _) = asked(&mut session).await;
        assert_eq!(owner, Some(bob()));
        let second = Root {
            nonce: Nonce::from_bytes([5; 16]),
            ..first
        };
        session.reply(id, sign(&second)).await;
        let id = signed(&mut session, &home.alice, &second).await;
        session.reply(id, stands()).await;
    });
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_is_overtaken_each_time_is_told_so() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let mut tries = 0;
    let answering = async {
        loop {
            let (id, ..) = asked(&mut session).await;
            tries += 1;
            session.refuse(id, overtaken()).await;
        }
    };
    let outcome = tokio::select! {
        outcome = room.set_stewards(None) => outcome,
        () = answering => unreachable!(),
    };
    assert_eq!(outcome.unwrap_err().code(), Code::Overtaken.as_str());
    assert_eq!(tries, 1 + super::SIGNED_MAX);
}

#[tokio::test(start_paused = true)]
async fn stewards_are_named_in_order_and_once_each_and_what_stands_is_not_signed() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let mut named = servers();
    named.reverse();
    named.push(SERVER);
    let (outcome, ()) = tokio::join!(room.set_stewards(Some(named)), async {
        let (id, owner, stewards) = asked(&mut session).await;
        assert_eq!((owner, stewards), (None, Some(servers())));
        session.reply(id, stands()).await;
    });
    outcome.unwrap();
    let (outcome, ()) = tokio::join!(room.set_stewards(Some(vec![SERVER])), async {
        let (id, ..) = asked(&mut session).await;
        let root = record(home.alice.user(), vec![SERVER]);
        session.reply(id, sign(&root)).await;
        let id = signed(&mut session, &home.alice, &root).await;
        session.reply(id, stands()).await;
    });
    outcome.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_says_something_else_is_not_signed() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let alice = home.alice.user();
    let right = record(alice, vec![SERVER]);
    let elsewhere = RootId::from_bytes([9; 32]);
    let lies = [
        Root {
            owner: bob(),
            ..right.clone()
        },
        Root {
            stewards: servers(),
            ..right.clone()
        },
        Root {
            prev: Some(elsewhere),
            ..right.clone()
        },
        Root { n: 0, ..right },
    ];
    let lies = lies.iter().map(sign);
    let none = Reply::NextRoot(NextRoot::Sign(Blob(vec![1, 2, 3])));
    for lie in lies.chain([none]) {
        let (outcome, ()): (Result<()>, ()) =
            tokio::join!(room.set_stewards(Some(vec![SERVER])), async {
                let (id, ..) = asked(&mut session).await;
                session.reply(id, lie).await;
            });
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Protocol);
    }
}

fn told(role: Role, names_stewards: bool) -> Vec<Change> {
    let summary = Summary {
        role,
        names_stewards,
        ..summary(None)
    };
    vec![Change::Conversation(Box::new(summary))]
}

/// Nothing is asked for a long time.
async fn nothing_is_asked(session: &mut Session) {
    let long = time::Duration::from_millis(10 * RECONNECT_MAX_MS);
    let request = time::timeout(long, session.request()).await;
    assert!(request.is_err(), "{request:?}");
}

#[tokio::test(start_paused = true)]
async fn the_usual_stewards_are_named_without_being_asked_once_the_home_wants_it() {
    let mut home = Home::new();
    let (_client, mut session) = home.connect().await;
    nothing_is_asked(&mut session).await;
    session.update(1, told(Role::Owner, true)).await;
    let (id, owner, stewards) = asked(&mut session).await;
    assert_eq!((owner, stewards), (None, None));
    let root = record(home.alice.user(), servers());
    session.reply(id, sign(&root)).await;
    let id = signed(&mut session, &home.alice, &root).await;
    session.reply(id, stands()).await;
    nothing_is_asked(&mut session).await;
    // Neither what is done nor what another owns.
    session.update(2, told(Role::Owner, false)).await;
    session.update(3, told(Role::Admin, true)).await;
    nothing_is_asked(&mut session).await;
}

#[tokio::test(start_paused = true)]
async fn stewards_that_could_not_be_named_are_named_when_the_home_says_so_again_and_not_before() {
    let mut home = Home::new();
    let (_client, mut session) = home.connect().await;
    session.update(1, told(Role::Owner, true)).await;
    let (id, ..) = asked(&mut session).await;
    let text = "stewards do not answer";
    let unreachable = WireError::new(Code::Unreachable, text);
    session.refuse(id, unreachable).await;
    nothing_is_asked(&mut session).await;
    session.update(2, told(Role::Owner, true)).await;
    let (id, ..) = asked(&mut session).await;
    session.reply(id, stands()).await;
    nothing_is_asked(&mut session).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_names_nobody() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    session.update(1, told(Role::Owner, true)).await;
    asked(&mut session).await;
    drop(client);
    session.ended().await;
}
