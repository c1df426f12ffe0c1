//! What every transport and both codecs have in common, over loopback.

use comity_protocol::{
    event::RawEvent,
    ids::{Blob, Signature},
    session::{Code, Reply, Request, ServerFrame},
};

use super::{
    Server,
    client::{Client, Way, lookup},
    fake::SERVER,
    until,
};

#[tokio::test]
async fn every_transport_and_codec_carries_a_session() {
    let server = Server::start();
    for way in Way::ALL {
        let mut client = Client::connect(&server, way).await;
        let welcome = client.hello("one").await.unwrap();
        assert_eq!((welcome.handle.as_str(), welcome.reset), ("alice", false));
        assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
        let Ok(Reply::LookedUp(found)) = client.ask(lookup("bob")).await else {
            panic!("{way:?}");
        };
        assert_eq!((found.handle.as_str(), found.home), ("bob", SERVER));
        let busy = client.ask(lookup("busy")).await.unwrap_err();
        assert_eq!(busy.code, Code::Busy);
        let huge = client.ask(lookup("huge")).await.unwrap_err();
        assert_eq!(huge.code, Code::TooLarge);
        if client.updates.is_empty() {
            let update = client.read().await.unwrap();
            client.updates.push(update);
        }
        assert!(
            matches!(client.updates[..], [ServerFrame::Update { .. }]),
            "{way:?}"
        );
    }
}

#[tokio::test]
async fn sends_reach_the_home_in_the_order_received() {
    const SENDS: u64 = 1_000;
    let server = Server::start();
    for way in [Way::Quic, Way::Plain(comity_protocol::session::Codec::Json)] {
        server.home.0.sent.lock().unwrap().clear();
        let mut client = Client::open(&server, way, "quiet").await;
        let mut asked = Vec::new();
        for n in 0..SENDS {
            let event = RawEvent {
                event: Blob(n.to_be_bytes().to_vec()),
                signature: Signature::from_bytes([0; 64]),
            };
            let content = None;
            asked.push(client.send(Request::Send { event, content }).await);
        }
        let mut answered = Vec::new();
        while answered.len() < asked.len() {
            match client.read().await {
                Some(ServerFrame::Response { id, .. }) => answered.push(id),
                other => panic!("{other:?}"),
            }
        }
        let sent = server.home.0.sent.lock().unwrap().clone();
        let in_order: Vec<_> = (0..SENDS).map(|n| n.to_be_bytes().to_vec()).collect();
        assert_eq!(sent, in_order);
        assert_ne!(
            answered, asked,
            "answers overtake each other, so the order was tested"
        );
        answered.sort_unstable();
        assert_eq!(answered, asked);
    }
}

#[tokio::test]
async fn two_hundred_sessions_come_and_go_without_a_trace() {
    let server = Server::start();
    let metrics = server.gateways.metrics();
    let tasks = server.gateways.tasks.len();
    for round in 0..10 {
        let mut clients = Vec::new();
        for way in Way::ALL.iter().cycle().take(20) {
            let mut client = Client::open(&server, *way, "one").await;
            assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
            clients.push(client);
        }
        assert_eq!(metrics.sessions(), 20);
        // Half of them say goodbye, the others just vanish.
        for client in clients.iter_mut().step_by(2) {
            client.end_sending().await;
        }
        drop(clients);
        until("no session is left", || metrics.sessions() == 0).await;
        assert_eq!(metrics.left() + metrics.lost(), (round + 1) * 20);
    }
    until("no connection is left", || metrics.connections() == 0).await;
    until("no task is left", || server.gateways.tasks.len() == tasks).await;
    let streams = &server.home.0.streams;
    assert_eq!(streams.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(
        metrics.left() >= 100,
        "{} left in good order",
        metrics.left()
    );
}

#[tokio::test]
async fn further_streams_are_refused_and_the_session_goes_on() {
    let server = Server::start();
    let mut client = Client::open(&server, Way::Quic, "quiet").await;
    let connection = client.connection().clone();
    for _ in 0..20 {
        let (mut send, mut recv) = super::within("a stream", connection.open_bi())
            .await
            .unwrap();
        send.write_all(b"x").await.unwrap();
        let read = recv.read(&mut [0]).await;
        assert!(matches!(read, Err(quinn::ReadError::Reset(_))), "{read:?}");
    }
    assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
}

#[tokio::test]
async fn a_replaced_certificate_serves_new_connections_and_old_ones_go_on() {
    let mut server = Server::start();
    let ways = [
        Way::Quic,
        Way::Secure(comity_protocol::session::Codec::Cbor),
    ];
    let mut before = Vec::new();
    for way in ways {
        before.push(Client::open(&server, way, "quiet").await);
    }
    let (tls, trusted) = super::certificate();
    server.gateways.replace_certificate(&tls);
    for way in ways {
        assert!(
            Client::try_connect(&server, way).await.is_err(),
            "{way:?}: the old one"
        );
    }
    server.trusted = trusted;
    for way in ways {
        Client::open(&server, way, "quiet").await;
    }
    for client in &mut before {
        assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
    }
}
