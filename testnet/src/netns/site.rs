//! What a host is like, and its addresses. All are private ones (RFC 1918, RFC 4193) that exist
//! only inside the namespaces; a host's number, from 0, is in each.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::router::HOSTS_MAX;

/// Sites of one network: their numbers are bytes of addresses.
pub const SITES_MAX: usize = HOSTS_MAX;

/// A server's site.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Site {
    /// The region, which names it.
    pub name: String,
    /// It is behind NAT: it reaches out, and nobody reaches in.
    pub nat: bool,
    /// What becomes of UDP that leaves the site or comes to it. Its own users are inside.
    pub udp: Udp,
}

/// What a site's firewall does with UDP.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Udp {
    /// Lets it through.
    #[default]
    Open,
    /// Refuses it with an ICMP message: senders know at once.
    Refused,
    /// Drops it: senders wait for nothing.
    Dropped,
}

impl Site {
    /// Whether a host stands between the server and the others: for NAT, and as a firewall that
    /// is not the server's own, so that its sockets learn what a network tells and no more.
    #[must_use]
    pub fn has_gate(&self) -> bool {
        self.nat || self.udp != Udp::Open
    }

    /// A site that reaches everybody and is reached by everybody.
    #[must_use]
    pub fn open(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nat: false,
            udp: Udp::Open,
        }
    }
}

/// A number as a byte of an address: from 1 on, so that no address is that of a network.
fn byte(site: usize) -> u8 {
    u8::try_from(site + 1).expect("SITES_MAX fits in a byte")
}

/// Where others reach the site, and what they see it send from.
#[must_use]
pub fn outside(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, byte(site), 1)
}

/// The gate of a site that has one, where it is not itself what others reach: it speaks for the
/// firewall, in the messages that refuse.
#[must_use]
pub fn firewall(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, byte(site), 254)
}

/// [`outside`] over IPv6, which a site with a gate has not.
#[must_use]
pub fn outside6(site: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, byte(site).into(), 0, 0, 0, 0, 0, 1)
}

/// The server, for users inside its site.
#[must_use]
pub fn desk(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, byte(site), 1)
}

/// These users.
#[must_use]
pub fn people(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, byte(site), 2)
}

/// The server, for its gate.
#[must_use]
pub fn behind(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 79, byte(site), 2)
}

/// That gate.
#[must_use]
pub fn gate(site: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 79, byte(site), 1)
}
