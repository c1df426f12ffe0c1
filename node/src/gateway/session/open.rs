//! A session after its `hello`: requests, answers and updates side by side, without a task for
//! any of them.

use std::{
    future::{Future, poll_fn, ready},
    pin::Pin,
    sync::atomic::Ordering::Relaxed,
    task::Poll,
    time::Duration,
};

use comity_protocol::{
    limits::{SESSION_REQUESTS_MAX, SESSION_SILENCE_MS},
    session::{ClientFrame, Code, Reply, Request, ServerFrame, WireError},
};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    task::coop,
    time::{Instant, sleep_until},
};

use super::{End, Gate, answer, malformed, push};
use crate::{
    gateway::{
        frames::{BadFrame, FrameTooLarge, Sink, Source},
        home::{Batch, Home, Opened, Updates, Who},
    },
    limits::{SESSION_OUT_BYTES, SESSION_PAGES_MAX, WRITE_STALL_MS},
};

const SILENCE: Duration = Duration::from_millis(SESSION_SILENCE_MS);
const STALL: Duration = Duration::from_millis(WRITE_STALL_MS);
/// Frames read before an update gets its turn.
const READS_IN_A_ROW: u32 = 32;

/// A request under way.
type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;

struct Answered {
    id: u64,
    is_page: bool,
    answer: Result<Reply, WireError>,
}

/// Serves a session until it ends; `bye` is left to the caller.
pub(super) async fn serve<H: Home>(
    gate: &Gate<H>,
    opened: Opened<H::Updates>,
    source: &mut impl Source,
    sink: &mut impl Sink,
) -> End {
    let Opened {
        who, mut updates, ..
    } = opened;
    let mut requests = Requests::new(gate, who);
    // A token of its own: thousands of sessions must not meet at one lock with every frame.
    let stopping = gate.stopping.child_token();
    let stop = stopping.cancelled();
    tokio::pin!(stop);
    let mut ending: Option<End> = None;
    let mut clock = Clock::start();
    let timer = sleep_until(clock.due(Instant::now()));
    tokio::pin!(timer);
    let mut reads = 0;
    loop {
        // Nothing below has to wait when both sides are fast; other tasks have to run too.
        coop::consume_budget().await;
        if requests.under_way() == 0
            && sink.waiting() == 0
            && let Some(end) = ending.take()
        {
            return end;
        }
        let room = sink.waiting() < SESSION_OUT_BYTES;
        let reading = ending.is_none() && room && requests.have_room();
        let now = Instant::now();
        clock.note(
            now,
            reading,
            source.heard(),
            sink.waiting() > 0,
            sink.taken(),
        );
        if let Err(end) = clock.check(now) {
            return end;
        }
        if clock.due(now) < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(clock.due(now));
        }
        // Updates have a turn even while the client sends without a pause.
        let turn_over = reads >= READS_IN_A_ROW;
        if turn_over {
            reads = 0;
        }
        // Writing comes after all that is ready by now, so that it leaves together.
        let step = tokio::select! {
            biased;
            () = &mut stop, if ending.is_none() => {
                clock.ends_at = Some(now + STALL);
                ending = Some(End::stopping());
                Ok(())
            }
            answered = requests.next(), if room && requests.under_way() > 0 => match answered {
                Some(done) => answer(gate, sink, done.id, done.answer),
                None => Ok(()),
            },
            frame = source.next(), if reading && !turn_over => match frame {
                Ok(Some(frame)) => {
                    reads += 1;
                    take_in(gate, &mut requests, sink, frame).await
                }
                // What was asked before is answered; a broken connection shows on writing.
                Ok(None) => {
                    clock.ends_at = Some(now + STALL);
                    ending = Some(End::Left);
                    Ok(())
                }
                Err(broken) => Err(broken.into()),
            },
            batch = updates.next(), if room && ending.is_none() => {
                batch.map_err(End::Said).and_then(|batch| update(gate, sink, batch))
            }
            flushed = sink.flush(), if sink.waiting() > 0 => flushed.map_err(End::from),
            () = ready(()), if turn_over => Ok(()),
            () = &mut timer => Ok(()),
        };
        match (step, &ending) {
            (Ok(()), _) => {}
            // A client may leave without waiting for what it asked.
            (Err(End::Lost), Some(End::Left)) => return End::Left,
            (Err(end), _) => return end,
        }
    }
}

async fn take_in<H: Home>(
    gate: &Gate<H>,
    requests: &mut Requests<'_, H>,
    sink: &mut impl Sink,
    frame: Result<ClientFrame, BadFrame>,
) -> Result<(), End> {
    gate.metrics.frames_in.fetch_add(1, Relaxed);
    let ClientFrame { id, request } = match frame {
        Ok(frame) => frame,
        Err(bad) => return malformed(gate, sink, bad),
    };
    gate.metrics.count_request(&request);
    match request {
        Request::Ping => answer(gate, sink, id, Ok(Reply::Pong)),
        Request::Begin { .. } | Request::Hello(_) => {
            let error = WireError::new(Code::Malformed, "the session is open already");
            answer(gate, sink, id, Err(error))
        }
        request => match requests.begin(id, request).await {
            Some(done) => answer(gate, sink, done.id, done.answer),
            None => Ok(()),
        },
    }
}

fn update<H>(gate: &Gate<H>, sink: &mut impl Sink, batch: Batch) -> Result<(), End> {
    gate.metrics.batches.fetch_add(1, Relaxed);
    let frame = ServerFrame::Update {
        cursor: batch.cursor,
        changes: batch.changes,
    };
    push(gate, sink, &frame).map_err(|FrameTooLarge { len }| {
        tracing::error!(len, "an update is larger than a frame");
        End::said(Code::Internal, "an update is larger than a frame")
    })
}

/// Requests under way, started in the order in which they came.
struct Requests<'a, H> {
    gate: &'a Gate<H>,
    who: Who,
    under_way: FuturesUnordered<Answering>,
    pages: usize,
}

impl<'a, H: Home> Requests<'a, H> {
    fn new(gate: &'a Gate<H>, who: Who) -> Self {
        Self {
            gate,
            who,
            under_way: FuturesUnordered::new(),
            pages: 0,
        }
    }

    fn under_way(&self) -> usize {
        self.under_way.len()
    }

    fn have_room(&self) -> bool {
        self.under_way() < SESSION_REQUESTS_MAX && self.pages < SESSION_PAGES_MAX
    }

    /// Starts a request; its answer, if it needed no waiting.
    async fn begin(&mut self, id: u64, request: Request) -> Option<Answered> {
        let is_page = matches!(
            request,
            Request::Conversations { .. }
                | Request::Members { .. }
                | Request::History { .. }
                | Request::Voided { .. }
                | Request::State { .. }
                | Request::Identity { .. }
        );
        let (home, who) = (self.gate.home.clone(), self.who);
        let mut answering: Answering = Box::pin(async move {
            Answered {
                id,
                is_page,
                answer: home.request(who, request).await,
            }
        });
        // Polled here, once, and not left to the set below, so that the order in which requests
        // reach the home is the order of this loop and of nothing else.
        let first = poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx))).await;
        match first {
            Poll::Ready(done) => Some(done),
            Poll::Pending => {
                self.under_way.push(answering);
                self.pages += usize::from(is_page);
                None
            }
        }
    }

    async fn next(&mut self) -> Option<Answered> {
        let done = self.under_way.next().await?;
        self.pages -= usize::from(done.is_page);
        Some(done)
    }
}

/// Judges silence and stalls from counts of bytes, so that no timer is moved for every frame.
struct Clock {
    reading: bool,
    heard: u64,
    heard_at: Instant,
    writing: bool,
    taken: u64,
    taken_at: Instant,
    /// Until when a session that ends waits for its last answers.
    ends_at: Option<Instant>,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self {
            reading: true,
            heard: 0,
            heard_at: now,
            writing: false,
            taken: 0,
            taken_at: now,
            ends_at: None,
        }
    }

    fn note(&mut self, now: Instant, reading: bool, heard: u64, writing: bool, taken: u64) {
        // A pause in reading is ours and no silence of the client's.
        if heard != self.heard || (reading && !self.reading) {
            (self.heard, self.heard_at) = (heard, now);
        }
        if taken != self.taken || (writing && !self.writing) {
            (self.taken, self.taken_at) = (taken, now);
        }
        (self.reading, self.writing) = (reading, writing);
    }

    /// When to check next, at the latest.
    fn due(&self, now: Instant) -> Instant {
        let silent = self.reading.then(|| self.heard_at + SILENCE);
        let stalled = self.writing.then(|| self.taken_at + STALL);
        let due = [silent, stalled, self.ends_at].into_iter().flatten().min();
        due.unwrap_or(now + SILENCE)
    }

    fn check(&self, now: Instant) -> Result<(), End> {
        if self.writing && now >= self.taken_at + STALL {
            let why = "nothing was read for too long; reconnect with the cursor";
            return Err(End::said(Code::TooSlow, why));
        }
        if self.reading && now >= self.heard_at + SILENCE {
            let why = format!("nothing was heard for {SESSION_SILENCE_MS} ms");
            return Err(End::said(Code::Silent, why));
        }
        if self.ends_at.is_some_and(|at| now >= at) {
            return Err(End::said(Code::Busy, "the last answers took too long"));
        }
        Ok(())
    }
}
