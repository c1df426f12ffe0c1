//! Who is no member any more is told what became of his own words, and nothing else.

use comity_protocol::{
    event::{Act, Grant, SealedContent, Target},
    ids::{ConversationId, EventId, UserId},
    role::Role,
    session::{Change, Code, ContentState, OwnEvent, Reply, Request},
};

use super::{
    client::Client,
    net::{Net, until},
};

/// The conversation that a change is about.
fn about(change: &Change) -> ConversationId {
    match change {
        Change::Appeared { conversation, .. }
        | Change::Changed { conversation, .. }
        | Change::Vanished { conversation, .. }
        | Change::Stands { conversation, .. }
        | Change::Left { conversation, .. }
        | Change::Delivery { conversation, .. }
        | Change::Gap { conversation } => *conversation,
        Change::Conversation(summary) => summary.conversation,
    }
}

async fn own(
    client: &mut Client,
    conversation: ConversationId,
    event: EventId,
) -> Result<OwnEvent, Code> {
    let request = Request::Own {
        conversation,
        event,
    };
    match client.ask(request).await {
        Ok(Reply::Own(own)) => Ok(own),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    }
}

fn text(own: &OwnEvent) -> String {
    let ContentState::Held(bytes) = &own.content else {
        panic!("{own:?}");
    };
    let sealed = SealedContent::open(bytes.0.clone()).unwrap();
    sealed.content().text.clone()
}

/// Takes away whatever a user said.
fn ban(net: &Net, user: UserId) -> Act {
    Act::Grant(Grant {
        target: Target::User {
            user,
            home: net.nodes[1].id,
        },
        role: Role::None,
        cut: vec![],
        ban: true,
        lifts: vec![],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_is_told_what_fell_of_his_and_reads_it_and_nobody_else_does() {
    let mut net = Net::start(2).await;
    let alice = net.person(0, "alice").await;
    // The home goes on to take part, by another member.
    let (bob, dave) = (net.person(1, "bob").await, net.person(1, "dave").await);
    net.linked().await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let mut d = net.connect(&dave).await;
    let room = a.create().await;
    for name in ["bob", "dave"] {
        let address = format!("{name}@b.localhost");
        a.ask(Request::Lookup { address }).await.unwrap();
    }
    for person in [&bob, &dave] {
        a.grant(room, person.user, Role::Member).await.unwrap();
    }
    b.announced(room).await;
    d.announced(room).await;
    let said = b.say(room, "bob's words").await;
    let edit = b.edit(room, said, "bob's better words").await.unwrap();
    let other = a.say(room, "alice's words").await;
    while b.line(room).await.1 != "alice's words" {}
    assert_eq!(own(&mut b, room, said).await, Err(Code::NotFound), "a line");
    assert_eq!(
        text(&own(&mut b, room, edit).await.unwrap()),
        "bob's better words"
    );
    b.leave(room).await;
    b.change(|change| matches!(change, Change::Left { .. }).then_some(()))
        .await;
    until("it is known that he left", || async {
        let mut client = net.connect(&alice).await;
        client.grantee(room, bob.user).await.unwrap().role == Role::None
    })
    .await;
    let cursor = b.cursor.clone();
    a.say(room, "behind his back").await;
    a.act(room, Role::Owner, ban(&net, bob.user)).await.unwrap();
    a.say(room, "still").await;
    while d.line(room).await.1 != "still" {}
    let mut resumed = net.resume(&bob, Some(cursor.clone())).await;
    for client in [&mut b, &mut resumed] {
        let mut fell = vec![];
        while fell.len() < 2 {
            let told = client.change(|change| {
                assert_eq!(about(change), room);
                match change {
                    Change::Vanished {
                        event, reason, by, ..
                    } => Some((*event, reason.clone(), *by)),
                    // How far his leaving got is his to know.
                    Change::Delivery { .. } => None,
                    other => panic!("{other:?}"),
                }
            });
            fell.push(told.await);
        }
        fell.sort();
        let mut expected = [said, edit].map(|event| (event, "removed".to_owned(), None));
        expected.sort();
        assert_eq!(fell, expected);
        client.settle().await;
        client
            .changes
            .retain(|change| !matches!(change, Change::Delivery { .. }));
        assert!(client.changes.is_empty(), "{:?}", client.changes);
        for (event, words) in [(said, "bob's words"), (edit, "bob's better words")] {
            let own = own(client, room, event).await.unwrap();
            assert_eq!(
                (text(&own).as_str(), own.void.as_deref()),
                (words, Some("removed"))
            );
        }
        assert_eq!(own(client, room, other).await, Err(Code::NotFound));
        let (conversation, event) = (room, said);
        let item = Request::Item {
            conversation,
            event,
        };
        assert_eq!(client.refusal(item).await, Code::NotFound);
    }
    for client in [&mut a, &mut d] {
        assert_eq!(own(client, room, said).await, Err(Code::NotFound));
    }
    // What was told once is not told again, and what was not yet is, by a server that started anew.
    let newest = resumed.cursor.clone();
    net.restart(1).await;
    let mut again = net.resume(&bob, Some(cursor)).await;
    again
        .change(|change| matches!(change, Change::Vanished { .. }).then_some(()))
        .await;
    let mut nothing = net.resume(&bob, Some(newest)).await;
    nothing.settle().await;
    assert!(nothing.changes.is_empty(), "{:?}", nothing.changes);
}
