//! Conversation engines: conversations spread over shards, one thread each. A shard carries out
//! what its machine says: makes durable what that takes, and answers once it is.

pub(crate) mod live;
mod nonces;
mod shard;
mod store;

pub(crate) use nonces::{Claim, Nonces};

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use comity_protocol::{
    conversation::RootChange,
    event::{SealedContent, SignedEvent},
    ids::{ConversationId, EventId, PublicKey, ServerId, UserId},
    link::Bundle,
    replication::{NewConversation, OwnRead, PeerWant, RecordsOf, Ticket},
    root::{RawRoot, StewardMessage},
    session::{Accepted, Code, Grantee, NextRoot, WireError},
    signing::SecretKey,
    time::Timestamp,
};
use comity_storage::{Health, Storage, SubmitError};
use tokio::sync::{mpsc, oneshot};

use crate::{
    hub::Hub, identities::Identities, replication::Replication, rows::Rows, servers::Servers,
};

/// Commands waiting for one shard; beyond it senders are told to come again.
const SHARD_QUEUE: u64 = 8_192;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, WireError>>;

/// What a shard is asked.
pub(crate) enum Command {
    /// An event of a local user, checked but for authority.
    Send {
        event: Box<SignedEvent>,
        content: Option<SealedContent>,
        claim: Claim,
        reply: Reply<Accepted>,
    },
    /// A conversation that is new here; nobody waits for one that a peer offered.
    Create {
        new: NewConversation,
        reply: Option<Reply<()>>,
    },
    /// An item of a peer.
    Judge { ticket: Ticket, bundle: Bundle },
    /// The own chain from a seq on.
    ReadOwn(OwnRead),
    /// A range that a peer wants.
    Serve(PeerWant),
    /// Root records of a peer.
    Records(RecordsOf, Vec<RawRoot>),
    /// Root records from a number on that a peer wants.
    ServeRecords(RecordsOf, u64),
    /// What a peer says about the next root record of a conversation.
    Steward(RecordsOf, Box<StewardMessage>),
    /// The next root record as the owner wants it, for his device to sign.
    NextRoot {
        conversation: ConversationId,
        asker: UserId,
        change: RootChange,
        reply: Reply<NextRoot>,
    },
    /// What his device signed.
    SignRoot {
        conversation: ConversationId,
        asker: UserId,
        root: RawRoot,
        reply: Reply<NextRoot>,
    },
    /// A peer stored the own chain up to here.
    Acked {
        conversation: ConversationId,
        peer: ServerId,
        seq: Option<u64>,
    },
    /// What an act about a user has to name.
    Grantee {
        conversation: ConversationId,
        asker: UserId,
        user: Option<UserId>,
        home: Option<ServerId>,
        reply: Reply<Grantee>,
    },
    /// How far an event got: stored by, of, waited for.
    Delivery {
        conversation: ConversationId,
        event: EventId,
        reply: Reply<(u32, u32, Vec<ServerId>)>,
    },
    /// An identity log came: items may have waited for it.
    IdentityLearnt,
    /// A submission is durable, or failed.
    Durable(Box<Done>),
    /// Time passed.
    Tick,
    /// Answers when nothing is on its way any more.
    Drain(oneshot::Sender<()>),
}

/// The end of a submission.
pub(crate) struct Done {
    done: comity_protocol::shard::Done,
    result: Result<(), WireError>,
}

/// What every shard shares.
pub(crate) struct Shared {
    pub(crate) me: ServerId,
    pub(crate) epoch: u64,
    pub(crate) key: SecretKey,
    /// From which the keys come by which this home speaks for its users.
    pub(crate) users_key: SecretKey,
    pub(crate) servers: Servers,
    pub(crate) storage: Storage,
    pub(crate) rows: Rows,
    pub(crate) hub: Arc<Hub>,
    pub(crate) identities: Identities,
    pub(crate) replication: Replication,
    pub(crate) accepted: AtomicU64,
    pub(crate) taken: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Conversations opened because something was due in them.
    pub(crate) woken: AtomicU64,
    pub(crate) stopping: AtomicBool,
    pub(crate) nonces: Arc<Nonces>,
    /// When the disk was last found full, in milliseconds.
    pub(crate) full_at: AtomicU64,
    /// So much the conversations' clock is ahead of the machine's, in milliseconds.
    pub(crate) clock_ahead_ms: u64,
}

/// After the disk was found full nothing is tried for this long, in milliseconds.
const FULL_PAUSE_MS: u64 = 500;

impl Shared {
    /// The clock that conversations go by.
    pub(crate) fn now(&self) -> Timestamp {
        now().plus_ms(self.clock_ahead_ms)
    }

    /// Why nothing can be stored now, if so. Known before a machine takes in what it would have to
    /// give up again, and be read back for.
    pub(crate) fn cannot_store(&self) -> Option<WireError> {
        if let Health::ReadOnly(reason) = self.storage.health() {
            return Some(WireError::new(Code::ReadOnly, reason.to_string()));
        }
        let since = now().0.saturating_sub(self.full_at.load(Ordering::Relaxed));
        (since < FULL_PAUSE_MS).then(|| {
            let mut full = submit_error(&SubmitError::Full);
            full.retry_after_ms = Some(2 * FULL_PAUSE_MS);
            full
        })
    }

    /// The key of an origin's epoch, from its card.
    pub(crate) fn key_of(&self, origin: &ServerId, epoch: u64) -> Option<PublicKey> {
        self.servers.key_of(origin, epoch)
    }
}

/// The clock of this machine.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How a submission that failed reads to a client.
pub(crate) fn submit_error(error: &SubmitError) -> WireError {
    let code = match error {
        SubmitError::Full => Code::DiskFull,
        SubmitError::ReadOnly(_) => Code::ReadOnly,
        SubmitError::TooLarge { .. } => Code::TooLarge,
        SubmitError::QueueFull => Code::Busy,
        SubmitError::Closed => Code::Stopping,
        _ => Code::Internal,
    };
    WireError::new(code, error.to_string())
}

#[derive(Clone)]
struct Shard {
    commands: mpsc::UnboundedSender<Command>,
    /// Commands from outside that were not taken up yet. What shards send themselves is bounded
    /// by what is on its way to the disk.
    waiting: Arc<AtomicU64>,
}

/// All shards.
#[derive(Clone)]
pub(crate) struct Engine {
    shards: Arc<Vec<Shard>>,
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

/// Which of so many shards a conversation belongs to.
fn shard_of(conversation: &ConversationId, shards: usize) -> usize {
    // Ids are hashes: any of their bytes spread evenly.
    usize::from(conversation.as_bytes()[0]) % shards
}

impl Engine {
    /// Starts a thread for each shard. They end when every handle is dropped.
    pub(crate) fn start(
        shards: usize,
        shared: Arc<Shared>,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (mut handles, mut threads) = (Vec::new(), Vec::new());
        for index in 0..shards.max(1) {
            let (commands, inbox) = mpsc::unbounded_channel();
            let waiting = Arc::new(AtomicU64::new(0));
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)?;
            let shard = shard::ShardState::new(
                Arc::clone(&shared),
                (index, shards.max(1)),
                commands.downgrade(),
                Arc::clone(&waiting),
                seed,
            );
            let thread = std::thread::Builder::new()
                .name(format!("shard-{index}"))
                .spawn(move || shard.run(inbox))?;
            threads.push(thread);
            handles.push(Shard { commands, waiting });
        }
        Ok((
            Self {
                shards: Arc::new(handles),
                shared,
            },
            threads,
        ))
    }

    fn shard(&self, conversation: &ConversationId) -> &Shard {
        &self.shards[shard_of(conversation, self.shards.len())]
    }

    /// Hands a command to the conversation's shard, in order.
    ///
    /// # Errors
    ///
    /// `busy` if too much waits there already, `stopping` at the end; nothing was handed over.
    pub(crate) fn command(
        &self,
        conversation: &ConversationId,
        command: Command,
    ) -> Result<(), WireError> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(WireError::new(Code::Stopping, "the server is stopping"));
        }
        let shard = self.shard(conversation);
        if shard.waiting.fetch_add(1, Ordering::AcqRel) >= SHARD_QUEUE {
            shard.waiting.fetch_sub(1, Ordering::AcqRel);
            let mut busy = WireError::new(Code::Busy, "too many requests wait; try again");
            busy.retry_after_ms = Some(200);
            return Err(busy);
        }
        let stopped = |_| WireError::new(Code::Stopping, "the server is stopping");
        shard.commands.send(command).map_err(stopped)
    }

    /// Hands a command that comes from the links: those have windows of their own.
    pub(crate) fn link_command(&self, conversation: &ConversationId, command: Command) {
        let shard = self.shard(conversation);
        shard.waiting.fetch_add(1, Ordering::AcqRel);
        let _ = shard.commands.send(command);
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    ///
    /// As [`Self::command`], or what the shard says.
    pub(crate) async fn ask<T>(
        &self,
        conversation: &ConversationId,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, WireError> {
        let (reply, answer) = oneshot::channel();
        self.command(conversation, command(reply))?;
        answer
            .await
            .unwrap_or_else(|_| Err(WireError::new(Code::Stopping, "the server is stopping")))
    }

    /// Tells every shard.
    pub(crate) fn everywhere(&self, mut command: impl FnMut() -> Command) {
        for shard in self.shards.iter() {
            shard.waiting.fetch_add(1, Ordering::AcqRel);
            let _ = shard.commands.send(command());
        }
    }

    /// Refuses new commands and waits until all that was accepted is durable and answered.
    pub(crate) async fn drain(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        for shard in self.shards.iter() {
            let (done, drained) = oneshot::channel();
            shard.waiting.fetch_add(1, Ordering::AcqRel);
            if shard.commands.send(Command::Drain(done)).is_ok() {
                let _ = drained.await;
            }
        }
    }
}
