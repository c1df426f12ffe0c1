//! Starting with a bad configuration, and stopping in good order.

use std::time::Duration;

use comity_protocol::session::{Code, Reply, Request, ServerFrame};

use super::{
    LOOPBACK, Server, certificate,
    client::{Client, Way, lookup},
    fake::Fake,
    until, within,
};
use crate::gateway::{Config, Gateways, StartError, Stopped};

#[tokio::test]
async fn stopping_answers_what_is_under_way_and_says_bye() {
    let server = Server::start();
    let mut clients = Vec::new();
    for way in Way::ALL {
        let mut client = Client::open(&server, way, "quiet").await;
        let asked = client.send(lookup("hold")).await;
        clients.push((client, asked));
    }
    let idle = Client::connect(&server, Way::Quic).await;
    until("all are under way", || server.home.begun() == 5).await;
    let metrics = server.gateways.metrics();
    until("the silent one is there", || metrics.sessions() >= 5).await;
    let Server { gateways, home, .. } = server;
    let stopping = gateways.stopping.clone();
    let stop = tokio::spawn(gateways.stop(Duration::from_secs(30)));
    within("the stop begins", stopping.cancelled()).await;
    drop(idle);
    assert!(!stop.is_finished(), "requests are still under way");
    home.0.hold.add_permits(5);
    for (client, asked) in &mut clients {
        assert_eq!(client.answer_to(*asked).await, Ok(Reply::Pong));
        assert_eq!(client.bye().await.code, Code::Stopping);
    }
    let Stopped { sessions, cut } = within("the stop", stop).await.unwrap();
    assert!(sessions >= 5);
    assert_eq!(cut, 0);
    assert_eq!((metrics.sessions(), metrics.connections()), (0, 0));
    assert_eq!(metrics.closed(Code::Stopping), 5);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut_off() {
    let server = Server::start();
    let mut clients = Vec::new();
    for way in Way::ALL {
        let mut client = Client::open(&server, way, "quiet").await;
        client.send(lookup("hold")).await;
        clients.push(client);
    }
    until("all are under way", || server.home.begun() == 5).await;
    let metrics = server.gateways.metrics();
    let stopped = server.gateways.stop(Duration::from_millis(50));
    let Stopped { sessions, cut } = within("the stop", stopped).await;
    assert_eq!((sessions, cut), (5, 5));
    assert_eq!((metrics.sessions(), metrics.connections()), (0, 0));
    for client in &mut clients {
        assert_eq!(client.read().await, None);
    }
}

#[tokio::test]
async fn nobody_is_let_in_once_stopping_began() {
    let server = Server::start();
    let mut held = Client::open(&server, Way::Quic, "quiet").await;
    let asked = held.send(lookup("hold")).await;
    until("it is under way", || server.home.begun() == 1).await;
    server.gateways.stopping.cancel();
    for way in Way::ALL {
        if matches!(way, Way::Quic) {
            continue;
        }
        assert!(Client::try_connect(&server, way).await.is_err(), "{way:?}");
    }
    server.home.0.hold.add_permits(1);
    assert_eq!(held.answer_to(asked).await, Ok(Reply::Pong));
    assert!(matches!(held.read().await, Some(ServerFrame::Bye(_))));
}

#[tokio::test]
async fn a_configuration_that_would_be_unsafe_or_useless_does_not_start() {
    let tls = certificate().0;
    let start = |config: Config| Gateways::start(&config, Fake::default()).unwrap_err();
    let open: std::net::SocketAddr = "0.0.0.0:0".parse().unwrap();
    let http = |addr, development| Config {
        http: Some(addr),
        development,
        ..Config::default()
    };
    let error = start(http(LOOPBACK, false));
    assert!(
        matches!(error, StartError::PlainHttpNotDevelopment(_)),
        "{error}"
    );
    let error = start(http(open, true));
    assert!(
        matches!(error, StartError::PlainHttpNotLoopback(_)),
        "{error}"
    );
    let error = start(Config::default());
    assert!(matches!(error, StartError::NoAddress), "{error}");
    for (quic, https) in [(Some(LOOPBACK), None), (None, Some(LOOPBACK))] {
        let config = Config {
            quic,
            https,
            ..Config::default()
        };
        let error = start(config);
        assert!(matches!(error, StartError::NoCertificate(_)), "{error}");
    }
    let server = Server::start();
    for (quic, https) in [
        (server.gateways.quic_addr, None),
        (None, server.gateways.https_addr),
    ] {
        let config = Config {
            quic,
            https,
            tls: Some(tls.clone()),
            ..Config::default()
        };
        let error = start(config);
        let addr = quic.or(https).unwrap().to_string();
        assert!(matches!(error, StartError::Bind { .. }), "{error}");
        assert!(error.to_string().contains(&addr), "{error}");
    }
    let mut client = Client::open(&server, Way::Quic, "quiet").await;
    assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
}
