//! Comity's core, sans-IO: types, limits, canonical encoding, crypto and the pure state machines.
//!
//! No clock, no socket, no file, no randomness: time and random bytes come in as arguments,
//! effects go out as values. `spec/` describes every byte; `spec/vectors/` holds examples.
//!
//! - [`ids`], [`time`], [`place`], [`role`], [`limits`], [`encoding`], [`signing`]: the alphabet.
//! - [`event`], [`commit`], [`root`]: what travels between servers and is kept for ever.
//! - [`name`], [`identity`], [`card`]: who users and servers are, and what they are called.
//! - [`link`]: replication of one peer link.
//! - [`conversation`]: history, authority and documents composed.
//! - [`shard`]: many conversations of one home, and who waits for what in them.
//! - [`replication`]: all links of one home.
//! - [`session`]: the protocol between a client and its home server.
//! - [`history`]: the grow-only set of commits.
//! - [`document`]: the merge of everything that can change.
//! - [`preference`]: what a user's own devices agree on.
//! - [`authority`]: who may do what, and what stands after any merge.
#![deny(missing_docs)]

pub mod authority;
pub mod card;
pub mod commit;
pub mod conversation;
pub mod document;
pub mod encoding;
pub mod event;
pub mod history;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod link;
pub mod name;
pub mod place;
pub mod preference;
pub mod replication;
pub mod role;
pub mod root;
pub mod session;
pub mod shard;
pub mod signing;
pub mod time;
