//! Transports behind one small trait: frames out, frames in, by polling.

mod network;
mod stream;
mod websocket;

use std::{
    fmt,
    task::{Context, Poll},
};

use comity_protocol::session::{ClientFrame, ServerFrame};
use futures::future::BoxFuture;

pub(crate) use network::Network;
#[cfg(test)]
pub(crate) use stream::StreamLink;

use crate::{
    error::{Error, ErrorKind, Result},
    events::Via,
};

/// Which transport to use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Transport {
    /// QUIC, and WebSocket where QUIC does not get through; what worked is tried first next time.
    #[default]
    Auto,
    /// QUIC only.
    Quic,
    /// WebSocket only.
    WebSocket,
}

/// A connection that carries frames.
pub(crate) trait Link: Send + fmt::Debug {
    /// Adds a frame to what is to be written. Nothing is written before [`Self::poll_flush`].
    fn queue(&mut self, frame: &ClientFrame) -> Result<()>;

    /// Bytes added and not yet written.
    fn queued_bytes(&self) -> usize;

    /// Writes what was added.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// The next frame and its length in bytes.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(ServerFrame, usize)>>;

    /// Says goodbye after everything was written.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A link just made.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) link: Box<dyn Link>,
    pub(crate) via: Via,
}

/// The end of a connection, in words for people.
fn lost_io(error: std::io::Error) -> Error {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    // The TLS library's text about a missing close message explains nothing to anybody.
    if matches!(error.kind(), UnexpectedEof | ConnectionReset) {
        return Error::new(ErrorKind::Offline, "the server closed the connection");
    }
    Error::new(ErrorKind::Offline, "the connection was lost").because(error)
}

/// Something that makes links to the home server.
pub(crate) trait Dial: Send + fmt::Debug {
    fn dial(&mut self) -> BoxFuture<'_, Result<Dialed>>;
}
