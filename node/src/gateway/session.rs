//! One client session over any transport, in one task: the opening, then requests, answers and
//! updates side by side. Source: `spec/06-client-protocol.md`, sections 2 to 6.
//!
//! Memory is bounded by not taking in what cannot be passed on: while the outbound buffer is full
//! no request is read, no answer and no update is pulled. The client's own transport then slows
//! it down, and one that never reads is cut after a while with a cursor it can resume from.

mod open;

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use comity_protocol::{
    ids::Blob,
    session::{Challenge, ClientFrame, Code, Reply, Request, ServerFrame, VERSION, WireError},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    frames::{BadFrame, Broken, FrameTooLarge, Sink, Source},
    home::{Home, Opened},
    metrics::Metrics,
};
use crate::limits::{BYE_WAIT_MS, HANDSHAKE_MS, HANDSHAKE_REFUSALS_MAX};

/// What all sessions of a gateway share.
pub(super) struct Gate<H> {
    pub(super) home: H,
    pub(super) metrics: Arc<Metrics>,
    /// Room for sessions before their `hello`.
    pub(super) handshakes: Arc<Semaphore>,
    /// Room for connections.
    pub(super) connections: Arc<Semaphore>,
    /// Set when the gateway stops: sessions end in good order.
    pub(super) stopping: CancellationToken,
    /// Set when the time for that is over: sessions are dropped as they are.
    pub(super) cut: CancellationToken,
    /// Knows every task that a connection has.
    pub(super) tasks: TaskTracker,
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client left in good order.
    Left,
    /// The connection broke.
    Lost,
    /// The server said why in a `bye`.
    Said(WireError),
}

impl End {
    pub(super) fn said(code: Code, message: impl Into<String>) -> Self {
        Self::Said(WireError::new(code, message))
    }

    fn stopping() -> Self {
        Self::said(Code::Stopping, "the server is stopping; reconnect")
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::TooLarge { max } => Self::said(
                Code::TooLarge,
                format!("frames have at most {max} bytes here"),
            ),
            Broken::Malformed(why) => Self::said(Code::Malformed, why),
            Broken::Lost => Self::Lost,
        }
    }
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// Runs a session to its end and says `bye`. `slot` is one of `gate.handshakes`, given back with
/// the `hello`. Closing the transport and counting the end are left to the caller.
pub(super) async fn run<H: Home>(
    gate: &Gate<H>,
    slot: OwnedSemaphorePermit,
    source: &mut impl Source,
    sink: &mut impl Sink,
) -> End {
    // Boxed, so that an open session does not carry the room of its opening.
    let opening = Box::pin(async {
        tokio::select! {
            biased;
            () = gate.stopping.cancelled() => Err(End::stopping()),
            opened = timeout(Duration::from_millis(HANDSHAKE_MS), open(gate, source, sink)) => {
                opened.unwrap_or_else(|_| {
                    let why = format!("no hello within {HANDSHAKE_MS} ms");
                    Err(End::said(Code::Silent, why))
                })
            }
        }
    });
    let opened = opening.await;
    drop(slot);
    let end = match opened {
        Ok(opened) => {
            let who = opened.who;
            tracing::debug!(user = %who.user, device = %who.device, "a session is open");
            source.admit();
            open::serve(gate, opened, source, sink).await
        }
        Err(end) => end,
    };
    tracing::debug!(?end, "a session ends");
    if let End::Said(error) = &end {
        // Best effort: the client may be the one who does not read.
        let bye = timeout(Duration::from_millis(BYE_WAIT_MS), bye(gate, sink, error));
        let _ = Box::pin(bye).await;
    }
    end
}

async fn bye<H>(gate: &Gate<H>, sink: &mut impl Sink, error: &WireError) -> io::Result<()> {
    if push(gate, sink, &ServerFrame::Bye(error.clone())).is_ok() {
        flush(sink).await?;
    }
    sink.finish().await;
    Ok(())
}

async fn open<H: Home>(
    gate: &Gate<H>,
    source: &mut impl Source,
    sink: &mut impl Sink,
) -> Result<Opened<H::Updates>, End> {
    let mut challenge = None;
    for _ in 0..HANDSHAKE_REFUSALS_MAX {
        // Each answer leaves before the next frame is read, so strangers fill no buffer.
        flush(sink).await?;
        let Some(frame) = source.next().await? else {
            return Err(End::Left);
        };
        gate.metrics.frames_in.fetch_add(1, Relaxed);
        let ClientFrame { id, request } = match frame {
            Ok(frame) => frame,
            Err(bad) => {
                malformed(gate, sink, bad)?;
                continue;
            }
        };
        gate.metrics.count_request(&request);
        match request {
            Request::Begin { version } if version != VERSION => {
                let why = format!("version {version} is not spoken here, only {VERSION} is");
                return Err(End::said(Code::UnknownVersion, why));
            }
            Request::Begin { .. } if challenge.is_none() => {
                let random = challenge.insert(random()?);
                let info = gate.home.info();
                let reply = Reply::Challenge(Challenge {
                    challenge: Blob(random.to_vec()),
                    server: info.server,
                    name: info.name,
                });
                answer(gate, sink, id, Ok(reply))?;
            }
            Request::Hello(hello) if challenge.is_some() => {
                // Taken: a challenge is good for one try.
                let challenge = challenge.take().unwrap_or_default();
                return match gate.home.hello(hello, challenge).await {
                    Ok(opened) => {
                        let welcome = Reply::Welcome(opened.welcome.clone());
                        answer(gate, sink, id, Ok(welcome))?;
                        Ok(opened)
                    }
                    Err(error) => {
                        answer(gate, sink, id, Err(error.clone()))?;
                        Err(End::Said(error))
                    }
                };
            }
            Request::Begin { .. } => {
                let why = "begin was answered before; say hello";
                answer(gate, sink, id, Err(WireError::new(Code::Malformed, why)))?;
            }
            Request::Hello(_) => {
                let why = "say begin first, and sign its challenge";
                answer(
                    gate,
                    sink,
                    id,
                    Err(WireError::new(Code::Unauthenticated, why)),
                )?;
            }
            _ => {
                let why = "say begin and hello first";
                answer(
                    gate,
                    sink,
                    id,
                    Err(WireError::new(Code::Unauthenticated, why)),
                )?;
            }
        }
    }
    flush(sink).await?;
    Err(End::said(
        Code::Unauthenticated,
        "too many frames without a hello",
    ))
}

fn random() -> Result<[u8; 32], End> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        End::said(Code::Internal, "the server cannot make a challenge")
    })?;
    Ok(bytes)
}

/// Answers bytes that are no request: by id if one can be read, otherwise by ending the session.
fn malformed<H>(gate: &Gate<H>, sink: &mut impl Sink, bad: BadFrame) -> Result<(), End> {
    match bad.id {
        Some(id) => answer(
            gate,
            sink,
            id,
            Err(WireError::new(Code::Malformed, bad.why)),
        ),
        None => Err(End::said(Code::Malformed, bad.why)),
    }
}

/// Puts the answer to a request into the outbound buffer.
fn answer<H>(
    gate: &Gate<H>,
    sink: &mut impl Sink,
    id: u64,
    answer: Result<Reply, WireError>,
) -> Result<(), End> {
    let frame = match answer {
        Ok(reply) => ServerFrame::Response {
            id,
            reply: Box::new(reply),
        },
        Err(error) => {
            gate.metrics.count_refused(error.code);
            ServerFrame::Refused { id, error }
        }
    };
    let Err(FrameTooLarge { len }) = push(gate, sink, &frame) else {
        return Ok(());
    };
    gate.metrics.count_refused(Code::TooLarge);
    let why = format!("the answer has {len} bytes, more than a frame; ask for less");
    let error = WireError::new(Code::TooLarge, why);
    push(gate, sink, &ServerFrame::Refused { id, error })
        .map_err(|_| End::said(Code::Internal, "an answer could not be written"))
}

fn push<H>(gate: &Gate<H>, sink: &mut impl Sink, frame: &ServerFrame) -> Result<(), FrameTooLarge> {
    sink.push(frame)?;
    gate.metrics.frames_out.fetch_add(1, Relaxed);
    Ok(())
}

async fn flush(sink: &mut impl Sink) -> io::Result<()> {
    while sink.waiting() > 0 {
        sink.flush().await?;
    }
    Ok(())
}
