//! The HTTP side, spoken to with plain bytes.

use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Server, fake::SERVER, within};
use crate::limits::HTTP_BODY_BYTES_MAX;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap().to_owned()
    }

    fn has(&self, header: &str) -> bool {
        self.head.to_ascii_lowercase().contains(header)
    }
}

async fn ask(server: &Server, request: &str) -> Answer {
    let mut tcp = TcpStream::connect(server.gateways.http_addr.unwrap())
        .await
        .unwrap();
    // Even where the answer comes first, the rest is taken: no reset swallows the answer.
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    within("an answer", tcp.read_to_end(&mut bytes))
        .await
        .unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn get(server: &Server, path: &str, headers: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    ask(server, &request).await
}

async fn post(server: &Server, path: &str, body: &str) -> Answer {
    let len = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
    );
    ask(server, &request).await
}

fn sign_in(handle: &str) -> String {
    let device = "ab".repeat(32);
    format!(
        r#"{{"handle": "{handle}", "password": "s3cret", "device": "{device}", "device_name": "d"}}"#
    )
}

#[tokio::test]
async fn the_server_says_who_it_is_and_how_it_does() {
    let server = Server::start();
    let known = get(&server, "/.well-known/comity", "").await;
    assert_eq!(known.status, 200);
    let json = known.json();
    assert_eq!(json["name"], "eu.example");
    assert_eq!(json["server"], SERVER.to_string());
    assert_eq!(json["card"], "comity-card:x");
    assert_eq!(json["versions"], serde_json::json!([1]));
    assert_eq!(json["websocket"], "/ws");
    assert_eq!(json["quic"], server.gateways.quic_addr.unwrap().port());
    assert!(known.has("x-content-type-options: nosniff"));
    assert!(!known.has("access-control-"), "CORS is closed");

    assert_eq!(get(&server, "/healthz", "").await.body, "ok");
    assert_eq!(get(&server, "/readyz", "").await.status, 200);
    server.home.0.unready.store(true, Relaxed);
    let unready = get(&server, "/readyz", "").await;
    assert_eq!(
        (unready.status, unready.body.as_str()),
        (503, "the disk is full\n")
    );
    assert_eq!(get(&server, "/healthz", "").await.status, 200);

    let metrics = get(&server, "/metrics", "").await;
    assert!(metrics.body.contains("comity_home_events_total 3\n"));
    assert!(metrics.body.contains("comity_gateway_connections 1\n"));
    let forwarded = get(&server, "/metrics", "X-Forwarded-For: 192.0.2.1\r\n").await;
    assert_eq!(
        (forwarded.status, forwarded.code().as_str()),
        (404, "not_found")
    );

    let absent = get(&server, "/v2/fly", "").await;
    assert_eq!((absent.status, absent.code().as_str()), (404, "not_found"));
    let method = get(&server, "/v1/sign-in", "").await;
    assert_eq!(
        (method.status, method.code().as_str()),
        (405, "unsupported")
    );
}

#[tokio::test]
async fn without_quic_no_port_is_told_and_another_may_be_told() {
    let without = Server::start_with(|config| config.quic = None);
    let json = get(&without, "/.well-known/comity", "").await.json();
    assert_eq!(json.get("quic"), None);
    let mapped = Server::start_with(|config| config.public_quic_port = Some(443));
    assert_eq!(
        get(&mapped, "/.well-known/comity", "").await.json()["quic"],
        443
    );
}

#[tokio::test]
async fn signing_in_answers_with_a_device_or_a_coded_error() {
    let server = Server::start();
    let done = post(&server, "/v1/sign-in", &sign_in("alice")).await;
    assert_eq!(done.status, 200);
    assert_eq!(done.json()["user"], "01".repeat(32));
    assert_eq!(done.json()["handle"], "alice");
    assert_eq!(done.json()["server"], SERVER.to_string());
    assert!(done.has("cache-control: no-store"));
    let device = "ab".repeat(32);
    let sign_up = sign_in("bob").replacen('{', r#"{"token": "t", "#, 1);
    assert_eq!(post(&server, "/v1/sign-up", &sign_up).await.status, 201);
    let enroll = format!(r#"{{"token": "t", "device": "{device}", "device_name": "bot"}}"#);
    assert_eq!(
        post(&server, "/v1/enroll", &enroll).await.json()["handle"],
        "bot"
    );
    let from = server.home.0.asked_from.lock().unwrap().clone();
    assert_eq!(from, vec![IpAddr::from([127, 0, 0, 1]); 3]);

    for (handle, status, code) in [
        ("taken", 409, "conflict"),
        ("wrong", 401, "unauthenticated"),
        ("often", 429, "rate_limited"),
    ] {
        let answer = post(&server, "/v1/sign-in", &sign_in(handle)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.has("retry-after: 3"), handle == "often");
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_with_a_code_and_never_quoted() {
    let server = Server::start();
    let extra = sign_in("alice").replacen('{', r#"{"s3cret-field": 1, "#, 1);
    let wrong_type = sign_in("alice").replace("\"s3cret\"", "[\"s3cret\"]");
    for body in [
        "",
        "{",
        "[]",
        "{}",
        &extra,
        &wrong_type,
        &"[".repeat(60_000),
    ] {
        let answer = post(&server, "/v1/sign-in", body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "malformed"),
            "{body:.20}"
        );
        assert!(!answer.body.contains("s3cret"), "{}", answer.body);
    }
    let large = post(&server, "/v1/sign-in", &" ".repeat(HTTP_BODY_BYTES_MAX + 1)).await;
    assert_eq!((large.status, large.code().as_str()), (413, "too_large"));
    let chunk = " ".repeat(0x8000);
    let chunked = format!(
        "POST /v1/sign-in HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: \
         application/json\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        format!("8000\r\n{chunk}\r\n").repeat(40)
    );
    let large = ask(&server, &chunked).await;
    assert_eq!((large.status, large.code().as_str()), (413, "too_large"));
    let body = sign_in("alice");
    let form = format!(
        "POST /v1/sign-in HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(ask(&server, &form).await.status, 400);
    let head = format!("X: {}\r\n", "x".repeat(100_000));
    assert_eq!(get(&server, "/healthz", &head).await.status, 431);
}

#[tokio::test]
async fn an_upgrade_needs_a_known_subprotocol() {
    let server = Server::start();
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for (offer, status) in [
        ("", 400),
        ("Sec-WebSocket-Protocol: comity.v9.cbor\r\n", 400),
        (
            "Sec-WebSocket-Protocol: comity.v9.cbor, comity.v1.json\r\n",
            101,
        ),
    ] {
        let request =
            format!("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{upgrade}{offer}\r\n");
        let mut tcp = TcpStream::connect(server.gateways.http_addr.unwrap())
            .await
            .unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = [0; 12];
        within("an answer", tcp.read_exact(&mut bytes))
            .await
            .unwrap();
        assert_eq!(
            bytes,
            format!("HTTP/1.1 {status}").as_bytes()[..12],
            "{offer}"
        );
    }
    let plain = get(&server, "/ws", "").await;
    assert_eq!((plain.status, plain.code().as_str()), (400, "malformed"));
}
