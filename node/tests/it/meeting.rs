//! Servers that meet by name, with certificates of a test authority.

use std::time::Instant;

use comity_protocol::{
    role::Role,
    session::{Code, LookedUp, Reply, Request, WireError},
};

use comity_node::config::Peer;

use super::{client::Client, net::Net};

async fn lookup(client: &mut Client, address: String) -> Result<LookedUp, WireError> {
    match client.ask(Request::Lookup { address }).await? {
        Reply::LookedUp(found) => Ok(found),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_with_only_names_and_certificates_exchange_messages() {
    let (mut net, _) = Net::strangers(2);
    net.up(0).await;
    net.up(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let room = a.create().await;
    let start = Instant::now();
    let found = lookup(&mut a, format!("bob@{}", net.nodes[1].config.name)).await;
    let found = found.unwrap();
    assert_eq!((found.user, found.home), (bob.user, net.nodes[1].id));
    a.grant_at(room, found.user, found.home, Role::Member)
        .await
        .unwrap();
    a.say(room, "hello, stranger").await;
    b.announced(room).await;
    let mut texts = vec![];
    while !texts.contains(&"hello, stranger".to_owned()) {
        texts = b.texts(room).await;
    }
    println!("met and said within {:?}", start.elapsed());
    b.say(room, "hello").await;
    while a.line(room).await.1 != "hello" {}
    // They remember each other, and the name.
    net.restart(0).await;
    net.restart(1).await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    b.say(room, "still here").await;
    while a.line(room).await.1 != "still here" {}
    let again = lookup(&mut a, format!("bob@{}", net.nodes[1].config.name)).await;
    assert_eq!(again.unwrap().user, bob.user);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_another_server_pinned_for_a_name_refuses_and_says_why() {
    let (mut net, authority) = Net::strangers(3);
    // The operator of the first wrote down the third's card under the second's name.
    let name = net.nodes[1].config.name.to_string();
    net.nodes[2].take_name(&name, &authority);
    let wrong: Peer = net.nodes[2].as_peer();
    net.nodes[0].config.peers = vec![wrong];
    net.up(0).await;
    net.up(1).await;
    let bob = net.person(1, "bob").await;
    net.person(0, "alice").await;
    let mut b = net.connect(&bob).await;
    let refused = lookup(&mut b, format!("alice@{}", net.nodes[0].config.name)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, Code::Unreachable, "{refused:?}");
    let pinned = net.nodes[2].id.to_string();
    assert!(refused.message.contains(&pinned), "{}", refused.message);
    assert!(
        refused.message.contains("is known as server"),
        "{}",
        refused.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_where_nobody_answers_or_somebody_else_is_an_error_that_says_so() {
    let (mut net, _) = Net::strangers(2);
    net.up(0).await;
    net.up(1).await;
    let alice = net.person(0, "alice").await;
    let mut a = net.connect(&alice).await;
    let nobody = lookup(&mut a, "bob@localhost:9".into()).await.unwrap_err();
    assert_eq!(nobody.code, Code::Unreachable);
    // The second server answers at this address too, but its card says another name.
    let port = net.nodes[1].config.listen.https.unwrap().port();
    let other = lookup(&mut a, format!("bob@127.0.0.1:{port}"))
        .await
        .unwrap_err();
    assert!(other.message.contains("127.0.0.1"), "{}", other.message);
    // At once again it is not asked.
    let again = lookup(&mut a, "bob@localhost:9".into()).await.unwrap_err();
    assert_eq!(again.code, Code::RateLimited);
    assert!(again.retry_after_ms.is_some_and(|wait| wait <= 10_000));
}
