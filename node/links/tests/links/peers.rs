//! Who may connect, and how the list changes.

use std::time::Duration;

use bytes::Bytes;
use comity_links::{Channel, Config, Direction, LinkEvent, Links, PeerKey, StartError, StaticPeer};

use crate::cable::Cable;
use crate::support::{Server, eventually, pair, peer, seed, seeds_in_order};

#[tokio::test]
async fn both_ends_agree_on_who_dialled() {
    let (a, _, b, _) = pair().await;
    assert_eq!(a.links.status()[0].direction, Some(Direction::Inbound));
    assert_eq!(b.links.status()[0].direction, Some(Direction::Outbound));
    assert_eq!(a.links.status()[0].key, b.key());
}

/// Both know the other's address and dial at the same moment, again and again.
#[tokio::test]
async fn simultaneous_dials_settle_on_one_link() {
    for _ in 0..20 {
        let mut a = Server::start(1, Vec::new()).await;
        let mut b = Server::start(2, Vec::new()).await;
        let (to_b, to_a) = ([b.as_peer()], [a.as_peer()]);
        dial_at_once(&mut a, &mut b, &to_b, &to_a).await;
    }
}

/// Real distances: the two ends see the two connections in every order.
#[tokio::test]
async fn simultaneous_dials_over_slow_cables_settle_on_one_link() {
    for (there, back) in [
        (20, 20),
        (5, 60),
        (60, 5),
        (20, 25),
        (25, 20),
        (1, 90),
        (90, 1),
    ] {
        let mut a = Server::start(1, Vec::new()).await;
        let mut b = Server::start(2, Vec::new()).await;
        let there = Cable::slow(&b.addresses()[0], Duration::from_millis(there)).await;
        let back = Cable::slow(&a.addresses()[0], Duration::from_millis(back)).await;
        let (to_b, to_a) = ([peer(2, &[there.address()])], [peer(1, &[back.address()])]);
        dial_at_once(&mut a, &mut b, &to_b, &to_a).await;
    }
}

async fn dial_at_once(a: &mut Server, b: &mut Server, to_b: &[StaticPeer], to_a: &[StaticPeer]) {
    let (first, second) = tokio::join!(a.links.set_peers(to_b), b.links.set_peers(to_a));
    first.unwrap();
    second.unwrap();
    let (at_a, at_b) = (a.up().await, b.up().await);
    // The superfluous connection is gone once frames went to and fro, and `frame` accepts no
    // other event.
    for n in 0..20_u8 {
        let frame = Bytes::from(vec![n]);
        a.links
            .try_send(b.key(), at_a, Channel::Live, frame.clone())
            .unwrap();
        assert_eq!(b.frame().await, (at_b, Channel::Live, frame.clone()));
        b.links
            .try_send(a.key(), at_b, Channel::Live, frame.clone())
            .unwrap();
        assert_eq!(a.frame().await, (at_a, Channel::Live, frame));
    }
    let sides = (a.links.status()[0].direction, b.links.status()[0].direction);
    assert_ne!(sides.0, sides.1, "the ends hold different connections");
    a.links.shutdown(Duration::from_secs(5)).await;
    assert_eq!(b.down().await.0, at_b);
    b.links.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn unknown_peer_is_refused_and_both_ends_can_see_why() {
    for (waiting, dialling) in [seeds_in_order(), (seeds_in_order().1, seeds_in_order().0)] {
        let mut a = Server::start(waiting, vec![peer(9, &[])]).await;
        let mut b = Server::start(dialling, vec![a.as_peer()]).await;
        let error = b.dial_failed().await;
        assert!(
            error.contains("is this server's key configured there?"),
            "{error}"
        );
        assert_eq!(b.links.status()[0].last_error, Some(error));
        eventually("refusal", || {
            a.links
                .refused()
                .iter()
                .any(|refused| refused.key == b.key())
        })
        .await;
        assert!(
            a.events.try_recv().is_none(),
            "the consumer hears nothing of strangers"
        );

        // Once it is configured it gets in, without a restart.
        a.links.add_peer(&peer(dialling, &[])).await.unwrap();
        b.links.wake(a.key()).await.unwrap();
        assert!(a.up().await > 0);
        b.up().await;
    }
}

#[tokio::test]
async fn another_key_at_the_address_is_not_the_peer() {
    let a = Server::start(1, vec![peer(2, &[])]).await;
    let mut b = Server::start(2, vec![peer(3, &a.addresses())]).await;
    let error = b.dial_failed().await;
    assert!(error.contains(&a.key().to_string()), "{error}");
    assert!(!b.links.status()[0].connected);
}

#[tokio::test]
async fn removed_peer_is_cut_at_once_and_kept_out() {
    let (mut a, at_a, mut b, _) = pair().await;
    a.links.remove_peer(b.key()).await.unwrap();
    assert_eq!(a.down().await, (at_a, "peer removed".to_owned()));
    assert!(a.links.status().is_empty());
    b.down().await;
    let error = b.dial_failed().await;
    assert!(error.contains("configured"), "{error}");
    // Added again it links again, with a fresh number.
    a.links.add_peer(&peer(2, &[])).await.unwrap();
    b.links.wake(a.key()).await.unwrap();
    assert!(a.up().await > at_a);
    b.up().await;
}

#[tokio::test]
async fn set_peers_cuts_the_absent_and_keeps_the_present() {
    let mut a = Server::start(1, vec![peer(2, &[]), peer(3, &[])]).await;
    let mut b = Server::start(2, vec![a.as_peer()]).await;
    let mut c = Server::start(3, vec![a.as_peer()]).await;
    let at_b = b.up().await;
    c.up().await;
    let (first, second) = (a.up().await, a.up().await);
    a.links.set_peers(&[peer(2, &[])]).await.unwrap();
    let (cut, _) = a.down().await;
    assert!(cut == first || cut == second);
    c.down().await;
    b.links
        .try_send(a.key(), at_b, Channel::Live, Bytes::from_static(b"still"))
        .unwrap();
    let (link, _, bytes) = a.frame().await;
    assert!(link != cut && bytes == "still");
}

#[tokio::test]
async fn names_are_resolved() {
    let a = Server::start(1, vec![peer(2, &[])]).await;
    let port = a.addresses()[0].split('/').nth(4).unwrap().to_owned();
    let named = vec![format!("/dns4/localhost/udp/{port}/quic-v1")];
    let mut b = Server::start(2, vec![peer(1, &named)]).await;
    b.up().await;
}

#[tokio::test]
async fn bad_configuration_does_not_start() {
    let start = |listen: &str, peers| {
        Links::start(Config {
            seed: seed(1),
            listen: vec![listen.to_owned()],
            peers,
        })
    };
    let unreadable = start("localhost:1", Vec::new()).await;
    assert!(matches!(
        unreadable,
        Err(StartError::ListenUnreadable { .. })
    ));
    let tcp = start("/ip4/127.0.0.1/tcp/0", Vec::new()).await;
    assert!(matches!(tcp, Err(StartError::Listen { .. })));
    let own = start("/ip4/127.0.0.1/udp/0/quic-v1", vec![peer(1, &[])]).await;
    assert!(matches!(own, Err(StartError::Peer(_))));
    let first = Server::start(2, Vec::new()).await;
    let taken = start(&first.addresses()[0], Vec::new()).await;
    assert!(matches!(taken, Err(StartError::Listen { .. })));
}

#[tokio::test]
async fn shutdown_delivers_what_was_queued_and_says_why() {
    let (a, at_a, mut b, at_b) = pair().await;
    let long = Bytes::from(vec![3; 500_000]);
    for channel in [Channel::Live, Channel::Bulk] {
        for _ in 0..8 {
            a.links
                .try_send(b.key(), at_a, channel, long.clone())
                .unwrap();
        }
    }
    let Server { links, mut events } = a;
    let to = b.key();
    let stopping = tokio::spawn(async move {
        links.shutdown(Duration::from_secs(30)).await;
        assert!(links.wake(to).await.is_err());
        assert!(
            links
                .try_send(to, at_a, Channel::Live, Bytes::new())
                .is_err()
        );
    });
    for _ in 0..16 {
        let (link, _, bytes) = b.frame().await;
        assert!(link == at_b && bytes == long);
    }
    assert_eq!(b.down().await, (at_b, "closed by the peer".to_owned()));
    stopping.await.unwrap();
    let last = events.recv().await;
    assert!(
        matches!(&last, Some(LinkEvent::Down { link, reason, .. })
            if *link == at_a && reason == "shut down"),
        "{last:?}"
    );
    assert!(events.recv().await.is_none());
}

#[tokio::test]
async fn dropping_the_events_or_the_handles_ends_the_links() {
    let (a, _, mut b, _) = pair().await;
    let Server { links, events } = a;
    drop(events);
    b.down().await;
    eventually("stop", || {
        links.status().iter().all(|status| !status.connected)
    })
    .await;

    let (a, _, mut b, _) = pair().await;
    let Server { links, mut events } = a;
    drop(links);
    b.down().await;
    while events.recv().await.is_some() {}
}

/// The consumer looks away while the peer comes and goes: what it finds is still in order.
#[tokio::test]
async fn unread_links_of_a_peer_that_comes_and_goes_are_in_order() {
    let mut a = Server::start(1, vec![peer(2, &[])]).await;
    for _ in 0..10 {
        let mut b = Server::start(2, vec![a.as_peer()]).await;
        let link = b.up().await;
        b.links
            .try_send(a.key(), link, Channel::Live, Bytes::from_static(b"here"))
            .unwrap();
        b.links.shutdown(Duration::from_secs(5)).await;
    }
    let mut links = Vec::new();
    while links.len() < 10 {
        let LinkEvent::Up { link, .. } = a.next().await else {
            panic!("no Up")
        };
        assert!(matches!(a.next().await, LinkEvent::Frame { link: of, .. } if of == link));
        assert!(matches!(a.next().await, LinkEvent::Down { link: of, .. } if of == link));
        links.push(link);
    }
    assert!(links.is_sorted_by(|a, b| a < b), "{links:?}");
}

#[tokio::test]
async fn many_links_leave_no_task_behind() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let (mut a, _, mut b, _) = pair().await;
    let to_b = peer(2, &[]);
    // The pair above has its tasks; more rounds must not add any.
    let mut settled = None;
    for round in 0..30 {
        a.links.remove_peer(b.key()).await.unwrap();
        a.down().await;
        b.down().await;
        a.links.add_peer(&to_b).await.unwrap();
        b.links.wake(a.key()).await.unwrap();
        a.up().await;
        b.up().await;
        if round == 4 {
            settled = Some(tasks());
        }
    }
    let settled = settled.unwrap();
    eventually("return to the number of tasks", || tasks() <= settled).await;
    a.links.shutdown(Duration::from_secs(5)).await;
    b.links.shutdown(Duration::from_secs(5)).await;
    drop((a, b));
    eventually("end of all tasks", || tasks() == 0).await;
}

#[tokio::test]
async fn keys_are_those_of_the_seeds() {
    let a = Server::start(5, Vec::new()).await;
    assert_eq!(a.key(), PeerKey::of_seed(seed(5)));
    assert!(a.addresses()[0].starts_with("/ip4/127.0.0.1/udp/"));
}
