//! One event counts once, however often and however it is sent.

use comity_protocol::{
    event::Act,
    role::Role,
    session::{Code, Reply},
};

use super::{
    client::{content, send},
    net::Net,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_twice_gets_the_same_answer_and_is_there_once() {
    let mut net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let conversation = client.create().await;
    let (event, text) = client.message(conversation, "once");
    let first = client.send(&event, Some(&text)).await.unwrap();
    client.say(conversation, "in between").await;
    assert_eq!(client.send(&event, Some(&text)).await.unwrap(), first);
    net.restart(0).await;
    let mut client = net.connect(&alice).await;
    assert_eq!(client.send(&event, Some(&text)).await.unwrap(), first);
    assert_eq!(client.texts(conversation).await, ["once", "in between"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_of_one_event_that_are_in_flight_together_make_one_commit() {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut one = net.connect(&alice).await;
    let conversation = one.create().await;
    let mut two = net.connect(&alice).await;
    for round in 0..20 {
        let (event, text) = one.message(conversation, &format!("{round}"));
        let mut ids = vec![];
        for _ in 0..4 {
            ids.push(one.start(send(&event, Some(&text))).await);
        }
        let other = two.start(send(&event, Some(&text))).await;
        let expected = two.answer(other).await.unwrap();
        for id in ids {
            assert_eq!(one.answer(id).await.unwrap(), expected);
        }
    }
    assert_eq!(one.texts(conversation).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_nonce_for_two_events_is_a_conflict_also_while_both_are_under_way() {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let (here, there) = (client.create().await, client.create().await);
    for round in 0..20 {
        let (first, text) = client.message(here, &format!("{round}"));
        let other = content("other text");
        let mut second = client.event(
            if round % 2 == 0 { here } else { there },
            Role::Member,
            Act::Message {
                content: other.reference(),
            },
        );
        second.nonce = first.event().nonce;
        let second = second.sign(&alice.device);
        let one = client.start(send(&first, Some(&text))).await;
        let two = client.start(send(&second, Some(&other))).await;
        let (one, two) = (client.answer(one).await, client.answer(two).await);
        assert!(matches!(one, Ok(Reply::Accepted(_))), "{one:?}");
        assert_eq!(two.unwrap_err().code, Code::Conflict, "round {round}");
        let again = client.refusal(send(&second, Some(&other))).await;
        assert_eq!(again, Code::Conflict);
    }
    assert_eq!(client.texts(here).await.len(), 20);
    assert_eq!(client.texts(there).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_edits_and_reactions_race_and_the_deletion_wins() {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let conversation = client.create().await;
    for round in 0..20 {
        let target = client.say(conversation, &format!("{round}")).await;
        let text = content("edited");
        let edit = client.sign(
            conversation,
            Role::Member,
            Act::Edit {
                target,
                content: text.reference(),
            },
        );
        let emoji = "+1".to_owned();
        let on = true;
        let react = client.sign(
            conversation,
            Role::Member,
            Act::React {
                target,
                emoji,
                on,
                version: None,
            },
        );
        let delete = client.sign(conversation, Role::Member, Act::Delete { target });
        let ids = [
            client.start(send(&delete, None)).await,
            client.start(send(&react, None)).await,
            client.start(send(&edit, Some(&text))).await,
        ];
        for id in ids {
            assert!(client.answer(id).await.is_ok());
        }
    }
    let items = client.history(conversation).await;
    assert_eq!(items.len(), 20);
    for item in items {
        assert!(item.deleted.is_some() && item.edited.is_none() && item.reactions.is_empty());
        assert_eq!(super::client::text_of(&item), None);
    }
}
