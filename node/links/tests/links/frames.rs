//! Frames on a link that stays up.

use bytes::Bytes;
use comity_links::{
    Channel, LinkEvent, SendError,
    limits::{
        CONNECTION_WINDOW, FRAME_MAX, FRAME_OVERHEAD_BYTES, READ_AHEAD_BYTES, SEND_QUEUE_BYTES,
    },
};

use crate::support::{Server, pair, peer};

fn numbered(n: u32, length: usize) -> Bytes {
    let mut frame = n.to_be_bytes().to_vec();
    frame.resize(length.max(4), 0xAB);
    frame.into()
}

#[tokio::test]
async fn frames_arrive_in_order_both_ways_on_both_channels() {
    const COUNT: u32 = 500;
    let (mut a, at_a, mut b, at_b) = pair().await;
    let (key_a, key_b) = (a.key(), b.key());
    // Lengths around the sizes at which reading and writing change their ways.
    let length = |n: u32| [4, 300, 5_000, 65_531, 65_536, 70_000][n as usize % 6] as usize;
    let mut wanted = Vec::new();
    for n in 0..COUNT {
        wanted.push(numbered(n, length(n)));
    }
    for (server, link, to) in [(&mut a, at_a, key_b), (&mut b, at_b, key_a)] {
        let links = server.links.clone();
        let frames = wanted.clone();
        tokio::spawn(async move {
            for frame in frames {
                for channel in [Channel::Live, Channel::Bulk] {
                    while links.try_send(to, link, channel, frame.clone()).is_err() {
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
    }
    for (server, number) in [(&mut a, at_a), (&mut b, at_b)] {
        let (mut live, mut bulk) = (Vec::new(), Vec::new());
        while live.len() + bulk.len() < 2 * wanted.len() {
            let (link, channel, bytes) = server.frame().await;
            assert_eq!(link, number);
            match channel {
                Channel::Live => live.push(bytes),
                Channel::Bulk => bulk.push(bytes),
            }
        }
        assert_eq!(live, wanted);
        assert_eq!(bulk, wanted);
    }
    let status = &a.links.status()[0];
    assert!(
        status.connected && status.frames_in == u64::from(2 * COUNT),
        "{status:?}"
    );
}

#[tokio::test]
async fn longest_frame_passes_and_a_longer_one_is_refused_here() {
    let (a, at_a, mut b, _) = pair().await;
    let longest = Bytes::from(vec![7; FRAME_MAX]);
    a.links
        .try_send(b.key(), at_a, Channel::Live, longest.clone())
        .unwrap();
    assert_eq!(b.frame().await.2, longest);
    let longer = Bytes::from(vec![7; FRAME_MAX + 1]);
    let refused = a.links.try_send(b.key(), at_a, Channel::Live, longer);
    assert_eq!(refused, Err(SendError::TooLarge));
}

#[tokio::test]
async fn sends_to_other_links_and_peers_are_not_up() {
    let (a, at_a, b, _) = pair().await;
    for (key, link) in [(b.key(), at_a + 1), (a.key(), at_a)] {
        assert_eq!(
            a.links.try_send(key, link, Channel::Live, Bytes::new()),
            Err(SendError::NotUp)
        );
    }
}

/// 10,000 frames of 4 KiB are 40 MB: far more than all queues and windows between two servers.
#[tokio::test]
async fn stalled_consumer_stops_the_sender_and_gets_all_frames_when_it_resumes() {
    const COUNT: u32 = 10_000;
    const LENGTH: usize = 4_096;
    let (mut a, at_a, mut b, _) = pair().await;
    let to = b.key();
    // Nobody reads at B: send until a whole queue stays full with nothing in motion.
    let mut sent = 0;
    let mut written = 0;
    loop {
        match a
            .links
            .try_send(to, at_a, Channel::Live, numbered(sent, LENGTH))
        {
            Ok(()) => sent += 1,
            Err(SendError::Full { queued_bytes }) => {
                assert!(queued_bytes <= SEND_QUEUE_BYTES);
                let before = std::mem::replace(&mut written, a.links.status()[0].bytes_out);
                if before == written {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(sent < COUNT, "the stalled consumer did not stop the sender");
    }
    // What QUIC may hold unread is its window; the transport's send buffer holds as much again.
    let read_ahead = READ_AHEAD_BYTES as usize / (LENGTH + FRAME_OVERHEAD_BYTES as usize) * LENGTH;
    let bound = SEND_QUEUE_BYTES + 2 * CONNECTION_WINDOW as usize + read_ahead;
    assert!(sent as usize * LENGTH < bound, "{sent} frames were taken");
    assert!(b.links.status()[0].bytes_in < u64::from(READ_AHEAD_BYTES));

    // B reads on: the sender learns that it may go on, and everything comes once and in order.
    for wanted in 0..COUNT {
        let (_, _, bytes) = b.frame().await;
        assert_eq!(bytes, numbered(wanted, LENGTH));
        while sent < COUNT {
            match a
                .links
                .try_send(to, at_a, Channel::Live, numbered(sent, LENGTH))
            {
                Ok(()) => sent += 1,
                Err(_) => break,
            }
        }
    }
    let writable = a.next().await;
    assert!(
        matches!(writable, LinkEvent::Writable { link, channel: Channel::Live, .. } if link == at_a),
        "{writable:?}"
    );
}

#[tokio::test]
async fn stalled_bulk_does_not_hold_up_live_of_anyone() {
    let mut a = Server::start(1, vec![peer(2, &[]), peer(3, &[])]).await;
    let b = Server::start(2, vec![a.as_peer()]).await;
    let c = Server::start(3, vec![a.as_peer()]).await;
    let mut link_of_a = std::collections::BTreeMap::new();
    let mut up = std::collections::BTreeMap::new();
    for mut server in [b, c] {
        let link = server.up().await;
        up.insert(server.key(), (server, link));
    }
    for _ in 0..2 {
        if let LinkEvent::Up { peer, link } = a.next().await {
            link_of_a.insert(peer, link);
        }
    }
    assert_eq!(link_of_a.len(), 2);
    let mut servers = up.into_values();
    let ((b, at_b), (c, at_c)) = (servers.next().unwrap(), servers.next().unwrap());
    // B floods both channels' queues of bulk towards A, which does not read.
    let big = Bytes::from(vec![1; 100_000]);
    let mut last = u64::MAX;
    while last != b.links.status()[0].bytes_out {
        last = b.links.status()[0].bytes_out;
        while b
            .links
            .try_send(a.key(), at_b, Channel::Bulk, big.clone())
            .is_ok()
        {}
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let hello = Bytes::from_static(b"hello");
    b.links
        .try_send(a.key(), at_b, Channel::Live, hello.clone())
        .unwrap();
    c.links
        .try_send(a.key(), at_c, Channel::Live, hello.clone())
        .unwrap();
    let written = || {
        [&b, &c].iter().all(|server| {
            let status = &server.links.status()[0];
            status.frames_out > 0 && status.connected
        })
    };
    crate::support::eventually("writing", written).await;
    // A may find no more bulk before the two than fits its read-ahead, plus what was on its way.
    let mut bulk_before = 0;
    let mut found = 0;
    while found < 2 {
        match a.frame().await {
            (_, Channel::Live, bytes) => {
                assert_eq!(bytes, hello);
                found += 1;
            }
            (_, Channel::Bulk, _) => bulk_before += 1,
        }
    }
    let flood = b.links.status()[0].bytes_out / 100_000;
    assert!(
        bulk_before <= 10 && bulk_before < flood,
        "{bulk_before} of {flood} came before"
    );
}
