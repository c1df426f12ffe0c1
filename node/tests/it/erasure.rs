//! A deleted text is in no file of any server.

use std::path::Path;

use comity_protocol::{
    event::{Act, Field},
    limits::CHECKPOINT_ACTS,
    role::Role,
    session::Request,
};

use super::{
    client::send,
    net::{Net, until},
};

/// Files under a directory that hold these bytes.
pub(super) fn files_with(dir: &Path, wanted: &str) -> Vec<String> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            found.extend(files_with(&path, wanted));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(wanted.len()).any(|w| w == wanted.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_and_its_edits_are_on_no_disk() {
    let mut net = Net::start(2).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    net.linked().await;
    let mut a = net.connect(&alice).await;
    let room = a.create().await;
    let address = "bob@b.localhost".into();
    a.ask(Request::Lookup { address }).await.unwrap();
    a.grant(room, bob.user, Role::Member).await.unwrap();
    let kept = a.say(room, "KEPT-TEXT-0").await;
    let target = a.say(room, "SECRET-TEXT-0").await;
    a.edit(room, target, "SECRET-TEXT-1").await.unwrap();
    a.edit(room, target, "SECRET-TEXT-2").await.unwrap();
    let taken = |n| {
        let net = &net;
        move || async move { net.nodes.iter().all(|node| node.status().taken == n) }
    };
    until("both have it", taken(5)).await;
    for node in &net.nodes {
        assert!(!files_with(&node.config.data, "SECRET-TEXT-0").is_empty());
    }
    // Made by another device before it hears of the deletion, sent after it.
    let late = super::client::content("SECRET-TEXT-3");
    let act = Act::Edit {
        target,
        content: late.reference(),
    };
    let edit = a.sign(room, Role::Member, act);
    a.act(room, Role::Member, Act::Delete { target })
        .await
        .unwrap();
    a.ask(send(&edit, Some(&late))).await.unwrap();
    until("both have the deletion", taken(7)).await;
    for n in 0..4 {
        let text = format!("SECRET-TEXT-{n}");
        until(&text, || async { files_with(net.root(), &text).is_empty() }).await;
    }
    assert!(!files_with(net.root(), "KEPT-TEXT-0").is_empty());
    for n in 0..2 {
        net.restart(n).await;
    }
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    for client in [&mut a, &mut b] {
        assert_eq!(client.texts(room).await, ["KEPT-TEXT-0"]);
        let items = client.history(room).await;
        let item = items
            .iter()
            .find(|i| super::client::id_of(i) == target)
            .unwrap();
        assert!(item.deleted.is_some() && item.edited.is_none());
        assert_eq!(item.content, comity_protocol::session::ContentState::Gone);
        assert!(items.iter().any(|i| super::client::id_of(i) == kept));
    }
    for n in 0..4 {
        let text = format!("SECRET-TEXT-{n}");
        assert!(files_with(net.root(), &text).is_empty(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_moderator_deleted_is_on_no_disk_once_a_checkpoint_settled_it() {
    let mut net = Net::start(2).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    net.linked().await;
    let mut a = net.connect(&alice).await;
    let room = a.create().await;
    let address = "bob@b.localhost".into();
    a.ask(Request::Lookup { address }).await.unwrap();
    a.grant(room, bob.user, Role::Member).await.unwrap();
    let mut b = net.connect(&bob).await;
    until("bob is a member", || async {
        net.nodes[1].status().taken == 1
    })
    .await;
    b.say(room, "KEPT-TEXT-0").await;
    let target = b.say(room, "RUDE-TEXT-0").await;
    let (event, _) = a.line(room).await;
    assert_ne!(event, target);
    a.line(room).await;
    a.act(room, Role::Moderator, Act::Delete { target })
        .await
        .unwrap();
    until("both have the deletion", || async {
        net.nodes.iter().all(|node| node.status().taken == 4)
    })
    .await;
    for node in &net.nodes {
        let held = files_with(&node.config.data, "RUDE-TEXT-0");
        assert!(!held.is_empty(), "it may have to be shown again");
    }
    let mut asked = Vec::new();
    for _ in 0..CHECKPOINT_ACTS {
        let act = Act::Policy {
            field: Field::Posting,
            value: 2,
        };
        let event = a.sign(room, Role::Admin, act);
        asked.push(a.start(send(&event, None)).await);
        if asked.len() == 100 {
            for id in asked.drain(..) {
                a.answer(id).await.unwrap();
            }
        }
    }
    until("it is on no disk", || async {
        files_with(net.root(), "RUDE-TEXT-0").is_empty()
    })
    .await;
    // What was settled is read back as it was, and the conversation goes on.
    for n in 0..2 {
        net.restart(n).await;
    }
    net.linked().await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    a.say(room, "KEPT-TEXT-1").await;
    let all = ["KEPT-TEXT-0", "KEPT-TEXT-1"];
    let mut texts = Vec::new();
    while texts != all {
        texts = b.texts(room).await;
        b.settle().await;
    }
    assert_eq!(a.texts(room).await, all);
}
