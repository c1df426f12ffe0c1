//! The node's own limits, by name; those both ends must agree on are in `comity_protocol::limits`.

/// Time from the first byte of a connection to an accepted `hello`, in milliseconds.
pub const HANDSHAKE_MS: u64 = 10_000;
/// Sessions that have not said `hello` yet, over all transports.
pub const HANDSHAKES_MAX: usize = 1_024;
/// Bytes of a frame before the `hello` was accepted: strangers get no megabyte each.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 16 * 1024;
/// Requests refused before the `hello` until the session is closed.
pub const HANDSHAKE_REFUSALS_MAX: usize = 16;
/// Unfinished QUIC handshakes above which an address must prove that it can be reached.
pub const QUIC_RETRY_ABOVE: usize = 64;

/// Connections of all transports together, unless the configuration says otherwise.
pub const CONNECTIONS_MAX: usize = 16_384;

/// A write that makes no progress for this long ends the session, in milliseconds.
pub const WRITE_STALL_MS: u64 = 30_000;
/// Bytes waiting for one session's transport beyond which nothing more is taken in for it: no
/// request, no answer, no update. One frame may go beyond.
pub const SESSION_OUT_BYTES: usize = 64 * 1024;
/// Requests under way at once in one session whose answers may be as large as a frame.
pub const SESSION_PAGES_MAX: usize = 8;
/// Bytes of a JSON frame to a client: what fits a frame in DAG-CBOR, with ids in hexadecimal.
pub const JSON_FRAME_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Time a `bye` may take to leave, in milliseconds.
pub const BYE_WAIT_MS: u64 = 1_000;
/// Time that a closed connection is read on so that the last words arrive, in milliseconds.
pub const CLOSE_LINGER_MS: u64 = 1_000;
/// Bytes thrown away in that time.
pub const CLOSE_LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Received and unread bytes of one QUIC stream.
pub const QUIC_STREAM_WINDOW: u32 = 256 * 1024;
/// Received and unread bytes of one QUIC connection.
pub const QUIC_CONNECTION_WINDOW: u32 = 320 * 1024;
/// Sent and unacknowledged bytes of one QUIC connection.
pub const QUIC_SEND_WINDOW: u64 = 256 * 1024;
/// Streams a QUIC client may open; all but the first are refused, but with an answer.
pub const QUIC_STREAMS_MAX: u32 = 8;
/// A QUIC connection without a packet for this long is gone, in milliseconds. Longer than the
/// silence that ends a session, so that the session can still say why.
pub const QUIC_IDLE_MS: u32 = 65_000;
/// Bytes buffered of a QUIC handshake that was not accepted yet.
pub const QUIC_INCOMING_BYTES: u64 = 16 * 1024;

/// Bytes of a request's body over HTTP.
pub const HTTP_BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a request's head over HTTP, and of the buffer it is read into.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Time for a request's head, also the time an idle connection is kept, in milliseconds.
pub const HTTP_HEAD_MS: u64 = 10_000;
/// Time for a request's body, in milliseconds.
pub const HTTP_BODY_MS: u64 = 10_000;
/// Requests at once on a connection that speaks HTTP/2 unasked.
pub const HTTP2_STREAMS_MAX: u32 = 8;
/// Connections waiting to be accepted.
pub const HTTP_BACKLOG: u32 = 1_024;
/// Bytes read from a WebSocket at once. The library's default of 128 KiB is held by every idle
/// connection.
pub const WEBSOCKET_READ_BYTES: usize = 4 * 1024;
/// Bytes of WebSocket messages joined into one write.
pub const WEBSOCKET_WRITE_BYTES: usize = 16 * 1024;
