//! A peer that is let in and breaks the rules loses its link, with a reason; nobody else notices.

use std::time::Duration;

use bytes::Bytes;
use comity_links::{Channel, LinkEvent, limits::FRAME_MAX};
use futures::{AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, identity::Keypair, swarm::dial_opts::DialOpts,
};

use crate::support::{Server, peer, seed, seeds_in_order};

const LIVE: StreamProtocol = StreamProtocol::new("/comity/link/1");
const BULK: StreamProtocol = StreamProtocol::new("/comity/bulk/1");

/// A libp2p node with the follower's key, so that it speaks first.
struct Hostile {
    control: libp2p_stream::Control,
    target: PeerId,
}

impl Hostile {
    fn connect(n: u8, server: &Server) -> Self {
        let keypair = Keypair::ed25519_from_bytes(seed(n)).unwrap();
        let mut swarm = libp2p::SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_quic()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .build();
        let mut control = swarm.behaviour().new_control();
        // It takes what the server opens, and never reads it.
        for name in [LIVE, BULK] {
            let mut incoming = control.accept(name).unwrap();
            tokio::spawn(async move {
                let mut kept = Vec::new();
                while let Some(stream) = incoming.next().await {
                    kept.push(stream);
                }
            });
        }
        let keypair = libp2p::identity::ed25519::PublicKey::try_from_bytes(&server.key().0);
        let target = PeerId::from(libp2p::identity::PublicKey::from(keypair.unwrap()));
        let address: Multiaddr = server.addresses()[0].parse().unwrap();
        swarm
            .dial(DialOpts::peer_id(target).addresses(vec![address]).build())
            .unwrap();
        tokio::spawn(async move { while swarm.next().await.is_some() {} });
        Self { control, target }
    }

    async fn open(&mut self, name: StreamProtocol) -> Stream {
        self.control.open_stream(self.target, name).await.unwrap()
    }

    /// The live substream after a proper hello.
    async fn hello(&mut self) -> Stream {
        let mut stream = self.open(LIVE).await;
        let mut hello = vec![0, 0, 0, 25];
        hello.extend([7; 25]);
        stream.write_all(&hello).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }
}

/// A server with an honest peer on a link, and the seed of a hostile one.
async fn server_with_honest_peer() -> (Server, u64, Server, u64, u8) {
    let (leader, follower) = seeds_in_order();
    let mut a = Server::start(leader, vec![peer(follower, &[]), peer(3, &[])]).await;
    let mut b = Server::start(3, vec![a.as_peer()]).await;
    let (at_a, at_b) = (a.up().await, b.up().await);
    (a, at_a, b, at_b, follower)
}

async fn honest_link_still_works(a: &mut Server, b: &mut Server, at_a: u64, at_b: u64) {
    let frame = Bytes::from_static(b"undisturbed");
    b.links
        .try_send(a.key(), at_b, Channel::Live, frame.clone())
        .unwrap();
    assert_eq!(a.frame().await, (at_a, Channel::Live, frame.clone()));
    a.links
        .try_send(b.key(), at_a, Channel::Live, frame.clone())
        .unwrap();
    assert_eq!(b.frame().await, (at_b, Channel::Live, frame));
}

#[tokio::test]
async fn too_long_a_frame_ends_the_link_with_a_reason() {
    let (mut a, at_a, mut b, at_b, n) = server_with_honest_peer().await;
    for name in [LIVE, BULK] {
        let mut hostile = Hostile::connect(n, &a);
        let mut live = hostile.hello().await;
        let link = a.up().await;
        live.write_all(&[0, 0, 0, 2, b'o', b'k']).await.unwrap();
        live.flush().await.unwrap();
        assert_eq!(
            a.frame().await,
            (link, Channel::Live, Bytes::from_static(b"ok"))
        );
        let mut stream = if name == LIVE {
            live
        } else {
            hostile.open(BULK).await
        };
        let length = u32::try_from(FRAME_MAX + 1).unwrap();
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let (down, reason) = a.down().await;
        assert!(
            down == link && reason.contains("2097153 bytes announced"),
            "{reason}"
        );
        honest_link_still_works(&mut a, &mut b, at_a, at_b).await;
    }
}

#[tokio::test]
async fn garbage_instead_of_a_hello_makes_no_link() {
    let (mut a, at_a, mut b, at_b, n) = server_with_honest_peer().await;
    let mut hostile = Hostile::connect(n, &a);
    let mut stream = hostile.open(LIVE).await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let error = || {
        let status = a.links.status();
        status.into_iter().find_map(|status| status.last_error)
    };
    crate::support::eventually("an error", || error().is_some()).await;
    assert!(error().unwrap().contains("hello of"), "{:?}", error());
    honest_link_still_works(&mut a, &mut b, at_a, at_b).await;
}

#[tokio::test]
async fn silent_connection_is_closed_and_substreams_beyond_two_are_reset() {
    let (mut a, at_a, mut b, at_b, n) = server_with_honest_peer().await;
    let mut hostile = Hostile::connect(n, &a);
    let mut bulk = hostile.open(BULK).await;
    for _ in 0..50 {
        // Each is dropped by the server; a flood of them must not add up.
        drop(hostile.open(BULK).await);
    }
    bulk.write_all(b"no hello was said").await.unwrap();
    let error = || {
        a.links
            .status()
            .into_iter()
            .find_map(|status| status.last_error)
    };
    crate::support::eventually("giving up", || error().is_some()).await;
    assert_eq!(error().unwrap(), "peer did not set up a link");
    honest_link_still_works(&mut a, &mut b, at_a, at_b).await;
}

#[tokio::test]
async fn peer_that_never_reads_costs_a_full_queue_and_nothing_else() {
    let (mut a, at_a, mut b, at_b, n) = server_with_honest_peer().await;
    let mut hostile = Hostile::connect(n, &a);
    let _live = hostile.hello().await;
    let link = a.up().await;
    let to = comity_links::PeerKey::of_seed(seed(n));
    let frame = Bytes::from(vec![0; 100_000]);
    let mut out = u64::MAX;
    let written = |a: &Server| {
        a.links
            .status()
            .iter()
            .find(|status| status.key == to)
            .unwrap()
            .bytes_out
    };
    while out != written(&a) {
        out = written(&a);
        for channel in [Channel::Live, Channel::Bulk] {
            while a.links.try_send(to, link, channel, frame.clone()).is_ok() {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    honest_link_still_works(&mut a, &mut b, at_a, at_b).await;
    a.links.remove_peer(to).await.unwrap();
    loop {
        if let LinkEvent::Down { link: down, .. } = a.next().await {
            assert_eq!(down, link);
            break;
        }
    }
    honest_link_still_works(&mut a, &mut b, at_a, at_b).await;
}
