//! Bad input on every port: each gets its coded answer, and a neighbour notices nothing.

use comity_protocol::{
    encoding,
    limits::SESSION_FRAME_BYTES_MAX,
    session::{ClientFrame, Code, Codec, Reply, Request, ServerFrame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use super::{
    Server,
    client::{Client, QUIC_CLIENT_WINDOW, Way, lookup, sign},
    until, within,
};
use crate::limits::{HANDSHAKE_FRAME_BYTES_MAX, QUIC_SEND_WINDOW, SESSION_OUT_BYTES};

async fn refused(client: &mut Client, asked: u64) -> Code {
    match client.read().await {
        Some(ServerFrame::Refused { id, error }) if id == asked => error.code,
        other => panic!("{other:?}"),
    }
}

fn nested(codec: Codec) -> Vec<u8> {
    let (front, byte): (&[u8], u8) = match codec {
        Codec::Cbor => (b"\xa2\x62id\x18\x4d\x67unknown", 0x81),
        Codec::Json => (br#"{"id": 77, "unknown": "#, b'['),
    };
    let mut bytes = front.to_vec();
    bytes.resize(SESSION_FRAME_BYTES_MAX, byte);
    bytes
}

#[tokio::test]
async fn bad_frames_get_their_code_and_disturb_no_neighbour() {
    let server = Server::start();
    for way in Way::ALL {
        let mut neighbour = Client::open(&server, way, "quiet").await;
        for case in 0..11 {
            bad_frame(&server, way, case).await;
            let answer = neighbour.ask(Request::Ping).await;
            assert_eq!(answer, Ok(Reply::Pong), "{way:?}, case {case}");
        }
    }
}

async fn bad_frame(server: &Server, way: Way, case: u32) {
    let codec = way.codec();
    let mut fresh = Client::connect(server, way).await;
    match case {
        0 => {
            fresh.send(Request::Begin { version: 2 }).await;
            let bye = fresh.bye().await;
            assert_eq!(bye.code, Code::UnknownVersion);
            assert!(bye.message.contains("only 1 is"), "{}", bye.message);
        }
        1 => {
            fresh.send_bytes(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert_eq!(fresh.bye().await.code, Code::Malformed);
        }
        2 => {
            // Before the hello: refused, and the session can still be opened.
            for request in [Request::Ping, lookup("bob")] {
                let error = fresh.ask(request).await.unwrap_err();
                assert_eq!(error.code, Code::Unauthenticated);
            }
            fresh.hello("quiet").await.unwrap();
            assert_eq!(fresh.ask(Request::Ping).await, Ok(Reply::Pong));
        }
        3 => {
            // A hello for another challenge.
            let challenge = fresh.begin().await;
            let mut other = Client::connect(server, way).await;
            other.begin().await;
            let id = other.send(Request::Hello(sign(&challenge, "quiet"))).await;
            assert_eq!(refused(&mut other, id).await, Code::WrongSignature);
            assert_eq!(other.bye().await.code, Code::WrongSignature);
        }
        4 => {
            let hello = sign(&fresh.begin().await, "quiet");
            let mut other = Client::connect(server, way).await;
            let error = other.ask(Request::Hello(hello)).await.unwrap_err();
            assert_eq!(error.code, Code::Unauthenticated);
        }
        5 => {
            // A stranger gets no megabyte. The write may fail: nobody has to read it all.
            let _ = fresh
                .send_bytes(&vec![b' '; 8 * HANDSHAKE_FRAME_BYTES_MAX])
                .await;
            assert_eq!(fresh.bye().await.code, Code::TooLarge);
        }
        _ => {
            fresh.hello("quiet").await.unwrap();
            bad_frame_in_session(&mut fresh, way, codec, case).await;
        }
    }
}

async fn bad_frame_in_session(client: &mut Client, way: Way, codec: Codec, case: u32) {
    let ping = |id| ClientFrame {
        id,
        request: Request::Ping,
    };
    match (case, codec) {
        (6, _) => {
            let sent = client
                .send_bytes(&vec![b' '; 2 * SESSION_FRAME_BYTES_MAX])
                .await;
            // QUIC refuses the rest by its own means; over TCP it is thrown away, as a reset
            // could swallow the bye.
            assert!(
                sent.is_ok() || matches!(way, Way::Quic),
                "{way:?}: {sent:?}"
            );
            assert_eq!(client.bye().await.code, Code::TooLarge);
        }
        (7, _) => {
            // Cut off, or with an unknown request: refused by id where one can be read.
            let bytes = match codec {
                Codec::Cbor => encoding::encode(&ping(77))[..10].to_vec(),
                Codec::Json => br#"{"id": 77, "request": {"fly": 1}}"#.to_vec(),
            };
            client.send_bytes(&bytes).await.unwrap();
            assert_eq!(refused(client, 77).await, Code::Malformed);
            assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
        }
        (8, Codec::Cbor) => {
            // The id takes two bytes where one would do.
            client
                .send_bytes(b"\xa2\x62id\x18\x05\x67request\x64ping")
                .await
                .unwrap();
            assert_eq!(refused(client, 5).await, Code::Malformed);
            assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
        }
        (8, Codec::Json) => {
            client
                .send_bytes(br#"{"id": 5, "request": "ping", "request": "ping"}"#)
                .await
                .unwrap();
            assert_eq!(refused(client, 5).await, Code::Malformed);
            assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
        }
        (9, Codec::Cbor) => {
            client.send_bytes(&nested(codec)).await.unwrap();
            assert_eq!(refused(client, 77).await, Code::Malformed);
            assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
        }
        (9, Codec::Json) => {
            client.send_bytes(&nested(codec)).await.unwrap();
            assert_eq!(client.bye().await.code, Code::Malformed);
        }
        (10, _) => {
            let error = client.ask(Request::Begin { version: 1 }).await.unwrap_err();
            assert_eq!(error.code, Code::Malformed);
            if matches!(way, Way::Quic) {
                client.send_bytes(b"").await.unwrap();
            } else {
                client.send_other_kind().await;
            }
            assert_eq!(client.bye().await.code, Code::Malformed);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn garbage_on_every_port_disturbs_nobody() {
    let server = Server::start();
    let mut neighbours = Vec::new();
    for way in Way::ALL {
        neighbours.push(Client::open(&server, way, "quiet").await);
    }
    let mut random: u64 = 1;
    let mut noise = |len: usize| -> Vec<u8> {
        let next = |_| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            random.to_be_bytes()[0]
        };
        (0..len).map(next).collect()
    };
    let udp = UdpSocket::bind(super::LOOPBACK).await.unwrap();
    for len in [0, 1, 20, 21, 1_199, 1_200, 1_452, 9_000] {
        for first in [0x00, 0x40, 0xc0, 0xd3, 0xff] {
            let mut datagram = noise(len);
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            // As a version 1 initial packet too, which is looked at more closely.
            for version in [None, Some([0, 0, 0, 1])] {
                if let (Some(version), true) = (version, len > 20) {
                    datagram[1..5].copy_from_slice(&version);
                }
                udp.send_to(&datagram, server.gateways.quic_addr.unwrap())
                    .await
                    .unwrap();
            }
        }
    }
    let request = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for addr in [server.gateways.https_addr, server.gateways.http_addr] {
        for bytes in [
            http2.clone(),
            noise(1),
            noise(100_000),
            vec![0; 70_000],
            request.clone(),
            hello.clone(),
        ] {
            let mut tcp = TcpStream::connect(addr.unwrap()).await.unwrap();
            // The server may close before it has read everything.
            let _ = tcp.write_all(&bytes).await;
            let _ = tcp.shutdown().await;
            let mut answer = Vec::new();
            let _ = within("the end of the connection", tcp.read_to_end(&mut answer)).await;
            assert!(!answer.starts_with(b"HTTP/1.1 101"));
        }
    }
    for (client, way) in neighbours.iter_mut().zip(Way::ALL) {
        assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong), "{way:?}");
        Client::open(&server, way, "quiet").await;
    }
    drop(neighbours);
    let metrics = server.gateways.metrics();
    until("nothing is left", || metrics.connections() == 0).await;
    assert!(
        metrics
            .prometheus()
            .contains("comity_gateway_handshakes_failed_total ")
    );
}

#[tokio::test]
async fn ten_thousand_requests_without_reading_cost_a_bounded_buffer() {
    /// Bytes of one batch of the endless updates, at least.
    const BATCH: u64 = 64 * 50;
    let server = Server::start();
    for way in [Way::Quic, Way::Plain(Codec::Cbor), Way::Secure(Codec::Json)] {
        let (begun, pulled) = (server.home.begun(), server.home.pulled());
        let mut neighbour = Client::open(&server, way, "quiet").await;
        let mut deaf = Client::open(&server, way, "endless").await;
        let flood = tokio::spawn(async move {
            for _ in 0..10_000 {
                deaf.send(lookup(&"x".repeat(1_000))).await;
            }
            deaf
        });
        // Each of the neighbour's requests goes through, and the flood comes to a standstill.
        let mut still = 0;
        let mut last = 0;
        while still < 200 {
            assert_eq!(
                neighbour.ask(Request::Ping).await,
                Ok(Reply::Pong),
                "{way:?}"
            );
            let now = server.home.pulled() + server.home.begun();
            still = if now == last { still + 1 } else { 0 };
            last = now;
        }
        let taken = (server.home.pulled() - pulled) * BATCH;
        // What the transport holds is not the gateway's to choose for TCP: the kernel has some
        // megabytes of buffers on both sides. QUIC's windows are.
        let transport = match way {
            Way::Quic => u64::from(QUIC_CLIENT_WINDOW) + QUIC_SEND_WINDOW,
            _ => 16 << 20,
        };
        let bound = transport + 2 * SESSION_OUT_BYTES as u64;
        assert!(
            taken <= bound,
            "{way:?}: {taken} bytes of updates pulled, bound {bound}"
        );
        let begun = server.home.begun() - begun;
        assert!(begun * 1_000 <= bound, "{way:?}: {begun} requests begun");
        flood.abort();
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_are_turned_away_and_room_is_found_again() {
    let server = Server::start_with(|config| config.connections_max = 3);
    let metrics = server.gateways.metrics();
    let ways = [Way::Quic, Way::Plain(Codec::Json), Way::Secure(Codec::Cbor)];
    let mut inside = Vec::new();
    for way in ways {
        inside.push(Client::open(&server, way, "quiet").await);
    }
    for way in ways {
        assert!(Client::try_connect(&server, way).await.is_err(), "{way:?}");
    }
    for client in &mut inside {
        assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
    }
    inside.clear();
    until("room", || metrics.connections() == 0).await;
    for way in ways {
        Client::open(&server, way, "quiet").await;
    }
}

#[tokio::test]
async fn who_connects_and_says_nothing_is_let_go() {
    let server = Server::start();
    let metrics = server.gateways.metrics();
    // Without TLS, with TLS and no request, with half a request, upgraded and silent.
    let mut silent = Vec::new();
    for addr in [
        server.gateways.https_addr,
        server.gateways.http_addr,
        server.gateways.http_addr,
    ] {
        silent.push(TcpStream::connect(addr.unwrap()).await.unwrap());
    }
    silent[2]
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();
    let mut upgraded = Vec::new();
    for way in Way::ALL {
        let mut client = Client::connect(&server, way).await;
        if matches!(way, Way::Quic) {
            // A stream is only seen by the server once something came on it.
            client.begin().await;
        }
        upgraded.push(client);
    }
    until("all are there", || metrics.connections() == 8).await;
    // From here on time passes whenever nobody has anything to do.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    for tcp in &mut silent {
        within("the end", tcp.read_to_end(&mut Vec::new()))
            .await
            .unwrap();
    }
    for client in &mut upgraded {
        assert_eq!(client.bye().await.code, Code::Silent);
    }
    until("no connection is left", || metrics.connections() == 0).await;
    assert!(begun.elapsed().as_secs() <= 12, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_never_reads_is_told_so_even_where_the_stream_is_stuck() {
    let server = Server::start();
    let mut neighbour = Client::open(&server, Way::Quic, "quiet").await;
    let deaf = Client::open(&server, Way::Quic, "endless").await;
    let metrics = server.gateways.metrics();
    // Long enough for the windows to fill, measured in answers to somebody else.
    let (mut still, mut last) = (0, 0);
    while still < 200 {
        assert_eq!(neighbour.ask(Request::Ping).await, Ok(Reply::Pong));
        let now = server.home.pulled();
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
    tokio::time::pause();
    let closed = within("the end", deaf.connection().closed()).await;
    let quinn::ConnectionError::ApplicationClosed(closed) = closed else {
        panic!("{closed}");
    };
    assert_eq!(closed.reason.as_ref(), b"too_slow");
    assert_eq!(metrics.closed(Code::TooSlow), 1);
}
