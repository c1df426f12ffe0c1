//! Frames as WebSocket messages, fed in batches and flushed once.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use comity_protocol::{
    encoding,
    limits::SESSION_FRAME_BYTES_MAX,
    session::{ClientFrame, SUBPROTOCOL_CBOR, ServerFrame},
};
use futures::{Sink, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::WebSocketConfig,
    },
};

use super::{Link, lost_io};
use crate::error::{Error, ErrorKind, Result};

/// The default buffers cost 128 KiB a connection.
const BUFFER_BYTES: usize = 16 * 1024;

/// Plain or encrypted.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A link over WebSocket.
pub(crate) struct WebSocketLink {
    socket: WebSocketStream<Box<dyn Io>>,
    out: VecDeque<Message>,
    queued: usize,
    dirty: bool,
}

fn lost(error: WsError) -> Error {
    match error {
        WsError::Capacity(_) | WsError::Protocol(_) | WsError::Utf8(_) => {
            Error::new(ErrorKind::Protocol, "the server sent a bad frame").because(error)
        }
        WsError::Io(error) => lost_io(error),
        error => Error::new(ErrorKind::Offline, "the connection was lost").because(error),
    }
}

impl WebSocketLink {
    /// Upgrades a connection. `url` is `ws` or `wss`; with `tls` the connection is encrypted for
    /// the url's host.
    pub(crate) async fn open(
        tcp: TcpStream,
        tls: Option<(TlsConnector, rustls_pki_types::ServerName<'static>)>,
        url: &str,
    ) -> Result<Self> {
        let failed =
            |e: std::io::Error| Error::new(ErrorKind::Offline, "connecting failed").because(e);
        // Batches are made above: the kernel must not hold a small one back for an answer.
        tcp.set_nodelay(true).map_err(failed)?;
        let stream: Box<dyn Io> = match tls {
            None => Box::new(tcp),
            Some((connector, name)) => {
                let connected = connector.connect(name, tcp).await;
                Box::new(connected.map_err(super::network::tls_failed)?)
            }
        };
        let invalid = |e| Error::new(ErrorKind::Protocol, "a bad WebSocket address").because(e);
        let mut request = url.into_client_request().map_err(invalid)?;
        request.headers_mut().insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL_CBOR),
        );
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_message_size(Some(SESSION_FRAME_BYTES_MAX))
            .max_frame_size(Some(SESSION_FRAME_BYTES_MAX));
        let (socket, _) = client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|e| Error::new(ErrorKind::Offline, "the WebSocket was refused").because(e))?;
        Ok(Self {
            socket,
            out: VecDeque::new(),
            queued: 0,
            dirty: false,
        })
    }
}

impl Link for WebSocketLink {
    fn queue(&mut self, frame: &ClientFrame) -> Result<()> {
        let bytes = encoding::encode(frame);
        if bytes.len() > SESSION_FRAME_BYTES_MAX {
            return Err(Error::new(ErrorKind::TooLarge, "a request is too large"));
        }
        self.queued += bytes.len();
        self.out.push_back(Message::binary(bytes));
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        // A batch that was fed and not flushed counts as something left to write.
        self.queued + usize::from(self.dirty)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.out.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(lost)?;
            let Some(message) = self.out.pop_front() else {
                break;
            };
            self.queued -= message.len();
            self.dirty = true;
            Pin::new(&mut self.socket)
                .start_send(message)
                .map_err(lost)?;
        }
        ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(lost)?;
        self.dirty = false;
        Poll::Ready(Ok(()))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(ServerFrame, usize)>> {
        loop {
            let message = ready!(Pin::new(&mut self.socket).poll_next(cx));
            let text = "the server closed the connection";
            let Some(message) = message.transpose().map_err(lost)? else {
                return Poll::Ready(Err(Error::new(ErrorKind::Offline, text)));
            };
            match message {
                Message::Binary(bytes) => {
                    let frame = encoding::decode_frame(&bytes, SESSION_FRAME_BYTES_MAX);
                    let frame = frame.map_err(|e| {
                        Error::new(ErrorKind::Protocol, "the server sent a bad frame").because(e)
                    })?;
                    return Poll::Ready(Ok((frame, bytes.len())));
                }
                Message::Close(_) => {
                    return Poll::Ready(Err(Error::new(ErrorKind::Offline, text)));
                }
                // The library answers pings by itself, with the next flush.
                Message::Ping(_) => self.dirty = true,
                Message::Pong(_) | Message::Frame(_) => {}
                Message::Text(_) => {
                    let text = "the server sent text where bytes were agreed";
                    return Poll::Ready(Err(Error::new(ErrorKind::Protocol, text)));
                }
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.socket).poll_close(cx).map(|_| ())
    }
}

impl fmt::Debug for WebSocketLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketLink").finish_non_exhaustive()
    }
}
