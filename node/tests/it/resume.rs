//! A session that comes back gets exactly what it missed, in order.

use comity_protocol::{
    event::Act,
    role::Role,
    session::{Anchor, Change, Cursor},
};

use super::{
    client::{Client, id_of, text_of},
    net::Net,
};

/// Appeared texts until one is `last`.
async fn texts_until(client: &mut Client, last: &str) -> Vec<String> {
    let mut texts = vec![];
    loop {
        let text = client
            .change(|change| match change {
                Change::Appeared { item, .. } => text_of(item),
                _ => None,
            })
            .await;
        texts.push(text);
        if texts.last().is_some_and(|text| text == last) {
            return texts;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_comes_once_and_in_order_across_restarts() {
    let mut net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let rooms = [a.create().await, a.create().await];
    for room in rooms {
        a.grant(room, bob.user, Role::Member).await.unwrap();
        b.announced(room).await;
    }
    let mut expected = vec![];
    let mut cursor: Option<Cursor> = None;
    for round in 0..4 {
        drop(b);
        for n in 0..150 {
            let text = format!("{round}.{n}");
            a.say(rooms[n % 2], &text).await;
            expected.push(text);
        }
        if round % 2 == 1 {
            net.restart(0).await;
            a = net.connect(&alice).await;
        }
        b = net.resume(&bob, cursor.take().or(None)).await;
        assert!(!b.welcome.as_ref().unwrap().reset);
        if round == 0 {
            // The first cursor is of the time before: nothing was resumed.
            expected.clear();
            a.say(rooms[0], "start").await;
            expected.push("start".into());
        }
        let last = expected.last().unwrap().clone();
        assert_eq!(texts_until(&mut b, &last).await, expected, "round {round}");
        expected.clear();
        b.settle().await;
        assert!(b.changes.is_empty());
        cursor = Some(b.cursor.clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_line_does_not_hide_those_that_were_missed() {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut a = net.connect(&alice).await;
    let room = a.create().await;
    a.say(room, "0").await;
    a.settle().await;
    let cursor = a.cursor.clone();
    for n in 1..6 {
        a.say(room, &format!("{n}")).await;
    }
    let mut b = net.resume(&alice, Some(cursor)).await;
    a.say(room, "6").await;
    assert_eq!(
        texts_until(&mut b, "6").await,
        ["1", "2", "3", "4", "5", "6"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_that_came_and_went_while_away_is_told_as_it_is() {
    let net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let (mut a, mut b) = (net.connect(&alice).await, net.connect(&bob).await);
    let rooms = [a.create().await, a.create().await, a.create().await];
    let [left, joined, again] = rooms;
    for room in [left, again] {
        a.grant(room, bob.user, Role::Member).await.unwrap();
        b.announced(room).await;
    }
    b.settle().await;
    let cursor = b.cursor.clone();
    drop(b);
    a.say(left, "still for bob").await;
    a.grant(left, bob.user, Role::None).await.unwrap();
    a.say(left, "not for bob").await;
    a.grant(joined, bob.user, Role::Member).await.unwrap();
    a.say(joined, "welcome").await;
    a.grant(again, bob.user, Role::None).await.unwrap();
    a.say(again, "while out").await;
    a.grant(again, bob.user, Role::Member).await.unwrap();
    a.say(again, "back in").await;
    let mut b = net.resume(&bob, Some(cursor)).await;
    let mut told = vec![];
    loop {
        let change = b.change(|change| Some(change.clone())).await;
        let entry = match change {
            Change::Appeared { conversation, item } => {
                text_of(&item).map(|text| (conversation, text))
            }
            Change::Conversation(summary) => Some((summary.conversation, "announced".into())),
            Change::Left { conversation, .. } => Some((conversation, "left".into())),
            _ => None,
        };
        told.extend(entry);
        if told.last().is_some_and(|(_, text)| text == "back in") {
            break;
        }
    }
    let of = |room| {
        let of = told.iter().filter(|(r, _)| *r == room);
        of.map(|(_, text)| text.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of(left), ["still for bob", "left"]);
    assert_eq!(of(joined), ["announced", "welcome"]);
    assert!(of(again).contains(&"announced") && of(again).contains(&"back in"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_announced_even_if_the_session_is_cut_before_its_first_line() {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut a = net.connect(&alice).await;
    let busy = a.create().await;
    a.settle().await;
    let cursor = a.cursor.clone();
    let quiet = a.create().await;
    for n in 0..300 {
        a.say(busy, &format!("{n}")).await;
    }
    a.say(quiet, "first line").await;
    let mut b = net.resume(&alice, Some(cursor)).await;
    let mut announced = false;
    // Cut after each cursor.
    loop {
        let mut last = None;
        while last.is_none() {
            last = b
                .change(|change| match change {
                    Change::Conversation(s) if s.conversation == quiet => {
                        announced = true;
                        Some(None)
                    }
                    Change::Appeared { item, .. } => Some(text_of(item)),
                    _ => Some(None),
                })
                .await;
            if b.changes.is_empty() {
                break;
            }
        }
        if last.as_deref() == Some("first line") {
            break;
        }
        if b.changes.is_empty() {
            b = net.resume(&alice, Some(b.cursor.clone())).await;
        }
    }
    assert!(announced);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_elsewhere_or_of_no_one_resets_and_never_resumes_with_nothing() {
    let net = Net::start(2).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(1, "bob").await);
    let mut b = net.connect(&bob).await;
    b.create().await;
    b.settle().await;
    let foreign = b.cursor.clone();
    let mut torn = foreign.clone();
    torn.0.0.truncate(5);
    let mut forged = net.connect(&alice).await.cursor.clone();
    forged.0.0[3] ^= 1;
    for cursor in [foreign, torn, forged, Cursor::default()] {
        let client = net.resume(&alice, Some(cursor)).await;
        assert!(client.welcome.unwrap().reset);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_do_not_shift_while_lines_arrive_and_change() {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut a = net.connect(&alice).await;
    let room = a.create().await;
    let mut ids = vec![];
    for n in 0..100 {
        ids.push(a.say(room, &format!("{n}")).await);
    }
    let (mut read, mut anchor) = (vec![], Anchor::Newest);
    loop {
        let page = a.page(room, anchor, 7).await.unwrap();
        let mut items: Vec<_> = page.items.iter().map(id_of).collect();
        items.append(&mut read);
        read = items;
        // Meanwhile new lines come, and old ones change and go.
        for n in 0..3 {
            a.say(room, &format!("new {n}")).await;
        }
        let target = ids[read.len() % 100];
        a.edit(room, target, "edited").await.unwrap();
        a.act(room, Role::Member, Act::Delete { target: ids[0] })
            .await
            .ok();
        match page.next {
            Some(place) if !page.complete => anchor = Anchor::Before(place),
            _ => break,
        }
    }
    assert_eq!(read, ids);
}
