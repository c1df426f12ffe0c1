//! Finding and reaching a home server over real sockets: HTTP, WebSocket and QUIC on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "network/home.rs"]
mod home;

use comity_sdk::{Client, ConnectionState, ConversationId, ErrorKind, Transport, Via};
use home::{Home, Setup};

fn via(client: &Client) -> Via {
    match client.connection() {
        ConnectionState::Online { via } => via,
        other => panic!("{other}"),
    }
}

async fn talk(client: &Client) {
    let room = client.conversation(ConversationId::from_bytes([1; 32]));
    let sent: Vec<_> = {
        let mut sent = vec![];
        for n in 0..100 {
            sent.push(
                room.send(format!("{n} {}", "x".repeat(2_000)))
                    .await
                    .unwrap(),
            );
        }
        sent
    };
    for handle in sent {
        handle.accepted().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_finds_the_server_signs_in_and_talks_over_quic() {
    let home = Home::start(Setup::default()).await;
    let client = home
        .client()
        .token("t")
        .ca(home.ca())
        .connect()
        .await
        .unwrap();
    assert_eq!(via(&client), Via::Quic);
    talk(&client).await;
    client.close().await.unwrap();
    assert_eq!(home.asked("/v1/enroll"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_carries_the_same_session_plain_and_encrypted() {
    for https in [false, true] {
        let home = Home::start(Setup {
            https,
            ..Setup::default()
        })
        .await;
        let builder = home.client().password("p").ca(home.ca());
        let client = builder
            .transport(Transport::WebSocket)
            .connect()
            .await
            .unwrap();
        assert_eq!(via(&client), Via::WebSocket);
        talk(&client).await;
        client.close().await.unwrap();
        assert_eq!(home.asked("/v1/sign-in"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_quic_costs_one_wait_and_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::start(Setup {
        swallow_quic: true,
        ..Setup::default()
    })
    .await;
    let client = home.client().token("t").ca(home.ca()).store(dir.path());
    let client = client.connect().await.unwrap();
    assert_eq!(via(&client), Via::WebSocket);
    client.close().await.unwrap();
    let swallowed = home.swallowed();
    assert!(swallowed > 0);
    // The device is stored: no credentials, no second sign-in.
    let client = home
        .client()
        .ca(home.ca())
        .store(dir.path())
        .connect()
        .await
        .unwrap();
    assert_eq!(via(&client), Via::WebSocket);
    client.close().await.unwrap();
    assert_eq!((home.swallowed(), home.asked("/v1/enroll")), (swallowed, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_nobody_vouches_for_is_refused_on_every_transport() {
    let home = Home::start(Setup {
        https: true,
        ..Setup::default()
    })
    .await;
    let error = home.client().password("p").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
    assert_eq!(home.asked("/v1/sign-in"), 0, "no password left");
    let home = Home::start(Setup::default()).await;
    let builder = home.client().token("t").transport(Transport::Quic);
    let error = builder.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_name_gets_no_password() {
    let home = Home::start(Setup {
        name: "evil.example",
        ..Setup::default()
    })
    .await;
    let error = home.client().password("p").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert_eq!(home.asked("/v1/sign-in"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sign_in_says_why_and_a_lost_answer_is_asked_for_again_by_the_same_device() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::start(Setup {
        sign_in_failures: 2,
        ..Setup::default()
    })
    .await;
    let connect = || {
        home.client()
            .token("t")
            .ca(home.ca())
            .store(dir.path())
            .connect()
    };
    let error = connect().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Auth, "invalid_token")
    );
    // The second answer is cut off after the server took the device.
    assert_eq!(connect().await.unwrap_err().kind(), ErrorKind::Offline);
    connect().await.unwrap().close().await.unwrap();
    let devices = home.devices();
    assert_eq!(devices.len(), 3);
    assert!(devices.iter().all(|device| *device == devices[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_or_a_server_the_error_says_so() {
    let home = Home::start(Setup::default()).await;
    let error = home.client().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    let nobody = Client::builder("alice@eu.example").password("p");
    let error = nobody.server("127.0.0.1:1").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Offline, "{error:?}");
    let error = Client::builder("alice").connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_device_may_start_without_a_network() {
    let dir = tempfile::tempdir().unwrap();
    let room = ConversationId::from_bytes([1; 32]);
    let home = Home::start(Setup::default()).await;
    let builder = || home.client().ca(home.ca()).store(dir.path());
    builder()
        .token("t")
        .connect()
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let offline = home.client().server("127.0.0.1:1").store(dir.path());
    let client = offline.offline_ok(true).connect().await.unwrap();
    let sent = client
        .conversation(room)
        .send("later")
        .await
        .unwrap()
        .event_id();
    client.close().await.unwrap_err();
    let client = builder().connect().await.unwrap();
    for waiting in client.pending() {
        waiting.accepted().await.unwrap();
    }
    client.close().await.unwrap();
    assert_eq!(home.accepted().last(), Some(&sent));
}
