//! What a run is made of.

use std::collections::BTreeSet;

use crate::{faults::Kind, planted::Planted};

/// Everything that decides a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything else.
    pub seed: u64,
    /// Servers; of three or more the last one is hostile.
    pub servers: usize,
    /// Users, spread over the servers.
    pub users: usize,
    /// Virtual time, in milliseconds.
    pub length_ms: u64,
    /// A bug built in on purpose.
    pub planted: Option<Planted>,
    /// Only so many of the acts of users and faults, from the beginning.
    pub steps: Option<usize>,
    /// Faults that are left out.
    pub without: BTreeSet<Kind>,
}

impl Options {
    /// A run without a planted bug, with everything.
    #[must_use]
    pub const fn new(seed: u64, servers: usize, users: usize, hours: u64) -> Self {
        Self {
            seed,
            servers,
            users,
            length_ms: hours * 3_600_000,
            planted: None,
            steps: None,
            without: BTreeSet::new(),
        }
    }

    /// The index of the hostile server, if there is one.
    #[must_use]
    pub const fn hostile(&self) -> Option<usize> {
        if self.servers >= 3 {
            Some(self.servers - 1)
        } else {
            None
        }
    }
}
