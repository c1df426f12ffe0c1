//! Servers that were never configured with each other.

use comity_node::config::Network;
use comity_protocol::{ids::ConversationId, role::Role, session::Request};
use serde_json::json;

use super::{
    client::Client,
    net::{Net, Person, until},
};

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

/// Three people at the three servers, their clients, and a room of all, made by the first.
struct Three {
    people: [Person; 3],
    clients: [Client; 3],
    room: ConversationId,
}

async fn three(net: &Net) -> Three {
    let people = [
        net.person(0, "alice").await,
        net.person(1, "bob").await,
        net.person(2, "carol").await,
    ];
    until("links of who are configured", || async {
        is_linked(net, 0, 1) && is_linked(net, 0, 2)
    })
    .await;
    let [alice, bob, carol] = &people;
    let mut clients = [
        net.connect(alice).await,
        net.connect(bob).await,
        net.connect(carol).await,
    ];
    let [a, others @ ..] = &mut clients;
    let room = a.create().await;
    for (address, user) in [("bob@b.localhost", bob), ("carol@c.localhost", carol)] {
        let address = address.into();
        a.ask(Request::Lookup { address }).await.unwrap();
        a.grant(room, user.user, Role::Member).await.unwrap();
    }
    for other in others {
        other.announced(room).await;
    }
    Three {
        people,
        clients,
        room,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_that_meet_in_a_conversation_become_peers_and_stay_so_without_who_introduced_them() {
    let mut net = two_who_know_one();
    for n in 0..3 {
        net.nodes[n].config.network.allow = vec!["127.0.0.0/8".to_owned()];
        net.up(n).await;
    }
    let Three {
        people: [_, bob, carol],
        clients: [_, mut b, mut c],
        room,
    } = three(&net).await;
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
        let Three {
            clients: [_a, mut b, mut c],
            room,
            ..
        } = three(&net).await;
        // What b says goes by a: its card proves it, also where no link may be.
        b.say(room, "by a").await;
        while c.line(room).await.1 != "by a" {}
        assert!(!is_linked(&net, 1, 2) && !is_linked(&net, 2, 1));
    }
}
