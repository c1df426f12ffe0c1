//! Servers for tests. Waiting is for events, with a timeout that only a failure reaches.

use std::time::Duration;

use bytes::Bytes;
use comity_links::{Channel, Config, Events, LinkEvent, Links, PeerKey, Reach, StaticPeer};
use tokio::time::timeout;

/// Far above what anything here takes, also on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) links: Links,
    pub(crate) events: Events,
}

pub(crate) fn seed(n: u8) -> [u8; 32] {
    [n; 32]
}

/// Two seeds, the one with the smaller key (the leader) first.
pub(crate) fn seeds_in_order() -> (u8, u8) {
    let smaller = PeerKey::of_seed(seed(1)) < PeerKey::of_seed(seed(2));
    if smaller { (1, 2) } else { (2, 1) }
}

pub(crate) fn peer(n: u8, addresses: &[String]) -> StaticPeer {
    StaticPeer {
        key: PeerKey::of_seed(seed(n)),
        addresses: addresses.to_vec(),
        reach: Reach::anywhere(),
    }
}

impl Server {
    pub(crate) async fn start(n: u8, peers: Vec<StaticPeer>) -> Self {
        Self::start_on(n, "/ip4/127.0.0.1/udp/0/quic-v1", peers).await
    }

    pub(crate) async fn start_on(n: u8, listen: &str, peers: Vec<StaticPeer>) -> Self {
        let config = Config {
            seed: seed(n),
            listen: vec![listen.to_owned()],
            peers,
        };
        let (links, events) = Links::start(config).await.unwrap();
        Self { links, events }
    }

    pub(crate) fn key(&self) -> PeerKey {
        self.links.local_key()
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.links.listen_addresses()
    }

    /// As a peer that can be dialled.
    pub(crate) fn as_peer(&self) -> StaticPeer {
        StaticPeer {
            key: self.key(),
            addresses: self.addresses(),
            reach: Reach::anywhere(),
        }
    }

    pub(crate) async fn next(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("an event")
    }

    /// The number of the next link; dials may fail before.
    pub(crate) async fn up(&mut self) -> u64 {
        loop {
            match self.next().await {
                LinkEvent::Up { link, .. } => return link,
                LinkEvent::DialFailed { .. } => {}
                other => panic!("expected a link, got {other:?}"),
            }
        }
    }

    /// Number and reason of the next end of a link; frames before it are passed over.
    pub(crate) async fn down(&mut self) -> (u64, String) {
        loop {
            match self.next().await {
                LinkEvent::Down { link, reason, .. } => return (link, reason),
                LinkEvent::Up { link, .. } => panic!("link {link} without a Down before it"),
                _ => {}
            }
        }
    }

    pub(crate) async fn frame(&mut self) -> (u64, Channel, Bytes) {
        loop {
            match self.next().await {
                LinkEvent::Frame {
                    link,
                    channel,
                    bytes,
                    ..
                } => return (link, channel, bytes),
                LinkEvent::DialFailed { .. } | LinkEvent::Writable { .. } => {}
                other => panic!("expected a frame, got {other:?}"),
            }
        }
    }

    pub(crate) async fn dial_failed(&mut self) -> String {
        loop {
            if let LinkEvent::DialFailed { error, .. } = self.next().await {
                return error;
            }
        }
    }
}

/// Two linked servers: `a` waits, `b` dialled. With the numbers of the link at each.
pub(crate) async fn pair() -> (Server, u64, Server, u64) {
    let mut a = Server::start(1, vec![peer(2, &[])]).await;
    let mut b = Server::start(2, vec![a.as_peer()]).await;
    let (at_a, at_b) = (a.up().await, b.up().await);
    (a, at_a, b, at_b)
}

/// Polls `condition` until it holds: for figures that no event announces.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let poll = async {
        while !condition() {
            tick.tick().await;
        }
    };
    timeout(PATIENCE, poll)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come about"));
}
