//! Links between home servers: opaque frames over libp2p and QUIC. Nothing here knows of chat.
//!
//! A *link* is one connection to a peer with four one-way substreams: for each direction one for
//! live traffic and one for bulk, so that history never blocks what people are saying now. Frames
//! of one channel arrive in order and whole, or the link goes down; what was not delivered then is
//! for the caller to send again on the next link, since frames carry no acknowledgement here.
//!
//! | module | what it holds |
//! |---|---|
//! | `links` | [`Links`], the handle: start, send, change peers, shut down |
//! | `config` | [`Config`], [`StaticPeer`], reading of addresses |
//! | `event` | [`LinkEvent`] and [`Events`], the one bounded way to the consumer |
//! | `key` | [`PeerKey`] and its one-to-one relation to the libp2p peer id |
//! | `driver` | the swarm loop: who is connected, which connection is the link, when to dial |
//! | `behaviour` | libp2p glue: only known keys get in; substreams are handed over per connection |
//! | `hello` | first frame on a connection, and the rule that leaves one link of several |
//! | `link` | the tasks of one link: two readers, two writers, their supervisor |
//! | `frame`, `outbox` | framing, and the bounded queue before it |
//! | `reach` | [`Reach`]: which addresses may be dialled, asked of each when it is |
//! | `backoff`, `limits`, `board`, `reason` | pauses between dials, every number, figures for [`PeerStatus`], errors as text |
//!
//! Invariants: the swarm loop never awaits anything but its inputs; a peer that is not configured
//! gets no further than its handshake; `Up` and `Down` of a peer alternate, and every frame of a
//! link lies between its `Up` and its `Down`. Absent on purpose: libp2p-stream (it addresses
//! streams by peer and not by connection, so two connections to one peer cannot be told apart),
//! identify and ping (the QUIC keep-alive and the hello do their work).

mod backoff;
mod behaviour;
mod board;
mod config;
mod driver;
mod event;
mod frame;
mod hello;
mod key;
pub mod limits;
mod link;
mod links;
mod outbox;
mod reach;
mod reason;

pub use board::{Direction, PeerStatus, Refused};
pub use config::{Config, PeerError, StaticPeer};
pub use event::{Channel, Events, LinkEvent};
pub use key::PeerKey;
pub use links::{Links, StartError, Stopped};
pub use outbox::SendError;
pub use reach::{Network, ParseNetworkError, Reach};
