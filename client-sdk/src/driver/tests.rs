//! Sessions against a played server: what is lost, repeated, refused, silent or broken.

use std::sync::atomic::Ordering;

use comity_protocol::session::{Code, Reply, Request, WireError};
use tokio::time::{Duration, Instant};

use crate::{
    error::ErrorKind,
    events::{ConnectionState, Event},
    limits::SEND_WINDOW,
    outbox::SendState,
    sending::Replicas,
    store::Store,
    testing::*,
};
use comity_protocol::ids::ServerId;

fn offline_cause(event: Event) -> Option<crate::Error> {
    match event {
        Event::Connection(ConnectionState::Offline { cause, .. }) => Some(cause),
        _ => None,
    }
}

async fn next_cause(events: &mut crate::Events) -> crate::Error {
    loop {
        if let Some(cause) = offline_cause(events.next().await.unwrap()) {
            return cause;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sent_message_is_accepted_and_leaves_the_outbox() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let sent = client.conversation(ROOM).send("hello").await.unwrap();
    assert!(matches!(sent.state(), SendState::Pending));
    let (signed, text) = session.accept(5).await;
    assert_eq!((signed.id(), text.as_str()), (sent.event_id(), "hello"));
    assert_eq!(sent.accepted().await.unwrap(), place(5));
    assert_eq!(client.stats().outbox, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_dropped_in_the_middle_repeats_the_same_bytes_in_the_same_order() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let mut handles = vec![];
    for n in 0..20 {
        handles.push(room.send(n.to_string()).await.unwrap());
    }
    // The server took five in, the answers to two of them were lost with the connection.
    let mut first = vec![];
    for n in 0..5 {
        let (id, signed, _) = session.sent().await;
        if n < 3 {
            session.accepted(id, signed.id(), n).await;
        }
        first.push(signed);
    }
    handles[2].accepted().await.unwrap();
    drop(session);
    let mut session = home.session(false).await;
    let mut again = vec![];
    for n in 3..20 {
        let (signed, text) = session.accept(n).await;
        assert_eq!(text, n.to_string());
        again.push(signed);
    }
    assert_eq!(first[3..], again[..2], "byte for byte");
    for handle in handles {
        handle.accepted().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_gone_deaf_is_given_up_and_everything_arrives_once_in_order() {
    let mut home = Home::new();
    let (client, mut deaf) = home.connect().await;
    let room = client.conversation(ROOM);
    let began = Instant::now();
    for n in 0..20 {
        let _ = room.send(n.to_string()).await.unwrap();
    }
    let mut session = home.session(false).await;
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    for n in 0..20 {
        assert_eq!(session.accept(n).await.1, n.to_string());
    }
    deaf.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_only_answers_pings_is_left_and_asked_again() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let sent = client.conversation(ROOM).send("x").await.unwrap();
    let (_, first, _) = session.sent().await;
    let mut events = client.events();
    let (cause, ()) = tokio::join!(next_cause(&mut events), async {
        while let Some(frame) = session.raw_request().await {
            assert_eq!(frame.request, Request::Ping);
            session.reply(frame.id, Reply::Pong).await;
        }
    });
    assert_eq!(cause.kind(), ErrorKind::Timeout);
    let mut session = home.session(false).await;
    assert_eq!(session.accept(1).await.0, first);
    sent.accepted().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_twice_or_to_nothing_changes_nothing() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let _ = room.send("a").await.unwrap();
    let (id, signed, _) = session.sent().await;
    for _ in 0..2 {
        session.accepted(id, signed.id(), 1).await;
    }
    session.accepted(9_999, signed.id(), 1).await;
    let second = room.send("b").await.unwrap();
    assert_eq!(session.accept(2).await.1, "b");
    assert_eq!(second.accepted().await.unwrap(), place(2));
    assert_eq!(client.stats().sessions, 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_a_window_of_events_is_under_way() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    for n in 0..SEND_WINDOW + 10 {
        let _ = room.send(n.to_string()).await.unwrap();
    }
    let mut ids = vec![];
    for _ in 0..SEND_WINDOW {
        let (id, signed, _) = session.sent().await;
        ids.push((id, signed.id()));
    }
    let more = tokio::time::timeout(Duration::from_secs(1), session.sent());
    assert!(more.await.is_err());
    let (id, event) = ids[0];
    session.accepted(id, event, 0).await;
    assert_eq!(text(session.sent().await.2), SEND_WINDOW.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_drops_the_event_and_tells_both_ways() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let mut events = client.events();
    let bad = room.send("bad").await.unwrap();
    let good = room.send("good").await.unwrap();
    let (id, ..) = session.sent().await;
    session
        .refuse(id, WireError::new(Code::NotAllowed, "no"))
        .await;
    session.accept(1).await;
    assert_eq!(
        bad.accepted().await.unwrap_err().kind(),
        ErrorKind::Forbidden
    );
    good.accepted().await.unwrap();
    let Event::Rejected { event, error, .. } = next(&mut events).await else {
        panic!("a rejection is told");
    };
    assert_eq!((event, error.code()), (bad.event_id(), "not_allowed"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_now_is_obeyed_to_the_millisecond_and_keeps_the_order() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let slow = room.send("slow").await.unwrap();
    let (id, first, _) = session.sent().await;
    let refusal = WireError {
        retry_after_ms: Some(7_500),
        ..WireError::new(Code::RateLimited, "slow down")
    };
    session.refuse(id, refusal).await;
    settle().await;
    let began = Instant::now();
    let _ = room.send("behind").await.unwrap();
    let (signed, _) = session.accept(1).await;
    assert_eq!(signed, first);
    assert_eq!(began.elapsed().as_millis(), 7_500);
    assert_eq!(session.accept(2).await.1, "behind");
    slow.accepted().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_message_still_in_the_outbox_follows_its_message() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let first = room.send("frist").await.unwrap();
    let edit = room.edit(first.event_id(), "first").await.unwrap();
    let second = room.send("second").await.unwrap();
    let (id, signed, _) = session.sent().await;
    let early = tokio::time::timeout(Duration::from_secs(1), session.sent());
    assert!(early.await.is_err(), "the edit waits for its message");
    session.accepted(id, signed.id(), 1).await;
    assert_eq!(
        session.accept(2).await.0.event().act.target(),
        Some(first.event_id())
    );
    assert_eq!(session.accept(3).await.1, "second");
    edit.accepted().await.unwrap();
    second.accepted().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_can_be_taken_back_and_what_was_cannot() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let room = client.conversation(ROOM);
    let sent = room.send("sent").await.unwrap();
    session.sent().await;
    assert!(!sent.cancel());
    drop(session);
    home.down.store(true, Ordering::Relaxed);
    settle().await;
    let unsent = room.send("unsent").await.unwrap();
    assert!(unsent.cancel());
    assert_eq!(
        unsent.accepted().await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    home.down.store(false, Ordering::Relaxed);
    let mut session = home.session(false).await;
    assert_eq!(session.accept(1).await.1, "sent");
    sent.accepted().await.unwrap();
    assert_eq!(client.stats().outbox, 0);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_a_reason_and_the_session_resumes_by_cursor() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    session.update(7, vec![]).await;
    let too_slow = WireError {
        retry_after_ms: Some(30_000),
        ..WireError::new(Code::TooSlow, "the client reads too slowly")
    };
    session.bye(too_slow).await;
    let cause = next_cause(&mut events).await;
    assert_eq!(cause.code(), "too_slow");
    let began = Instant::now();
    home.session(false).await;
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert_eq!(home.resumed.lock().unwrap()[..], [None, Some(cursor(7))]);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_too_large_or_no_frame_ends_the_session_and_not_the_client() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    for bad in [&[0xff; 8][..], &[0, 0, 0, 1, 0xff]] {
        session.bytes(bad).await;
        assert_eq!(next_cause(&mut events).await.kind(), ErrorKind::Protocol);
        session = home.session(false).await;
    }
    let sent = client.conversation(ROOM).send("still here").await.unwrap();
    session.accept(1).await;
    sent.accepted().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_revoked_device_is_logged_out_once_and_keeps_its_outbox() {
    let mut home = Home::new();
    let (client, session) = home.connect().await;
    let mut events = client.events();
    home.down.store(true, Ordering::Relaxed);
    drop(session);
    next_cause(&mut events).await;
    let kept = client.conversation(ROOM).send("kept").await.unwrap();
    home.down.store(false, Ordering::Relaxed);
    let mut link = home.link().await;
    link.challenge(SERVER).await;
    let (id, _) = link.hello(&home.alice).await;
    link.refuse(id, WireError::new(Code::UnknownDevice, "revoked"))
        .await;
    let logged_out = |event: &Event| matches!(event, Event::Connection(ConnectionState::LoggedOut { cause }) if cause.code() == "unknown_device");
    while !logged_out(&events.next().await.unwrap()) {}
    assert_eq!(kept.accepted().await.unwrap_err().kind(), ErrorKind::Auth);
    assert_eq!(
        client.conversations().await.unwrap_err().kind(),
        ErrorKind::Auth
    );
    assert_eq!(client.stats().outbox, 1);
    client.close().await.unwrap_err();
    while events.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn another_server_at_the_same_address_is_not_talked_to() {
    let mut home = Home::new();
    let client = home.start(Store::memory());
    let mut events = client.events();
    let mut link = home.link().await;
    link.challenge(ServerId::from_bytes([0xbb; 32])).await;
    assert_eq!(next_cause(&mut events).await.kind(), ErrorKind::Untrusted);
    link.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_survives_a_reconnect_and_times_out_with_the_cause() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let asking = {
        let client = client.clone();
        tokio::spawn(async move { client.conversations().await })
    };
    session.request().await;
    drop(session);
    let mut session = home.session(false).await;
    session.list(vec![summary(None)]).await;
    assert_eq!(asking.await.unwrap().unwrap().len(), 1);
    home.down.store(true, Ordering::Relaxed);
    drop(session);
    settle().await;
    let error = client.conversations().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Offline);
    assert!(
        error.chain().contains("connection refused"),
        "{}",
        error.chain()
    );
}

#[tokio::test(start_paused = true)]
async fn waits_between_tries_grow_and_a_wake_up_skips_them() {
    let mut home = Home::new();
    let (client, session) = home.connect().await;
    let mut events = client.events();
    home.down.store(true, Ordering::Relaxed);
    drop(session);
    for _ in 0..12 {
        next_cause(&mut events).await;
    }
    home.down.store(false, Ordering::Relaxed);
    let began = Instant::now();
    settle().await;
    client.reconnect_now();
    home.session(false).await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn closing_sends_what_waits_and_ends_streams_and_waits() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    let sent = client.conversation(ROOM).send("last words").await.unwrap();
    let (closed, (signed, _)) = tokio::join!(client.close(), session.accept(1));
    closed.unwrap();
    assert_eq!(signed.id(), sent.event_id());
    session.ended().await;
    while events.next().await.is_some() {}
    let error = client.conversation(ROOM).send("x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn closing_without_a_session_says_what_is_left() {
    let mut home = Home::new();
    let (client, session) = home.connect().await;
    home.down.store(true, Ordering::Relaxed);
    drop(session);
    settle().await;
    let sent = client.conversation(ROOM).send("left").await.unwrap();
    assert_eq!(client.close().await.unwrap_err().kind(), ErrorKind::Offline);
    assert_eq!(sent.accepted().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_session_ends_with_the_last_handle() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let mut events = client.events();
    // A message buffered for a stream must not keep its own client alive.
    let bob = Person::new(2);
    session.update(1, vec![appeared(&bob.says(1, "hi"))]).await;
    session.identify(&bob).await;
    let message = next(&mut events).await;
    session
        .update(2, vec![appeared(&bob.says(2, "unread"))])
        .await;
    drop((client, events));
    settle().await;
    drop(message);
    session.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_stored_outbox_goes_on_in_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut home = Home::new();
    let (client, session) = home.connect_with(Store::open(dir.path()).unwrap()).await;
    home.down.store(true, Ordering::Relaxed);
    drop(session);
    settle().await;
    let room = client.conversation(ROOM);
    let ids = [
        room.send("one").await.unwrap().event_id(),
        room.send("two").await.unwrap().event_id(),
    ];
    client.close().await.unwrap_err();
    home.down.store(false, Ordering::Relaxed);
    let client = home.start(Store::open(dir.path()).unwrap());
    let pending = client.pending();
    assert_eq!(
        pending
            .iter()
            .map(crate::Outgoing::event_id)
            .collect::<Vec<_>>(),
        ids
    );
    let mut session = home.session(false).await;
    assert_eq!(session.accept(1).await.1, "one");
    assert_eq!(session.accept(2).await.1, "two");
    for sent in pending {
        sent.accepted().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn replication_is_heard_or_asked_for() {
    let mut home = Home::new();
    let (client, mut session) = home.connect().await;
    let sent = client.conversation(ROOM).send("x").await.unwrap();
    session.accept(1).await;
    let event = sent.event_id();
    let (done, ()) = tokio::join!(sent.replicated(Replicas::All), async {
        let (id, request) = session.request().await;
        assert_eq!(
            request,
            Request::Delivery {
                conversation: ROOM,
                event
            }
        );
        let reply = Reply::Delivery {
            replicated: 0,
            of: 2,
            waiting: vec![],
        };
        session.reply(id, reply).await;
        let heard = comity_protocol::session::Change::Delivery {
            conversation: ROOM,
            event,
            replicated: 2,
            of: 2,
        };
        session.update(1, vec![heard]).await;
    });
    done.unwrap();
    let (impossible, ()) = tokio::join!(sent.replicated(3), async {
        let (id, _) = session.request().await;
        let reply = Reply::Delivery {
            replicated: 2,
            of: 2,
            waiting: vec![],
        };
        session.reply(id, reply).await;
    });
    assert_eq!(impossible.unwrap_err().kind(), ErrorKind::Invalid);
}
