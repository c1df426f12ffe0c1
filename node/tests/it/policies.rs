//! The policies `rate` and `keep_days`, over whole servers.

use comity_node::server::Faults;
use comity_protocol::{
    event::{Act, Field},
    ids::EventId,
    limits::DAY_MS,
    role::Role,
    session::ContentState,
};

use super::{
    client::{Client, id_of, text_of},
    erasure::files_with,
    net::{Net, Pair, until},
};

async fn policy(client: &mut Client, room: comity_protocol::ids::ConversationId, of: (Field, u64)) {
    let (field, value) = of;
    let act = Act::Policy { field, value };
    client.act(room, Role::Admin, act).await.unwrap();
}

/// Servers whose clocks are so many days ahead.
async fn at_day(net: &mut Net, days: u64) {
    for n in 0..2 {
        net.down(n).await;
    }
    for n in 0..2 {
        let faults = Faults {
            clock_ahead_ms: days * DAY_MS,
            ..Faults::default()
        };
        net.up_with(n, faults).await;
    }
    net.linked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_whose_days_are_over_are_on_no_disk_and_their_lines_say_so() {
    let mut net = Net::start(2).await;
    let Pair {
        alice,
        bob,
        mut a,
        mut b,
        room,
    } = net.pair(Role::Member).await;
    policy(&mut a, room, (Field::KeepDays, 3)).await;
    let edited = a.say(room, "OLD-TEXT-0").await;
    a.edit(room, edited, "OLD-TEXT-1").await.unwrap();
    let said = b.say(room, "OLD-TEXT-2").await;
    let deleted = a.say(room, "OLD-TEXT-3").await;
    a.act(room, Role::Member, Act::Delete { target: deleted })
        .await
        .unwrap();
    until("both have it", || async {
        net.nodes.iter().all(|node| node.status().taken == 7)
    })
    .await;
    at_day(&mut net, 2).await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    a.say(room, "NEW-TEXT").await;
    while !b.texts(room).await.contains(&"NEW-TEXT".to_owned()) {
        b.settle().await;
    }
    for node in &net.nodes {
        let held = files_with(&node.config.data, "OLD-TEXT-2");
        assert!(!held.is_empty(), "its days are not over");
    }
    at_day(&mut net, 4).await;
    for n in 0..3 {
        let text = format!("OLD-TEXT-{n}");
        until(&text, || async { files_with(net.root(), &text).is_empty() }).await;
    }
    // What is gone is gone, whatever the policy says now, and after a restart.
    let mut a = net.connect(&alice).await;
    policy(&mut a, room, (Field::KeepDays, 0)).await;
    at_day(&mut net, 4).await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    for client in [&mut a, &mut b] {
        let items = client.history(room).await;
        let of = |id: EventId| items.iter().find(|item| id_of(item) == id).unwrap();
        for id in [edited, said] {
            assert_eq!(of(id).content, ContentState::Expired);
            assert_eq!(of(id).deleted, None);
        }
        let edit = of(edited).edited.as_ref().unwrap();
        assert_eq!(edit.content, ContentState::Expired);
        assert!(of(deleted).deleted.is_some());
        assert_eq!(of(deleted).content, ContentState::Gone);
        let texts: Vec<String> = items.iter().filter_map(text_of).collect();
        assert_eq!(texts, ["NEW-TEXT"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_beyond_the_rate_are_folded_alike_on_every_server_and_stay_in_the_history() {
    let mut net = Net::start(2).await;
    let Pair {
        bob,
        mut a,
        mut b,
        room,
        ..
    } = net.pair(Role::Member).await;
    policy(&mut a, room, (Field::Rate, 3)).await;
    let count = 10;
    for n in 0..count {
        a.say(room, &format!("text {n}")).await;
    }
    // As it is told while it happens, by the other server.
    let mut live = Vec::new();
    while live.len() < count {
        let item = b
            .change(|change| match change {
                comity_protocol::session::Change::Appeared { item, .. } => Some(item.clone()),
                _ => None,
            })
            .await;
        if text_of(&item).is_some() {
            live.push((id_of(&item), item.folded));
        }
    }
    net.restart(1).await;
    let mut b = net.connect(&bob).await;
    for client in [&mut a, &mut b] {
        let items = client.history(room).await;
        let messages = items.iter().filter(|item| text_of(item).is_some());
        let read: Vec<_> = messages.map(|item| (id_of(item), item.folded)).collect();
        assert_eq!(read, live);
    }
    let folded: Vec<bool> = live.iter().map(|(_, folded)| *folded).collect();
    assert_eq!(folded[..3], [false; 3]);
    // A minute may have ended in between.
    let beyond = folded.iter().filter(|folded| **folded).count();
    assert!((count - 6..=count - 3).contains(&beyond), "{folded:?}");
}
