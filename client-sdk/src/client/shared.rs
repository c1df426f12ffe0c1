//! What the handles and the tasks of one client share. Every lock is held for a moment only and
//! never across an await.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use comity_protocol::{
    event::{Act, Event, SignedEvent},
    ids::{Blob, ConversationId, EventId, Nonce, ServerId, UserId},
    limits::EVENT_BYTES_MAX,
    role::Role,
    session::{Cursor, Reply, Request, Summary, WireError},
    signing::SecretKey,
};
use std::sync::Arc;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time,
};

use super::{CONVERSATIONS_PAGE, Stats};
use crate::{
    clock,
    conversation::Wanted,
    error::{Error, ErrorKind, Result},
    events::{ConnectionState, Event as Told, Hub, Mark, Warning},
    intake::Jobs,
    limits::{CONVERSATIONS_KNOWN_MAX, LINES_REMEMBERED, REQUEST_MS},
    outbox::{Outbox, Ticket},
    store::Notebook,
    verified::Verified,
    verify::Identities,
};

/// Who this client is.
#[derive(Debug)]
pub(crate) struct Me {
    pub(crate) address: String,
    pub(crate) user: UserId,
    pub(crate) server: ServerId,
    pub(crate) key: SecretKey,
}

/// Edits shown, the one noted first forgotten first.
#[derive(Debug, Default)]
struct Shown {
    edits: BTreeMap<EventId, EventId>,
    order: VecDeque<EventId>,
}

impl Shown {
    fn note(&mut self, message: EventId, edit: Option<EventId>) {
        match edit {
            Some(edit) => {
                if self.edits.insert(message, edit).is_none() {
                    self.order.push_back(message);
                }
            }
            // Its place in the order stays behind, so the order is the longer one.
            None => drop(self.edits.remove(&message)),
        }
        while self.order.len() > LINES_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.edits.remove(&oldest);
            }
        }
    }
}

/// A request on its way to the session.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Result<Reply, WireError>>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Stop {
    No,
    Flush,
    Now,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) me: Me,
    pub(crate) hub: Hub,
    outbox: Mutex<Outbox>,
    notebook: Mutex<Notebook>,
    pub(crate) verified: Verified,
    identities: Mutex<Identities>,
    posting: Mutex<BTreeMap<ConversationId, Role>>,
    /// The edits whose texts were shown, by message.
    shown: Mutex<Shown>,
    calls: mpsc::Sender<Call>,
    /// Something for the session to look at: the outbox, or room in the backlog.
    pub(crate) wake: Notify,
    pub(crate) reconnect: Notify,
    state: watch::Sender<ConnectionState>,
    stop: watch::Sender<Stop>,
    pub(crate) jobs: Jobs,
    pub(crate) wanted: Wanted,
    /// Everything up to here was taken in.
    taken: Mutex<Option<Cursor>>,
    /// Answers that have to come before lines can be taken in.
    pub(crate) waiting: AtomicUsize,
    pub(crate) unverified: AtomicU64,
    pub(crate) sessions: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in another holder cannot leave these half-changed in a way that matters more than
    // going on does.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        me: Me,
        outbox: Outbox,
        notebook: Notebook,
        verified: Verified,
        calls: mpsc::Sender<Call>,
    ) -> Self {
        Self {
            me,
            hub: Hub::default(),
            outbox: Mutex::new(outbox),
            notebook: Mutex::new(notebook),
            verified,
            identities: Mutex::new(Identities::default()),
            posting: Mutex::new(BTreeMap::new()),
            shown: Mutex::new(Shown::default()),
            calls,
            wake: Notify::new(),
            reconnect: Notify::new(),
            state: watch::Sender::new(ConnectionState::Connecting),
            stop: watch::Sender::new(Stop::No),
            taken: Mutex::new(None),
            jobs: Jobs::default(),
            wanted: Wanted::default(),
            waiting: AtomicUsize::new(0),
            unverified: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
        }
    }

    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }

    pub(crate) fn notebook(&self) -> MutexGuard<'_, Notebook> {
        lock(&self.notebook)
    }

    pub(crate) fn identities(&self) -> MutexGuard<'_, Identities> {
        lock(&self.identities)
    }

    pub(crate) fn taken(&self) -> Option<Cursor> {
        lock(&self.taken).clone()
    }

    pub(crate) fn set_taken(&self, cursor: Cursor) {
        *lock(&self.taken) = Some(cursor);
    }

    pub(crate) fn mark(&self, mark: Mark) {
        if let Some(progress) = self.hub.mark(mark) {
            self.notebook().progress(progress);
        }
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.state.borrow().clone()
    }

    pub(crate) fn state_changes(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    pub(crate) fn set_state(&self, state: ConnectionState) {
        tracing::debug!(address = self.me.address, %state, "connection");
        self.state.send_replace(state.clone());
        self.hub.publish(Told::Connection(state));
    }

    pub(crate) fn stop(&self, how: Stop) {
        self.stop.send_if_modified(|now| {
            let more = how > *now;
            *now = how.max(*now);
            more
        });
    }

    pub(crate) fn stop_changes(&self) -> watch::Receiver<Stop> {
        self.stop.subscribe()
    }

    /// Why there will never be a session again, if so.
    pub(crate) fn end(&self) -> Option<Error> {
        if *self.stop.borrow() != Stop::No {
            return Some(Error::closed());
        }
        match &*self.state.borrow() {
            ConnectionState::LoggedOut { cause } => Some(cause.clone()),
            ConnectionState::Closed => Some(Error::closed()),
            _ => None,
        }
    }

    /// Waits until there will never be a session again.
    pub(crate) async fn ended(&self) -> Error {
        let mut changes = self.state.subscribe();
        let over = |state: &ConnectionState| match state {
            ConnectionState::LoggedOut { cause } => Some(cause.clone()),
            ConnectionState::Closed => Some(Error::closed()),
            _ => None,
        };
        match changes.wait_for(|state| over(state).is_some()).await {
            Ok(state) => over(&state).unwrap_or_else(Error::closed),
            Err(_) => Error::closed(),
        }
    }

    pub(crate) async fn wait_closed(&self) {
        let mut changes = self.state.subscribe();
        let closed = |state: &ConnectionState| matches!(state, ConnectionState::Closed);
        let _ = changes.wait_for(closed).await;
    }

    pub(crate) async fn wait_online(&self) -> Result<()> {
        let mut changes = self.state.subscribe();
        tokio::select! {
            biased;
            _ = changes.wait_for(ConnectionState::is_online) => Ok(()),
            error = self.ended() => Err(error),
        }
    }

    /// Asks the home server, waiting for a session if there is none. Every request may be asked
    /// twice with the same effect, so one whose answer was lost with its session is asked again.
    pub(crate) async fn call(&self, request: Request) -> Result<Reply> {
        if let Some(error) = self.end() {
            return Err(error);
        }
        let over = || self.end().unwrap_or_else(Error::closed);
        let asked = async {
            let (reply, answer) = oneshot::channel();
            let sent = self.calls.send(Call { request, reply }).await;
            sent.map_err(|_| over())?;
            let answer = answer.await.map_err(|_| over())?;
            answer.map_err(Error::from)
        };
        match time::timeout(Duration::from_millis(REQUEST_MS), asked).await {
            Ok(result) => result,
            Err(_) => Err(match self.state() {
                ConnectionState::Offline { cause, .. } => {
                    Error::new(ErrorKind::Offline, "no connection to the home server")
                        .because(cause)
                }
                _ => Error::new(ErrorKind::Timeout, "the home server did not answer in time"),
            }),
        }
    }

    /// A request whose answer lets lines be taken in: the session reads on until it comes, however
    /// much is waiting.
    pub(crate) async fn call_for_intake(&self, request: Request) -> Result<Reply> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        // The session may have stopped reading before.
        self.wake.notify_one();
        self.call(request).await
    }

    /// The whole list of conversations, bounded.
    pub(crate) async fn list(&self) -> Result<Vec<Summary>> {
        let mut all: Vec<Summary> = vec![];
        loop {
            let request = Request::Conversations {
                offset: u32::try_from(all.len()).unwrap_or(u32::MAX),
                limit: CONVERSATIONS_PAGE,
            };
            let reply = self.call_for_intake(request).await?;
            let Reply::Conversations {
                summaries,
                complete,
            } = reply
            else {
                return Err(Error::unexpected_reply());
            };
            let empty = summaries.is_empty();
            all.extend(summaries);
            if complete || empty || all.len() >= CONVERSATIONS_KNOWN_MAX {
                // The list may move between two pages: an entry can come twice.
                let mut seen = std::collections::BTreeSet::new();
                all.retain(|summary| seen.insert(summary.conversation));
                return Ok(all);
            }
        }
    }

    /// Signs an event and puts it in the outbox.
    pub(crate) fn put(
        &self,
        conversation: ConversationId,
        claims: Role,
        act: Act,
        content: Option<Blob>,
        nonce: Nonce,
    ) -> Result<Arc<Ticket>> {
        if let Some(error) = self.end() {
            return Err(error);
        }
        let plain = matches!(
            act,
            Act::Message { .. } | Act::Edit { .. } | Act::Delete { .. }
        );
        let event = Event {
            conversation,
            author: self.me.user,
            device: self.me.key.public(),
            nonce,
            claims,
            act,
            sent_at: clock::now(),
        };
        let signed = event.sign(&self.me.key);
        if signed.bytes().len() > EVENT_BYTES_MAX {
            let text = format!("an event of more than {EVENT_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        if !plain {
            // The same check of emoji, field names, cuts and lifts that every server makes.
            SignedEvent::from_trusted(signed.to_raw())?;
        }
        let ticket = self.outbox().put(&signed, content)?;
        self.verified.note(signed.id(), signed.to_raw().signature);
        self.wake.notify_one();
        Ok(ticket)
    }

    /// Notes the role that may post, as a policy that was shown says.
    pub(crate) fn note_posting(&self, conversation: ConversationId, role: Role) {
        let mut posting = lock(&self.posting);
        if posting.len() < CONVERSATIONS_KNOWN_MAX || posting.contains_key(&conversation) {
            posting.insert(conversation, role);
        }
    }

    /// Notes which edit's text a program was shown of a message; none: the message as written.
    pub(crate) fn note_shown(&self, message: EventId, edit: Option<EventId>) {
        lock(&self.shown).note(message, edit);
    }

    /// The edit whose text of a message was shown last.
    pub(crate) fn shown_edit(&self, message: &EventId) -> Option<EventId> {
        lock(&self.shown).edits.get(message).copied()
    }

    /// The role to claim for a message.
    pub(crate) fn posting_role(&self, conversation: ConversationId) -> Role {
        let posting = lock(&self.posting).get(&conversation).copied();
        let least = posting.unwrap_or(Role::Member);
        let own = self.notebook().known.get(&conversation).map(|s| s.role);
        // An unknown own role: the list has not come yet. The home server judges anyway.
        own.filter(|own| *own != Role::None)
            .map_or(least, |own| least.min(own))
    }

    /// Counts something that could not be verified, and tells.
    pub(crate) fn warn(&self, warning: Warning) {
        self.unverified.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            conversation = %warning.conversation,
            reason = warning.reason,
            "not shown"
        );
        self.hub.publish(Told::Warning(warning));
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            unverified: self.unverified.load(Ordering::Relaxed),
            sessions: self.sessions.load(Ordering::Relaxed),
            outbox: self.outbox().queue.len(),
        }
    }
}
