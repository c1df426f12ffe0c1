//! What an operator is told of servers that lie, with proof and for good; and what a server does
//! where nobody comes.

use comity_node::server::Faults;
use comity_protocol::{
    commit::SignedCommit,
    conversation::{Conversation, Taken},
    event::{Act, Event, Grant, SignedEvent, Target},
    ids::{ConversationId, UserId},
    limits::CHECKPOINT_MS,
    link::{Frame, Offer, Verdict},
    role::Role,
    root::{Genesis, RawRoot, Root, SignedRoot},
    session::{NextRoot, Reply, Request},
    time::Timestamp,
};

use super::{
    client::nonce,
    hostile_peer::{Peer, home_key, pair},
    net::{Net, http, now, until},
};

/// A group of the peer's only user.
fn group(peer: &Peer) -> Genesis {
    let root = Root {
        v: 1,
        n: 0,
        prev: None,
        owner: peer.user,
        home: peer.id,
        stewards: vec![peer.id],
        frontier: vec![],
        digest: None,
        nonce: nonce(),
        created_at: Timestamp(1),
    };
    Genesis::sign(root, &peer.device)
}

/// The first commit of the peer's chain, which makes `user` at `net`'s first server a member.
fn invited(net: &Net, peer: &Peer, machine: &mut Conversation, user: UserId) -> Taken {
    let grant = Grant {
        target: Target::User {
            user,
            home: net.nodes[0].id,
        },
        role: Role::Member,
        cut: vec![],
        ban: false,
        lifts: vec![],
    };
    let event = Event {
        conversation: machine.id(),
        author: peer.user,
        device: peer.device.public(),
        nonce: nonce(),
        claims: Role::Owner,
        act: Act::Grant(grant),
        sent_at: now(),
    };
    let signed = event.sign(&peer.device);
    machine.submit(now(), signed, None).unwrap();
    machine.next_commit(now(), &peer.key).unwrap()
}

/// Has the server take part in a group of the peer, by the first commit of the peer's chain.
async fn taking_part(
    net: &Net,
    peer: &mut Peer,
    user: UserId,
) -> (Genesis, SignedCommit, Vec<SignedEvent>) {
    let genesis = group(peer);
    peer.send(&Frame::Identities {
        logs: vec![peer.log.clone()],
    });
    peer.send(&Frame::Frontier {
        root: None,
        conversation: genesis.conversation(),
        tips: vec![],
        offer: Offer::Group(genesis.raw().clone()),
        reply: true,
    });
    until("the offer is taken", || async {
        net.nodes[0].status().conversations == 1
    })
    .await;
    let mut machine = Conversation::group(&genesis, peer.id, 1);
    let first = invited(net, peer, &mut machine, user);
    let n = peer.push(first.to_bundle().0);
    assert_eq!(peer.verdict(n).await, Verdict::Stored);
    let events = first.events.iter().map(|e| e.event.clone()).collect();
    (genesis, first.commit, events)
}

async fn metric(net: &Net, name: &str) -> Option<String> {
    let (_, text) = http(net.nodes[0].http(), "GET", "/metrics", None).await;
    let text = text.as_str().unwrap().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|value| value.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_forks_its_chain_is_an_alert_that_outlives_a_restart() {
    let (mut net, mut peer) = pair().await;
    let alice = net.person(0, "alice").await;
    let (genesis, ..) = taking_part(&net, &mut peer, alice.user).await;
    assert!(net.nodes[0].status().forks.is_empty());
    assert_eq!(metric(&net, "comity_forked_homes ").await.unwrap(), "0");
    let mut again = Conversation::group(&genesis, peer.id, 1);
    let other = invited(&net, &peer, &mut again, alice.user);
    let n = peer.push(other.to_bundle().0);
    assert_eq!(peer.verdict(n).await, Verdict::Stored);
    for restarted in [false, true] {
        if restarted {
            net.restart(0).await;
        }
        let status = net.nodes[0].status();
        let [fork] = &status.forks[..] else {
            panic!("{:?}", status.forks);
        };
        let is = |field: &str, id: String| assert_eq!(fork[field], id, "{field}");
        is("home", peer.id.to_string());
        is("conversation", genesis.conversation().to_string());
        let both = [&fork["stands"], &fork["loses"]].map(|id| id.as_str().unwrap());
        assert!(both.contains(&other.commit.id().to_string().as_str()));
        assert_ne!(both[0], both[1]);
        assert_eq!(metric(&net, "comity_forked_homes ").await.unwrap(), "1");
        assert!(status.twins.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_root_records_on_one_are_an_alert_that_outlives_a_restart() {
    let (mut net, mut peer) = pair().await;
    let alice = net.person(0, "alice").await;
    let (genesis, commit, events) = taking_part(&net, &mut peer, alice.user).await;
    let conversation = genesis.conversation();
    let record = || -> RawRoot {
        let mut machine = Conversation::group(&genesis, peer.id, 1);
        machine.restore(&commit, &events).unwrap();
        let keys = (1, &peer.key);
        let taken = machine.make_checkpoint(now(), nonce(), &home_key(), keys);
        taken.unwrap().raw
    };
    let records = vec![record(), record()];
    let mut ids: Vec<String> = records
        .iter()
        .map(|raw| SignedRoot::id_of(raw).to_string())
        .collect();
    ids.sort_unstable();
    peer.send(&Frame::Records {
        conversation,
        records,
    });
    until("both are taken", || async {
        !net.nodes[0].status().twins.is_empty()
    })
    .await;
    for restarted in [false, true] {
        if restarted {
            net.restart(0).await;
        }
        let status = net.nodes[0].status();
        let [twins] = &status.twins[..] else {
            panic!("{:?}", status.twins);
        };
        assert_eq!(twins["n"], 1);
        assert_eq!([&twins["stands"], &twins["loses"]], [&ids[0], &ids[1]]);
        assert_eq!(
            twins["signed_both"],
            serde_json::json!([peer.id.to_string()])
        );
        assert_eq!(metric(&net, "comity_twin_records ").await.unwrap(), "1");
        assert!(status.forks.is_empty());
    }
}

async fn next_root(net: &Net, person: &super::net::Person, conversation: ConversationId) -> Root {
    let request = Request::NextRoot {
        conversation,
        owner: None,
        stewards: None,
    };
    let mut client = net.connect(person).await;
    match client.ask(request).await.unwrap() {
        Reply::NextRoot(NextRoot::Sign(root)) => {
            SignedRoot::decode(&RawRoot::by_device(root, &person.device)).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_made_a_day_later_though_nobody_opens_the_conversation() {
    let mut net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let mut client = net.connect(&alice).await;
    let room = client.create().await;
    client.grant(room, bob.user, Role::Member).await.unwrap();
    drop(client);
    net.down(0).await;
    let faults = Faults {
        clock_ahead_ms: CHECKPOINT_MS + 60_000,
        ..Faults::default()
    };
    net.up_with(0, faults).await;
    until("a conversation was woken", || async {
        metric(&net, "comity_conversations_woken_total ")
            .await
            .as_deref()
            == Some("1")
    })
    .await;
    assert_eq!(
        next_root(&net, &alice, room).await.n,
        2,
        "record 1 is there"
    );
}
