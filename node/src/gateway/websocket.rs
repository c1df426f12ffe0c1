//! Frames over WebSocket: one message each, binary DAG-CBOR or JSON text.
//!
//! The `Origin` header is not looked at. A session proves a device's key over a fresh challenge
//! and uses no cookie, so a foreign page that opens a WebSocket has nothing of the user's to ride
//! on, while web clients may live anywhere.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use comity_protocol::{
    limits::SESSION_FRAME_BYTES_MAX,
    session::{ClientFrame, Codec, ServerFrame},
};
use futures::{
    Sink as _, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::{self, error::CapacityError};

use super::{
    frames::{self, BadFrame, Broken, FrameTooLarge, Sink, Source},
    metrics::{Counted, Transport},
    session::{self, End, Gate},
    socket::Meter,
};
use crate::{gateway::home::Home, limits::HANDSHAKE_FRAME_BYTES_MAX};

/// Bytes a stranger may send: the frames of an opening, with their headers.
const HANDSHAKE_BYTES: u64 = 4 * HANDSHAKE_FRAME_BYTES_MAX as u64;

/// Serves one session on an upgraded connection.
pub(super) async fn serve<H: Home>(
    gate: Arc<Gate<H>>,
    slot: OwnedSemaphorePermit,
    socket: WebSocket,
    codec: Codec,
    meter: Arc<Meter>,
) {
    let transport = match codec {
        Codec::Cbor => Transport::WebSocketCbor,
        Codec::Json => Transport::WebSocketJson,
    };
    let _counted = Counted::session(&gate.metrics, transport);
    let cut = gate.cut.child_token();
    let (to, from) = socket.split();
    meter.allow(HANDSHAKE_BYTES);
    let mut source = MessageSource {
        from,
        codec,
        meter: Arc::clone(&meter),
    };
    let mut sink = MessageSink {
        to,
        codec,
        queue: VecDeque::new(),
        bytes: 0,
        unflushed: false,
        meter,
    };
    let session = session::run(&gate, slot, &mut source, &mut sink);
    let end = cut.run_until_cancelled(session).await;
    gate.metrics.count_end(&end.unwrap_or(End::Lost));
}

struct MessageSource {
    from: SplitStream<WebSocket>,
    codec: Codec,
    meter: Arc<Meter>,
}

impl Source for MessageSource {
    async fn next(&mut self) -> Result<Option<Result<ClientFrame, BadFrame>>, Broken> {
        loop {
            let message = match self.from.next().await {
                Some(Ok(message)) => message,
                Some(Err(_)) if self.meter.is_used_up() => {
                    let max = HANDSHAKE_FRAME_BYTES_MAX;
                    return Err(Broken::TooLarge { max });
                }
                Some(Err(error)) => return Err(broken(error)),
                None => return Ok(None),
            };
            let bytes = match (&message, self.codec) {
                (Message::Binary(bytes), Codec::Cbor) => bytes.as_ref(),
                (Message::Text(text), Codec::Json) => text.as_bytes(),
                (Message::Close(_), _) => return Ok(None),
                // The library answers pings; both count as signs of life.
                (Message::Ping(_) | Message::Pong(_), _) => continue,
                (Message::Binary(_) | Message::Text(_), _) => {
                    let why = "frames are binary for comity.v1.cbor and text for comity.v1.json";
                    return Err(Broken::Malformed(why.to_owned()));
                }
            };
            return Ok(Some(frames::decode(self.codec, bytes)));
        }
    }

    fn heard(&self) -> u64 {
        self.meter.read()
    }

    fn admit(&mut self) {
        self.meter.allow_all();
    }
}

fn broken(error: axum::Error) -> Broken {
    let error = error.into_inner();
    match error.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. })) => {
            Broken::TooLarge {
                max: SESSION_FRAME_BYTES_MAX,
            }
        }
        Some(tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        )) => Broken::Lost,
        Some(tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_)) => {
            Broken::Malformed(error.to_string())
        }
        _ => Broken::Lost,
    }
}

struct MessageSink {
    to: SplitSink<WebSocket, Message>,
    codec: Codec,
    queue: VecDeque<Message>,
    bytes: usize,
    /// The library's buffer, which takes what it cannot send, may hold something.
    unflushed: bool,
    meter: Arc<Meter>,
}

impl MessageSink {
    /// Moves the whole queue into the library's buffer, then that to the socket.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), axum::Error>> {
        while !self.queue.is_empty() {
            ready!(Pin::new(&mut self.to).poll_ready(cx))?;
            if let Some(message) = self.queue.pop_front() {
                self.bytes -= len(&message);
                self.unflushed = true;
                Pin::new(&mut self.to).start_send(message)?;
            }
        }
        ready!(Pin::new(&mut self.to).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

impl Sink for MessageSink {
    fn push(&mut self, frame: &ServerFrame) -> Result<(), FrameTooLarge> {
        let bytes = frames::encode(self.codec, frame)?;
        self.bytes += bytes.len();
        self.queue.push_back(match self.codec {
            Codec::Cbor => Message::Binary(bytes.into()),
            Codec::Json => {
                let text = String::from_utf8(bytes).expect("serde_json writes UTF-8");
                Message::Text(text.into())
            }
        });
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.bytes.max(usize::from(self.unflushed))
    }

    fn taken(&self) -> u64 {
        self.meter.written()
    }

    async fn flush(&mut self) -> io::Result<()> {
        let flushed = poll_fn(|cx| self.poll(cx)).await;
        flushed.map_err(io::Error::other)
    }

    async fn finish(&mut self) {
        let close = CloseFrame {
            code: close_code::NORMAL,
            reason: "bye".into(),
        };
        self.queue.push_back(Message::Close(Some(close)));
        // A connection that is gone already needs no end.
        let _ = poll_fn(|cx| self.poll(cx)).await;
    }
}

fn len(message: &Message) -> usize {
    match message {
        Message::Binary(bytes) => bytes.len(),
        Message::Text(text) => text.len(),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => 0,
    }
}
