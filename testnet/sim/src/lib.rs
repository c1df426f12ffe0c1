//! A whole Comity network in one thread and one seed: servers made of the core's own state
//! machines, with simulated clocks, disks and links, users who sign for real, one server that
//! lies, and checkers that were written independently of what they check.
//!
//! [`run`] plays one seed and says what broke, [`shrink`] finds a smaller run that breaks the same.

mod check;
mod disk;
mod faults;
mod hostile;
mod network;
mod options;
mod people;
mod planted;
mod random;
pub mod report;
mod rows;
mod server;
mod steps;
mod world;

pub use check::Violation;
pub use faults::Kind;
pub use options::Options;
pub use planted::Planted;
pub use random::Random;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What one run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// Accepted events by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// Root records that were held, by what they are.
    pub records: BTreeMap<&'static str, u64>,
    /// Texts that were erased because their days were over, each at each honest server.
    pub expired: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Conversations in which something was accepted.
    pub conversations: usize,
    /// Steps of users and faults until the end, or until the promise broke.
    pub steps: usize,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// Things that happened in it: frames, syncs, ticks, steps.
    pub handled: u64,
}

/// Plays one seed to its end, or to the first broken promise.
#[must_use]
pub fn run(options: &Options) -> Outcome {
    let mut world = world::World::new(options.clone());
    world.run();
    Outcome {
        seed: options.seed,
        violation: world.violation,
        conversations: world.ledger.lively(),
        records: world.ledger.records(),
        expired: world.ledger.expirations(),
        events: world.ledger.kinds,
        faults: world.faults,
        steps: world.steps_taken,
        virtual_ms: world.now,
        handled: world.handled,
    }
}

/// Looks for a smaller run that breaks the same promise: first fewer steps, by halves, then without
/// whole kinds of faults. Stops after `time`; gives the smallest found and how it broke.
#[must_use]
pub fn shrink(options: &Options, broken: &Outcome, time: Duration) -> (Options, Outcome) {
    let since = Instant::now();
    let promise = broken.violation.as_ref().map(|v| v.promise);
    let breaks = |options: &Options| {
        let outcome = run(options);
        let same = outcome.violation.as_ref().map(|v| v.promise) == promise;
        same.then_some(outcome)
    };
    let (mut best, mut outcome) = (options.clone(), broken.clone());
    best.steps = Some(broken.steps);
    let (mut low, mut high) = (0, broken.steps);
    while low < high && since.elapsed() < time / 2 {
        let mut fewer = best.clone();
        let middle = usize::midpoint(low, high);
        fewer.steps = Some(middle);
        match breaks(&fewer) {
            Some(found) => (best, outcome, high) = (fewer, found, middle),
            None => low = middle + 1,
        }
    }
    for kind in Kind::ALL {
        if since.elapsed() > time {
            break;
        }
        let mut fewer = best.clone();
        if fewer.without.insert(*kind)
            && let Some(found) = breaks(&fewer)
        {
            (best, outcome) = (fewer, found);
        }
    }
    (best, outcome)
}
