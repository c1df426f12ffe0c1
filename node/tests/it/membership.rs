//! Who is in, and what is told to those who are not any more.

use comity_protocol::{
    event::Act,
    role::Role,
    session::{Anchor, Change, Code, Reply, Request},
};

use super::net::{Net, Pair, until};

#[tokio::test(flavor = "multi_thread")]
async fn after_leaving_nothing_is_told_and_the_conversation_is_not_there() {
    let net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let conversation = a.create().await;
    a.grant(conversation, bob.user, Role::Member).await.unwrap();
    b.announced(conversation).await;
    a.say(conversation, "hello").await;
    assert_eq!(b.line(conversation).await.1, "hello");
    b.leave(conversation).await;
    b.change(|c| {
        matches!(c, Change::Left { conversation: of, .. } if *of == conversation).then_some(())
    })
    .await;
    let cursor = b.cursor.clone();
    a.say(conversation, "secret").await;
    a.grant(conversation, bob.user, Role::None).await.ok();
    b.settle().await;
    assert!(b.changes.is_empty(), "{:?}", b.changes);
    let page = b.page(conversation, Anchor::Newest, 10).await;
    assert_eq!(page.unwrap_err().code, Code::NotFound);
    let (event, text) = b.message(conversation, "and now?");
    let refused = b.send(&event, Some(&text)).await.unwrap_err();
    assert_eq!(refused.code, Code::NotMember);
    assert!(b.conversations().await.is_empty());
    let mut resumed = net.resume(&bob, Some(cursor)).await;
    resumed.settle().await;
    assert!(resumed.changes.is_empty(), "{:?}", resumed.changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_user_is_told_so_and_comes_back_by_another_invitation() {
    let net = Net::start(2).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    net.linked().await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let conversation = a.create().await;
    a.say(conversation, "before bob").await;
    let Ok(Reply::LookedUp(found)) = a
        .ask(Request::Lookup {
            address: "bob@b.localhost".into(),
        })
        .await
    else {
        panic!("bob is found");
    };
    assert_eq!((found.user, found.home), (bob.user, net.nodes[1].id));
    for round in 0..3 {
        a.grant(conversation, bob.user, Role::Member).await.unwrap();
        b.announced(conversation).await;
        let said = format!("round {round}");
        a.say(conversation, &said).await;
        while b.line(conversation).await.1 != said {}
        b.say(conversation, &format!("answer {round}")).await;
        let answer = format!("answer {round}");
        while a.line(conversation).await.1 != answer {}
        a.grant(conversation, bob.user, Role::None).await.unwrap();
        b.change(|c| {
            matches!(c, Change::Left { conversation: of, .. } if *of == conversation).then_some(())
        })
        .await;
        let page = b.page(conversation, Anchor::Newest, 10).await;
        assert_eq!(page.unwrap_err().code, Code::NotFound);
        a.say(conversation, "without bob").await;
    }
    a.grant(conversation, bob.user, Role::Member).await.unwrap();
    b.announced(conversation).await;
    let (a_texts, mut b_texts) = (a.texts(conversation).await, vec![]);
    assert_eq!(a_texts.len(), 10);
    until("bob has all of it", || async {
        net.nodes[1].status().taken > 0
    })
    .await;
    while b_texts != a_texts {
        b_texts = b.texts(conversation).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_reaches_a_server_that_was_down_also_when_the_remover_restarts() {
    let mut net = Net::start(2).await;
    let Pair {
        bob,
        mut a,
        b,
        room: conversation,
        ..
    } = net.pair(Role::Member).await;
    let cursor = b.cursor.clone();
    net.down(1).await;
    a.grant(conversation, bob.user, Role::None).await.unwrap();
    a.say(conversation, "not for bob").await;
    net.restart(0).await;
    net.up(1).await;
    let mut b = net.resume(&bob, Some(cursor)).await;
    b.change(|c| {
        matches!(c, Change::Left { conversation: of, .. } if *of == conversation).then_some(())
    })
    .await;
    assert!(b.conversations().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_conversation_opened_from_both_ends_at_once_is_one() {
    let net = Net::start(2).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    net.linked().await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let (one, two) = tokio::join!(a.direct(bob.user), b.direct(alice.user));
    let conversation = one.unwrap();
    assert_eq!(two.unwrap(), conversation);
    tokio::join!(a.say(conversation, "hi"), b.say(conversation, "hey"));
    until("both have both", || async {
        net.nodes.iter().all(|node| node.status().taken == 2)
    })
    .await;
    let texts = a.texts(conversation).await;
    assert_eq!(texts.len(), 2);
    assert_eq!(b.texts(conversation).await, texts);
    assert_eq!(a.conversations().await.len(), 1);
    assert_eq!(b.conversations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_one_direct_conversation_in_many_sessions_at_once_works_in_each() {
    let net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let mut client = net.connect(&alice).await;
    let mut ids = vec![];
    for _ in 0..50 {
        ids.push(client.start(Request::OpenDirect { user: bob.user }).await);
    }
    for id in ids {
        assert!(client.answer(id).await.is_ok(), "known is what is durable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_one_room_gets_the_other_ones() {
    let net = Net::start(2).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    net.linked().await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let address = || "bob@b.localhost".into();
    a.ask(Request::Lookup { address: address() }).await.unwrap();
    let (room, other) = (a.create().await, a.create().await);
    // Bound to a home that has never heard of him: nothing of this room can be taken there.
    let stranger = comity_protocol::event::Grant {
        target: comity_protocol::event::Target::User {
            user: comity_protocol::ids::UserId::from_bytes([8; 32]),
            home: net.nodes[1].id,
        },
        role: Role::Member,
        cut: vec![],
        ban: false,
        lifts: vec![],
    };
    a.act(room, Role::Moderator, Act::Grant(stranger))
        .await
        .unwrap();
    a.grant(other, bob.user, Role::Member).await.unwrap();
    b.announced(other).await;
    for n in 0..50 {
        a.say(room, &format!("room {n}")).await;
        let said = format!("other {n}");
        a.say(other, &said).await;
        assert_eq!(b.line(other).await.1, said);
    }
    assert_eq!(b.conversations().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_author_is_told_how_many_servers_stored_it() {
    let mut net = Net::start(3).await;
    let alice = net.person(0, "alice").await;
    let people = [net.person(1, "bob").await, net.person(2, "carol").await];
    net.linked().await;
    let mut a = net.connect(&alice).await;
    let conversation = a.create().await;
    for (person, letter) in people.iter().zip(["b", "c"]) {
        let address = format!("{}@{letter}.localhost", person.handle);
        a.ask(Request::Lookup { address }).await.unwrap();
        a.grant(conversation, person.user, Role::Member)
            .await
            .unwrap();
        net.connect(person).await;
    }
    net.down(2).await;
    let event = a.say(conversation, "who has it").await;
    let delivered = |count: u32| {
        move |change: &Change| match change {
            Change::Delivery {
                event: of,
                replicated,
                of: all,
                ..
            } if *of == event && *replicated == count => Some(*all),
            _ => None,
        }
    };
    assert_eq!(a.change(delivered(1)).await, 2);
    let request = || Request::Delivery {
        conversation,
        event,
    };
    let Ok(Reply::Delivery {
        replicated,
        of,
        waiting,
    }) = a.ask(request()).await
    else {
        panic!("it is an own event");
    };
    assert_eq!((replicated, of, waiting), (1, 2, vec![net.nodes[2].id]));
    net.up(2).await;
    assert_eq!(a.change(delivered(2)).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_removed_while_cut_off_is_told_what_fell_and_by_which_act() {
    let mut net = Net::start(2).await;
    let Pair {
        alice,
        bob,
        mut a,
        mut b,
        room: conversation,
    } = net.pair(Role::Admin).await;
    let seen = b.say(conversation, "seen").await;
    while a.line(conversation).await.1 != "seen" {}
    net.down(0).await;
    // None of this is known to the owner when she removes him.
    let said = b.say(conversation, "not seen").await;
    let edit = b.edit(conversation, seen, "seen, edited").await.unwrap();
    let mut b = net.resume(&bob, None).await;
    b.settle().await;
    let cursor = b.cursor.clone();
    net.down(1).await;
    net.up(0).await;
    let mut a = net.connect(&alice).await;
    a.grant(conversation, bob.user, Role::None).await.unwrap();
    net.up(1).await;
    let mut b = net.resume(&bob, Some(cursor)).await;
    let mut fell = Vec::new();
    while fell.len() < 2 {
        let told = b.change(|c| match c {
            Change::Vanished {
                event, reason, by, ..
            } => Some((*event, reason.clone(), *by)),
            _ => None,
        });
        fell.push(told.await);
    }
    for event in [said, edit] {
        let told = fell.iter().find(|(of, ..)| *of == event);
        let (_, reason, by) = told.expect("the line and the edit were told");
        assert_eq!(reason, "removed");
        assert_eq!(by.unwrap().author, alice.user);
    }
}
