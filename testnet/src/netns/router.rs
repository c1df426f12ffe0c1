//! Decides what becomes of each packet between hosts. Time and packets come in as arguments, so a
//! run follows from its seed; [`super::serve`] has the devices and the clock.

mod lane;
mod packet;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use lane::{Fate, Lane};
pub use packet::ends;

use super::rule::{Rule, RuleError};

/// Hosts of one router: it has a lane for each ordered pair.
pub const HOSTS_MAX: usize = 64;
/// Bytes under way from one host to another; more are dropped.
pub const LANE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A host, as the router knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// Its name, for rules and counters.
    pub name: String,
    /// What it sends from, and what is sent to it.
    pub addresses: Vec<IpAddr>,
}

/// What became of the packets from one host to another, in packets unless named otherwise.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counters {
    /// Handed to the other host.
    pub forwarded: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Of those under way or forwarded: held back, so that others could overtake them.
    pub reordered: u64,
    /// Dropped by the loss rate.
    pub lost: u64,
    /// Dropped because the way was cut.
    pub cut: u64,
    /// Dropped because the queue before a slow way, or the way itself, was full.
    pub overflow: u64,
    /// Not taken by the other host's device.
    pub refused: u64,
}

/// A packet that has arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// The host that sent it.
    pub from: usize,
    /// The host it is for.
    pub to: usize,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// Why a router cannot be made, or a rule not be set. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Too many.
    #[error("a router has at most {HOSTS_MAX} hosts")]
    TooManyHosts,
    /// Two hosts have one name or address.
    #[error("{0} is there twice")]
    Twice(String),
    /// A name that no host has.
    #[error("there is no host {0}")]
    NoHost(String),
    /// From a host to itself: such packets never leave it.
    #[error("{0} does not reach itself through the router")]
    Same(String),
    /// The rule cannot be done.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

/// All hosts, the ways between them, and what is under way.
#[derive(Debug)]
pub struct Router {
    hosts: Vec<Host>,
    by_address: BTreeMap<IpAddr, usize>,
    /// By `from * hosts + to`.
    lanes: Vec<Lane>,
    /// By the time they arrive; what arrives together does so in the order it was sent.
    under_way: BTreeMap<(u64, u64), Delivery>,
    taken: u64,
    unroutable: u64,
}

impl Router {
    /// A router between these hosts, over perfect ways; `seed` decides all that is drawn.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyHosts`] or [`Error::Twice`].
    pub fn new(hosts: Vec<Host>, seed: u64) -> Result<Self, Error> {
        if hosts.len() > HOSTS_MAX {
            return Err(Error::TooManyHosts);
        }
        let mut by_address = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (index, host) in hosts.iter().enumerate() {
            if !names.insert(&host.name) {
                return Err(Error::Twice(host.name.clone()));
            }
            for address in &host.addresses {
                if by_address.insert(*address, index).is_some() {
                    return Err(Error::Twice(address.to_string()));
                }
            }
        }
        // Each lane draws for itself: what one does leaves the others' luck alone.
        let lanes = (0..hosts.len() * hosts.len())
            .map(|lane| Lane::new(seed, lane as u64))
            .collect();
        Ok(Self {
            hosts,
            by_address,
            lanes,
            under_way: BTreeMap::new(),
            taken: 0,
            unroutable: 0,
        })
    }

    /// How many hosts there are.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Makes `rule` that of the way from one host to another, for what is sent from now on.
    ///
    /// # Errors
    ///
    /// [`Error`]; the rule before stays.
    pub fn set(&mut self, from: &str, to: &str, rule: Rule) -> Result<(), Error> {
        rule.check()?;
        let lane = self.lane(from, to)?;
        self.lanes[lane].rule = rule;
        Ok(())
    }

    /// The rule of the way from one host to another.
    ///
    /// # Errors
    ///
    /// [`Error::NoHost`] or [`Error::Same`].
    pub fn rule(&self, from: &str, to: &str) -> Result<Rule, Error> {
        Ok(self.lanes[self.lane(from, to)?].rule)
    }

    /// Takes a packet that the host with the index `from` sent at `now_us`.
    pub fn take(&mut self, now_us: u64, from: usize, bytes: Vec<u8>) {
        let Some(to) = self.destination(from, &bytes) else {
            self.unroutable += 1;
            return;
        };
        let lane = &mut self.lanes[from * self.hosts.len() + to];
        if let Fate::Arrives(at_us) = lane.send(now_us, bytes.len()) {
            let key = (at_us, self.taken);
            self.under_way.insert(key, Delivery { from, to, bytes });
            self.taken += 1;
        }
    }

    /// When the next packet arrives, if one is under way.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        self.under_way.keys().next().map(|(at_us, _)| *at_us)
    }

    /// The next packet that has arrived at `now_us`; call it until there is none.
    pub fn arrived(&mut self, now_us: u64) -> Option<Delivery> {
        loop {
            let first = self.under_way.first_entry()?;
            if first.key().0 > now_us {
                return None;
            }
            let delivery = first.remove();
            let lane = &mut self.lanes[delivery.from * self.hosts.len() + delivery.to];
            if lane.arrive(delivery.bytes.len()) {
                return Some(delivery);
            }
        }
    }

    /// The device of its host did not take a packet that had arrived.
    pub fn refused(&mut self, delivery: &Delivery) {
        self.lanes[delivery.from * self.hosts.len() + delivery.to].refused(delivery.bytes.len());
    }

    /// What became of the packets of every pair so far, by (from, to).
    #[must_use]
    pub fn counters(&self) -> Vec<(String, String, Counters)> {
        let mut all = Vec::new();
        for (from, a) in self.hosts.iter().enumerate() {
            for (to, b) in self.hosts.iter().enumerate().filter(|(to, _)| *to != from) {
                let counters = self.lanes[from * self.hosts.len() + to].counters;
                all.push((a.name.clone(), b.name.clone(), counters));
            }
        }
        all
    }

    /// Packets for nobody here, or from an address that is not their sender's.
    #[must_use]
    pub fn unroutable(&self) -> u64 {
        self.unroutable
    }

    fn destination(&self, from: usize, bytes: &[u8]) -> Option<usize> {
        let (source, destination) = ends(bytes)?;
        // What is masked badly, or not at all, must not look as if it worked.
        let known = self.by_address.get(&source) == Some(&from);
        let to = *self.by_address.get(&destination)?;
        (known && to != from).then_some(to)
    }

    fn lane(&self, from: &str, to: &str) -> Result<usize, Error> {
        let find = |name: &str| {
            let found = self.hosts.iter().position(|host| host.name == name);
            found.ok_or_else(|| Error::NoHost(name.to_owned()))
        };
        if from == to {
            return Err(Error::Same(from.to_owned()));
        }
        Ok(find(from)? * self.hosts.len() + find(to)?)
    }
}
