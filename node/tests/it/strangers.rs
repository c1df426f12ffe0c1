//! Servers that were never configured with each other.

use comity_node::config::Network;
use comity_protocol::{role::Role, session::Request};
use serde_json::json;

use super::net::{Net, until};

/// `a` knows `b` and `c`, which know `a` alone.
fn two_who_know_one() -> Net {
    Net::prepare_knowing(3, |n, other| n == 0 || other == 0)
}

fn is_linked(net: &Net, n: usize, other: usize) -> bool {
    let id = json!(net.nodes[other].id);
    let peers = net.nodes[n].status().peers;
    peers
        .iter()
        .any(|peer| peer["server"] == id && peer["connected"] == json!(true))
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_that_meet_in_a_conversation_become_peers_and_stay_so_without_who_introduced_them() {
    let mut net = two_who_know_one();
    for n in 0..3 {
        net.nodes[n].config.network.allow = vec!["127.0.0.0/8".to_owned()];
        net.up(n).await;
    }
    let (alice, bob, carol) = (
        net.person(0, "alice").await,
        net.person(1, "bob").await,
        net.person(2, "carol").await,
    );
    until("links of who are configured", || async {
        is_linked(&net, 0, 1) && is_linked(&net, 0, 2)
    })
    .await;
    let (mut a, mut b, mut c) = (
        net.connect(&alice).await,
        net.connect(&bob).await,
        net.connect(&carol).await,
    );
    let room = a.create().await;
    for address in ["bob@b.localhost", "carol@c.localhost"] {
        let address = address.into();
        a.ask(Request::Lookup { address }).await.unwrap();
    }
    a.grant(room, bob.user, Role::Member).await.unwrap();
    a.grant(room, carol.user, Role::Member).await.unwrap();
    b.announced(room).await;
    c.announced(room).await;
    b.say(room, "from b").await;
    while c.line(room).await.1 != "from b" {}
    until("the two are linked", || async {
        is_linked(&net, 1, 2) && is_linked(&net, 2, 1)
    })
    .await;

    // Who introduced them is gone, and both start anew: they remember each other.
    net.down(0).await;
    net.restart(1).await;
    net.restart(2).await;
    let (mut b, mut c) = (net.connect(&bob).await, net.connect(&carol).await);
    c.say(room, "without a").await;
    while b.line(room).await.1 != "without a" {}
    b.say(room, "nor anybody").await;
    while c.line(room).await.1 != "nor anybody" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_server_and_one_that_may_not_dial_there_link_with_no_stranger() {
    for network in [
        Network {
            closed: true,
            allow: vec!["127.0.0.0/8".to_owned()],
            ca: None,
        },
        Network::default(),
    ] {
        let mut net = two_who_know_one();
        for n in 0..3 {
            net.nodes[n].config.network = network.clone();
            net.up(n).await;
        }
        let (alice, bob, carol) = (
            net.person(0, "alice").await,
            net.person(1, "bob").await,
            net.person(2, "carol").await,
        );
        until("links of who are configured", || async {
            is_linked(&net, 0, 1) && is_linked(&net, 0, 2)
        })
        .await;
        let (mut a, mut b, mut c) = (
            net.connect(&alice).await,
            net.connect(&bob).await,
            net.connect(&carol).await,
        );
        let room = a.create().await;
        for address in ["bob@b.localhost", "carol@c.localhost"] {
            let address = address.into();
            a.ask(Request::Lookup { address }).await.unwrap();
        }
        a.grant(room, bob.user, Role::Member).await.unwrap();
        a.grant(room, carol.user, Role::Member).await.unwrap();
        b.announced(room).await;
        c.announced(room).await;
        // What b says goes by a: its card proves it, also where no link may be.
        b.say(room, "by a").await;
        while c.line(room).await.1 != "by a" {}
        assert!(!is_linked(&net, 1, 2) && !is_linked(&net, 2, 1));
    }
}
