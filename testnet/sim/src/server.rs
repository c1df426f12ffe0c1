//! A simulated home server: the machines of the core, a disk, a clock, and nothing that decides.

mod perform;
mod records;
mod requests;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use comity_protocol::{
    identity::IdentityLog,
    ids::{CommitId, ConversationId, EventId, Nonce, PublicKey, ServerId, UserId},
    limits::DAY_MS,
    link::{FrameChannel, decode_frame},
    replication::{Input, NewConversation, OwnRead, PeerWant, RecordsOf, Replication, Ticket},
    root::{RawRoot, StewardMessage},
    session::{Accepted, NextRoot, WireError},
    shard::{Opening, Output, ReplyTo, Shard},
    signing::SecretKey,
    time::Timestamp,
};

use crate::{
    disk::{Disk, Pending, Then},
    planted::Planted,
    rows::{Body, Record, Rows},
};
use store::{Learning, View};

/// Virtual time begins here, as wall clocks show it.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;

/// What a server wants of the world.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Carry a frame.
    Send(ServerId, FrameChannel, Vec<u8>),
    /// Close the link to a peer.
    Close(ServerId),
    /// End the write that began now after a sync.
    Write,
    /// Call [`Server::commit`] in a moment.
    Commit,
    /// An answer to whoever sent an event.
    Accepted(ReplyTo, Result<Accepted, WireError>),
    /// An answer to an owner who asked for the next root record.
    NextRoot(ReplyTo, Result<NextRoot, WireError>),
    /// As a steward it is about to sign this as the next root record.
    Signs(ConversationId, RawRoot),
    /// It lets these contents go, their days being over, at this time by its clock; if they came with a
    /// commit that is too late, that.
    Expires(ConversationId, Option<CommitId>, Vec<EventId>, Timestamp),
}

/// What the machines of one server have to do for each other, in order.
enum Task {
    Links(Box<Input>),
    Judge(Ticket, Box<comity_protocol::link::Bundle>),
    Read(OwnRead),
    Serve(PeerWant),
    Records(RecordsOf, Vec<RawRoot>),
    Steward(RecordsOf, Box<StewardMessage>),
    ServeRecords(RecordsOf, u64),
    Create(Box<NewConversation>),
    Acked(ConversationId, ServerId, Option<u64>),
}

/// What the whole network knows of all servers: their cards.
#[derive(Clone, Debug)]
pub(crate) struct Cards(pub(crate) Arc<BTreeMap<ServerId, PublicKey>>);

pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) key: SecretKey,
    cards: Cards,
    pub(crate) planted: Option<Planted>,
    /// Wall clock against virtual time, in milliseconds.
    pub(crate) skew_ms: i64,
    /// Days that went by for all clocks while everything stood still, in milliseconds.
    pub(crate) leapt_ms: u64,
    pub(crate) up: bool,
    /// Counts the starts.
    pub(crate) life: u64,
    started_ms: u64,
    pub(crate) now_ms: u64,
    /// Does nothing until then.
    pub(crate) stalled_until: u64,
    /// Begins nothing by itself.
    pub(crate) rests: bool,
    pub(crate) disk: Disk,
    pub(crate) rows: Rows,
    identities: BTreeMap<UserId, Arc<IdentityLog>>,
    pub(crate) shard: Shard,
    pub(crate) replication: Replication,
    broken: BTreeMap<Opening, WireError>,
    /// Peers to which a link is open.
    linked: BTreeSet<ServerId>,
    tasks: VecDeque<Task>,
    out: Vec<Output>,
    pub(crate) effects: Vec<Effect>,
    commit_asked: bool,
    /// Conversations in which a bad item was refused, for the checker of what is beside it.
    pub(crate) refused_in: BTreeSet<ConversationId>,
    /// Items of each conversation that a planted bug keeps.
    pub(crate) hoard: BTreeMap<ConversationId, Vec<comity_protocol::link::Bundle>>,
    /// Most of each queue that was seen.
    pub(crate) most_waiting: usize,
}

/// What a shard draws its numbers from: of each life others, the same in each run.
fn seed(id: &ServerId, life: u64) -> [u8; 32] {
    let mut seed = *id.as_bytes();
    seed[..8].copy_from_slice(&life.to_be_bytes());
    seed
}

impl Server {
    pub(crate) fn new(
        id: ServerId,
        key: SecretKey,
        cards: Cards,
        planted: Option<Planted>,
        skew_ms: i64,
    ) -> Self {
        Self {
            shard: Shard::new(id, 1, key.clone(), seed(&id, 0)),
            replication: Replication::new(id, cards.0.keys().copied()),
            id,
            key,
            cards,
            planted,
            skew_ms,
            leapt_ms: 0,
            up: false,
            life: 0,
            started_ms: 0,
            now_ms: 0,
            stalled_until: 0,
            rests: false,
            disk: Disk::default(),
            rows: Rows::default(),
            identities: BTreeMap::new(),
            broken: BTreeMap::new(),
            linked: BTreeSet::new(),
            tasks: VecDeque::new(),
            out: Vec::new(),
            effects: Vec::new(),
            commit_asked: false,
            refused_in: BTreeSet::new(),
            hoard: BTreeMap::new(),
            most_waiting: 0,
        }
    }

    /// The wall clock.
    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp((EPOCH_MS + self.leapt_ms + self.now_ms).saturating_add_signed(self.skew_ms))
    }

    const fn monotonic(&self) -> Timestamp {
        Timestamp(self.now_ms - self.started_ms)
    }

    fn is(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    /// Starts from the durable records and nothing else.
    pub(crate) fn start(&mut self, now_ms: u64) {
        (self.now_ms, self.started_ms, self.up) = (now_ms, now_ms, true);
        self.life += 1;
        if self.is(Planted::LoseLastRecord) {
            self.disk.log.pop();
        }
        self.rows = Rows::default();
        self.rows.planted = self.planted;
        self.identities.clear();
        for number in 0..self.disk.log.len() {
            self.rows.apply(number, &mut self.disk.log);
            if let Body::Identity(user, log) = &self.disk.log[number].body {
                let log = IdentityLog::read_travel(log);
                let log = log.and_then(|raw| IdentityLog::from_trusted(&raw).ok());
                self.identities
                    .extend(log.map(|log| (*user, Arc::new(log))));
            }
        }
        self.shard = Shard::new(self.id, 1, self.key.clone(), seed(&self.id, self.life));
        self.replication = Replication::new(self.id, self.cards.0.keys().copied());
        self.shard.lacks_in(self.rows.withheld_in());
        for (conversation, known) in &self.rows.known {
            let tips = known.tips.values().flatten().copied();
            let mut tips: Vec<_> = tips.collect();
            tips.sort_unstable();
            let homes = known.members.values().map(|(_, home)| *home);
            let offer = known.offer.clone();
            self.replication.restore(*conversation, offer, tips, homes);
            if let Some(root) = known.root {
                self.replication.restore_root(*conversation, root);
            }
        }
        for (peer, ms) in &self.rows.unreached {
            self.replication.restore_unreached(peer, *ms);
        }
        for (conversation, known) in &self.rows.known {
            for (peer, until) in &known.ended {
                self.replication.restore_ended(*conversation, *peer, *until);
            }
        }
    }

    /// Stops at once; of what was being written the first `kept` records are on the disk.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.up = false;
        self.disk.crash(kept);
        self.broken.clear();
        self.linked.clear();
        self.tasks.clear();
        self.out.clear();
        self.effects.clear();
        self.commit_asked = false;
        self.hoard.clear();
    }

    // ---- what happens to it ----

    pub(crate) fn links(&mut self, input: Input) {
        match &input {
            Input::Up(peer, _) => drop(self.linked.insert(*peer)),
            Input::Down(peer) => drop(self.linked.remove(peer)),
            _ => {}
        }
        self.tasks.push_back(Task::Links(Box::new(input)));
        self.work();
    }

    pub(crate) fn link_up(&mut self, peer: ServerId, nonce: [u8; 16]) {
        self.links(Input::Up(peer, Nonce::from_bytes(nonce)));
    }

    /// A frame came.
    pub(crate) fn frame(&mut self, peer: ServerId, bytes: &[u8]) {
        match decode_frame(bytes) {
            Ok(frame) => {
                let rounds = matches!(
                    frame,
                    comity_protocol::link::Frame::Shared { .. }
                        | comity_protocol::link::Frame::Ask { .. }
                );
                let mute = self.is(Planted::NoRounds) || self.is(Planted::DropPushed);
                if !(rounds && mute) {
                    self.links(Input::Frame(peer, frame));
                }
            }
            Err(_) => self.effects.push(Effect::Close(peer)),
        }
    }

    /// Time passed; once a second conversations are looked after.
    pub(crate) fn tick(&mut self, random: Vec<u64>, second: bool) {
        self.links(Input::Tick { random });
        if second {
            let (now, rests) = (self.wall(), self.rests);
            let (shard, view, out) = self.shard();
            shard.release(now, &view, out);
            shard.set_checkpoint_pace(records::PACE);
            // A record that is made while everybody waits would be on its way at the look.
            if !rests {
                shard.tend(now, &view, out);
            }
            shard.close_some(out);
            self.retain(now);
            self.work();
        }
    }

    /// A step of erasing contents whose days are over.
    fn retain(&mut self, now: Timestamp) {
        let now = if self.is(Planted::ExpireEarly) {
            now.plus_ms(DAY_MS)
        } else {
            now
        };
        if self.shard.retention_due(now) {
            let all = self.rows.keeping.iter().copied();
            self.shard.retain_in(all.collect::<Vec<_>>());
        }
        let (shard, view, out) = self.shard();
        shard.retain(now, &view, out);
    }

    /// Makes commits of what waits.
    pub(crate) fn commit(&mut self) {
        self.commit_asked = false;
        let now = self.wall();
        let (shard, view, out) = self.shard();
        shard.commit(now, &view, out);
        self.work();
    }

    /// Takes a commit of its own making as if it had come.
    pub(crate) fn take_own(&mut self, bundle: comity_protocol::link::Bundle) {
        let ticket = Ticket::Fetched {
            peer: self.id,
            session: 0,
            id: 0,
        };
        self.tasks.push_back(Task::Judge(ticket, Box::new(bundle)));
        self.work();
    }

    /// A user's log, as this server holds it.
    pub(crate) fn identity(&self, user: &UserId) -> Option<&Arc<IdentityLog>> {
        self.identities.get(user)
    }

    /// Takes a log of an own user, or one that was learnt.
    pub(crate) fn keep_identity(&mut self, log: Arc<IdentityLog>) {
        let user = log.user();
        let record = Record::plain(Body::Identity(user, log.to_travel()));
        self.identities.insert(user, log);
        let then = Then::Identity(user);
        self.submit(Pending { record, then });
    }

    fn shard(&mut self) -> (&mut Shard, View<'_>, &mut Vec<Output>) {
        let view = View {
            me: self.id,
            rows: &self.rows,
            disk: &self.disk,
            identities: &self.identities,
            cards: &self.cards,
            key: &self.key,
            links: &self.replication,
            linked: &self.linked,
            now_ms: self.now_ms,
            planted: self.planted,
        };
        (&mut self.shard, view, &mut self.out)
    }

    fn ask_commit(&mut self) {
        if !self.commit_asked && !self.shard.is_at_rest() {
            self.commit_asked = true;
            self.effects.push(Effect::Commit);
        }
    }

    fn submit(&mut self, pending: Pending) {
        if self.disk.submit(pending) && self.disk.begin() {
            self.effects.push(Effect::Write);
        }
        self.most_waiting = self.most_waiting.max(self.disk.waiting());
    }
}
