//! Limits of the client, by name. Those of the protocol are in `comity_protocol::limits`.

/// Events waiting to be sent, at most.
pub const OUTBOX_ITEMS_MAX: usize = 10_000;
/// Bytes of events and contents waiting to be sent, at most.
pub const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Sent events whose answer is still out, per session.
pub const SEND_WINDOW: usize = 64;
/// Other requests under way, per session: with the window below what a server allows.
pub const CALLS_MAX: usize = 64;
/// Requests waiting for a session; more wait in their callers.
pub const CALLS_QUEUED_MAX: usize = 64;
/// Events buffered for one subscriber; the oldest make room and are counted in `Lagged`.
pub const EVENTS_BUFFERED_MAX: usize = 4_096;
/// Bytes of text buffered for one subscriber.
pub const EVENTS_BUFFERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Subscribers of one client; what they read is kept until the slowest has it or lags.
pub const SUBSCRIBERS_MAX: usize = 64;
/// Marks of progress waiting for subscribers to catch up.
pub(crate) const MARKS_MAX: usize = 2 * EVENTS_BUFFERED_MAX;
/// Updates read from the server and not yet verified; beyond, reading stops.
pub(crate) const BACKLOG_SOFT_BYTES: usize = 1024 * 1024;
/// The same while an identity is being fetched; beyond, the session is cut and resumed later.
pub(crate) const BACKLOG_HARD_BYTES: usize = 8 * 1024 * 1024;
/// Lines remembered, to tell a repeated one from a new one and what changed about it.
pub const LINES_REMEMBERED: usize = 4_096;
/// Identities held.
pub const IDENTITIES_CACHED: usize = 4_096;
/// Verified signatures remembered by one client.
pub const VERIFIED_ONE_CLIENT: usize = 2_048;
/// Verified signatures remembered for several clients together.
pub const VERIFIED_SHARED: usize = 32_768;
/// Conversations whose summary is kept.
pub const CONVERSATIONS_KNOWN_MAX: usize = 50_000;
/// Accepted events whose replication somebody still watches.
pub(crate) const TRACKED_MAX: usize = 4_096;
/// Pages read to catch up with one conversation after a reset, before it becomes a gap.
pub(crate) const CATCH_UP_PAGES_MAX: usize = 20;
/// Lines in such a page.
pub(crate) const CATCH_UP_PAGE_ITEMS: u32 = 200;
/// Conversations whose newest page is read again after a reset.
pub(crate) const CATCH_UP_NEWEST: usize = 20;

/// How long a request may take, waiting for a session included, in milliseconds.
pub const REQUEST_MS: u64 = 30_000;
/// How long a sent event may stay unanswered before the session counts as broken.
pub(crate) const SEND_ANSWER_MS: u64 = 60_000;
/// How long opening a session may take once the transport is up.
pub(crate) const HANDSHAKE_MS: u64 = 10_000;
/// How long a QUIC handshake may take before WebSocket is tried.
pub(crate) const QUIC_CONNECT_MS: u64 = 3_000;
/// How long TCP, TLS and the WebSocket upgrade may take.
pub(crate) const WEBSOCKET_CONNECT_MS: u64 = 10_000;
/// How long discovery or a sign-in may take; the password hash alone takes a while.
pub(crate) const HTTP_MS: u64 = 20_000;
/// Bytes of an HTTP answer.
pub(crate) const HTTP_BODY_BYTES_MAX: usize = 256 * 1024;
/// After WebSocket worked where QUIC did not, QUIC is left alone for this long.
pub(crate) const QUIC_AGAIN_MS: u64 = 3_600_000;
/// Shortest wait before a refused event is sent again.
pub(crate) const RESEND_MIN_MS: u64 = 1_000;
/// Longest wait before a refused event is sent again, unless the server asks for more.
pub(crate) const RESEND_MAX_MS: u64 = 60_000;
/// The outbox file is synced this long after a write.
pub(crate) const SYNC_AFTER_MS: u64 = 1_000;
/// An identity that lacked a device when asked for it is asked for again after this long.
pub(crate) const IDENTITY_AGAIN_MS: u64 = 30_000;
/// How long `close` waits for the outbox to empty.
pub const CLOSE_MS: u64 = 5_000;
/// Bytes queued for the network before more frames are made.
pub(crate) const WRITE_QUEUED_BYTES: usize = 256 * 1024;
/// Bytes of a record in a file of the store.
pub(crate) const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Dead bytes in a file of the store before it is rewritten.
pub(crate) const COMPACT_DEAD_BYTES: u64 = 1024 * 1024;
