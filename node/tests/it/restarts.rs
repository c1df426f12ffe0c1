//! What is accepted is there after any stop, and servers become whole by themselves.

use comity_protocol::{role::Role, session::Request};

use super::{
    client::{id_of, send},
    net::{Net, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn everything_answered_accepted_is_there_after_a_stop_in_mid_flight_and_nothing_twice() {
    let mut net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let room = client.create().await;
    for _ in 0..3 {
        let mut sent = vec![];
        for n in 0..200 {
            let (event, text) = client.message(room, &format!("{n}"));
            let id = client.start(send(&event, Some(&text))).await;
            sent.push((id, event, text));
        }
        // The first answers have come, the last are under way.
        client.answer(sent[20].0).await.unwrap();
        let server = net.nodes[0].take();
        let stop = tokio::spawn(server.stop());
        let mut accepted = vec![sent[20].1.id()];
        for (id, event, _) in &sent {
            if *id != sent[20].0 && client.answer(*id).await.is_ok() {
                accepted.push(event.id());
            }
        }
        stop.await.unwrap().unwrap();
        net.up(0).await;
        client = net.connect(&alice).await;
        let held: Vec<_> = client.history(room).await.iter().map(id_of).collect();
        assert!(accepted.iter().all(|id| held.contains(id)));
        // Retries, as an outbox makes them.
        for (_, event, text) in &sent {
            client.send(event, Some(text)).await.unwrap();
        }
        let mut held: Vec<_> = client.history(room).await.iter().map(id_of).collect();
        let count = held.len();
        held.sort_unstable();
        held.dedup();
        assert_eq!(held.len(), count, "nothing twice");
    }
    assert_eq!(client.history(room).await.len(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_were_down_are_whole_on_contact_without_new_traffic() {
    let mut net = Net::start(3).await;
    let alice = net.person(0, "alice").await;
    let others = [net.person(1, "bob").await, net.person(2, "carol").await];
    net.linked().await;
    let mut a = net.connect(&alice).await;
    let room = a.create().await;
    for (person, letter) in others.iter().zip(["b", "c"]) {
        let address = format!("{}@{letter}.localhost", person.handle);
        a.ask(Request::Lookup { address }).await.unwrap();
        a.grant(room, person.user, Role::Member).await.unwrap();
        net.connect(person).await;
    }
    until("both joined", || async {
        net.nodes.iter().all(|node| node.status().taken == 2)
    })
    .await;
    let mut b = net.connect(&others[0]).await;
    net.down(2).await;
    for n in 0..100 {
        a.say(room, &format!("a{n}")).await;
        b.say(room, &format!("b{n}")).await;
    }
    // The author's server stops before the third one comes back: what it said is had of b.
    until("a and b have all", || async {
        (0..2).all(|n| net.nodes[n].status().taken == 202)
    })
    .await;
    net.down(0).await;
    net.up(2).await;
    until("c is whole", || async {
        net.nodes[2].status().taken == 200
    })
    .await;
    net.up(0).await;
    let mut c = net.connect(&others[1]).await;
    let mut a = net.connect(&alice).await;
    let texts = a.texts(room).await;
    assert_eq!(texts.len(), 200);
    assert_eq!(c.texts(room).await, texts);
    assert_eq!(b.texts(room).await, texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_delivers_in_both_directions() {
    let mut net = Net::start(2).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    net.linked().await;
    let mut a = net.connect(&alice).await;
    let room = a.direct(bob.user).await;
    assert!(room.is_ok(), "bob's log is asked for: {room:?}");
    let room = room.unwrap();
    a.say(room, "first").await;
    for round in 0..3 {
        net.restart(round % 2).await;
        let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
        until("the conversation is known at both", || async {
            net.nodes
                .iter()
                .all(|node| node.status().conversations == 1)
        })
        .await;
        let (ask, said) = (format!("ask {round}"), format!("said {round}"));
        a.say(room, &ask).await;
        while b.line(room).await.1 != ask {}
        b.say(room, &said).await;
        while a.line(room).await.1 != said {}
    }
}
