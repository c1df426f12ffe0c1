//! What networks and processes do to links.

use std::time::{Duration, Instant};

use bytes::Bytes;
use comity_links::{Channel, LinkEvent};
use tokio::net::UdpSocket;

use crate::{
    cable::Cable,
    process::Process,
    support::{Server, pair, peer, seeds_in_order},
};

/// The promise is 15 s after the last sign of life; the rest is for a busy machine.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// Sends a frame and waits for it to come back from a [`Process`].
async fn echo(server: &mut Server, to: comity_links::PeerKey, link: u64, text: &'static str) {
    for channel in [Channel::Live, Channel::Bulk] {
        let frame = Bytes::from_static(text.as_bytes());
        server
            .links
            .try_send(to, link, channel, frame.clone())
            .unwrap();
        assert_eq!(server.frame().await, (link, channel, frame));
    }
}

/// For both roles: the end that decides which connection is the link, and the other one.
fn both_roles() -> [(u8, u8); 2] {
    let (leader, follower) = seeds_in_order();
    [(leader, follower), (follower, leader)]
}

#[tokio::test]
async fn restarted_peer_is_up_again_within_seconds_although_its_old_link_looks_alive() {
    for (ours, theirs) in both_roles() {
        let mut a = Server::start(ours, vec![peer(theirs, &[])]).await;
        let mut b = Process::start(theirs, None, &a.as_peer());
        let mut link = a.up().await;
        for _ in 0..3 {
            echo(&mut a, b.key, link, "before").await;
            let address = b.kill();
            let restart = Instant::now();
            b = Process::start(theirs, Some(&address), &a.as_peer());
            assert_eq!(a.down().await.0, link);
            let again = a.up().await;
            assert!(again > link && restart.elapsed() < Duration::from_secs(10));
            link = again;
            echo(&mut a, b.key, link, "after").await;
        }
    }
}

#[tokio::test]
async fn absent_peer_that_comes_back_is_reached_within_seconds() {
    let mut a = Server::start(1, vec![peer(2, &[])]).await;
    let b = Process::start(2, None, &a.as_peer());
    a.links.add_peer(&b.as_peer()).await.unwrap();
    let link = a.up().await;
    echo(&mut a, b.key, link, "before").await;
    let killed = Instant::now();
    let address = b.kill();
    let (_, reason) = a.down().await;
    assert!(killed.elapsed() < NOTICED_MAX, "{reason}");
    assert!(reason.starts_with("connection lost: "), "{reason}");
    a.dial_failed().await;
    // It does not know where we are: we have to find it.
    let b = Process::start(2, Some(&address), &peer(1, &[]));
    let back = Instant::now();
    let link = a.up().await;
    // 5 s, and 3 s for a busy machine.
    assert!(
        back.elapsed() < Duration::from_secs(8),
        "took {:?}",
        back.elapsed()
    );
    echo(&mut a, b.key, link, "found").await;
}

#[tokio::test]
async fn stopped_process_is_noticed_and_back_after_it_goes_on() {
    let mut a = Server::start(1, vec![peer(2, &[])]).await;
    let b = Process::start(2, None, &a.as_peer());
    a.links.add_peer(&b.as_peer()).await.unwrap();
    let link = a.up().await;
    echo(&mut a, b.key, link, "before").await;
    let stopped = Instant::now();
    b.signal("STOP");
    let (down, reason) = a.down().await;
    assert!(
        down == link && stopped.elapsed() < NOTICED_MAX,
        "{reason} {:?}",
        stopped.elapsed()
    );
    b.signal("CONT");
    // Dials that the stopped process answers only now may make and lose a link first.
    let mut link = a.up().await;
    let frame = Bytes::from_static(b"after");
    loop {
        let _ = a.links.try_send(b.key, link, Channel::Live, frame.clone());
        match a.next().await {
            LinkEvent::Frame { bytes, .. } if bytes == frame => break,
            LinkEvent::Up { link: again, .. } => link = again,
            _ => {}
        }
    }
}

#[tokio::test]
async fn cut_cable_is_noticed_at_both_ends_and_the_link_heals_by_itself() {
    let mut b = Server::start(2, vec![peer(1, &[])]).await;
    let cable = Cable::to(&b.addresses()[0]).await;
    let mut a = Server::start(1, vec![peer(2, &[cable.address()])]).await;
    let (at_a, at_b) = (a.up().await, b.up().await);
    // Both substreams of both ends are open: nothing but silence tells of the cut.
    let frame = Bytes::from_static(b"before");
    a.links
        .try_send(b.key(), at_a, Channel::Bulk, frame.clone())
        .unwrap();
    assert_eq!(b.frame().await, (at_b, Channel::Bulk, frame.clone()));
    b.links
        .try_send(a.key(), at_b, Channel::Bulk, frame.clone())
        .unwrap();
    assert_eq!(a.frame().await, (at_a, Channel::Bulk, frame));
    let cut = Instant::now();
    cable.cut();
    let (a_down, b_down) = tokio::join!(a.down(), b.down());
    assert!(
        cut.elapsed() < NOTICED_MAX,
        "{a_down:?} {b_down:?} {:?}",
        cut.elapsed()
    );
    assert_eq!((a_down.0, b_down.0), (at_a, at_b));
    for (_, reason) in [a_down, b_down] {
        assert!(reason.starts_with("connection lost: "), "{reason}");
    }
    a.dial_failed().await;
    cable.mend();
    let mended = Instant::now();
    let (at_a, at_b) = tokio::join!(a.up(), b.up());
    assert!(
        mended.elapsed() < Duration::from_secs(10),
        "took {:?}",
        mended.elapsed()
    );
    a.links
        .try_send(b.key(), at_a, Channel::Live, Bytes::from_static(b"healed"))
        .unwrap();
    assert_eq!(
        b.frame().await,
        (at_b, Channel::Live, Bytes::from_static(b"healed"))
    );
}

#[tokio::test]
async fn lossy_cable_delays_but_neither_loses_nor_reorders() {
    let mut b = Server::start(2, vec![peer(1, &[])]).await;
    let cable = Cable::to(&b.addresses()[0]).await;
    let mut a = Server::start(1, vec![peer(2, &[cable.address()])]).await;
    let (at_a, _) = (a.up().await, b.up().await);
    cable.lose_every(20);
    let frame = |n: u32| Bytes::from(n.to_be_bytes().repeat(250));
    for n in 0..2_000 {
        a.links
            .try_send(b.key(), at_a, Channel::Live, frame(n))
            .unwrap();
    }
    for n in 0..2_000 {
        assert_eq!(b.frame().await.2, frame(n));
    }
}

#[tokio::test]
async fn garbage_on_the_port_disturbs_nothing() {
    let (a, at_a, mut b, _) = pair().await;
    let port: u16 = b.addresses()[0].split('/').nth(4).unwrap().parse().unwrap();
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let frame = |n: u8| Bytes::from(vec![n; 300]);
    for n in 0..100_u8 {
        for length in [0, 1, 20, 1_200, 9_000] {
            // Every first byte, so also the forms of long and short QUIC headers.
            let mut garbage = vec![n.wrapping_mul(13); length];
            if let Some(first) = garbage.first_mut() {
                *first = n.wrapping_mul(37);
            }
            stranger
                .send_to(&garbage, ("127.0.0.1", port))
                .await
                .unwrap();
        }
        a.links
            .try_send(b.key(), at_a, Channel::Live, frame(n))
            .unwrap();
        assert_eq!(b.frame().await.2, frame(n));
    }
    assert!(a.links.status()[0].connected && b.links.status()[0].connected);
}
