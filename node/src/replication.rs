//! Links to peers: drives their machine, which decides, over `comity-links`, which carries.
//!
//! One task owns the machine of all links. It never waits for a shard or a peer: answers come back
//! as events.

mod driver;
mod peer;

pub(crate) use driver::{Driver, PeerState};

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use comity_protocol::{
    identity::IdentityLog,
    ids::ServerId,
    link::Query,
    replication::{Committed, Input},
};
use tokio::sync::{mpsc, oneshot};

/// Commits told of but not taken up yet, beyond which they are told of without their bundle: the
/// link reads it from the store when it gets there.
const BUNDLES_WAITING_MAX: usize = 4_096;

/// What the driver hears.
pub(crate) enum Event {
    Committed(Committed),
    /// An answer to what the machine asked.
    Answer(Input),
    /// A server is to be a peer, if it is none and may be one.
    Meet(ServerId),
    Lookup {
        server: Option<ServerId>,
        query: Query,
        /// Ask also where there is no link now: there may be one in time.
        patient: bool,
        reply: oneshot::Sender<Option<Arc<IdentityLog>>>,
    },
}

/// The way to the driver, for shards and requests.
#[derive(Clone, Debug)]
pub(crate) struct Replication {
    events: mpsc::UnboundedSender<Event>,
    waiting: Arc<AtomicUsize>,
    states: Arc<Mutex<Vec<PeerState>>>,
}

/// The driver's end.
pub(crate) struct Inbox {
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    waiting: Arc<AtomicUsize>,
    states: Arc<Mutex<Vec<PeerState>>>,
}

/// Both ends.
pub(crate) fn channel() -> (Replication, Inbox) {
    let (sender, events) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let states = Arc::new(Mutex::default());
    let replication = Replication {
        events: sender,
        waiting: Arc::clone(&waiting),
        states: Arc::clone(&states),
    };
    (
        replication,
        Inbox {
            events,
            waiting,
            states,
        },
    )
}

impl Replication {
    /// Tells of what became durable. Called in the order of records.
    pub(crate) fn committed(&self, mut committed: Committed) {
        let waiting = self.waiting.fetch_add(1, Ordering::AcqRel);
        if waiting >= BUNDLES_WAITING_MAX
            && let Committed::Commit {
                own: Some((_, bundle)),
                ..
            } = &mut committed
        {
            *bundle = None;
        }
        let _ = self.events.send(Event::Committed(committed));
    }

    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Asks a server, or every linked one, about a user.
    pub(crate) async fn lookup(
        &self,
        server: Option<ServerId>,
        query: Query,
    ) -> Option<Arc<IdentityLog>> {
        self.asked(server, query, false).await
    }

    /// Asks a server about a user, whether or not there is a link now.
    pub(crate) async fn ask_about(
        &self,
        server: ServerId,
        query: Query,
    ) -> Option<Arc<IdentityLog>> {
        self.asked(Some(server), query, true).await
    }

    async fn asked(
        &self,
        server: Option<ServerId>,
        query: Query,
        patient: bool,
    ) -> Option<Arc<IdentityLog>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Event::Lookup {
            server,
            query,
            patient,
            reply,
        });
        answer.await.ok().flatten()
    }

    /// For how many milliseconds this server tried in vain to reach another; 0 for one that is no
    /// peer.
    pub(crate) fn unreached_ms(&self, server: &ServerId) -> u64 {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states.iter().find(|state| state.server == *server);
        state.map_or(0, |state| state.unreached_ms)
    }

    /// How the peers are.
    pub(crate) fn peers(&self) -> Vec<PeerState> {
        self.states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Inbox {
    fn took_committed(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether nothing that became durable still waits to be told.
    fn told_of_all(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    fn publish(&self, states: Vec<PeerState>) {
        *self.states.lock().unwrap_or_else(PoisonError::into_inner) = states;
    }
}
