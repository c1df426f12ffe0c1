//! A client written against the protocol and not against the gateway: plain quinn, plain
//! tokio-tungstenite, or a pipe in memory.

use std::{net::SocketAddr, sync::Arc};

use comity_protocol::{
    encoding,
    ids::UserId,
    limits::SESSION_FRAME_BYTES_MAX,
    session::{
        ALPN, Challenge, ClientFrame, Codec, Cursor, FrameBuffer, Hello, Reply, Request,
        SUBPROTOCOL_CBOR, SUBPROTOCOL_JSON, ServerFrame, Welcome, WireError, frame_bytes,
        session_message,
    },
    signing::{Domain, SecretKey},
};
use futures::{SinkExt, StreamExt};
use rustls::crypto::aws_lc_rs;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{Server, within};

/// Ways to reach a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Quic,
    Secure(Codec),
    Plain(Codec),
}

impl Way {
    pub(super) const ALL: [Self; 5] = [
        Self::Quic,
        Self::Secure(Codec::Cbor),
        Self::Secure(Codec::Json),
        Self::Plain(Codec::Cbor),
        Self::Plain(Codec::Json),
    ];

    pub(super) const fn codec(self) -> Codec {
        match self {
            Self::Quic => Codec::Cbor,
            Self::Secure(codec) | Self::Plain(codec) => codec,
        }
    }
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

enum Wire {
    Stream {
        send: Box<dyn AsyncWrite + Send + Unpin>,
        recv: Box<dyn AsyncRead + Send + Unpin>,
        buffer: FrameBuffer,
        // Kept: a connection and its endpoint end when dropped.
        quic: Option<(quinn::Endpoint, quinn::Connection)>,
    },
    Messages {
        socket: Box<WebSocketStream<Box<dyn Io>>>,
        codec: Codec,
    },
}

pub(super) struct Client {
    wire: Wire,
    next_id: u64,
    /// Frames read while waiting for something else.
    pub(super) updates: Vec<ServerFrame>,
}

impl Client {
    /// Connects without saying anything.
    pub(super) async fn connect(server: &Server, way: Way) -> Self {
        Self::try_connect(server, way).await.unwrap()
    }

    pub(super) async fn try_connect(server: &Server, way: Way) -> Result<Self, String> {
        let connecting = async {
            match way {
                Way::Quic => quic(server).await.map_err(|e| e.to_string()),
                Way::Secure(codec) => {
                    let tcp = tcp(server.gateways.https_addr).await?;
                    let tls = secure(server, tcp).await.map_err(|e| e.to_string())?;
                    messages(tls, codec).await
                }
                Way::Plain(codec) => {
                    let tcp = tcp(server.gateways.http_addr).await?;
                    messages(Box::new(tcp), codec).await
                }
            }
        };
        Ok(Self::on(within("connect", connecting).await?))
    }

    /// At the other end of a pipe.
    pub(super) fn in_memory(pipe: DuplexStream) -> Self {
        let (recv, send) = tokio::io::split(pipe);
        Self::on(Wire::Stream {
            send: Box::new(send),
            recv: Box::new(recv),
            buffer: FrameBuffer::default(),
            quic: None,
        })
    }

    fn on(wire: Wire) -> Self {
        Self {
            wire,
            next_id: 1,
            updates: Vec::new(),
        }
    }

    /// Connects and says hello; `mode` tells the home what to do with the session.
    pub(super) async fn open(server: &Server, way: Way, mode: &str) -> Self {
        let mut client = Self::connect(server, way).await;
        client.hello(mode).await.unwrap();
        client
    }

    pub(super) async fn begin(&mut self) -> Challenge {
        let begin = Request::Begin { version: 1 };
        match self.ask(begin).await {
            Ok(Reply::Challenge(challenge)) => challenge,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn hello(&mut self, mode: &str) -> Result<Welcome, WireError> {
        let challenge = self.begin().await;
        let hello = sign(&challenge, mode);
        match self.ask(Request::Hello(hello)).await? {
            Reply::Welcome(welcome) => Ok(welcome),
            other => panic!("{other:?}"),
        }
    }

    /// Sends a request; its id.
    pub(super) async fn send(&mut self, request: Request) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let frame = ClientFrame { id, request };
        let bytes = match self.codec() {
            Codec::Cbor => encoding::encode(&frame),
            Codec::Json => serde_json::to_vec(&frame).unwrap(),
        };
        self.send_bytes(&bytes).await.unwrap();
        id
    }

    pub(super) async fn ask(&mut self, request: Request) -> Result<Reply, WireError> {
        let id = self.send(request).await;
        self.answer_to(id).await
    }

    pub(super) async fn answer_to(&mut self, asked: u64) -> Result<Reply, WireError> {
        loop {
            match self.read().await {
                Some(ServerFrame::Response { id, reply }) if id == asked => return Ok(*reply),
                Some(ServerFrame::Refused { id, error }) if id == asked => return Err(error),
                Some(update @ ServerFrame::Update { .. }) => self.updates.push(update),
                other => panic!("waiting for the answer to {asked}: {other:?}"),
            }
        }
    }

    /// The last words, and that nothing follows them.
    pub(super) async fn bye(&mut self) -> WireError {
        loop {
            match self.read().await {
                Some(ServerFrame::Bye(error)) => {
                    assert_eq!(self.read().await, None, "after the bye");
                    return error;
                }
                Some(ServerFrame::Update { .. }) => {}
                other => panic!("waiting for a bye: {other:?}"),
            }
        }
    }

    /// The next frame, `None` at the end of the stream.
    pub(super) async fn read(&mut self) -> Option<ServerFrame> {
        within("a frame", async {
            match &mut self.wire {
                Wire::Stream { recv, buffer, .. } => loop {
                    if let Some(frame) = buffer.next_frame().unwrap() {
                        return Some(frame);
                    }
                    let mut bytes = [0; 4096];
                    match recv.read(&mut bytes).await {
                        Ok(0) | Err(_) => return None,
                        Ok(count) => buffer.push(&bytes[..count]),
                    }
                },
                Wire::Messages { socket, codec } => loop {
                    return match (socket.next().await, &*codec) {
                        (Some(Ok(Message::Binary(bytes))), Codec::Cbor) => {
                            let max = SESSION_FRAME_BYTES_MAX;
                            Some(encoding::decode_frame(&bytes, max).unwrap())
                        }
                        (Some(Ok(Message::Text(text))), Codec::Json) => {
                            Some(serde_json::from_str(&text).unwrap())
                        }
                        (Some(Ok(Message::Close(_))), _) => continue,
                        (Some(Err(_)) | None, _) => None,
                        (Some(Ok(other)), _) => panic!("{other:?}"),
                    };
                },
            }
        })
        .await
    }

    /// Sends the bytes of one frame, whatever they are.
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.wire {
            Wire::Stream { send, .. } => {
                let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
                let framed = [&len, bytes].concat();
                send.write_all(&framed).await.map_err(|e| e.to_string())
            }
            Wire::Messages { socket, codec } => {
                let message = match codec {
                    Codec::Cbor => Message::Binary(bytes.to_vec().into()),
                    Codec::Json => Message::Text(String::from_utf8(bytes.to_vec()).unwrap().into()),
                };
                socket.send(message).await.map_err(|e| e.to_string())
            }
        }
    }

    /// The bytes of a request as they go on a byte stream.
    pub(super) fn frame_bytes(&mut self, request: Request) -> Vec<u8> {
        let id = self.next_id;
        self.next_id += 1;
        frame_bytes(&ClientFrame { id, request }).unwrap()
    }

    /// Sends bytes on a byte stream as they are.
    pub(super) async fn send_raw(&mut self, bytes: &[u8]) {
        let Wire::Stream { send, .. } = &mut self.wire else {
            panic!("not a byte stream");
        };
        send.write_all(bytes).await.unwrap();
    }

    /// Sends a WebSocket message of the wrong kind for the codec.
    pub(super) async fn send_other_kind(&mut self) {
        let Wire::Messages { socket, codec } = &mut self.wire else {
            panic!("a byte stream has one kind only");
        };
        let message = match codec {
            Codec::Cbor => Message::Text("{}".into()),
            Codec::Json => Message::Binary(vec![0xa0].into()),
        };
        socket.send(message).await.unwrap();
    }

    /// Ends the sending side only.
    pub(super) async fn end_sending(&mut self) {
        match &mut self.wire {
            Wire::Stream { send, .. } => send.shutdown().await.unwrap(),
            Wire::Messages { socket, .. } => socket.close().await.unwrap(),
        }
    }

    pub(super) fn connection(&self) -> &quinn::Connection {
        match &self.wire {
            Wire::Stream {
                quic: Some((_, connection)),
                ..
            } => connection,
            _ => panic!("not over QUIC"),
        }
    }

    fn codec(&self) -> Codec {
        match &self.wire {
            Wire::Stream { .. } => Codec::Cbor,
            Wire::Messages { codec, .. } => *codec,
        }
    }
}

pub(super) fn sign(challenge: &Challenge, mode: &str) -> Hello {
    let key = SecretKey::from_seed([3; 32]);
    let user = UserId::from_bytes([1; 32]);
    let random = challenge.challenge.0.as_slice().try_into().unwrap();
    let message = session_message(&random, &challenge.server, &user);
    Hello {
        user,
        device: key.public(),
        signature: key.sign(Domain::Session, &message),
        cursor: Some(Cursor::default()),
        client: mode.to_owned(),
    }
}

pub(super) fn lookup(address: &str) -> Request {
    Request::Lookup {
        address: address.to_owned(),
    }
}

async fn tcp(addr: Option<SocketAddr>) -> Result<TcpStream, String> {
    TcpStream::connect(addr.unwrap())
        .await
        .map_err(|e| e.to_string())
}

fn client_config(server: &Server) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.trusted.clone()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn secure(server: &Server, tcp: TcpStream) -> std::io::Result<Box<dyn Io>> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(server)));
    let name = "localhost".try_into().unwrap();
    Ok(Box::new(connector.connect(name, tcp).await?))
}

async fn messages(io: Box<dyn Io>, codec: Codec) -> Result<Wire, String> {
    let mut request = "ws://localhost/ws".into_client_request().unwrap();
    let protocol = match codec {
        Codec::Cbor => SUBPROTOCOL_CBOR,
        Codec::Json => SUBPROTOCOL_JSON,
    };
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
    let (socket, _) = client_async(request, io).await.map_err(|e| e.to_string())?;
    Ok(Wire::Messages {
        socket: Box::new(socket),
        codec,
    })
}

async fn quic(server: &Server) -> Result<Wire, quinn::ConnectionError> {
    let mut crypto = client_config(server);
    crypto.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(QUIC_CLIENT_WINDOW.into());
    // How long nothing may happen is the server's choice here.
    transport.max_idle_timeout(None);
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(super::LOOPBACK).unwrap();
    let addr = server.gateways.quic_addr.unwrap();
    let connection = endpoint
        .connect_with(config, addr, "localhost")
        .unwrap()
        .await?;
    let (send, recv) = connection.open_bi().await?;
    Ok(Wire::Stream {
        send: Box::new(send),
        recv: Box::new(recv),
        buffer: FrameBuffer::default(),
        quic: Some((endpoint, connection)),
    })
}

/// What a client that does not read takes in all the same.
pub(super) const QUIC_CLIENT_WINDOW: u32 = 64 * 1024;
