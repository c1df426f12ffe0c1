//! One shard: a thread that carries out what the shard's machine says.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use comity_protocol::{
    event::{SealedContent, SignedEvent},
    ids::{ConversationId, UserId},
    replication::Input,
    session::{Accepted, Change, NextRoot, WireError},
    shard::{Opening, Output, OwnerAsks, ReplyTo, Shard, Submission},
};
use comity_storage::{Durable, SubmitError};
use tokio::sync::{mpsc, oneshot};

use super::{Claim, Command, Done, Reply, Shared, live, now, shard_of, submit_error};
use crate::{hub::Live, replication::Event};

/// Commands taken in before commits are made of what they brought.
const BATCH: usize = 512;
/// Rows of what is due that are read at once.
const DUE_LOOK: usize = 1_000;

/// Who waits for an own event.
struct Sender {
    reply: Reply<Accepted>,
    /// Dropped with the answer, when the nonce is found in the store or is free again.
    _claim: Claim,
}

/// Set, with the reason, once something that an opening took could not be made durable. Nothing
/// more of it is stored then: what follows may build on what is missing.
type Broken = Arc<OnceLock<WireError>>;

pub(super) struct ShardState {
    shared: Arc<Shared>,
    /// Which of how many shards it is.
    place: (usize, usize),
    commands: mpsc::WeakUnboundedSender<Command>,
    waiting: Arc<AtomicU64>,
    machine: Shard,
    out: Vec<Output>,
    senders: BTreeMap<ReplyTo, Sender>,
    creators: BTreeMap<ReplyTo, Reply<()>>,
    owners: BTreeMap<ReplyTo, Reply<NextRoot>>,
    replies: u64,
    /// Openings with submissions on their way, and how many.
    openings: BTreeMap<Opening, (Broken, usize)>,
    /// What is held as withheld since before the start was looked at.
    looked: bool,
    drains: Vec<oneshot::Sender<()>>,
}

impl ShardState {
    pub(super) fn new(
        shared: Arc<Shared>,
        place: (usize, usize),
        commands: mpsc::WeakUnboundedSender<Command>,
        waiting: Arc<AtomicU64>,
        seed: [u8; 32],
    ) -> Self {
        Self {
            machine: Shard::new(shared.me, shared.epoch, shared.key.clone(), seed),
            shared,
            place,
            commands,
            waiting,
            out: Vec::new(),
            senders: BTreeMap::new(),
            creators: BTreeMap::new(),
            owners: BTreeMap::new(),
            replies: 0,
            openings: BTreeMap::new(),
            looked: false,
            drains: Vec::new(),
        }
    }

    pub(super) fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = inbox.blocking_recv() {
            self.command(command);
            // Whatever came meanwhile shares the commits that are made next.
            for _ in 0..BATCH {
                let Ok(command) = inbox.try_recv() else { break };
                self.command(command);
            }
            let shared = Arc::clone(&self.shared);
            self.machine
                .commit(shared.now(), shared.as_ref(), &mut self.out);
            self.machine.close_some(&mut self.out);
            self.perform();
            self.count();
            self.answer_drains();
        }
    }

    fn command(&mut self, command: Command) {
        if !matches!(command, Command::Durable(_)) {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        let shared = Arc::clone(&self.shared);
        let store = shared.as_ref();
        match command {
            Command::Send {
                event,
                content,
                claim,
                reply,
            } => self.send(*event, content, claim, reply),
            Command::Create { new, reply } => {
                let to = reply.map(|reply| {
                    let to = self.next_reply();
                    self.creators.insert(to, reply);
                    to
                });
                self.machine.create(&new, to, store, &mut self.out);
            }
            Command::Judge { bundle, ticket } => {
                self.machine
                    .judge(shared.now(), bundle, ticket, store, &mut self.out);
            }
            Command::ReadOwn(read) => {
                let bundles = self.machine.read_own(&read, store);
                self.answer(Input::Read(read, bundles));
            }
            Command::Serve(want) => {
                let (bundles, next) = self.machine.serve(&want, store);
                self.answer(Input::Served(want, bundles, next));
            }
            Command::Acked {
                conversation,
                peer,
                seq,
            } => {
                self.machine.acked(&conversation, peer, seq, &mut self.out);
            }
            Command::Grantee {
                conversation,
                asker,
                user,
                home,
                reply,
            } => {
                let grantee =
                    self.machine
                        .grantee(shared.now(), &conversation, &asker, user, home, store);
                let _ = reply.send(grantee);
            }
            Command::Delivery {
                conversation,
                event,
                reply,
            } => {
                let delivery = self.machine.delivery(&conversation, &event, store);
                let _ = reply.send(delivery);
            }
            Command::Records(of, records) => {
                self.machine
                    .records(shared.now(), of, records, store, &mut self.out);
            }
            Command::Steward(of, message) => {
                self.machine
                    .steward(shared.now(), of, *message, store, &mut self.out);
            }
            Command::NextRoot {
                conversation,
                asker,
                change,
                reply,
            } => {
                let asks = self.owner_asks(conversation, asker, reply);
                self.machine
                    .next_root(shared.now(), asks, change, store, &mut self.out);
            }
            Command::SignRoot {
                conversation,
                asker,
                root,
                reply,
            } => {
                let asks = self.owner_asks(conversation, asker, reply);
                self.machine
                    .sign_root(shared.now(), asks, root, store, &mut self.out);
            }
            Command::ServeRecords(of, from) => {
                let records = self.machine.serve_records(&of, from, store);
                self.answer(Input::ServedRecords(of, records));
            }
            Command::IdentityLearnt => {
                self.machine.release(shared.now(), store, &mut self.out);
            }
            Command::Tick => {
                self.look(&shared);
                self.machine.release(shared.now(), store, &mut self.out);
                self.wake(&shared);
                self.machine.tend(shared.now(), store, &mut self.out);
                self.retain(&shared);
            }
            Command::Durable(done) => self.durable(*done),
            Command::Drain(done) => self.drains.push(done),
        }
        self.perform();
    }

    /// Once after the start: what came withheld may be had by now.
    fn look(&mut self, shared: &Shared) {
        if std::mem::replace(&mut self.looked, true) {
            return;
        }
        let (index, shards) = self.place;
        match shared.rows.withheld_in() {
            Ok(all) => self
                .machine
                .lacks_in(all.into_iter().filter(|id| shard_of(id, shards) == index)),
            Err(error) => tracing::error!(%error, "rows could not be read"),
        }
    }

    /// A step of opening conversations in which something is due though nobody uses them.
    fn wake(&mut self, shared: &Shared) {
        let now = shared.now();
        if let Some(after) = self.machine.wants_due(now) {
            let (index, shards) = self.place;
            match shared.rows.due_after(after.as_ref(), DUE_LOOK) {
                Ok(due) => {
                    let more = due.len() >= DUE_LOOK;
                    let to = due.last().map(|(id, _)| *id).filter(|_| more);
                    let own = due.into_iter();
                    let own = own.filter(|(id, _)| shard_of(id, shards) == index);
                    self.machine.give_due(now, own, to, shared);
                }
                Err(error) => tracing::error!(%error, "rows could not be read"),
            }
        }
        self.machine.wake(shared);
    }

    /// A step of erasing contents whose days are over.
    fn retain(&mut self, shared: &Shared) {
        let now = shared.now();
        if self.machine.retention_due(now) {
            let (index, shards) = self.place;
            match shared.rows.keeping() {
                Ok(all) => self
                    .machine
                    .retain_in(all.into_iter().filter(|id| shard_of(id, shards) == index)),
                Err(error) => tracing::error!(%error, "rows could not be read"),
            }
        }
        self.machine.retain(now, shared, &mut self.out);
    }

    const fn next_reply(&mut self) -> ReplyTo {
        self.replies += 1;
        ReplyTo(self.replies)
    }

    fn owner_asks(
        &mut self,
        conversation: ConversationId,
        asker: UserId,
        reply: Reply<NextRoot>,
    ) -> OwnerAsks {
        let to = self.next_reply();
        self.owners.insert(to, reply);
        OwnerAsks {
            conversation,
            asker,
            reply: to,
        }
    }

    fn answer(&self, input: Input) {
        self.shared.replication.tell(Event::Answer(input));
    }

    fn send(
        &mut self,
        event: SignedEvent,
        content: Option<SealedContent>,
        claim: Claim,
        reply: Reply<Accepted>,
    ) {
        let to = self.next_reply();
        let sender = Sender {
            reply,
            _claim: claim,
        };
        self.senders.insert(to, sender);
        let store = self.shared.as_ref();
        self.machine
            .send(self.shared.now(), event, content, to, store, &mut self.out);
    }

    fn perform(&mut self) {
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::Store(submission) => self.submit(*submission),
                Output::Accepted(to, result) => {
                    if let Some(sender) = self.senders.remove(&to) {
                        let _ = sender.reply.send(result);
                    }
                }
                Output::Created(to, result) => {
                    if let Some(reply) = self.creators.remove(&to) {
                        let _ = reply.send(result);
                    }
                }
                Output::Judged(ticket, judged) => self.answer(Input::Judged(ticket, judged)),
                Output::Ask(peer, range) => self.answer(Input::Ask(peer, vec![range])),
                Output::RecordsTaken(of, need) => self.answer(Input::RecordsTaken(of, need)),
                Output::Heard(of, need) => self.answer(Input::Heard(of, need)),
                Output::Say(to, conversation, message) => {
                    self.answer(Input::Say(to, conversation, message));
                }
                Output::NextRoot(to, result) => {
                    if let Some(reply) = self.owners.remove(&to) {
                        let _ = reply.send(result);
                    }
                }
                Output::Delivery {
                    conversation,
                    author,
                    event,
                    replicated,
                    of,
                } => {
                    let change = Change::Delivery {
                        conversation,
                        event,
                        replicated,
                        of,
                    };
                    let news = Arc::new(vec![Live::Ready(change)]);
                    self.shared
                        .hub
                        .publish(None, [&author], &news, &BTreeMap::new());
                }
                Output::Refused(conversation, why) => {
                    tracing::warn!(?conversation, why, "an item of a peer was refused");
                }
                Output::GivenUp(id, error) => {
                    tracing::error!(%id, %error, "could not be made durable");
                }
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        let Submission {
            what,
            due,
            users,
            committed,
            done,
        } = submission;
        let conversation = done.conversation();
        let entry = self.openings.entry(done.opening()).or_default();
        entry.1 += 1;
        let broken = Arc::clone(&entry.0);
        let (shared, commands) = (Arc::clone(&self.shared), self.commands.clone());
        let finish = move |result: Result<(), WireError>| {
            if let Some(commands) = commands.upgrade() {
                let done = Done { done, result };
                let _ = commands.send(Command::Durable(Box::new(done)));
            }
        };
        if let Some(error) = broken.get() {
            return finish(Err(error.clone()));
        }
        let (record, told) = live::record_of(&shared.me, conversation, (what, due), users);
        // Runs in the committer, in the order of records: what sessions and links are told keeps
        // that order, whichever shard it came from.
        let stored = move |result: Result<Durable, SubmitError>| {
            let result = match result {
                Ok(durable) => {
                    shared.hub.publish(
                        Some(durable.first),
                        told.users.iter(),
                        &told.common,
                        &told.own,
                    );
                    if !told.outside.is_empty() {
                        let (nothing, outside) = (Arc::default(), &told.outside);
                        shared
                            .hub
                            .publish(Some(durable.first), outside.keys(), &nothing, outside);
                    }
                    if let Some(committed) = committed {
                        shared.replication.committed(committed);
                    }
                    Ok(())
                }
                Err(error) => {
                    if matches!(error, SubmitError::Full) {
                        shared.full_at.store(now().0, Ordering::Relaxed);
                    }
                    let error = submit_error(&error);
                    let _ = broken.set(error.clone());
                    Err(error)
                }
            };
            finish(result);
        };
        self.shared.storage.submit(vec![record], Box::new(stored));
    }

    fn durable(&mut self, done: Done) {
        let opening = done.done.opening();
        if let Some((_, count)) = self.openings.get_mut(&opening) {
            *count -= 1;
            if *count == 0 {
                self.openings.remove(&opening);
            }
        }
        self.machine.stored(done.done, done.result, &mut self.out);
    }

    fn count(&mut self) {
        let counts = self.machine.take_counts();
        let shared = &self.shared;
        shared
            .accepted
            .fetch_add(counts.accepted, Ordering::Relaxed);
        shared.taken.fetch_add(counts.taken, Ordering::Relaxed);
        shared.refused.fetch_add(counts.refused, Ordering::Relaxed);
        shared.woken.fetch_add(counts.woken, Ordering::Relaxed);
    }

    fn answer_drains(&mut self) {
        if !self.drains.is_empty() && self.machine.is_at_rest() {
            for drain in self.drains.drain(..) {
                let _ = drain.send(());
            }
        }
    }
}
