//! The driver's task.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use comity_links::{Channel, Events, LinkEvent, Links, PeerKey};
use comity_protocol::{
    card::CardChain,
    identity::IdentityLog,
    ids::{ConversationId, Nonce, ServerId, UserId},
    link::{FrameChannel, Progress, decode_frame, encode_frame},
    replication::{Directory, Input, Note, Output, Replication as Machine},
    time::Timestamp,
};
use tokio::sync::oneshot;

use super::{Event, Inbox, peer::Peer};
use crate::{
    engine::{Command, Engine, now},
    identities,
    records::{OutboxRecord, UnreachedRecord, kind, record},
};

/// Time between looks at what is due.
const TICK: Duration = Duration::from_millis(500);

/// How a peer is, for operators.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct PeerState {
    pub(crate) server: ServerId,
    pub(crate) name: String,
    pub(crate) connected: bool,
    /// Everything shared is compared, pushed, stored and fetched, as of [`Self::as_of_ms`].
    pub(crate) settled: bool,
    /// When this was looked at, in milliseconds: what became durable before it is counted.
    pub(crate) as_of_ms: u64,
    pub(crate) since_ms: u64,
    pub(crate) conversations: usize,
    /// Own commits that the peer has not stored.
    pub(crate) waiting_commits: u64,
    pub(crate) refused_items: u64,
    /// For how long it was tried in vain.
    #[serde(skip)]
    pub(crate) unreached_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
}

/// Owns the links.
pub(crate) struct Driver {
    links: Links,
    events: Events,
    inbox: Inbox,
    engine: Engine,
    machine: Machine,
    peers: BTreeMap<ServerId, Peer>,
    by_key: BTreeMap<PeerKey, ServerId>,
    /// Requests that wait for an identity log.
    requests: BTreeMap<u64, oneshot::Sender<Option<Arc<IdentityLog>>>>,
    next_request: u64,
    seed: u64,
    /// Pauses and patience are measured from here: no step of the wall clock delays anything.
    started: Instant,
}

/// The identity logs of this server, with what is learnt during one input.
struct Learning<'a> {
    engine: &'a Engine,
    learnt: Vec<Arc<IdentityLog>>,
    cards: Vec<Arc<CardChain>>,
}

impl Directory for Learning<'_> {
    fn log(&self, user: &UserId) -> Option<Arc<IdentityLog>> {
        self.engine.shared.identities.get(user).ok().flatten()
    }

    fn user_of(&self, handle: &str) -> Option<UserId> {
        let account = self.engine.shared.rows.account(handle).ok().flatten();
        account?.user.into()
    }

    fn learn(&mut self, log: Arc<IdentityLog>) {
        let log = self.engine.shared.identities.keep(log);
        self.learnt.push(log);
    }

    fn cards(&self, server: &ServerId) -> Option<Arc<CardChain>> {
        self.engine.shared.servers.cards(server)
    }

    fn learn_cards(&mut self, cards: Arc<CardChain>) {
        let server = cards.server();
        if self.engine.shared.servers.keep(Arc::clone(&cards)) {
            self.cards.push(cards);
        } else {
            tracing::warn!(%server, "no room for the cards of one more server");
        }
    }
}

impl Driver {
    /// Takes over the links. What is durable is read from the rows.
    pub(crate) fn new(
        links: Links,
        events: Events,
        inbox: Inbox,
        engine: Engine,
    ) -> Result<Self, comity_storage::ReadError> {
        let me = engine.shared.me;
        let servers = &engine.shared.servers;
        let mut peers = BTreeMap::new();
        for server in servers.configured() {
            if let (Some(at), Some(name)) = (servers.reached(&server), servers.name_of(&server)) {
                peers.insert(server, Peer::new(server, at, name.to_string()));
            }
        }
        let by_key = peers
            .values()
            .map(|peer| (peer.at.key, peer.server))
            .collect();
        let mut seed = [0; 8];
        let _ = getrandom::fill(&mut seed);
        let mut driver = Self {
            machine: Machine::new(me, peers.keys().copied()),
            links,
            events,
            inbox,
            engine,
            peers,
            by_key,
            requests: BTreeMap::new(),
            next_request: 0,
            seed: u64::from_be_bytes(seed) | 1,
            started: Instant::now(),
        };
        driver.read_back()?;
        Ok(driver)
    }

    fn read_back(&mut self) -> Result<(), comity_storage::ReadError> {
        let rows = &self.engine.shared.rows;
        let mut frontiers = rows.frontiers()?;
        for (conversation, row) in rows.conversations()? {
            let tips = frontiers.remove(&conversation).unwrap_or_default();
            let members = rows.members(&conversation, None, usize::MAX)?;
            let homes = members.into_iter().map(|(_, member)| member.home);
            self.machine.restore(conversation, row.offer, tips, homes);
            if let Some(root) = rows.newest_root(&conversation)? {
                self.machine.restore_root(conversation, root);
            }
        }
        for (peer, ms) in rows.unreached()? {
            self.machine.restore_unreached(&peer, ms);
        }
        // Those whose last member is gone may not have heard of it yet.
        for (conversation, peer, until) in rows.ended()? {
            self.machine.restore_ended(conversation, peer, until);
        }
        Ok(())
    }

    fn random(&mut self) -> u64 {
        // xorshift: jitter only.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn monotonic(&self) -> Timestamp {
        Timestamp(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Runs until the links are shut down.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.link_event(event),
                    None => break,
                },
                Some(event) = self.inbox.events.recv() => self.event(event),
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { peer, link } => {
                let Some(server) = self.by_key.get(&peer).copied() else {
                    return;
                };
                let mut nonce = [0; 16];
                let _ = getrandom::fill(&mut nonce);
                if let Some(peer) = self.peers.get_mut(&server) {
                    peer.down();
                    peer.link = Some(link);
                    peer.since_ms = now().0;
                    peer.last_error = None;
                    tracing::info!(peer = %peer.name, "link up");
                }
                self.input(Input::Up(server, Nonce::from_bytes(nonce)));
            }
            LinkEvent::Frame {
                peer, link, bytes, ..
            } => {
                let Some(server) = self.by_key.get(&peer).copied() else {
                    return;
                };
                if self.peers.get(&server).and_then(|p| p.link) != Some(link) {
                    return;
                }
                match decode_frame(&bytes) {
                    Ok(frame) => self.input(Input::Frame(server, frame)),
                    Err(error) => {
                        self.close(server, &format!("a frame that cannot be read: {error}"))
                    }
                }
            }
            LinkEvent::Writable {
                peer,
                link,
                channel,
            } => self.writable(peer, link, channel),
            LinkEvent::Down { peer, link, reason } => {
                let Some(server) = self.by_key.get(&peer).copied() else {
                    return;
                };
                let Some(peer) = self.peers.get_mut(&server).filter(|p| p.link == Some(link))
                else {
                    return;
                };
                tracing::info!(peer = %peer.name, %reason, "link down");
                peer.down();
                peer.since_ms = now().0;
                peer.last_error = Some(reason);
                self.input(Input::Down(server));
            }
            LinkEvent::DialFailed { peer, error, .. } => {
                if let Some(peer) = self.by_key.get(&peer).and_then(|s| self.peers.get_mut(s)) {
                    peer.last_error = Some(error);
                }
            }
            _ => {}
        }
    }

    fn writable(&mut self, key: PeerKey, link: u64, channel: Channel) {
        let peer = self
            .by_key
            .get(&key)
            .and_then(|server| self.peers.get_mut(server));
        if let Some(peer) = peer.filter(|peer| peer.link == Some(link)) {
            peer.writable(&self.links, channel);
        }
    }

    fn close(&mut self, server: ServerId, reason: &str) {
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        tracing::warn!(peer = %peer.name, reason, "closing the link");
        peer.last_error = Some(reason.to_owned());
        if peer.link.is_none() {
            return;
        }
        // Forgetting a peer cuts its link; it is dialled again with the usual pauses.
        let (links, at) = (self.links.clone(), peer.at.clone());
        tokio::spawn(async move {
            let _ = links.remove_peer(at.key).await;
            let _ = links.add_peer(&at).await;
        });
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Committed(committed) => {
                self.inbox.took_committed();
                self.input(Input::Committed(committed));
            }
            Event::Answer(input) => self.input(input),
            Event::Meet(server) => self.meet(server),
            Event::Lookup {
                server,
                query,
                patient,
                reply,
            } => {
                self.next_request += 1;
                let request = self.next_request;
                self.requests.insert(request, reply);
                self.input(Input::Lookup {
                    request,
                    server,
                    query,
                    patient,
                });
            }
        }
    }

    fn tick(&mut self) {
        let random = (0..self.peers.len()).map(|_| self.random()).collect();
        self.input(Input::Tick { random });
        let as_of_ms = now().0;
        // What was committed and not told to the machines yet is not settled.
        let told = self.inbox.told_of_all();
        let state = |peer: &Peer| {
            let behind = |p: Progress| match (p.tip, p.acked) {
                (Some(tip), Some(acked)) => tip.saturating_sub(acked),
                (Some(tip), None) => tip + 1,
                (None, _) => 0,
            };
            let machine = self.machine.peer(&peer.server)?;
            let link = machine.link();
            let progress: Vec<_> = link.progress().collect();
            Some(PeerState {
                server: peer.server,
                name: peer.name.clone(),
                connected: link.is_open(),
                settled: told && link.is_settled(),
                as_of_ms,
                since_ms: peer.since_ms,
                conversations: progress.len(),
                waiting_commits: progress.iter().map(|(_, p)| behind(*p)).sum(),
                refused_items: machine.refused_items(),
                unreached_ms: self.machine.unreached_ms(&peer.server),
                last_error: peer.last_error.clone(),
            })
        };
        self.inbox
            .publish(self.peers.values().filter_map(state).collect());
    }

    /// Feeds the machine and does what it says.
    fn input(&mut self, input: Input) {
        let (now, mut outputs) = (self.monotonic(), Vec::new());
        let mut directory = Learning {
            engine: &self.engine,
            learnt: Vec::new(),
            cards: Vec::new(),
        };
        self.machine
            .handle(now, input, &mut directory, &mut outputs);
        let Learning { learnt, cards, .. } = directory;
        // First, so that what waits for a log is looked at before what came behind it.
        self.store_logs(&learnt);
        self.store_cards(&cards);
        for output in outputs {
            self.perform(output);
        }
    }

    fn store_logs(&self, logs: &[Arc<IdentityLog>]) {
        if logs.is_empty() {
            return;
        }
        let records = logs.iter().map(|log| identities::record_of(log)).collect();
        let users: Vec<_> = logs.iter().map(|log| log.user()).collect();
        let shared = Arc::clone(&self.engine.shared);
        let done = move |result: Result<_, _>| {
            if result.is_err() {
                shared.identities.forget(&users);
            }
        };
        let storage = &self.engine.shared.storage;
        storage.submit(records, Box::new(done));
        self.engine.everywhere(|| Command::IdentityLearnt);
    }

    /// Cards that are new are kept, and peers dialled where and with the key that they say now.
    fn store_cards(&mut self, learnt: &[Arc<CardChain>]) {
        if learnt.is_empty() {
            return;
        }
        let known = &self.engine.shared.servers;
        let records = learnt.iter();
        let records = records.filter_map(|cards| known.record_of(&cards.server()));
        let records = records.collect();
        // Not durable they are learnt again.
        let storage = &self.engine.shared.storage;
        storage.submit(records, Box::new(|_| {}));
        for cards in learnt {
            self.moved(cards.server());
        }
    }

    /// A peer's newest card may give it another key, name or address.
    fn moved(&mut self, server: ServerId) {
        let known = &self.engine.shared.servers;
        let (Some(at), Some(peer)) = (known.reached(&server), self.peers.get_mut(&server)) else {
            return;
        };
        if let Some(name) = known.name_of(&server) {
            peer.name = name.to_string();
        }
        let before = std::mem::replace(&mut peer.at, at.clone());
        if before == at {
            return;
        }
        tracing::info!(peer = %peer.name, "the peer has a new key or address");
        self.by_key.remove(&before.key);
        self.by_key.insert(at.key, server);
        let links = self.links.clone();
        tokio::spawn(async move {
            if before.key != at.key {
                // Its link was with the old key: nobody may go on with that.
                let _ = links.remove_peer(before.key).await;
            }
            if let Err(error) = links.add_peer(&at).await {
                tracing::warn!(%error, "a peer cannot be reached where its card says");
            }
        });
    }

    /// Makes a server a peer, if it may be one.
    fn meet(&mut self, server: ServerId) {
        if self.peers.contains_key(&server) {
            // Its newest card may have come by another way than its link.
            return self.moved(server);
        }
        let known = &self.engine.shared.servers;
        if !known.may_be_peer(&server) {
            return;
        }
        let (Some(at), Some(name)) = (known.reached(&server), known.name_of(&server)) else {
            return;
        };
        let conversations = match self.engine.shared.rows.shared_with(&server) {
            Ok(conversations) => conversations,
            Err(error) => {
                return tracing::error!(%server, %error, "what a server takes part in cannot be read");
            }
        };
        tracing::info!(peer = %name, %server, "a new peer");
        self.by_key.insert(at.key, server);
        let peer = Peer::new(server, at.clone(), name.to_string());
        self.peers.insert(server, peer);
        self.input(Input::Peer {
            server,
            conversations,
        });
        let links = self.links.clone();
        tokio::spawn(async move {
            if let Err(error) = links.add_peer(&at).await {
                tracing::warn!(%server, %error, "a peer cannot be reached where its card says");
            }
        });
    }

    /// Writes positions that moved; nobody waits for it.
    fn store_positions(&self, peer: ServerId, acked: Vec<(ConversationId, u64)>) {
        let record = record(kind::OUTBOX, &OutboxRecord { peer, acked }, Vec::new());
        let storage = &self.engine.shared.storage;
        storage.submit(vec![record], Box::new(|_| {}));
    }

    /// Writes for how long a peer was tried in vain; nobody waits for it.
    fn store_unreached(&self, peer: ServerId, ms: u64) {
        let record = record(kind::UNREACHED, &UnreachedRecord { peer, ms }, Vec::new());
        let storage = &self.engine.shared.storage;
        storage.submit(vec![record], Box::new(|_| {}));
    }

    fn send(&mut self, server: ServerId, channel: FrameChannel, bytes: Vec<u8>) {
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        if !peer.send(&self.links, channel, bytes) {
            self.close(server, "the peer does not read what it asked for");
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send(server, channel, frame) => {
                self.send(server, channel, encode_frame(&frame));
            }
            Output::Close(server, reason) => self.close(server, reason),
            Output::Judge {
                ticket,
                conversation,
                bundle,
            } => {
                let command = Command::Judge { ticket, bundle };
                self.engine.link_command(&conversation, command);
            }
            Output::Read(read) => {
                let command = Command::ReadOwn(read);
                self.engine.link_command(&read.conversation, command);
            }
            Output::Serve(want) => {
                let command = Command::Serve(want);
                self.engine.link_command(&want.range.conversation, command);
            }
            Output::Records(of, records) => {
                let command = Command::Records(of, records);
                self.engine.link_command(&of.conversation, command);
            }
            Output::ServeRecords(of, from) => {
                let command = Command::ServeRecords(of, from);
                self.engine.link_command(&of.conversation, command);
            }
            Output::Steward(of, message) => {
                let command = Command::Steward(of, message);
                self.engine.link_command(&of.conversation, command);
            }
            Output::Create(new) => {
                let (conversation, reply) = (new.conversation(), None);
                let command = Command::Create { new, reply };
                self.engine.link_command(&conversation, command);
            }
            Output::Acked {
                conversation,
                peer,
                seq,
            } => {
                let command = Command::Acked {
                    conversation,
                    peer,
                    seq,
                };
                self.engine.link_command(&conversation, command);
            }
            Output::Positions(peer, acked) => self.store_positions(peer, acked),
            Output::Unreached(peer, ms) => self.store_unreached(peer, ms),
            Output::Sought(server) => self.meet(server),
            Output::Answered(request, log) => {
                if let Some(reply) = self.requests.remove(&request) {
                    let _ = reply.send(log);
                }
            }
            Output::Note(peer, note) => log_note(peer, &note),
        }
    }
}

fn log_note(peer: ServerId, note: &Note) {
    match note {
        Note::Identity(error) => {
            tracing::warn!(%peer, %error, "an identity log was refused");
        }
        Note::Cards(server, error) => {
            tracing::warn!(%peer, %server, %error, "cards of a server were refused");
        }
        Note::Offer(conversation, why) => {
            tracing::warn!(%peer, %conversation, why, "an offer was not taken");
        }
        Note::Refused(conversation, seq, code) => {
            tracing::error!(%peer, %conversation, seq, %code, "a peer refused an own commit");
        }
    }
}
