//! The session loop over a pipe in memory, under a paused clock.

use std::{sync::Arc, time::Duration};

use comity_protocol::{
    ids::ConversationId,
    limits::{SESSION_REQUESTS_MAX, SESSION_SILENCE_MS},
    session::{Code, Reply, Request, ServerFrame},
};
use tokio::{
    io::{ReadHalf, WriteHalf, duplex},
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{Client, lookup},
    fake::Fake,
};
use crate::{
    gateway::{
        metrics::Metrics,
        session::{self, End, Gate},
        stream::{ByteSink, ByteSource},
    },
    limits::{
        HANDSHAKE_MS, HANDSHAKE_REFUSALS_MAX, SESSION_OUT_BYTES, SESSION_PAGES_MAX, WRITE_STALL_MS,
    },
};

const PIPE: usize = 64 * 1024;

struct Pipe {
    gate: Arc<Gate<Fake>>,
    session: JoinHandle<End>,
}

impl Pipe {
    fn new() -> (Self, Client) {
        let gate = Arc::new(Gate {
            home: Fake::default(),
            metrics: Arc::new(Metrics::default()),
            handshakes: Arc::new(Semaphore::new(1)),
            connections: Arc::new(Semaphore::new(1)),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let (near, far) = duplex(PIPE);
        let (recv, send): (ReadHalf<_>, WriteHalf<_>) = tokio::io::split(near);
        let slot = Arc::clone(&gate.handshakes).try_acquire_owned().unwrap();
        let shared = Arc::clone(&gate);
        let session = tokio::spawn(async move {
            let (mut source, mut sink) = (ByteSource::new(recv), ByteSink::new(send));
            session::run(&shared, slot, &mut source, &mut sink).await
        });
        (Self { gate, session }, Client::in_memory(far))
    }

    async fn open(mode: &str) -> (Self, Client) {
        let (pipe, mut client) = Self::new();
        client.hello(mode).await.unwrap();
        (pipe, client)
    }

    async fn said(self) -> Code {
        match self.session.await.unwrap() {
            End::Said(error) => error.code,
            other => panic!("{other:?}"),
        }
    }
}

fn page(kib: u32) -> Request {
    Request::Members {
        conversation: ConversationId::from_bytes([4; 32]),
        after: None,
        limit: kib,
    }
}

/// Lets every other task run until none has anything to do: the paused clock moves on only then.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_takes_too_long_ends_and_gives_its_slot_back() {
    let (pipe, mut client) = Pipe::new();
    let begun = Instant::now();
    client.begin().await;
    assert_eq!(client.bye().await.code, Code::Silent);
    assert_eq!(begun.elapsed().as_millis(), u128::from(HANDSHAKE_MS));
    assert_eq!(pipe.gate.handshakes.available_permits(), 1);
    assert_eq!(pipe.said().await, Code::Silent);
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_free_again_once_a_session_is_open() {
    let (pipe, mut client) = Pipe::open("quiet").await;
    assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
    assert_eq!(pipe.gate.handshakes.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn strangers_are_refused_only_so_often() {
    let (pipe, mut client) = Pipe::new();
    for _ in 0..HANDSHAKE_REFUSALS_MAX {
        let error = client.ask(Request::Ping).await.unwrap_err();
        assert_eq!(error.code, Code::Unauthenticated);
    }
    assert_eq!(client.bye().await.code, Code::Unauthenticated);
    assert_eq!(pipe.said().await, Code::Unauthenticated);
}

#[tokio::test(start_paused = true)]
async fn pings_keep_a_session_and_silence_ends_it() {
    let (pipe, mut client) = Pipe::open("quiet").await;
    for _ in 0..10 {
        sleep(Duration::from_millis(SESSION_SILENCE_MS - 5_000)).await;
        assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
    }
    let silent = Instant::now();
    assert_eq!(client.bye().await.code, Code::Silent);
    assert_eq!(silent.elapsed().as_millis(), u128::from(SESSION_SILENCE_MS));
    assert_eq!(pipe.said().await, Code::Silent);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_trickles_in_is_no_silence() {
    let (pipe, mut client) = Pipe::open("quiet").await;
    let bytes = client.frame_bytes(Request::Ping);
    for byte in bytes {
        sleep(Duration::from_millis(SESSION_SILENCE_MS - 5_000)).await;
        client.send_raw(&[byte]).await;
    }
    assert!(matches!(
        client.read().await,
        Some(ServerFrame::Response { .. })
    ));
    assert!(!pipe.session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn who_never_reads_is_cut_and_cost_a_bounded_buffer() {
    let (pipe, client) = Pipe::open("endless").await;
    let begun = Instant::now();
    let home = pipe.gate.home.clone();
    assert_eq!(pipe.said().await, Code::TooSlow);
    let waited = u64::try_from(begun.elapsed().as_millis()).unwrap();
    assert!(
        (WRITE_STALL_MS..WRITE_STALL_MS + 2_000).contains(&waited),
        "{waited} ms"
    );
    // What is in the pipe and in the outbound buffer, and the one batch that filled it.
    let batch = 64 * 50;
    let bound = u64::try_from((PIPE + SESSION_OUT_BYTES) / batch + 1).unwrap();
    assert!(
        home.pulled() <= bound,
        "{} batches, bound {bound}",
        home.pulled()
    );
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_is_not_cut() {
    let (pipe, mut client) = Pipe::open("endless").await;
    let mut updates = 0;
    for _ in 0..50 {
        sleep(Duration::from_millis(WRITE_STALL_MS / 2)).await;
        assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
        updates += client.updates.drain(..).count();
    }
    assert!(updates > 0);
    assert!(!pipe.session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn updates_have_their_turn_while_the_client_sends_without_a_pause() {
    let (pipe, mut client) = Pipe::open("revocable").await;
    settle().await;
    let pings = (0..1_000)
        .flat_map(|_| client.frame_bytes(Request::Ping))
        .collect::<Vec<_>>();
    client.send_raw(&pings).await;
    pipe.gate.home.0.revoke.notify_one();
    let mut answers = 0;
    let bye = loop {
        match client.read().await {
            Some(ServerFrame::Response { .. }) => answers += 1,
            Some(ServerFrame::Bye(error)) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bye.code, Code::UnknownDevice);
    assert!(answers <= 100, "after {answers} answers");
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_bound_wait_unread() {
    const MORE: usize = 50;
    let (pipe, mut client) = Pipe::open("quiet").await;
    for _ in 0..SESSION_REQUESTS_MAX + MORE {
        client.send(lookup("hold")).await;
    }
    settle().await;
    assert_eq!(pipe.gate.home.begun(), SESSION_REQUESTS_MAX as u64);
    pipe.gate.home.0.hold.add_permits(MORE);
    settle().await;
    assert_eq!(pipe.gate.home.begun(), (SESSION_REQUESTS_MAX + MORE) as u64);
    pipe.gate.home.0.hold.add_permits(SESSION_REQUESTS_MAX);
    for _ in 0..SESSION_REQUESTS_MAX + MORE {
        assert!(matches!(
            client.read().await,
            Some(ServerFrame::Response { .. })
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn pages_under_way_are_few_and_a_slow_home_is_no_silence_of_the_client() {
    let (pipe, mut client) = Pipe::open("quiet").await;
    for _ in 0..3 * SESSION_PAGES_MAX {
        client.send(page(1)).await;
    }
    sleep(Duration::from_millis(3 * SESSION_SILENCE_MS)).await;
    assert_eq!(pipe.gate.home.begun(), SESSION_PAGES_MAX as u64);
    assert!(!pipe.session.is_finished());
    pipe.gate.home.0.hold.add_permits(3 * SESSION_PAGES_MAX);
    for _ in 0..3 * SESSION_PAGES_MAX {
        assert!(matches!(
            client.read().await,
            Some(ServerFrame::Response { .. })
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn large_answers_wait_for_the_reader() {
    let (pipe, mut client) = Pipe::open("quiet").await;
    let home = pipe.gate.home.clone();
    home.0.hold.add_permits(1_000);
    for _ in 0..100 {
        client.send(page(512)).await;
    }
    settle().await;
    assert_eq!(home.begun(), 1, "the first answer fills the buffer");
    for _ in 0..100 {
        assert!(matches!(
            client.read().await,
            Some(ServerFrame::Response { .. })
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn updates_that_end_end_the_session_with_their_reason() {
    let (pipe, mut client) = Pipe::open("revocable").await;
    let home = pipe.gate.home.clone();
    assert_eq!(client.ask(Request::Ping).await, Ok(Reply::Pong));
    settle().await;
    home.0.revoke.notify_one();
    assert_eq!(client.bye().await.code, Code::UnknownDevice);
    assert_eq!(pipe.said().await, Code::UnknownDevice);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_fits_no_frame_ends_the_session() {
    let (pipe, mut client) = Pipe::open("huge").await;
    assert_eq!(client.bye().await.code, Code::Internal);
    assert_eq!(pipe.said().await, Code::Internal);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_before_the_client_ended_its_side_is_answered() {
    let (pipe, mut client) = Pipe::open("quiet").await;
    let asked = client.send(lookup("hold")).await;
    client.end_sending().await;
    settle().await;
    assert!(!pipe.session.is_finished());
    pipe.gate.home.0.hold.add_permits(1);
    assert_eq!(client.answer_to(asked).await, Ok(Reply::Pong));
    assert!(matches!(pipe.session.await.unwrap(), End::Left));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_within_a_frame_is_a_lost_connection() {
    let (pipe, mut client) = Pipe::open("quiet").await;
    client.send_raw(&[0, 0, 0, 9, 1]).await;
    client.end_sending().await;
    assert!(matches!(pipe.session.await.unwrap(), End::Lost));
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_an_opening_too() {
    let (pipe, mut client) = Pipe::new();
    client.begin().await;
    pipe.gate.stopping.cancel();
    assert_eq!(client.bye().await.code, Code::Stopping);
    assert_eq!(pipe.said().await, Code::Stopping);
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_a_reader_that_never_reads() {
    let (pipe, _client) = Pipe::open("endless").await;
    settle().await;
    pipe.gate.stopping.cancel();
    assert_eq!(pipe.said().await, Code::TooSlow);
}
