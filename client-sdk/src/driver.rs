//! The task that owns the connection: opens sessions, feeds the outbox and requests into them,
//! hands updates to the intake, and waits between tries.

mod flights;
mod session;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use comity_protocol::{
    session::{
        Backoff, Challenge, ClientFrame, Cursor, Hello, Reply, Request, ServerFrame, VERSION,
        Welcome, WireError, session_message,
    },
    signing::Domain,
};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use crate::{
    client::{Call, Shared, Stop},
    error::{Error, ErrorKind, Result},
    events::ConnectionState,
    intake::Job,
    limits::{HANDSHAKE_MS, SYNC_AFTER_MS},
    random,
    store::Store,
    transport::{Dial, Dialed, Link},
};
use std::sync::atomic::Ordering;

/// What this program calls itself to the server.
const CLIENT: &str = concat!("comity-sdk/", env!("CARGO_PKG_VERSION"));

/// Why a session or a try ended.
#[derive(Debug)]
enum End {
    /// Try again later.
    Lost(Error),
    /// The server does not want this device any more.
    LoggedOut(Error),
    /// The program wants it.
    Stopped,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Lost(error)
    }
}

/// A refusal of the session itself.
fn refused(error: WireError) -> End {
    let error = Error::from(error);
    if error.is_retryable() {
        End::Lost(error)
    } else {
        End::LoggedOut(error)
    }
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// Held for its lock, until the last file was written.
    _store: Store,
    dial: Box<dyn Dial>,
    calls: mpsc::Receiver<Call>,
    /// Requests whose answer was lost with their session.
    again: VecDeque<Call>,
    stop: watch::Receiver<Stop>,
    /// Everything up to here was handed to the intake.
    cursor: Option<Cursor>,
    backoff: Backoff,
    base: Instant,
    sync_at: Option<u64>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        store: Store,
        dial: Box<dyn Dial>,
        calls: mpsc::Receiver<Call>,
        cursor: Option<Cursor>,
    ) -> Self {
        if let Some(cursor) = &cursor {
            shared.set_taken(cursor.clone());
        }
        Self {
            stop: shared.stop_changes(),
            shared,
            _store: store,
            dial,
            calls,
            again: VecDeque::new(),
            cursor,
            backoff: Backoff::default(),
            base: Instant::now(),
            sync_at: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut offline_since = None;
        let mut stopping = false;
        while !stopping {
            self.shared.set_state(ConnectionState::Connecting);
            let end = match self.open().await {
                Ok(dialed) => {
                    offline_since = None;
                    self.backoff.succeeded();
                    self.shared.sessions.fetch_add(1, Ordering::Relaxed);
                    let online = ConnectionState::Online { via: dialed.via };
                    self.shared.set_state(online);
                    self.session(dialed.link).await
                }
                Err(end) => end,
            };
            self.shared.outbox().queue.session_lost();
            match end {
                End::Stopped => stopping = true,
                End::Lost(cause) => {
                    let since = *offline_since.get_or_insert_with(SystemTime::now);
                    stopping = self.wait(since, cause).await;
                }
                End::LoggedOut(cause) => {
                    self.shared.set_state(ConnectionState::LoggedOut { cause });
                    self.calls.close();
                    self.again.clear();
                    while self.calls.try_recv().is_ok() {}
                    stopped(&mut self.stop, Stop::No).await;
                    stopping = true;
                }
            }
        }
        self.sync_now().await;
        // The lock goes before anybody learns of the end: the next client may open the store.
        let Self {
            shared,
            _store: store,
            calls,
            again,
            ..
        } = self;
        drop((store, calls, again));
        shared.jobs.close();
        shared.set_state(ConnectionState::Closed);
        shared.hub.close();
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits before the next try. Gives whether the program wants an end.
    async fn wait(&mut self, since: SystemTime, cause: Error) -> bool {
        let asked = cause.retry_after().unwrap_or_default();
        let jittered = Duration::from_millis(self.backoff.failed(random::number()));
        let retry_in = jittered.max(asked);
        let next_try = Instant::now() + retry_in;
        let offline = ConnectionState::Offline {
            since,
            retry_in,
            cause,
        };
        let (base, shared, mut stop) = (self.base, Arc::clone(&self.shared), self.stop.clone());
        let reconnect = shared.reconnect.notified();
        self.shared.set_state(offline);
        tokio::pin!(reconnect);
        loop {
            let sync_at = self.sync_deadline();
            tokio::select! {
                _ = stopped(&mut stop, Stop::No) => return true,
                () = time::sleep_until(next_try) => return false,
                () = &mut reconnect => return false,
                // What is written while offline is synced all the same.
                () = shared.wake.notified() => {}
                () = until(base, sync_at) => self.sync_now().await,
            }
        }
    }

    /// When the outbox file has to be synced, if it does.
    fn sync_deadline(&mut self) -> Option<u64> {
        if self.sync_at.is_none() && self.shared.outbox().is_dirty() {
            self.sync_at = Some(self.now() + SYNC_AFTER_MS);
        }
        self.sync_at
    }

    async fn sync_now(&mut self) {
        self.sync_at = None;
        let Some(file) = self.shared.outbox().take_unsynced() else {
            return;
        };
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        if let Ok(Err(error)) = synced {
            tracing::warn!(%error, "the outbox could not be synced");
        }
    }

    async fn open(&mut self) -> Result<Dialed, End> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stopped(&mut stop, Stop::No) => Err(End::Stopped),
            opened = self.dial_and_greet() => opened,
        }
    }

    async fn dial_and_greet(&mut self) -> Result<Dialed, End> {
        let mut dialed = self.dial.dial().await?;
        let within = Duration::from_millis(HANDSHAKE_MS);
        let greeting = greet(&self.shared, &mut *dialed.link, self.cursor.clone());
        let welcome = match time::timeout(within, greeting).await {
            Ok(welcome) => welcome?,
            Err(_) => {
                let text = "the server did not open the session in time";
                return Err(Error::new(ErrorKind::Timeout, text).into());
            }
        };
        let first = self.cursor.is_none();
        if first {
            // Whatever becomes of this session, events begin here.
            self.shared.set_taken(welcome.cursor.clone());
        }
        self.cursor = Some(welcome.cursor.clone());
        self.shared.jobs.push(Job::Welcome {
            cursor: welcome.cursor,
            reset: welcome.reset && !first,
            first,
        });
        Ok(dialed)
    }
}

/// Waits until a time of the driver's clock, for ever without one.
async fn until(base: Instant, at: Option<u64>) {
    match at {
        Some(at) => time::sleep_until(base + Duration::from_millis(at)).await,
        None => std::future::pending().await,
    }
}

/// Waits until the program wants more of an end than `seen`.
async fn stopped(stop: &mut watch::Receiver<Stop>, seen: Stop) -> Stop {
    stop.wait_for(|stop| *stop > seen)
        .await
        .map_or(Stop::Now, |stop| *stop)
}

/// Opens the session: challenge, proof, welcome.
async fn greet(
    shared: &Shared,
    link: &mut dyn Link,
    cursor: Option<Cursor>,
) -> Result<Welcome, End> {
    let Reply::Challenge(challenge) = ask(link, 1, Request::Begin { version: VERSION }).await?
    else {
        return Err(Error::unexpected_reply().into());
    };
    let signature = prove(shared, &challenge)?;
    let hello = Hello {
        user: shared.me.user,
        device: shared.me.key.public(),
        signature,
        cursor,
        client: CLIENT.to_owned(),
    };
    match ask(link, 2, Request::Hello(hello)).await? {
        Reply::Welcome(welcome) => Ok(welcome),
        _ => Err(Error::unexpected_reply().into()),
    }
}

fn prove(shared: &Shared, challenge: &Challenge) -> Result<comity_protocol::ids::Signature> {
    let me = &shared.me;
    if challenge.server != me.server {
        let text = format!(
            "{:?} is another server than the one signed in at; if it was set up anew, sign in \
             with a new store",
            challenge.name
        );
        return Err(Error::new(ErrorKind::Untrusted, text));
    }
    let bytes: &[u8; 32] = challenge
        .challenge
        .0
        .as_slice()
        .try_into()
        .map_err(|_| Error::new(ErrorKind::Protocol, "a challenge is 32 bytes"))?;
    let message = session_message(bytes, &challenge.server, &me.user);
    Ok(me.key.sign(Domain::Session, &message))
}

async fn ask(link: &mut dyn Link, id: u64, request: Request) -> Result<Reply, End> {
    link.queue(&ClientFrame { id, request })?;
    std::future::poll_fn(|cx| link.poll_flush(cx)).await?;
    let (frame, _) = std::future::poll_fn(|cx| link.poll_frame(cx)).await?;
    match frame {
        ServerFrame::Response {
            id: answered,
            reply,
        } if answered == id => Ok(*reply),
        ServerFrame::Refused {
            id: answered,
            error,
        } if answered == id => Err(refused(error)),
        ServerFrame::Bye(error) => Err(refused(error)),
        _ => {
            let text = "a frame that does not belong before the session is open";
            Err(Error::new(ErrorKind::Protocol, text).into())
        }
    }
}

#[cfg(test)]
mod tests;
