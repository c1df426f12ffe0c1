//! Client SDK of Comity: connect once, send into an outbox that survives, read events that never
//! end.
//!
//! ```no_run
//! use comity_sdk::{Client, Event};
//!
//! # async fn example() -> comity_sdk::Result<()> {
//! let client = Client::builder("echo-bot@eu.example")
//!     .token(std::env::var("COMITY_TOKEN")?)
//!     .store("./echo-bot") // outbox and place of reading; omit for memory only
//!     .connect()
//!     .await?; // finds the server, QUIC then WebSocket
//! let mut events = client.events(); // never ends on a lost network
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Message(m) if !m.is_own() && m.text().starts_with("!echo ") => {
//!             let _ = m.reply(&m.text()[6..]).await?; // Ok = safe in the outbox
//!         }
//!         Event::Connection(state) => eprintln!("{state}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! - **Sending.** When [`Conversation::send`] returns `Ok`, the event is in the outbox. With a store
//!   it survives the end of the process at any moment (a loss of power within the last second may
//!   take it). It is sent until the home server has it, with the same bytes, and counts once.
//!   [`Outgoing::accepted`] means durable at the home server, [`Outgoing::replicated`] on others.
//!   Within one conversation the order of sending is kept, save that an event which the server
//!   refused for now may be overtaken by those that were in flight with it.
//! - **Reading.** With a store every event is handed over at least once, and once only if the
//!   program does not end between taking it and asking for the next. Lines are recognised over
//!   restarts and resets as long as they are among the last
//!   [`LINES_REMEMBERED`](limits::LINES_REMEMBERED). Loss is never silent: [`Event::Gap`],
//!   [`Event::Lagged`] and [`Event::Reset`] say what to read again.
//! - **Authors.** A line is shown only if a device of its author signed it, as the author's identity
//!   log proves; no server can forge it, not even the own one. Reactions and deletions are shown on
//!   the home server's word.
//! - **Bounds.** Every buffer has a limit in [`limits`].
#![deny(missing_docs)]

mod account;
mod address;
mod builder;
mod client;
mod clock;
mod conversation;
mod driver;
mod error;
mod events;
mod history;
mod intake;
mod journal;
pub mod limits;
mod message;
mod outbox;
mod preferences;
mod random;
mod sending;
mod store;
#[cfg(test)]
mod testing;
mod tls;
mod transport;
mod verified;
mod verify;

pub use address::Who;
pub use builder::ClientBuilder;
pub use client::{Client, Stats};
pub use comity_protocol as protocol;
pub use comity_protocol::{
    authority::Cause,
    event::{Act, Attachment, Content, Field, Grant, Target},
    ids::{BlobId, ConversationId, DeviceKey, EventId, ServerId, UserId},
    name::UserAddress,
    preference::{Folder, FolderId, Mute, Setting, Value},
    role::Role,
    session::{Code, LookedUp, Member, Place, Reaction, Summary},
    time::Timestamp,
};
pub use conversation::{Confirmed, Conversation, Draft, OwnEvent, Voided};
pub use error::{Error, ErrorKind, Result};
pub use events::{ConnectionState, Event, Events, Via, Warning};
pub use history::{History, Page};
pub use message::{Body, Message};
pub use outbox::SendState;
pub use preferences::Preferences;
pub use sending::{Outgoing, Replicas};
pub use tls::{CA_VARIABLE, Ca};
pub use transport::Transport;
pub use verified::Verified;
