//! Where history is for those who were there, nobody reads what is from before he came or from when
//! he was gone, and his server does not have it.

use comity_protocol::{
    event::{Act, Content, Field, Grant, SealedContent, Target},
    ids::{ConversationId, EventId, Salt},
    role::Role,
    session::{Anchor, Change, Code, ContentState, Item, Request},
};

use super::{
    client::{Client, id_of, text_of},
    erasure::files_with,
    net::{Net, until},
};

async fn joined(client: &mut Client, room: ConversationId, joined: bool) {
    let (field, value) = (Field::History, u64::from(joined));
    let act = Act::Policy { field, value };
    client.act(room, Role::Owner, act).await.unwrap();
}

async fn titles(client: &mut Client, room: ConversationId, title: &str) {
    let content = Content::text(Salt::from_bytes([9; 16]), title);
    let sealed = SealedContent::seal(&content).unwrap();
    let act = Act::State {
        field: "title".into(),
        content: Some(sealed.reference()),
    };
    let event = client.sign(room, Role::Moderator, act);
    client.send(&event, Some(&sealed)).await.unwrap();
}

async fn left(client: &mut Client, room: ConversationId) {
    let is = |change: &Change| matches!(change, Change::Left { conversation, .. } if *conversation == room);
    client.change(|change| is(change).then_some(())).await;
}

/// The text of a line as it was written.
fn first_text(item: &Item) -> Option<String> {
    text_of(&Item {
        edited: None,
        ..item.clone()
    })
}

async fn is_hidden(client: &mut Client, conversation: ConversationId, event: EventId) {
    let request = Request::Item {
        conversation,
        event,
    };
    assert_eq!(client.refusal(request).await, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_kicked_and_comes_back_reads_up_to_the_kick_and_from_the_return() {
    let mut net = Net::start(2).await;
    let alice = net.person(0, "alice").await;
    // One at another server, one at the same.
    let (bob, carol) = (net.person(1, "bob").await, net.person(0, "carol").await);
    net.linked().await;
    let mut a = net.connect(&alice).await;
    let (mut b, mut c) = (net.connect(&bob).await, net.connect(&carol).await);
    let room = a.create().await;
    for address in ["bob@b.localhost", "carol"] {
        let address = address.into();
        a.ask(Request::Lookup { address }).await.unwrap();
    }
    a.say(room, "OPEN-TEXT").await;
    joined(&mut a, room, true).await;
    let before = a.say(room, "BEFORE-TEXT").await;
    titles(&mut a, room, "the title").await;
    for person in [&bob, &carol] {
        a.grant(room, person.user, Role::Member).await.unwrap();
    }
    let edited = a.say(room, "one").await;
    for client in [&mut b, &mut c] {
        let summary = client.announced(room).await;
        assert_eq!(summary.title.as_deref(), Some("the title"));
        while client.line(room).await.1 != "one" {}
        assert_eq!(client.texts(room).await, ["OPEN-TEXT", "one"]);
        is_hidden(client, room, before).await;
    }
    let cursors = (b.cursor.clone(), c.cursor.clone());
    for person in [&bob, &carol] {
        a.grant(room, person.user, Role::None).await.unwrap();
    }
    left(&mut b, room).await;
    left(&mut c, room).await;
    let between = a.say(room, "BETWEEN-TEXT").await;
    a.edit(room, edited, "EDITED-TEXT").await.unwrap();
    for person in [&bob, &carol] {
        a.grant(room, person.user, Role::Member).await.unwrap();
    }
    a.say(room, "two").await;
    for client in [&mut b, &mut c] {
        client.announced(room).await;
        while client.line(room).await.1 != "two" {}
        let items = client.history(room).await;
        let texts: Vec<_> = items.iter().filter_map(first_text).collect();
        assert_eq!(texts, ["OPEN-TEXT", "one", "two"]);
        is_hidden(client, room, before).await;
        is_hidden(client, room, between).await;
        let item = items.iter().find(|item| id_of(item) == edited).unwrap();
        let state = item.edited.as_ref().map(|edit| &edit.content);
        assert_eq!(state, Some(&ContentState::Withheld));
        // Small pages across the gaps.
        let (mut anchor, mut texts) = (Anchor::Oldest, 0);
        loop {
            let page = client.page(room, anchor, 1).await.unwrap();
            texts += page
                .items
                .iter()
                .filter(|item| item.content != ContentState::None)
                .count();
            match page.next {
                Some(next) if !page.complete => anchor = Anchor::After(next),
                _ => break,
            }
        }
        assert_eq!(texts, 3);
    }
    // Who resumes is told nothing of it either.
    for (person, cursor) in [(&bob, cursors.0), (&carol, cursors.1)] {
        let mut client = net.resume(person, Some(cursor)).await;
        let mut told = vec![];
        while told.last().is_none_or(|text| text != "two") {
            told.push(client.line(room).await.1);
        }
        assert!(
            told.iter()
                .all(|text| ["one", "two"].contains(&text.as_str())),
            "{told:?}"
        );
    }
    net.down(1).await;
    for (text, there) in [
        ("OPEN-TEXT", true),
        ("BEFORE-TEXT", false),
        ("BETWEEN-TEXT", false),
        ("EDITED-TEXT", false),
    ] {
        let found = files_with(&net.nodes[1].config.data, text);
        assert_eq!(!found.is_empty(), there, "{text}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_line_from_before_a_member_came_is_not_told_to_him() {
    let mut net = Net::start(2).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    let carol = net.person(0, "carol").await;
    net.linked().await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let c = net.connect(&carol).await;
    let room = a.create().await;
    for address in ["bob@b.localhost", "carol"] {
        let address = address.into();
        a.ask(Request::Lookup { address }).await.unwrap();
    }
    joined(&mut a, room, true).await;
    a.grant(room, bob.user, Role::Member).await.unwrap();
    b.announced(room).await;
    // Bob says something while the other server is down; it comes there after carol did.
    net.down(0).await;
    let late = b.say(room, "LATE-TEXT").await;
    net.down(1).await;
    net.up(0).await;
    let mut a = net.connect(&alice).await;
    a.grant(room, carol.user, Role::Member).await.unwrap();
    let mut c2 = net.connect(&carol).await;
    drop(c);
    a.say(room, "for carol").await;
    net.up(1).await;
    net.linked().await;
    until("the late line is there", || async {
        net.nodes[0].status().taken >= 3
    })
    .await;
    a.say(room, "last").await;
    let mut told = vec![];
    while told.last().is_none_or(|text| text != "last") {
        told.push(c2.line(room).await.1);
    }
    assert_eq!(told, ["for carol", "last"]);
    is_hidden(&mut c2, room, late).await;
    assert_eq!(a.texts(room).await, ["LATE-TEXT", "for carol", "last"]);
    assert_eq!(c2.texts(room).await, ["for carol", "last"]);
}

/// The line as it is told, by its text.
async fn told(client: &mut Client, room: ConversationId, text: &str) {
    let is = |change: &Change| match change {
        Change::Appeared { conversation, item } | Change::Changed { conversation, item } => {
            (*conversation == room && text_of(item).as_deref() == Some(text)).then_some(())
        }
        _ => None,
    };
    client.change(is).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_withheld_comes_once_the_policy_fell_and_is_erased_like_any_text() {
    let mut net = Net::start(2).await;
    let alice = net.person(0, "alice").await;
    let (bob, carol) = (net.person(1, "bob").await, net.person(0, "carol").await);
    net.linked().await;
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let mut c = net.connect(&carol).await;
    let room = a.create().await;
    for address in ["bob@b.localhost", "carol"] {
        let address = address.into();
        a.ask(Request::Lookup { address }).await.unwrap();
    }
    a.grant(room, carol.user, Role::Admin).await.unwrap();
    c.announced(room).await;
    let (field, value) = (Field::History, 1);
    let policy = Act::Policy { field, value };
    c.act(room, Role::Admin, policy).await.unwrap();
    let mut before = vec![];
    for text in ["FIRST-TEXT", "SECOND-TEXT"] {
        before.push(a.say(room, text).await);
    }
    a.edit(room, before[0], "EDITED-TEXT").await.unwrap();
    a.grant(room, bob.user, Role::Member).await.unwrap();
    b.announced(room).await;
    a.say(room, "for bob").await;
    while b.line(room).await.1 != "for bob" {}
    assert_eq!(b.texts(room).await, ["for bob"]);
    is_hidden(&mut b, room, before[0]).await;
    let cursor = b.cursor.clone();
    // The removal lets nothing of hers stand: her policy was never one.
    let removal = Act::Grant(Grant {
        target: Target::User {
            user: carol.user,
            home: net.nodes[0].id,
        },
        role: Role::None,
        cut: vec![],
        ban: false,
        lifts: vec![],
    });
    a.act(room, Role::Owner, removal).await.unwrap();
    told(&mut b, room, "SECOND-TEXT").await;
    let texts = ["EDITED-TEXT", "SECOND-TEXT", "for bob"];
    until("all of it came", || async {
        let mut client = net.connect(&bob).await;
        client.texts(room).await == texts
    })
    .await;
    // Who resumes is told, also by a server that started anew.
    net.restart(1).await;
    net.linked().await;
    let mut b = net.resume(&bob, Some(cursor)).await;
    told(&mut b, room, "SECOND-TEXT").await;
    assert_eq!(b.texts(room).await, texts);
    let claims = Role::None;
    for target in before {
        a.act(room, claims, Act::Delete { target }).await.unwrap();
    }
    until("the deletions came", || async {
        let mut client = net.connect(&bob).await;
        client.texts(room).await == ["for bob"]
    })
    .await;
    net.down(1).await;
    for text in ["FIRST-TEXT", "SECOND-TEXT", "EDITED-TEXT"] {
        let found = files_with(&net.nodes[1].config.data, text);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}
