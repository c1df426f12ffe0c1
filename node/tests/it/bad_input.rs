//! What a client may send wrong: each has its code, and its neighbours go on.

use comity_node::admin::AdminRequest;
use comity_protocol::{
    encoding,
    event::{Act, RawEvent},
    ids::{Blob, ConversationId, EventId, Signature},
    limits::CONTENT_BYTES_MAX,
    role::Role,
    root::direct_conversation,
    session::{Anchor, Code, Request, WireError},
};

use super::{
    client::{Client, content, reference, send, send_raw},
    net::{Net, until},
};

struct Table {
    net: Net,
    client: Client,
    conversation: ConversationId,
}

async fn table() -> Table {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let conversation = client.create().await;
    Table {
        net,
        client,
        conversation,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_event_has_its_code_and_what_follows_in_the_session_is_accepted() {
    let Table {
        net: _net,
        mut client,
        conversation,
    } = table().await;
    let (good, text) = client.message(conversation, "good");
    let bytes = good.bytes().to_vec();
    let signature = good.to_raw().signature;
    let raw = |event: Vec<u8>| RawEvent {
        event: Blob(event),
        signature,
    };
    let body = Some(text.bytes().to_vec());
    let mut wrong: Vec<(&str, Request, Code)> = vec![];
    let mut add = |what, request, code| wrong.push((what, request, code));

    let long = vec![0; CONTENT_BYTES_MAX + 1];
    let act = |content| Act::Message { content };
    let oversize = client.sign(conversation, Role::Member, act(reference(&[0; 16])));
    add(
        "content of 65,537 bytes",
        send_raw(oversize.to_raw(), Some(long.clone())),
        Code::TooLarge,
    );
    add(
        "event of 65,537 bytes",
        send_raw(raw(long), None),
        Code::TooLarge,
    );
    add(
        "truncated",
        send_raw(raw(bytes[..bytes.len() - 1].to_vec()), body.clone()),
        Code::Malformed,
    );
    let trailing = [bytes.as_slice(), &[0]].concat();
    add(
        "trailing byte",
        send_raw(raw(trailing), body.clone()),
        Code::Malformed,
    );
    // The map's head says how many pairs follow in one byte; here it takes two.
    assert_eq!(bytes[0] & 0xe0, 0xa0, "a map of few pairs");
    let padded = [&[0xb8, bytes[0] & 0x1f], &bytes[1..]].concat();
    add(
        "not canonical",
        send_raw(raw(padded), body.clone()),
        Code::Malformed,
    );
    let at = bytes.windows(3).position(|w| w == [0x61, b'v', 1]).unwrap();
    let mut version = bytes.clone();
    version[at + 2] = 2;
    add(
        "unknown version",
        send_raw(raw(version), body.clone()),
        Code::UnknownVersion,
    );
    let mut unsigned = good.to_raw();
    unsigned.signature = Signature::from_bytes([7; 64]);
    add(
        "wrong signature",
        send_raw(unsigned, body.clone()),
        Code::WrongSignature,
    );
    let mut foreign = client.event(conversation, Role::Member, act(text.reference()));
    foreign.author = comity_protocol::ids::UserId::from_bytes([9; 32]);
    let foreign = foreign.sign(&client.person.device);
    add(
        "foreign author",
        send(&foreign, Some(&text)),
        Code::ForeignAuthor,
    );
    let (event, _) = client.message(conversation, "another");
    add(
        "content mismatch",
        send(&event, Some(&content("not it"))),
        Code::ContentMismatch,
    );
    add("no content", send(&event, None), Code::ContentMismatch);
    let junk = vec![0xff; 10];
    let named = client.sign(conversation, Role::Member, act(reference(&junk)));
    add(
        "a content that is none",
        send_raw(named.to_raw(), Some(junk)),
        Code::Malformed,
    );
    let (nowhere, text) = client.message(ConversationId::from_bytes([3; 32]), "lost");
    add(
        "unknown conversation",
        send(&nowhere, Some(&text)),
        Code::NotFound,
    );
    let target = EventId::from_bytes([4; 32]);
    let ghost = client.sign(conversation, Role::Moderator, Act::Delete { target });
    add("unknown target", send(&ghost, None), Code::NotFound);
    let too_high = client.sign(conversation, Role::None, Act::Delete { target });
    add("no claim", send(&too_high, None), Code::NotFound);

    let mut expected = vec![];
    for (what, request, code) in wrong {
        assert_eq!(client.refusal(request).await, code, "{what}");
        expected.push(what);
        client.say(conversation, what).await;
    }
    assert_eq!(client.texts(conversation).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_bad_event_in_it_loses_only_that_one() {
    let Table {
        net: _net,
        mut client,
        conversation,
    } = table().await;
    let mut ids = vec![];
    for n in 0..10 {
        let (event, text) = client.message(conversation, &format!("{n}"));
        let mut raw = event.to_raw();
        if n == 3 {
            raw.signature = Signature::from_bytes([0; 64]);
        }
        let request = send_raw(raw, Some(text.bytes().to_vec()));
        ids.push(client.start(request).await);
    }
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(client.answer(id).await.is_err(), n == 3, "{n}");
    }
    assert_eq!(client.texts(conversation).await.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn to_whoever_is_no_member_a_conversation_is_not_there() {
    let Table {
        net,
        client: _owner,
        conversation,
    } = table().await;
    let mallory = net.person(0, "mallory").await;
    let mut client = net.connect(&mallory).await;
    let other = ConversationId::from_bytes([5; 32]);
    for conversation in [conversation, other] {
        let (after, limit) = (None, 10);
        let requests = [
            Request::Members {
                conversation,
                after,
                limit,
            },
            Request::History {
                conversation,
                anchor: Anchor::Newest,
                limit,
            },
            Request::Item {
                conversation,
                event: EventId::from_bytes([1; 32]),
            },
            Request::Grantee {
                conversation,
                user: None,
            },
            Request::Grantee {
                conversation,
                user: Some(mallory.user),
            },
            Request::Delivery {
                conversation,
                event: EventId::from_bytes([1; 32]),
            },
        ];
        for request in requests {
            let shown = format!("{request:?}");
            assert_eq!(client.refusal(request).await, Code::NotFound, "{shown}");
        }
    }
    let (event, text) = client.message(conversation, "hello?");
    let code = client.refusal(send(&event, Some(&text))).await;
    assert!(matches!(code, Code::NotMember | Code::NotFound), "{code}");
    assert!(client.conversations().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_conversation_of_others_is_not_there_either() {
    let net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let mallory = net.person(0, "mallory").await;
    let mut client = net.connect(&alice).await;
    let conversation = client.direct(bob.user).await.unwrap();
    assert_eq!(conversation, direct_conversation(&alice.user, &bob.user));
    client.say(conversation, "between us").await;
    let mut client = net.connect(&mallory).await;
    let page = client.page(conversation, Anchor::Newest, 10).await;
    assert_eq!(page.unwrap_err().code, Code::NotFound);
    let (event, text) = client.message(conversation, "hello?");
    assert!(client.send(&event, Some(&text)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_cut_off_at_once_and_does_not_get_in_again() {
    let Table {
        net,
        mut client,
        conversation,
    } = table().await;
    let phone = net.another_device(&client.person).await;
    let mut lost = net.connect(&phone).await;
    lost.say(conversation, "from the phone").await;
    let revoke = AdminRequest::Revoke {
        handle: "alice".into(),
        device: phone.device.public(),
    };
    net.nodes[0].ask(&revoke).await;
    assert_eq!(lost.end().await.code, Code::UnknownDevice);
    let node = &net.nodes[0];
    let again = Client::open(node.http(), node.id, &phone, None).await;
    assert_eq!(again.err().map(|e| e.code), Some(Code::UnknownDevice));
    // Nor does another session speak for it.
    let (event, text) = lost.message(conversation, "still me");
    assert_eq!(
        client.refusal(send(&event, Some(&text))).await,
        Code::UnknownDevice
    );
    client.say(conversation, "from the desk").await;
    assert_eq!(
        client.texts(conversation).await,
        ["from the phone", "from the desk"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_and_a_wrong_signature_get_the_same_answer() {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let node = &net.nodes[0];
    let mut nobody = alice.clone();
    nobody.user = comity_protocol::ids::UserId::from_bytes([1; 32]);
    let mut thief = alice.clone();
    thief.device = comity_protocol::signing::SecretKey::from_seed([1; 32]);
    let mut errors = vec![];
    for person in [&nobody, &thief] {
        let refused = Client::open(node.http(), node.id, person, None).await;
        errors.push(refused.err().unwrap());
    }
    assert_eq!(errors[0], errors[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_none_are_refused_and_the_server_goes_on() {
    let Table {
        net,
        mut client,
        conversation,
    } = table().await;
    for bytes in [
        vec![],
        vec![0xff; 40],
        vec![0; 100_000],
        b"{\"id\":1}".to_vec(),
    ] {
        let mut hostile = net.connect(&client.person).await;
        hostile.raw(bytes).await;
        // Either an answer that says so or the end of the session; never silence.
        let (ping, _) = (hostile.ask(Request::Ping).await, ());
        if let Err(WireError { code, .. }) = ping {
            assert_eq!(code, Code::Malformed);
        }
        client.say(conversation, "undisturbed").await;
    }
    let mut deep = vec![0x81; 50_000];
    deep.push(0);
    let mut hostile = net.connect(&client.person).await;
    hostile.raw(deep).await;
    let mut big = net.connect(&client.person).await;
    big.raw(vec![0xa0; 2 * 1024 * 1024]).await;
    let _ = big.end().await;
    client.say(conversation, "undisturbed").await;
    drop((hostile, big));
    let hashes = encoding::encode(&vec![0u8; 4]);
    client.raw(hashes).await;
    until("sessions of the hostile are gone", || async {
        net.nodes[0].status().sessions <= 2
    })
    .await;
}
