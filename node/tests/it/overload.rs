//! Clients that do not read, and disks that are full.

use comity_node::server::Faults;
use comity_protocol::{role::Role, session::Code};
use comity_storage::Files;

use super::{
    client::send,
    net::{Net, Pair, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_cut_and_resumes_while_others_are_not_disturbed() {
    let net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let room = a.create().await;
    a.grant(room, bob.user, Role::Member).await.unwrap();
    b.announced(room).await;
    b.settle().await;
    let cursor = b.cursor.clone();
    // Bob reads nothing from here on.
    let text = "x".repeat(500);
    let mut under_way = std::collections::VecDeque::new();
    for n in 0..10_000 {
        let (event, content) = a.message(room, &format!("{n} {text}"));
        under_way.push_back(a.start(send(&event, Some(&content))).await);
        if under_way.len() >= 128 {
            let id = under_way.pop_front().unwrap();
            a.answer(id).await.unwrap();
        }
        a.changes.clear();
    }
    for id in under_way {
        a.answer(id).await.unwrap();
    }
    drop(b);
    let mut b = net.resume(&bob, Some(cursor)).await;
    for n in 0..10_000 {
        let (_, text) = b.line(room).await;
        let number = text.split(' ').next().unwrap();
        assert_eq!(number, n.to_string(), "each once, in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_sends_without_reading_an_answer_cost_the_sender_only() {
    let net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let (room, other) = (a.create().await, b.create().await);
    let flood = tokio::spawn(async move {
        for n in 0..10_000 {
            let (event, content) = a.message(room, &format!("{n}"));
            // The socket fills up and the send waits, or the session is cut.
            let start = a.start(send(&event, Some(&content)));
            if tokio::time::timeout(std::time::Duration::from_secs(2), start)
                .await
                .is_err()
            {
                break;
            }
        }
        a
    });
    for n in 0..50 {
        b.say(other, &format!("{n}")).await;
    }
    flood.abort();
    let _ = flood.await;
    b.say(other, "after").await;
    let mut again = net.connect(&alice).await;
    again.say(room, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_sends_serves_reads_and_takes_sends_again_by_itself() {
    let mut net = Net::prepare(2);
    let (files, control) = Files::lossy();
    let faults = Faults {
        files: Some(files),
        ..Faults::default()
    };
    net.up_with(0, faults).await;
    net.up(1).await;
    let Pair {
        mut a, mut b, room, ..
    } = net.pair(Role::Member).await;
    control.fill_disk(Some(0));
    // Until the log file that is preallocated, and the one after it, are full.
    let text = "y".repeat(60_000);
    let mut accepted = 0u64;
    let full = 'fill: loop {
        let mut ids = vec![];
        for _ in 0..64 {
            let (event, content) = a.message(room, &text);
            ids.push(a.start(send(&event, Some(&content))).await);
        }
        a.changes.clear();
        let mut refused = None;
        for id in ids {
            match a.answer(id).await {
                Ok(_) => accepted += 1,
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            break 'fill error;
        }
        assert!(accepted < 10_000, "it never fills");
    };
    assert_eq!(full.code, Code::DiskFull);
    let (event, content) = a.message(room, &text);
    let refused = a.refusal(send(&event, Some(&content))).await;
    assert_eq!(refused, Code::DiskFull);
    let items = a.history(room).await.len() as u64;
    assert_eq!(
        items,
        accepted + 1,
        "reading goes on; what was refused is not there"
    );
    // What a peer sends meanwhile is not lost.
    b.say(room, "from bob while a is full").await;
    control.fill_disk(None);
    let start = std::time::Instant::now();
    while a.ask(send(&event, Some(&content))).await.is_err() {
        assert!(
            start.elapsed() < super::net::PATIENCE,
            "never accepted again"
        );
        a.changes.clear();
    }
    a.settle().await;
    until("what bob said arrives without a new link", || async {
        net.nodes[0].status().taken == accepted + 3
    })
    .await;
    assert_eq!(a.history(room).await.len() as u64, accepted + 3);
}
