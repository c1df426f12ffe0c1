//! What a removal takes away is listed for who removed, and those who are dropped learn by whom.

use comity_protocol::{
    authority::Cause,
    event::{Act, SignedEvent},
    role::Role,
    session::{Change, Code, ContentState, Reply, Request, VoidItem},
};

use super::{
    client::{Client, content},
    net::{Net, Pair},
};
use comity_protocol::ids::{ConversationId, EventId};

fn act_of(item: &VoidItem) -> (EventId, Act) {
    let signed = SignedEvent::verify(item.event.clone()).unwrap();
    (signed.id(), signed.event().act.clone())
}

async fn voided(client: &mut Client, conversation: ConversationId, limit: u32) -> Vec<VoidItem> {
    let (mut all, mut after) = (vec![], None);
    loop {
        let request = Request::Voided {
            conversation,
            after,
            limit,
        };
        let Reply::Voided { items, next } = client.ask(request).await.unwrap() else {
            panic!("the list answers");
        };
        assert!(items.len() <= limit as usize);
        all.extend(items);
        match next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

fn taken(change: &Change) -> Option<(EventId, Cause)> {
    match change {
        Change::Vanished { event, by, .. } => Some((*event, (*by)?)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_removes_an_admin_is_told_what_that_took_away_and_those_dropped_by_whom() {
    let mut net = Net::start(2).await;
    let Pair {
        alice,
        bob,
        a,
        mut b,
        room,
    } = net.pair(Role::Admin).await;
    let carol = net.person(1, "carol").await;
    let mut c = net.connect(&carol).await;
    drop(a);
    net.down(0).await;
    // Nobody at the first server sees any of this before bob is removed there.
    let invited = b.grant(room, carol.user, Role::Member).await.unwrap();
    c.announced(room).await;
    let text = content("ours now");
    let title = Act::State {
        field: "title".to_owned(),
        content: Some(text.reference()),
    };
    let title = b.sign(room, Role::Moderator, title);
    b.send(&title, Some(&text)).await.unwrap();
    let by_bob = b.say(room, "hello").await;
    let by_carol = c.say(room, "hi").await;
    c.settle().await;
    let carols = c.cursor.clone();
    net.down(1).await;
    net.up(0).await;
    let mut a = net.connect(&alice).await;
    let removal = a.grant(room, bob.user, Role::None).await.unwrap();
    let by = Cause {
        event: removal,
        author: alice.user,
    };
    a.settle().await;
    let cursor = a.cursor.clone();
    assert_eq!(voided(&mut a, room, 10).await, []);
    net.up(1).await;
    let mut c = net.resume(&carol, Some(carols)).await;

    // Told as it comes, in whatever order, and again when she resumes from before.
    let all = [invited, title.id(), by_bob, by_carol];
    let mut told = vec![];
    while told.len() < all.len() {
        let (event, cause) = a.change(taken).await;
        assert_eq!(cause, by);
        told.push(event);
    }
    assert!(all.iter().all(|event| told.contains(event)));
    let mut resumed = net.resume(&alice, Some(cursor)).await;
    let mut told = vec![];
    while told.len() < all.len() {
        told.push(resumed.change(taken).await.0);
    }
    assert!(all.iter().all(|event| told.contains(event)));

    // The list, page by page: what was done first comes first; only what can be said again is shown.
    let list = voided(&mut a, room, 1).await;
    assert_eq!(list, voided(&mut a, room, 10).await);
    let ids: Vec<_> = list.iter().map(|item| act_of(item).0).collect();
    assert_eq!(ids, all);
    for item in &list {
        assert_eq!(item.by, removal);
        match act_of(item) {
            (id, Act::State { .. }) => {
                assert_eq!(id, title.id());
                let ContentState::Held(bytes) = &item.content else {
                    panic!("{:?}", item.content);
                };
                assert_eq!(bytes.0, text.bytes());
            }
            (_, Act::Message { .. }) => assert_eq!(item.content, ContentState::Withheld),
            (_, act) => assert_eq!(
                (item.content == ContentState::None, act.content()),
                (true, None)
            ),
        }
    }

    // Carol was dropped through no act about her: she learns whose it was.
    let left = c.change(|change| match change {
        Change::Left { conversation, by } if *conversation == room => Some(*by),
        _ => None,
    });
    assert_eq!(left.await, Some(by));
    let request = Request::Voided {
        conversation: room,
        after: None,
        limit: 10,
    };
    assert_eq!(c.refusal(request).await, Code::NotFound);

    // Carol is in again under alice's name, and what she takes away herself is nothing.
    a.grant(room, carol.user, Role::Member).await.unwrap();
    c.announced(room).await;
    assert_eq!(voided(&mut c, room, 10).await, []);
    let before = voided(&mut a, room, 10).await;
    net.restart(0).await;
    let mut a = net.connect(&alice).await;
    assert_eq!(voided(&mut a, room, 10).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_names_itself_to_whom_it_removes_also_when_he_was_away() {
    let net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let room = a.create().await;
    a.grant(room, bob.user, Role::Member).await.unwrap();
    b.announced(room).await;
    let cursor = b.cursor.clone();
    let removal = a.grant(room, bob.user, Role::None).await.unwrap();
    let by = Some(Cause {
        event: removal,
        author: alice.user,
    });
    let left = |change: &Change| match change {
        Change::Left { by, .. } => Some(*by),
        _ => None,
    };
    assert_eq!(b.change(left).await, by);
    let mut resumed = net.resume(&bob, Some(cursor)).await;
    assert_eq!(resumed.change(left).await, by);
    a.grant(room, bob.user, Role::Member).await.unwrap();
    b.announced(room).await;
    b.leave(room).await;
    let by = b.change(left).await.unwrap();
    assert_eq!(by.author, bob.user);
}
