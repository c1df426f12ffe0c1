//! A deleted text is in no file of any server.

use std::path::Path;

use comity_protocol::{event::Act, role::Role, session::Request};

use super::{
    client::send,
    net::{Net, until},
};

/// Files under a directory that hold these bytes.
fn files_with(dir: &Path, wanted: &str) -> Vec<String> {
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
