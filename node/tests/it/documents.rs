//! What edits, reactions and settings make of lines, over whole servers.

use comity_protocol::{
    event::{Act, Content},
    ids::{ConversationId, Salt},
    preference::{Mute, Setting, Value},
    role::Role,
    session::{Change, Code, ContentState, Reply, Request, StateField},
};

use super::{
    client::{Client, content, id_of, send, text_of},
    net::{Net, Pair, until},
};

async fn state(client: &mut Client, conversation: ConversationId, limit: u32) -> Vec<StateField> {
    let (mut all, mut after): (Vec<StateField>, _) = (vec![], None);
    loop {
        let request = Request::State {
            conversation,
            after,
            limit,
        };
        let Reply::State { fields, complete } = client.ask(request).await.unwrap() else {
            panic!("the state");
        };
        assert!(fields.len() <= limit as usize);
        all.extend(fields);
        if complete {
            return all;
        }
        after = all.last().map(|field| field.field.clone());
    }
}

async fn set(
    client: &mut Client,
    own: ConversationId,
    setting: Setting,
    value: Option<Value>,
) -> Result<(), Code> {
    let sealed = value.map(|value| {
        let salt = Salt::from_bytes(*super::client::nonce().as_bytes());
        let content = value.to_content(salt).unwrap();
        comity_protocol::event::SealedContent::seal(&content).unwrap()
    });
    let act = Act::State {
        field: setting.field(),
        content: sealed.as_ref().map(|s| s.reference()),
    };
    let event = client.sign(own, Role::Member, act);
    let sent = client.send(&event, sealed.as_ref()).await;
    sent.map(drop).map_err(|error| error.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_go_from_one_device_to_another_and_what_was_replaced_is_on_no_disk() {
    let mut net = Net::start(1).await;
    let phone = net.person(0, "alice").await;
    let laptop = net.another_device(&phone).await;
    let mut a = net.connect(&phone).await;
    let own = a.direct(phone.user).await.unwrap();
    let mut b = net.connect(&laptop).await;
    let room = a.create().await;
    let (draft, mute) = (Setting::Draft(room), Setting::Mute(room));
    let text = |text: &str| Value::Draft(Content::text(Salt::from_bytes([0; 16]), text));
    set(&mut a, own, draft, Some(text("DRAFT-NUMBER-ONE")))
        .await
        .unwrap();
    set(&mut a, own, mute, Some(Value::Mute(Mute::Forever)))
        .await
        .unwrap();
    assert_eq!(b.line(own).await.1, "DRAFT-NUMBER-ONE");
    assert_eq!(b.line(own).await.1, "forever");
    set(&mut b, own, draft, Some(text("DRAFT-NUMBER-TWO")))
        .await
        .unwrap();
    let gone = || async { super::erasure::files_with(net.root(), "DRAFT-NUMBER-ONE").is_empty() };
    until("the draft before is erased", gone).await;
    let read = state(&mut a, own, 1).await;
    let read: Vec<_> = read
        .iter()
        .map(|field| (field.field.clone(), text_of(&field.item).unwrap()))
        .collect();
    let expected = [
        (draft.field(), "DRAFT-NUMBER-TWO".to_owned()),
        (mute.field(), "forever".to_owned()),
    ];
    assert_eq!(read, expected, "by name, page by page");
    set(&mut a, own, draft, None).await.unwrap();
    let wrong = content("not for ever");
    let act = Act::State {
        field: mute.field(),
        content: Some(wrong.reference()),
    };
    let event = a.sign(own, Role::Member, act);
    let refused = a.send(&event, Some(&wrong)).await.unwrap_err();
    assert_eq!(refused.code, Code::Malformed);
    net.restart(0).await;
    let mut b = net.connect(&laptop).await;
    let read = state(&mut b, own, 100).await;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].field, mute.field());
    // Nobody else is told that it is there.
    let stranger = net.person(0, "bob").await;
    let mut c = net.connect(&stranger).await;
    let request = Request::State {
        conversation: own,
        after: None,
        limit: 10,
    };
    assert_eq!(c.refusal(request).await, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_says_which_reactions_were_to_another_version() {
    let net = Net::start(1).await;
    let (alice, bob) = (net.person(0, "alice").await, net.person(0, "bob").await);
    let mut a = net.connect(&alice).await;
    let room = a.create().await;
    a.grant(room, bob.user, Role::Member).await.unwrap();
    let mut b = net.connect(&bob).await;
    let target = a.say(room, "tea?").await;
    let react = |version| Act::React {
        target,
        emoji: "+1".to_owned(),
        on: true,
        version,
    };
    a.act(room, Role::Member, react(None)).await.unwrap();
    b.act(room, Role::Member, react(None)).await.unwrap();
    let edit = a.edit(room, target, "coffee?").await.unwrap();
    b.act(room, Role::Member, react(Some(edit))).await.unwrap();
    let items = a.history(room).await;
    let item = items.iter().find(|item| id_of(item) == target).unwrap();
    let reaction = &item.reactions[0];
    assert_eq!(reaction.count, 2);
    assert_eq!(reaction.older, [alice.user]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_identical_reactions_at_once_are_one() {
    let net = Net::start(1).await;
    let phone = net.person(0, "alice").await;
    let laptop = net.another_device(&phone).await;
    let (mut a, mut b) = (net.connect(&phone).await, net.connect(&laptop).await);
    let room = a.create().await;
    let target = a.say(room, "popular").await;
    let mut ids = vec![];
    for _ in 0..50 {
        for client in [&mut a, &mut b] {
            let act = Act::React {
                target,
                emoji: "+1".to_owned(),
                on: true,
                version: None,
            };
            let event = client.sign(room, Role::Member, act);
            ids.push(client.start(send(&event, None)).await);
        }
    }
    for (n, id) in ids.into_iter().enumerate() {
        let client = if n % 2 == 0 { &mut a } else { &mut b };
        assert!(client.answer(id).await.is_ok());
    }
    let items = a.history(room).await;
    let item = items.iter().find(|item| id_of(item) == target).unwrap();
    assert_eq!(item.reactions.len(), 1);
    assert_eq!(item.reactions[0].count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_at_once_with_an_edit_of_another_does_not_overwrite_it() {
    let net = Net::start(1).await;
    let alice = net.person(0, "alice").await;
    let mut client = net.connect(&alice).await;
    let room = client.create().await;
    for round in 0..20 {
        let first = client.say(room, &format!("first {round}")).await;
        let edited = content(&format!("first {round}, edited"));
        let act = Act::Edit {
            target: first,
            content: edited.reference(),
        };
        let edit = client.sign(room, Role::Member, act);
        let (second, text) = client.message(room, &format!("second {round}"));
        let ids = [
            client.start(send(&edit, Some(&edited))).await,
            client.start(send(&second, Some(&text))).await,
        ];
        for id in ids {
            client.answer(id).await.unwrap();
        }
    }
    let expected: Vec<String> = (0..20)
        .flat_map(|n| [format!("first {n}, edited"), format!("second {n}")])
        .collect();
    assert_eq!(client.texts(room).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_text_and_its_edits_are_in_nothing_that_a_client_is_given() {
    let net = Net::start(2).await;
    let Pair {
        bob,
        mut a,
        mut b,
        room,
        ..
    } = net.pair(Role::Member).await;
    let cursor = b.cursor.clone();
    let target = a.say(room, "SECRET-A").await;
    a.edit(room, target, "SECRET-B").await.unwrap();
    b.change(|change| match change {
        Change::Changed { item, .. } if id_of(item) == target => Some(()),
        _ => None,
    })
    .await;
    a.act(room, Role::Member, Act::Delete { target })
        .await
        .unwrap();
    a.edit(room, target, "SECRET-C").await.unwrap();
    b.change(|change| match change {
        Change::Changed { item, .. } if item.deleted.is_some() => Some(()),
        _ => None,
    })
    .await;
    // Pages, one line, and the changes since before it was written.
    let mut resumed = net.resume(&bob, Some(cursor)).await;
    resumed.settle().await;
    for client in [&mut a, &mut b, &mut resumed] {
        let request = Request::Item {
            conversation: room,
            event: target,
        };
        let Reply::Item(item) = client.ask(request).await.unwrap() else {
            panic!("an item");
        };
        let mut items = client.history(room).await;
        items.push(*item);
        for change in std::mem::take(&mut client.changes) {
            if let Change::Appeared { item, .. } | Change::Changed { item, .. } = change {
                // What came live before the deletion is no leak.
                if item.deleted.is_some() {
                    items.push(*item);
                }
            }
        }
        let of_target = items.iter().filter(|item| id_of(item) == target);
        for item in of_target {
            assert_eq!(item.content, ContentState::Gone);
            assert!(item.edited.is_none() && item.deleted.is_some());
        }
    }
}
