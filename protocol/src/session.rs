//! The protocol between a client and its home server. Source: `spec/06-client-protocol.md`.
//!
//! Over QUIC (ALPN `comity/1`) a frame is a big-endian u32 length and that many bytes of DAG-CBOR;
//! over WebSocket it is one binary message of DAG-CBOR (`comity.v1.cbor`) or one text message of
//! JSON (`comity.v1.json`). The frames are the same.

mod codec;
mod cursor;
mod error;
mod reconnect;
mod request;
mod update;

pub use crate::place::Place;
pub use codec::{Codec, FrameBuffer, FrameError, frame_bytes};
pub use cursor::{CursorState, CursorVerdict};
pub use error::{Code, WireError};
pub use reconnect::Backoff;
pub use request::{
    Accepted, Anchor, Challenge, ClientFrame, Cursor, Grantee, Hello, LookedUp, Member, NextRoot,
    OwnEvent, Page, Reply, Request, ServerFrame, StateField, Welcome, session_message,
};
pub use update::{Change, ContentState, Edited, Item, Reaction, Summary, VoidItem};

/// ALPN of client connections over QUIC.
pub const ALPN: &[u8] = b"comity/1";
/// WebSocket subprotocol with DAG-CBOR frames.
pub const SUBPROTOCOL_CBOR: &str = "comity.v1.cbor";
/// WebSocket subprotocol with JSON frames.
pub const SUBPROTOCOL_JSON: &str = "comity.v1.json";
/// Version of the client protocol.
pub const VERSION: u64 = 1;
