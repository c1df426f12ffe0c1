//! Bytes of no protocol on every port there is.

use std::net::SocketAddr;

use comity_node::{admin::AdminRequest, config::TlsFiles};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, UnixStream},
};

use super::net::{Net, http};

const GARBAGE: [&[u8]; 6] = [
    b"",
    b"\r\n\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/enroll HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\n{\"to",
    &[0xff; 3_000],
    b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: bm90IGFuIGhvbmVzdCBvbmU=\r\nsec-websocket-protocol: comity.v9\r\n\r\n",
];

async fn tcp(address: SocketAddr) {
    for bytes in GARBAGE {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = vec![];
        let read = socket.read_to_end(&mut answer);
        let _ = tokio::time::timeout(super::net::PATIENCE, read)
            .await
            .unwrap();
    }
}

async fn udp(port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for bytes in GARBAGE {
        for _ in 0..20 {
            let bytes = &bytes[..bytes.len().min(1_200)];
            socket.send_to(bytes, ("127.0.0.1", port)).await.unwrap();
        }
    }
    // A QUIC initial of an unknown version, and one that is cut off.
    let mut initial = vec![0xc3, 0xfa, 0xce, 0xb0, 0x0c, 8];
    initial.resize(1_200, 1);
    socket.send_to(&initial, ("127.0.0.1", port)).await.unwrap();
    initial[1..5].copy_from_slice(&[0, 0, 0, 1]);
    socket.send_to(&initial, ("127.0.0.1", port)).await.unwrap();
    socket
        .send_to(&initial[..20], ("127.0.0.1", port))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_any_port_disturbs_nobody() {
    let mut net = Net::prepare(2);
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let node = &mut net.nodes[0];
    let tls = TlsFiles {
        certificate: node.dir.join("tls.pem"),
        key: node.dir.join("tls.key"),
    };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    node.config.tls = Some(tls);
    let loopback = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    node.config.listen.https = loopback;
    node.config.listen.quic = loopback;
    net.up(0).await;
    net.up(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    net.linked().await;
    let mut client = net.connect(&alice).await;
    let room = client.direct(bob.user).await.unwrap();
    let mut other = net.connect(&bob).await;
    let addresses = net.nodes[0].server().addresses().clone();
    tcp(addresses.http.unwrap()).await;
    client.say(room, "http").await;
    tcp(addresses.https.unwrap()).await;
    client.say(room, "https").await;
    udp(addresses.quic.unwrap().port()).await;
    client.say(room, "quic").await;
    udp(net.nodes[0].config.listen.links.port()).await;
    client.say(room, "links").await;
    while other.line(room).await.1 != "links" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_over_http_have_a_code_and_a_status() {
    let net = Net::start(1).await;
    let address = net.nodes[0].http();
    let device = "00".repeat(32);
    let bodies = [
        json!({}),
        json!({"token": 1, "device": device, "device_name": "x"}),
        json!({"token": "x", "device": "zz", "device_name": "x"}),
        json!({"token": "x", "device": device, "device_name": "x", "more": 1}),
        json!([]),
    ];
    for body in bodies {
        let (status, answer) = http(address, "POST", "/v1/enroll", Some(&body)).await;
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!("malformed")),
            "{body}"
        );
    }
    let body = json!({"token": "no such", "device": device, "device_name": "x"});
    let (status, answer) = http(address, "POST", "/v1/enroll", Some(&body)).await;
    assert_eq!(answer["code"], json!("invalid_token"), "{status}");
    let long = json!({"token": "x".repeat(100_000), "device": device, "device_name": "x"});
    let (status, _) = http(address, "POST", "/v1/enroll", Some(&long)).await;
    assert_eq!(status, 413);
    assert_eq!(http(address, "GET", "/nothing", None).await.0, 404);
    assert_eq!(http(address, "GET", "/readyz", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_admin_requests_are_answered_and_the_next_one_works() {
    let net = Net::start(1).await;
    let node = &net.nodes[0];
    let lines: [&[u8]; 6] = [
        b"\n",
        b"{}\n",
        b"{\"add_user\":{\"handle\":5,\"password\":null}}\n",
        b"\"restart\"\n",
        b"{\"token\":{\"user\":null,\"uses\":-1,\"valid_ms\":1}}\n",
        b"not json at all",
    ];
    for line in lines {
        let mut socket = UnixStream::connect(node.config.data.join("admin.sock"))
            .await
            .unwrap();
        socket.write_all(line).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["refused"]["code"], json!("malformed"), "{line:?}");
    }
    let mut binary = UnixStream::connect(node.config.data.join("admin.sock"))
        .await
        .unwrap();
    binary.write_all(&[0xff, 0xfe, b'\n']).await.unwrap();
    drop(binary);
    let bad = AdminRequest::AddUser {
        handle: "no spaces".into(),
        password: None,
    };
    let refused = comity_node::admin::ask(&node.config.data, &bad)
        .await
        .unwrap();
    assert!(matches!(
        refused,
        comity_node::admin::AdminReply::Refused(_)
    ));
    node.add_user("alice").await;
    assert_eq!(
        node.ask(&AdminRequest::Status).await["name"],
        json!("a.localhost")
    );
}
