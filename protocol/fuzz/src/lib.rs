//! What Comity's core is attacked with: one harness function for every decoder of bytes from
//! outside and for the machines behind them, inputs made to harm, and a meter of memory.
//!
//! A [`Target`] takes any bytes; it panics only where the core breaks a promise. The same functions
//! are run in three ways: shortly by the tests, a million times each by
//! `comity-testnet prove hostile-input`, and for hours, led by coverage, by `./dev fuzz`.
//!
//! - [`decoders`], [`machines`]: the harness functions; [`TARGETS`] lists them.
//! - [`seeds`]: sound inputs, from `spec/vectors/`, to begin with.
//! - [`mutate`], [`cbor`], [`random`]: from a sound input to a hostile one.
//! - [`run`]: many hostile inputs for one target, counted and measured.
//! - [`allocation`]: an allocator that says what a call took.
//! - [`world`]: homes, users and signed histories; [`work`]: what speed is measured on.
#![deny(missing_docs)]

pub mod allocation;
pub mod cbor;
pub mod decoders;
pub mod machines;
pub mod mutate;
pub mod random;
pub mod run;
pub mod seeds;
mod target;
pub mod work;
pub mod world;

pub use target::{Form, TARGETS, Target, find};
