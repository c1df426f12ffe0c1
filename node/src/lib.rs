//! A Comity home server. The `comity` binary is a thin shell around [`cli`]; the testnet tools run
//! the same [`server::Server`].
//!
//! A message's way, with no turning back: gateway -> home -> engine (shard) -> conversation ->
//! log (sync) -> answer | index and change log -> sessions | links -> the same at each peer.

pub mod accounts;
pub mod admin;
pub mod cli;
pub mod config;
mod engine;
pub mod gateway;
mod home;
mod hub;
mod identities;
mod items;
pub mod limits;
mod metrics;
pub mod outbound;
mod projection;
mod records;
mod replication;
mod rows;
pub mod server;
mod servers;
pub mod tls;
mod updates;
