//! A home server of a hundred lines: discovery, sign-in, and sessions that accept every event.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use comity_sdk::{
    Client, ClientBuilder, DeviceKey, EventId, Place, ServerId, Timestamp, UserId,
    protocol::{
        encoding,
        event::SignedEvent,
        ids::{Blob, CommitId},
        session::{
            ALPN, Accepted, Challenge, ClientFrame, Cursor, FrameBuffer, Reply, Request,
            SUBPROTOCOL_CBOR, ServerFrame, Welcome, frame_bytes, session_message,
        },
        signing::{self, Domain},
        time::Hlc,
    },
};
use futures::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::{Message, handshake::server};

const SERVER: ServerId = ServerId::from_bytes([7; 32]);
const USER: UserId = UserId::from_bytes([8; 32]);
const CHALLENGE: [u8; 32] = [9; 32];

/// What is special about a server.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) https: bool,
    pub(crate) swallow_quic: bool,
    /// The first sign-in is refused, the second one's answer is cut off.
    pub(crate) sign_in_failures: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            name: "eu.example",
            https: false,
            swallow_quic: false,
            sign_in_failures: 0,
        }
    }
}

#[derive(Default)]
struct Seen {
    asked: Mutex<BTreeMap<String, usize>>,
    devices: Mutex<Vec<DeviceKey>>,
    accepted: Mutex<Vec<EventId>>,
    swallowed: AtomicUsize,
}

pub(crate) struct Home {
    setup: Setup,
    address: SocketAddr,
    ca: Vec<u8>,
    seen: Arc<Seen>,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

struct Certificates {
    ca: String,
    config: ServerConfig,
}

fn certificates() -> Certificates {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    Certificates {
        ca: ca.pem(),
        config,
    }
}

impl Home {
    pub(crate) async fn start(setup: Setup) -> Self {
        let certificates = certificates();
        let seen = Arc::new(Seen::default());
        let quic = if setup.swallow_quic {
            swallow(Arc::clone(&seen)).await
        } else {
            quic(certificates.config.clone(), Arc::clone(&seen))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = setup
            .https
            .then(|| TlsAcceptor::from(Arc::new(certificates.config)));
        let for_task = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (tls, seen) = (tls.clone(), Arc::clone(&for_task));
                tokio::spawn(async move {
                    let stream: Box<dyn Io> = match tls {
                        None => Box::new(tcp),
                        // A client that trusts nobody here leaves in the handshake.
                        Some(tls) => match tls.accept(tcp).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    http(stream, setup, quic, &seen).await;
                });
            }
        });
        Self {
            setup,
            address,
            ca: certificates.ca.into_bytes(),
            seen,
        }
    }

    pub(crate) fn client(&self) -> ClientBuilder {
        let scheme = if self.setup.https { "https" } else { "http" };
        Client::builder("alice@eu.example").server(format!("{scheme}://{}", self.address))
    }

    pub(crate) fn ca(&self) -> Vec<u8> {
        self.ca.clone()
    }

    pub(crate) fn asked(&self, path: &str) -> usize {
        self.seen
            .asked
            .lock()
            .unwrap()
            .get(path)
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn devices(&self) -> Vec<DeviceKey> {
        self.seen.devices.lock().unwrap().clone()
    }

    pub(crate) fn accepted(&self) -> Vec<EventId> {
        self.seen.accepted.lock().unwrap().clone()
    }

    pub(crate) fn swallowed(&self) -> usize {
        self.seen.swallowed.load(Ordering::Relaxed)
    }
}

async fn swallow(seen: Arc<Seen>) -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while socket.recv(&mut buffer).await.is_ok() {
            seen.swallowed.fetch_add(1, Ordering::Relaxed);
        }
    });
    port
}

fn quic(mut tls: ServerConfig, seen: Arc<Seen>) -> u16 {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else {
                    return;
                };
                let (mut send, mut receive) = connection.accept_bi().await.unwrap();
                let mut frames = FrameBuffer::default();
                let mut buffer = [0; 4_096];
                while let Ok(Some(n)) = receive.read(&mut buffer).await {
                    frames.push(&buffer[..n]);
                    while let Some(frame) = frames.next_frame().unwrap() {
                        let bytes = frame_bytes(&answer(frame, &seen)).unwrap();
                        send.write_all(&bytes).await.unwrap();
                    }
                }
            });
        }
    });
    port
}

async fn http(mut stream: Box<dyn Io>, setup: Setup, quic: u16, seen: &Seen) {
    // Requests follow each other on one connection.
    let mut bytes = vec![];
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            let mut buffer = [0; 4_096];
            let n = stream.read(&mut buffer).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            bytes.extend_from_slice(&buffer[..n]);
        };
        let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
        let path = text.split(' ').nth(1).unwrap().to_owned();
        *seen.asked.lock().unwrap().entry(path.clone()).or_default() += 1;
        if path == "/ws" {
            let (read, write) = tokio::io::split(stream);
            let read = std::io::Cursor::new(bytes).chain(read);
            return websocket(tokio::io::join(read, write), seen).await;
        }
        let lower = text.to_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let end = head + length.map_or(0, |length| length.parse::<usize>().unwrap());
        while bytes.len() < end {
            let mut buffer = [0; 4_096];
            let n = stream.read(&mut buffer).await.unwrap();
            bytes.extend_from_slice(&buffer[..n]);
        }
        let Some((status, body)) = page(&path, &bytes[head..end], setup, quic, seen) else {
            return;
        };
        let body = body.to_string();
        bytes.drain(..end);
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn page(
    path: &str,
    body: &[u8],
    setup: Setup,
    quic: u16,
    seen: &Seen,
) -> Option<(u16, serde_json::Value)> {
    if path == "/.well-known/comity" {
        let found = serde_json::json!({
            "name": setup.name, "server": SERVER.to_string(), "card": "x", "versions": [1],
            "websocket": "/ws", "quic": quic,
        });
        return Some((200, found));
    }
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let mut devices = seen.devices.lock().unwrap();
    devices.push(body["device"].as_str().unwrap().parse().unwrap());
    match devices.len() {
        1 if setup.sign_in_failures > 0 => {
            let refusal = serde_json::json!({"code": "invalid_token", "message": "expired"});
            Some((401, refusal))
        }
        2 if setup.sign_in_failures > 1 => None,
        _ => Some((
            200,
            serde_json::json!({
                "user": USER.to_string(), "handle": "alice", "server": SERVER.to_string(),
            }),
        )),
    }
}

async fn websocket(stream: impl Io, seen: &Seen) {
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let choose = |_: &server::Request, mut response: server::Response| {
        let name = SUBPROTOCOL_CBOR.parse().unwrap();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", name);
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose)
        .await
        .unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            let frame = encoding::decode_frame(&bytes, 1 << 20).unwrap();
            let reply = encoding::encode(&answer(frame, seen));
            socket.send(Message::binary(reply)).await.unwrap();
        }
    }
}

fn answer(frame: ClientFrame, seen: &Seen) -> ServerFrame {
    let reply = match frame.request {
        Request::Begin { .. } => Reply::Challenge(Challenge {
            challenge: Blob(CHALLENGE.to_vec()),
            server: SERVER,
            name: "eu.example".to_owned(),
        }),
        Request::Hello(hello) => {
            let message = session_message(&CHALLENGE, &SERVER, &USER);
            signing::verify(&hello.device, Domain::Session, &message, &hello.signature).unwrap();
            Reply::Welcome(Welcome {
                cursor: Cursor(Blob(vec![1])),
                reset: false,
                handle: "alice".to_owned(),
                now: Timestamp(0),
            })
        }
        Request::Send { event, .. } => {
            let event = SignedEvent::verify(event).unwrap().id();
            seen.accepted.lock().unwrap().push(event);
            let place = Place {
                hlc: Hlc::from_bits(1),
                commit: CommitId::from_bytes([0; 32]),
                index: 0,
            };
            Reply::Accepted(Accepted { event, place })
        }
        Request::Conversations { .. } => Reply::Conversations {
            summaries: vec![],
            complete: true,
        },
        _ => Reply::Pong,
    };
    ServerFrame::Response {
        id: frame.id,
        reply: Box::new(reply),
    }
}
