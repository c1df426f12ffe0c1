//! What a program is told, for every way in which lines come, come again, change and go.

use std::sync::atomic::Ordering;

use comity_protocol::{
    event::Act,
    ids::{Blob, ConversationId, EventId},
    session::{
        Anchor, Change, Code, ContentState, Edited, Item, Page, Reaction, Reply, Request, WireError,
    },
};

use crate::{
    Client, Draft, ErrorKind,
    events::{Event, Events},
    store::Store,
    testing::*,
};

/// A client with a stream, an open session, and Bob, whose identity it knows.
async fn with_bob(home: &mut Home) -> (Client, Events, Session, Person) {
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let bob = Person::new(2);
    session
        .update(1, vec![appeared(&bob.says(1, "first"))])
        .await;
    session.identify(&bob).await;
    assert_eq!(next_text(&mut events).await, "first");
    (client, events, session, bob)
}

fn page(items: Vec<Item>, next: Option<u64>, complete: bool) -> Reply {
    Reply::Page(Page {
        items,
        next: next.map(place),
        complete,
    })
}

/// Answers a request for a page.
async fn give(session: &mut Session, anchor: Anchor, reply: Reply) {
    let (id, request) = session.request().await;
    let Request::History { anchor: asked, .. } = request else {
        panic!("{request:?}");
    };
    assert_eq!(asked, anchor);
    session.reply(id, reply).await;
}

/// The reason of the next warning.
async fn next_warning(events: &mut Events) -> String {
    match next(events).await {
        Event::Warning(warning) => warning.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_asked_for_once_however_many_lines_it_proves() {
    let mut home = Home::new();
    let (client, mut events, mut session, bob) = with_bob(&mut home).await;
    let lines: Vec<_> = (2..100)
        .map(|n| appeared(&bob.says(n, &n.to_string())))
        .collect();
    session.update(2, lines).await;
    for n in 2..100 {
        assert_eq!(next_text(&mut events).await, n.to_string());
    }
    assert_eq!(client.stats().unverified, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_device_says_that_was_signed_in_just_now_is_shown() {
    let mut home = Home::new();
    let (client, mut events, mut session, bob) = with_bob(&mut home).await;
    let bob = bob.with_another_device();
    session
        .update(2, vec![appeared(&bob.says(2, "from my phone"))])
        .await;
    session.identify(&bob).await;
    assert_eq!(next_text(&mut events).await, "from my phone");
    assert_eq!(client.stats().unverified, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_a_server_makes_up_is_shown() {
    let mut home = Home::new();
    let (client, mut events, mut session, bob) = with_bob(&mut home).await;
    let mallory = Person::new(3);

    let mut other_text = bob.says(10, "pay me");
    other_text.content = ContentState::Held(Blob(sealed("pay mallory").into_bytes()));
    let mut wrong_signature = bob.says(11, "x");
    wrong_signature.event.signature = bob.says(12, "x").event.signature;
    // Mallory's device signs as Bob.
    let foreign = Person {
        log: bob.log.clone(),
        key: mallory.key.clone(),
    };
    let foreign_device = foreign.says(13, "I am Bob");
    let elsewhere = Change::Appeared {
        conversation: ConversationId::from_bytes([9; 32]),
        item: Box::new(bob.says(14, "out of context")),
    };
    let text_on_an_act = {
        let act = Act::Pin {
            target: EventId::from_bytes([1; 32]),
            on: true,
        };
        item(15, &bob.sign(15, act), Some(&sealed("never said")))
    };
    let forged = vec![
        appeared(&other_text),
        appeared(&wrong_signature),
        appeared(&foreign_device),
        elsewhere,
        appeared(&text_on_an_act),
        appeared(&bob.says(16, "true")),
    ];
    session.update(2, forged).await;
    session.identify(&bob).await;
    for reason in ["content", "signature", "device", "conversation", "content"] {
        let told = next_warning(&mut events).await;
        assert!(told.contains(reason), "{told}");
    }
    assert_eq!(next_text(&mut events).await, "true");
    assert_eq!(client.stats().unverified, 5);
}

#[tokio::test(start_paused = true)]
async fn another_users_identity_log_proves_nothing() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let (bob, mallory) = (Person::new(2), Person::new(3));
    session.update(1, vec![appeared(&bob.says(1, "x"))]).await;
    let (id, _) = session.request().await;
    session.reply(id, mallory.entries()).await;
    assert!(next_warning(&mut events).await.contains("another user's"));
    session
        .update(2, vec![appeared(&mallory.says(2, "mine"))])
        .await;
    session.identify(&mallory).await;
    assert_eq!(next_text(&mut events).await, "mine");
}

#[tokio::test(start_paused = true)]
async fn an_edit_by_another_is_left_out_and_the_message_shown_as_written() {
    let mut home = Home::new();
    let (_client, mut events, mut session, bob) = with_bob(&mut home).await;
    let mut message = bob.says(2, "as written");
    let target = crate::verify::event_id(&message.event);
    let text = sealed("as forged");
    let edit = |person: &Person, target| {
        let act = Act::Edit {
            target,
            content: text.reference(),
        };
        Some(Edited {
            event: person.sign(3, act).to_raw(),
            content: ContentState::Held(Blob(text.bytes().to_vec())),
        })
    };
    message.edited = edit(&home.alice, target);
    session.update(2, vec![appeared(&message)]).await;
    assert!(next_warning(&mut events).await.contains("an edit"));
    assert_eq!(next_text(&mut events).await, "as written");
    message.edited = edit(&bob, EventId::from_bytes([1; 32]));
    session.update(3, vec![changed(&message)]).await;
    assert!(next_warning(&mut events).await.contains("an edit"));
}

#[tokio::test(start_paused = true)]
async fn a_line_told_twice_is_one_event_and_each_change_is_named() {
    let mut home = Home::new();
    let (_client, mut events, mut session, bob) = with_bob(&mut home).await;
    let mut message = bob.says(2, "one");
    let id = crate::verify::event_id(&message.event);
    session
        .update(2, vec![appeared(&message), appeared(&message)])
        .await;
    assert_eq!(next_text(&mut events).await, "one");

    message.reactions = vec![Reaction {
        emoji: "👍".to_owned(),
        users: vec![bob.user()],
        count: 1,
        older: vec![],
    }];
    session
        .update(3, vec![changed(&message), changed(&message)])
        .await;
    let Event::Reacted(reacted) = next(&mut events).await else {
        panic!("a reaction");
    };
    assert_eq!(reacted.reactions()[0].emoji, "👍");

    let text = sealed("two");
    let act = Act::Edit {
        target: id,
        content: text.reference(),
    };
    message.edited = Some(Edited {
        event: bob.sign(3, act).to_raw(),
        content: ContentState::Held(Blob(text.bytes().to_vec())),
    });
    session.update(4, vec![changed(&message)]).await;
    let Event::Edited(edited) = next(&mut events).await else {
        panic!("an edit");
    };
    assert_eq!(
        (edited.text(), edited.original_text()),
        ("two", Some("one"))
    );

    message.content = ContentState::Gone;
    message.edited = None;
    message.deleted = Some(EventId::from_bytes([4; 32]));
    session.update(5, vec![changed(&message)]).await;
    let Event::Deleted(deleted) = next(&mut events).await else {
        panic!("a deletion");
    };
    assert_eq!((deleted.text(), deleted.id()), ("", id));

    let by = comity_protocol::authority::Cause {
        event: id,
        author: crate::UserId::from_bytes([9; 32]),
    };
    let vanished = Change::Vanished {
        conversation: ROOM,
        event: id,
        reason: "cut".to_owned(),
        by: Some(by),
    };
    session.update(6, vec![vanished]).await;
    assert!(
        matches!(next(&mut events).await, Event::Vanished { reason, by: told, .. } if reason == "cut" && told == Some(by))
    );
    // A deletion that was void is no line: that it counts again is told by name.
    let stands = Change::Stands {
        conversation: ROOM,
        event: id,
    };
    session.update(7, vec![stands]).await;
    assert!(matches!(next(&mut events).await, Event::Stands { event, .. } if event == id));
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_text_comes_late_is_told_as_a_message_once_it_has_it() {
    let mut home = Home::new();
    let (_client, mut events, mut session, bob) = with_bob(&mut home).await;
    let whole = bob.says(2, "!echo late");
    let mut bare = whole.clone();
    bare.content = ContentState::Missing;
    session.update(2, vec![appeared(&bare)]).await;
    assert!(matches!(next(&mut events).await, Event::Changed(_)));
    session.update(3, vec![changed(&whole)]).await;
    assert_eq!(next_text(&mut events).await, "!echo late");
}

#[tokio::test(start_paused = true)]
async fn a_line_says_that_it_is_folded_and_that_its_text_expired() {
    let mut home = Home::new();
    let (_client, mut events, mut session, bob) = with_bob(&mut home).await;
    let mut message = bob.says(2, "one of many");
    message.folded = true;
    session.update(2, vec![appeared(&message)]).await;
    let Event::Message(told) = next(&mut events).await else {
        panic!("a message");
    };
    assert!(told.is_folded() && told.text() == "one of many");
    message.content = ContentState::Expired;
    session.update(3, vec![changed(&message)]).await;
    let Event::Changed(told) = next(&mut events).await else {
        panic!("a change");
    };
    assert_eq!((told.body(), told.deleted()), (&crate::Body::Expired, None));
}

#[tokio::test(start_paused = true)]
async fn a_live_message_after_a_reset_does_not_hide_the_missed_ones() {
    let mut home = Home::new();
    let (_client, mut events, session, bob) = with_bob(&mut home).await;
    drop(session);
    let mut session = home.session(true).await;
    // The sixth comes live, before the five missed ones were asked for.
    session
        .update(200, vec![appeared(&bob.says(7, "live"))])
        .await;
    session.list(vec![summary(Some(7))]).await;
    let missed: Vec<_> = (2..=6)
        .map(|n| bob.says(n, &format!("missed {n}")))
        .collect();
    let first = page(missed[..3].to_vec(), Some(4), false);
    give(&mut session, Anchor::After(place(1)), first).await;
    let rest = [&missed[3..], &[bob.says(7, "live")]].concat();
    give(
        &mut session,
        Anchor::After(place(4)),
        page(rest, Some(7), true),
    )
    .await;
    give(
        &mut session,
        Anchor::Newest,
        page(missed.clone(), Some(2), true),
    )
    .await;
    assert!(matches!(next(&mut events).await, Event::Reset));
    for n in 2..=6 {
        assert_eq!(next_text(&mut events).await, format!("missed {n}"));
    }
    assert_eq!(next_text(&mut events).await, "live");
    session
        .update(201, vec![appeared(&bob.says(8, "after"))])
        .await;
    assert_eq!(
        next_text(&mut events).await,
        "after",
        "the live one came once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reset_tells_what_is_left_what_changed_and_what_could_not_be_read() {
    let mut home = Home::new();
    let (client, mut events, session, bob) = with_bob(&mut home).await;
    drop(session);
    let mut session = home.session(true).await;
    let other = ConversationId::from_bytes([0xaa; 32]);
    let mut moved = summary(Some(9));
    moved.conversation = other;
    session.list(vec![moved]).await;
    let (id, _) = session.request().await;
    session
        .refuse(id, WireError::new(Code::NotFound, "gone"))
        .await;
    let (id, _) = session.request().await;
    session
        .refuse(id, WireError::new(Code::NotFound, "gone"))
        .await;
    assert!(matches!(next(&mut events).await, Event::Reset));
    assert!(
        matches!(next(&mut events).await, Event::Left { conversation, .. } if conversation == ROOM)
    );
    assert!(
        matches!(next(&mut events).await, Event::Gap { conversation } if conversation == other)
    );
    let known: Vec<_> = client
        .known_conversations()
        .iter()
        .map(|c| c.id())
        .collect();
    assert_eq!(known, [other]);
    session
        .update(2, vec![appeared(&bob.says(2, "goes on"))])
        .await;
    assert_eq!(next_text(&mut events).await, "goes on");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_and_closed_from_the_newest_line_held() {
    let mut home = Home::new();
    let (_client, mut events, mut session, bob) = with_bob(&mut home).await;
    session
        .update(2, vec![Change::Gap { conversation: ROOM }])
        .await;
    let missed = vec![bob.says(2, "missed")];
    give(
        &mut session,
        Anchor::After(place(1)),
        page(missed, Some(2), true),
    )
    .await;
    assert!(matches!(next(&mut events).await, Event::Gap { .. }));
    assert_eq!(next_text(&mut events).await, "missed");
}

#[tokio::test(start_paused = true)]
async fn only_the_event_that_was_being_handled_comes_again_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::new();
    let bob = Person::new(2);
    let lines: Vec<_> = (1..=4)
        .map(|n| appeared(&bob.says(n, &n.to_string())))
        .collect();
    {
        let store = Store::open(dir.path()).unwrap();
        let (client, mut session) = home.connect_with(store).await;
        let mut events = client.events();
        session.update(1, lines.clone()).await;
        session.identify(&bob).await;
        for n in 1..=3 {
            assert_eq!(next_text(&mut events).await, n.to_string());
        }
        // A crash keeps the files as they are and runs no destructor of the stream.
        std::mem::forget(events);
        client.close().await.unwrap();
    }
    let client = home.start(Store::open(dir.path()).unwrap());
    let mut events = client.events();
    let mut session = home.session(false).await;
    assert_eq!(home.resumed.lock().unwrap()[..], [None, Some(cursor(100))]);
    session.update(1, lines).await;
    session.identify(&bob).await;
    for n in 3..=4 {
        assert_eq!(next_text(&mut events).await, n.to_string());
    }
    // Asking for more means that all were handled: the cursor moves.
    settle().await;
    assert!(futures::poll!(Box::pin(events.next())).is_pending());
    assert_eq!(client.shared().notebook().cursor, Some(cursor(1)));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_is_told_how_much_it_lost() {
    let mut home = Home::new();
    let (_client, mut events, mut session, bob) = with_bob(&mut home).await;
    let lines = crate::limits::EVENTS_BUFFERED_MAX as u64 + 50;
    for n in 0..lines {
        session
            .update(2, vec![appeared(&bob.says(2 + n, "x"))])
            .await;
    }
    let last = bob.says(9_999_999, "last");
    session.update(3, vec![appeared(&last)]).await;
    settle().await;
    session.update(4, vec![]).await;
    let mut told = 0;
    let mut lost = 0;
    loop {
        match next(&mut events).await {
            Event::Lagged(n) => lost += n,
            Event::Message(m) if m.text() == "last" => break,
            Event::Message(_) => told += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told + lost, lines);
    assert!(lost >= 51);
}

#[tokio::test(start_paused = true)]
async fn an_author_who_cannot_be_looked_up_now_is_waited_for() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let bob = Person::new(2);
    session
        .update(1, vec![appeared(&bob.says(1, "patience"))])
        .await;
    let (id, _) = session.request().await;
    session
        .refuse(id, WireError::new(Code::Busy, "later"))
        .await;
    session.identify(&bob).await;
    assert_eq!(next_text(&mut events).await, "patience");
    assert_eq!(client.stats().unverified, 0);
}

#[tokio::test(start_paused = true)]
async fn an_author_nobody_can_look_up_costs_his_lines_and_no_others() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let (bob, carol) = (Person::new(2), Person::new(4));
    let lines = vec![
        appeared(&bob.says(1, "unknown")),
        appeared(&carol.says(2, "known")),
    ];
    session.update(1, lines).await;
    loop {
        let (id, request) = session.request().await;
        let Request::Identity { user } = request else {
            panic!("{request:?}");
        };
        if user == carol.user() {
            session.reply(id, carol.entries()).await;
            break;
        }
        session
            .refuse(id, WireError::new(Code::Unreachable, "his server is down"))
            .await;
    }
    assert!(next_warning(&mut events).await.contains("not to be had"));
    assert!(matches!(next(&mut events).await, Event::Gap { .. }));
    assert_eq!(next_text(&mut events).await, "known");
    assert_eq!(client.stats().unverified, 1);
}

#[tokio::test(start_paused = true)]
async fn history_is_read_in_both_directions_and_ends() {
    use futures::TryStreamExt;
    let mut home = Home::new();
    let (client, _events, mut session, bob) = with_bob(&mut home).await;
    let says = |n: u64| bob.says(n, &n.to_string());
    let text = |m: crate::Message| m.text().to_owned();
    let read = |h: crate::History| async move {
        let all: Vec<_> = h.limit(2).stream().try_collect().await.unwrap();
        all.into_iter().map(text).collect::<Vec<_>>()
    };
    let history = client.conversation(ROOM).history();
    let (newest_first, ()) = tokio::join!(read(history.clone().newest()), async {
        give(
            &mut session,
            Anchor::Newest,
            page(vec![says(3), says(4)], Some(3), false),
        )
        .await;
        let rest = page(vec![says(1), says(2)], Some(1), true);
        give(&mut session, Anchor::Before(place(3)), rest).await;
    });
    assert_eq!(newest_first, ["4", "3", "2", "1"]);
    let (oldest_first, ()) = tokio::join!(read(history.clone().oldest()), async {
        give(
            &mut session,
            Anchor::Oldest,
            page(vec![says(1), says(2)], Some(2), false),
        )
        .await;
        give(
            &mut session,
            Anchor::After(place(2)),
            page(vec![says(3)], Some(3), true),
        )
        .await;
    });
    assert_eq!(oldest_first, ["1", "2", "3"]);
    // A server whose pages do not move on is an error and no endless loop.
    let stuck = async {
        let stream = history.clone().before(place(5)).stream();
        stream.try_collect::<Vec<_>>().await.unwrap_err()
    };
    let (error, ()) = tokio::join!(stuck, async {
        let page = page(vec![], Some(5), false);
        give(&mut session, Anchor::Before(place(5)), page).await;
    });
    assert_eq!(error.kind(), ErrorKind::Protocol);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_be_verified_now_is_an_error_and_not_a_hole() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let bob = Person::new(2);
    let history = client.conversation(ROOM).history();
    let (result, ()) = tokio::join!(history.page(), async {
        give(
            &mut session,
            Anchor::Newest,
            page(vec![bob.says(1, "x")], Some(1), true),
        )
        .await;
        let (id, _) = session.request().await;
        session
            .refuse(id, WireError::new(Code::Busy, "later"))
            .await;
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_flood_while_an_author_is_looked_up_is_bounded_and_loses_nothing() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let bob = Person::new(2);
    // Ten megabytes while the client waits for Bob's identity: it leaves before it holds them all.
    let text = "x".repeat(60_000);
    for n in 1..200u8 {
        let line = bob.says(n.into(), &format!("{n} {text}"));
        session.update(n, vec![appeared(&line)]).await;
    }
    session.ended().await;
    let mut session = home.session(false).await;
    // Nothing was taken in yet, so the client asks for everything again.
    let resumed = home.resumed.lock().unwrap()[1].clone();
    assert_eq!(resumed, Some(cursor(100)));
    session.identify(&bob).await;
    for n in 1..200 {
        let line = bob.says(n.into(), &format!("{n} {text}"));
        session.update(n, vec![appeared(&line)]).await;
    }
    for n in 1..200 {
        assert!(next_text(&mut events).await.starts_with(&format!("{n} ")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_message_comes_back_as_own_without_asking_who_wrote_it() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let room = client.conversation(ROOM);
    let draft = Draft::text("mine").action().mention(client.user());
    let _ = room.send_content(draft).await.unwrap();
    let (id, signed, content) = session.sent().await;
    session.accepted(id, signed.id(), 1).await;
    let mut shown = item(1, &signed, None);
    shown.content = ContentState::Held(content.unwrap());
    session.update(1, vec![appeared(&shown)]).await;
    let Event::Message(message) = next(&mut events).await else {
        panic!("the own message");
    };
    assert!(message.is_own() && message.is_action());
    assert_eq!(message.mentions(), [client.user()]);
    let answer = message.reply("to myself").await.unwrap();
    let (_, text) = session.accept(2).await;
    assert_eq!(text, "to myself");
    answer.accepted().await.unwrap();
    home.down.store(true, Ordering::Relaxed);
}

fn edits(author: &Person, number: u64, target: EventId, text: &str) -> Edited {
    let sealed = sealed(text);
    let act = Act::Edit {
        target,
        content: sealed.reference(),
    };
    Edited {
        event: author.sign(number, act).to_raw(),
        content: ContentState::Held(Blob(sealed.bytes().to_vec())),
    }
}

#[tokio::test(start_paused = true)]
async fn an_editor_who_lost_is_told_once_with_the_text_that_won() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let phone = Person::new(1);
    let mut message = phone.says(1, "tea at 3");
    let id = crate::verify::event_id(&message.event);
    session.update(1, vec![appeared(&message)]).await;
    assert_eq!(next_text(&mut events).await, "tea at 3");
    // This device's edit, and then, from beyond a partition, the one that wins everywhere.
    let mine = edits(&phone, 2, id, "tea at 4");
    let lost = crate::verify::event_id(&mine.event);
    message.edited = Some(mine);
    session.update(2, vec![changed(&message)]).await;
    assert!(matches!(next(&mut events).await, Event::Edited(m) if m.text() == "tea at 4"));
    let winner = edits(&phone, 3, id, "tea at 5");
    let won = crate::verify::event_id(&winner.event);
    message.edited = Some(winner);
    message.lost = vec![lost];
    session
        .update(3, vec![changed(&message), changed(&message)])
        .await;
    assert!(matches!(next(&mut events).await, Event::Edited(m) if m.text() == "tea at 5"));
    let Event::EditLost {
        message: told,
        edit,
    } = next(&mut events).await
    else {
        panic!("the loss");
    };
    assert_eq!((edit, told.edited()), (lost, Some(won)));
    assert_eq!(told.text(), "tea at 5");
    assert_eq!(told.lost_edits(), [lost]);
    // What else changes does not tell it again; another's lost edit is not this user's matter.
    message.reactions = vec![Reaction {
        emoji: "👍".into(),
        users: vec![phone.user()],
        count: 1,
        older: vec![],
    }];
    let bob = Person::new(2);
    let mut theirs = bob.says(5, "mine");
    let theirs_id = crate::verify::event_id(&theirs.event);
    theirs.edited = Some(edits(&bob, 6, theirs_id, "mine, too"));
    theirs.lost = vec![EventId::from_bytes([9; 32])];
    session
        .update(4, vec![changed(&message), appeared(&theirs)])
        .await;
    session.identify(&bob).await;
    assert!(matches!(next(&mut events).await, Event::Reacted(_)));
    assert!(matches!(next(&mut events).await, Event::Message(m) if m.text() == "mine, too"));
    session.update(5, vec![appeared(&bob.says(7, "end"))]).await;
    assert_eq!(next_text(&mut events).await, "end");
}

#[tokio::test(start_paused = true)]
async fn a_reaction_names_the_version_of_the_text_that_was_shown() {
    let mut home = Home::new();
    let (client, mut events, mut session, bob) = with_bob(&mut home).await;
    let mut message = bob.says(2, "tea?");
    let id = crate::verify::event_id(&message.event);
    session.update(2, vec![appeared(&message)]).await;
    let Event::Message(as_written) = next(&mut events).await else {
        panic!("a message");
    };
    let winner = edits(&bob, 3, id, "coffee?");
    let edit = crate::verify::event_id(&winner.event);
    message.edited = Some(winner);
    session.update(3, vec![changed(&message)]).await;
    assert!(matches!(next(&mut events).await, Event::Edited(_)));
    let room = client.conversation(ROOM);
    let _ = room.react(id, "👍").await.unwrap();
    let _ = as_written.react("🍵").await.unwrap();
    let _ = room.unreact(id, "👍").await.unwrap();
    let expected = [(true, Some(edit)), (true, None), (false, None)];
    for (number, expected) in (10..).zip(expected) {
        let (request, signed, _) = session.sent().await;
        let Act::React { on, version, .. } = signed.event().act.clone() else {
            panic!("a reaction");
        };
        assert_eq!((on, version), expected);
        session.accepted(request, signed.id(), number).await;
    }
}
