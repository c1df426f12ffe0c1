//! The frame of `prove`: claims about the network, each executable, each able to fail.
//!
//! A [`Claim`] measures and gives limits; it never says itself whether it holds. [`judge`] does,
//! from figures and limits alone. Run with its mechanism broken, every claim must be found false,
//! by its figures: a claim that cannot fail proves nothing.

mod prove;
mod verdict;

use std::path::PathBuf;
use std::pin::Pin;

pub use prove::{CLAIM_TIMEOUT, EXIT_FALSE, EXIT_HOLDS, EXIT_USAGE, Options, prove};
pub use verdict::{Build, Figure, Limit, MachineFigures, Outcome, Verdict, judge};

/// The promises of the network (`spec/`), one or more claims each.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Promise {
    /// Acked is durable.
    P1,
    /// Exactly once.
    P2,
    /// Convergence.
    P3,
    /// Bounded healing.
    P4,
    /// Nothing blocks.
    P5,
    /// Erasure.
    P6,
    /// Bounded.
    P7,
    /// Fast.
    P8,
}

/// What a claim is run with.
#[derive(Clone, Debug)]
pub struct Context {
    /// Directory for this run's servers and logs; every run makes its own below it.
    pub directory: PathBuf,
    /// The machine, measured before the first claim.
    pub machine: MachineFigures,
    /// How this binary was built.
    pub build: Build,
    /// Whether time is short: fewer rounds, the same limits.
    pub quick: bool,
}

/// What a run gives: figures and limits, or why it could not be finished.
pub type Run<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Outcome>> + Send + 'a>>;

/// One claim about the network.
pub trait Claim: Sync {
    /// Its name on the command line; unique.
    fn name(&self) -> &'static str;

    /// What it says, in one sentence.
    fn says(&self) -> &'static str;

    /// The promise it is part of.
    fn promise(&self) -> Promise;

    /// Whether it is tried by `--quick`, with every submission.
    fn quick(&self) -> bool;

    /// Whether it is about speed: an unoptimized build then refuses to judge it.
    fn is_about_speed(&self) -> bool {
        self.promise() == Promise::P8
    }

    /// Runs it. With `broken`, the mechanism that makes the claim true is taken out and everything
    /// else stays as it is; figures and limits are made in the same way.
    ///
    /// It must not block its thread: only an awaiting run can be ended after [`CLAIM_TIMEOUT`].
    /// What it started ends when the future is dropped.
    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a>;
}
