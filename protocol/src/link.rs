//! Replication of one peer link, as a state machine. Source: `spec/05-links.md`.
//!
//! Each home pushes its own chains to the homes that take part; whatever a peer lacks otherwise it
//! notices by comparing frontiers and asks for. The outbox is a position, not a copy: per peer and
//! conversation the newest own commit that the peer stored. Any contact makes both sides compare.
//!
//! The machine holds no commit and knows no chain: it asks its driver to read, to judge and to
//! serve, and is told the frontiers through [`World`].

mod fetch;
mod frame;
mod io;
mod machine;
mod outbox;

pub use frame::{
    Answer, Bundle, Cards, ContentSlot, Frame, FrameChannel, Identity, Offer, Query, Range,
    Verdict, decode_frame, encode_frame,
};
pub use io::{Input, Output, World};
pub use machine::{Link, RECORDS_MAX, STEWARDING_MAX};
pub use outbox::Progress;

/// Version of the link protocol.
pub const VERSION: u64 = 1;

#[cfg(test)]
mod tests;
