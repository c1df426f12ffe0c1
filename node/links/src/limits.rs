//! Every limit of this crate. Memory per peer is bounded by their sum: 4 MiB of receive window,
//! 2 x 4 MiB of send queue, 2 x 2 MiB of frame being read, 2 x 256 KiB read ahead, and what QUIC
//! holds until the peer acknowledges it: the peer's windows, at most 10 MB whatever it announces
//! (the default of quinn, which libp2p has no setting for).

use std::time::Duration;

/// Longest frame, in bytes, without its four length bytes.
pub const FRAME_MAX: usize = 2 * 1024 * 1024;
/// Frames queued per peer and channel before `try_send` says full.
pub const SEND_QUEUE_FRAMES: usize = 8_192;
/// Bytes queued per peer and channel; holds at least one longest frame.
pub const SEND_QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Small frames are put together into one write of at most this many bytes.
pub const COALESCE_BYTES: usize = 64 * 1024;
/// Read buffer of one channel, in bytes. Longer frames get a buffer of their own.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of one peer and channel that may wait in the event queue. Small, since a frame waits
/// behind this much of every other peer and of the other channel.
pub const READ_AHEAD_BYTES: u32 = 256 * 1024;
/// What a frame costs of [`READ_AHEAD_BYTES`] on top of its length: bounds the number of frames.
pub const FRAME_OVERHEAD_BYTES: u32 = 256;
/// Events waiting for the consumer, over all peers.
pub const EVENT_QUEUE: usize = 4_096;

/// Configured peers.
pub const PEERS_MAX: usize = 256;
/// Addresses of one peer, before and after names are resolved.
pub const ADDRESSES_MAX: usize = 16;
/// Unknown keys remembered for [`Links::refused`](crate::Links::refused); the oldest goes first.
pub const REFUSED_MAX: usize = 64;
/// Connections to one peer at a time: the link, the ones it replaces, the ones being set up.
pub const CONNECTIONS_PER_PEER: u32 = 4;
/// Connections a peer may open to us within [`CONNECT_SPAN`]; more are closed unseen, so that a
/// peer cannot keep the consumer busy with links that come and go.
pub const CONNECTS_MAX: usize = 32;
/// See [`CONNECTS_MAX`].
pub const CONNECT_SPAN: Duration = Duration::from_secs(10);
/// Inbound handshakes under way at a time; bounds what strangers can make us compute.
pub const PENDING_INBOUND: u32 = 128;
/// Substreams a peer may have open on one connection: two of each side, and some in negotiation.
pub const SUBSTREAMS_MAX: u32 = 16;
/// Requests waiting for the swarm loop, of the handles and of the connection tasks each.
pub const COMMAND_QUEUE: usize = 64;

/// Receive window of one substream, in bytes: one longest frame.
pub const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// Receive window of a connection, in bytes: both channels may stand still without one blocking
/// the other.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Pause after which QUIC sends a ping of its own.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Silence after which QUIC gives a connection up. The clock starts again with the first packet
/// sent after the last one received (RFC 9000, 10.1), at the latest with the next keep-alive: so a
/// dead peer is noticed at most `KEEP_ALIVE + IDLE_TIMEOUT` = 15 s after its last sign of life.
/// Lost packets do not add up to silence: a keep-alive without answer is probed for again many
/// times within this span.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest QUIC handshake, and longest dial.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for name resolution before a dial.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time from connection to link; then the connection is closed.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long readers may go on delivering what had arrived after the connection is gone.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest patience of a shutdown.
pub const PATIENCE_MAX: Duration = Duration::from_secs(3_600);
/// How long closing the connections may take at the end of a shutdown.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// First pause between dials, doubled after each failure.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between dials.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Age from which a dial under way no longer counts when the operator or other news asks for one:
/// what it sent may have met a dead port, and it would send again only seconds later.
pub const DIAL_STALE: Duration = Duration::from_secs(1);
/// Longest pause during [`BACKOFF_EARLY_SPAN`] after contact was lost, so that a peer which
/// only restarts is reached within seconds.
pub const BACKOFF_EARLY_MAX: Duration = Duration::from_secs(2);
/// See [`BACKOFF_EARLY_MAX`].
pub const BACKOFF_EARLY_SPAN: Duration = Duration::from_secs(60);
/// Shortest pause: two servers that refuse each other must not spin.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// A link that lasted this long is redialled at once and forgets earlier failures. A shorter
/// one counts as a failure, or a peer that breaks every link would be dialled without pause.
pub const LINK_STABLE: Duration = Duration::from_secs(10);
