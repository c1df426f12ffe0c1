//! What the operator sets, checked once at the boundary.

use std::net::IpAddr;

use libp2p::{
    Multiaddr,
    multiaddr::{Error as MultiaddrError, Protocol},
};

use crate::{
    key::PeerKey,
    limits::{ADDRESSES_MAX, PEERS_MAX},
    reach::Reach,
};

/// How to start: who we are, where we listen, whom we know.
#[derive(Clone)]
pub struct Config {
    /// Ed25519 seed of this server's key.
    pub seed: [u8; 32],
    /// Multiaddresses to listen on, like `/ip4/0.0.0.0/udp/4001/quic-v1`; may be empty.
    pub listen: Vec<String>,
    /// The only servers that may connect; at most [`PEERS_MAX`].
    pub peers: Vec<StaticPeer>,
}

impl std::fmt::Debug for Config {
    /// Without the seed: a configuration may end up in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("key", &PeerKey::of_seed(self.seed))
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .finish()
    }
}

/// A server we accept connections from, and dial if it has addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StaticPeer {
    /// Its public key: an address that answers with another key is not this peer.
    pub key: PeerKey,
    /// Multiaddresses with `ip4`, `ip6`, `dns`, `dns4` or `dns6`, like
    /// `/dns/b.example/udp/4001/quic-v1`; at most [`ADDRESSES_MAX`]. Without any we only wait.
    pub addresses: Vec<String>,
    /// Where they may lead, asked of each address that is dialled.
    pub reach: Reach,
}

/// Why a peer was not taken into the list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The address is no multiaddress at all.
    #[error("address {address:?} of peer {key} cannot be read")]
    Unreadable {
        /// The peer.
        key: PeerKey,
        /// As given.
        address: String,
        /// What the parser says.
        source: MultiaddrError,
    },
    /// A multiaddress, but not host, UDP port and `quic-v1`, or with another peer's key.
    #[error("address {address:?} of peer {key} is not /HOST/udp/PORT/quic-v1")]
    Unsupported {
        /// The peer.
        key: PeerKey,
        /// As given.
        address: String,
    },
    /// More than [`ADDRESSES_MAX`] addresses.
    #[error("peer {key} has more than {ADDRESSES_MAX} addresses")]
    TooManyAddresses {
        /// The peer.
        key: PeerKey,
    },
    /// More than [`PEERS_MAX`] peers.
    #[error("more than {PEERS_MAX} peers")]
    TooManyPeers,
    /// Our own key.
    #[error("a server cannot be its own peer")]
    OwnKey,
    /// The links are shut down.
    #[error("the links are shut down")]
    Stopped,
}

/// Where a peer can be dialled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Ip(IpAddr, u16),
    /// Resolved before each dial, since names move.
    Name {
        host: String,
        port: u16,
        family: Family,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Family {
    Any,
    V4,
    V6,
}

/// A checked [`StaticPeer`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Known {
    pub(crate) key: PeerKey,
    pub(crate) targets: Vec<Target>,
    pub(crate) reach: Reach,
}

impl Known {
    pub(crate) fn read(peer: &StaticPeer, own: PeerKey) -> Result<Self, PeerError> {
        let key = peer.key;
        if key == own {
            return Err(PeerError::OwnKey);
        }
        if peer.addresses.len() > ADDRESSES_MAX {
            return Err(PeerError::TooManyAddresses { key });
        }
        let read = |address: &String| {
            let parsed: Multiaddr = address.parse().map_err(|source| PeerError::Unreadable {
                key,
                address: address.clone(),
                source,
            })?;
            target(&parsed, key).ok_or_else(|| PeerError::Unsupported {
                key,
                address: address.clone(),
            })
        };
        let targets = peer.addresses.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self {
            key,
            targets,
            reach: peer.reach.clone(),
        })
    }

    pub(crate) fn read_all(peers: &[StaticPeer], own: PeerKey) -> Result<Vec<Self>, PeerError> {
        if peers.len() > PEERS_MAX {
            return Err(PeerError::TooManyPeers);
        }
        peers.iter().map(|peer| Self::read(peer, own)).collect()
    }
}

fn target(address: &Multiaddr, key: PeerKey) -> Option<Target> {
    let mut parts = address.iter();
    let host = parts.next()?;
    let Protocol::Udp(port) = parts.next()? else {
        return None;
    };
    let Protocol::QuicV1 = parts.next()? else {
        return None;
    };
    match parts.next() {
        None => {}
        Some(Protocol::P2p(peer)) if peer == key.peer_id() => {}
        Some(_) => return None,
    }
    if parts.next().is_some() || port == 0 {
        return None;
    }
    let name = |host: &str, family| Target::Name {
        host: host.to_owned(),
        port,
        family,
    };
    Some(match host {
        Protocol::Ip4(ip) => Target::Ip(ip.into(), port),
        Protocol::Ip6(ip) => Target::Ip(ip.into(), port),
        Protocol::Dns(host) => name(&host, Family::Any),
        Protocol::Dns4(host) => name(&host, Family::V4),
        Protocol::Dns6(host) => name(&host, Family::V6),
        _ => return None,
    })
}

pub(crate) fn quic_address(ip: IpAddr, port: u16) -> Multiaddr {
    Multiaddr::from(ip)
        .with(Protocol::Udp(port))
        .with(Protocol::QuicV1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: &str) -> Result<Known, PeerError> {
        let key = PeerKey::of_seed([1; 32]);
        let peer = StaticPeer {
            key,
            addresses: vec![address.to_owned()],
            reach: Reach::anywhere(),
        };
        Known::read(&peer, PeerKey::of_seed([2; 32]))
    }

    #[test]
    fn quic_addresses_are_taken() {
        let key = PeerKey::of_seed([1; 32]);
        for address in [
            "/ip4/127.0.0.1/udp/4001/quic-v1".to_owned(),
            "/ip6/::1/udp/4001/quic-v1".to_owned(),
            "/dns/b.example/udp/4001/quic-v1".to_owned(),
            format!("/dns6/b.example/udp/4001/quic-v1/p2p/{}", key.peer_id()),
        ] {
            assert!(read(&address).is_ok(), "{address}");
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        let stranger = PeerKey::of_seed([3; 32]).peer_id();
        for address in [
            "/ip4/127.0.0.1/tcp/4001".to_owned(),
            "/ip4/127.0.0.1/udp/4001".to_owned(),
            "/ip4/127.0.0.1/udp/0/quic-v1".to_owned(),
            "/ip4/127.0.0.1/udp/4001/quic-v1/p2p-circuit".to_owned(),
            format!("/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{stranger}"),
            "/memory/1".to_owned(),
        ] {
            assert!(
                matches!(read(&address), Err(PeerError::Unsupported { .. })),
                "{address}"
            );
        }
        for address in [
            "127.0.0.1:4001",
            "/ip4/127.0.0.1/udp/99999/quic-v1",
            "/nonsense",
        ] {
            assert!(
                matches!(read(address), Err(PeerError::Unreadable { .. })),
                "{address}"
            );
        }
    }

    #[test]
    fn own_key_is_no_peer() {
        let key = PeerKey::of_seed([1; 32]);
        let peer = StaticPeer {
            key,
            addresses: Vec::new(),
            reach: Reach::default(),
        };
        assert!(matches!(Known::read(&peer, key), Err(PeerError::OwnKey)));
    }
}
