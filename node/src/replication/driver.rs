//! The driver's task.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use comity_links::{Channel, Events, LinkEvent, Links, PeerKey, StaticPeer};
use comity_protocol::{
    card::CardChain,
    ids::{ConversationId, Nonce, ServerId, UserId},
    link::{
        Bundle, Frame, FrameChannel, Identity, Input, Link, Offer, Output, Query, Verdict,
        decode_frame,
    },
    role::Role,
    session::Code,
};

use super::{
    Committed, Event, ForPeers, Inbox,
    identities::{Lookups, Why, query, users_of},
    peer::{Peer, Taking},
    world::Frontiers,
};
use crate::{
    engine::{CheckedOffer, Command, Engine, Judged, check_offer, now},
    identities::to_blobs,
    records::{MemberChange, OutboxRecord, kind, record},
};

/// Identity logs in one frame.
const LOGS_PER_FRAME: usize = 32;
/// Conversations that are being made known at once.
const OFFERS_MAX: usize = 1_024;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
}

/// Owns the links.
pub(crate) struct Driver {
    links: Links,
    events: Events,
    inbox: Inbox,
    engine: Engine,
    frontiers: Frontiers,
    peers: BTreeMap<ServerId, Peer>,
    by_key: BTreeMap<PeerKey, ServerId>,
    lookups: Lookups,
    /// Conversations that are being made known, and who offered them.
    offers: BTreeMap<ConversationId, BTreeSet<ServerId>>,
    seed: u64,
}

impl Driver {
    /// Takes over the links. What is durable is read from the rows.
    pub(crate) fn new(
        links: Links,
        events: Events,
        inbox: Inbox,
        engine: Engine,
        cards: &[CardChain],
        addresses: &[StaticPeer],
    ) -> Result<Self, comity_storage::ReadError> {
        let me = engine.shared.me;
        let mut peers = BTreeMap::new();
        for chain in cards.iter().filter(|chain| chain.server() != me) {
            let (server, card) = (chain.server(), chain.current());
            let key = PeerKey(*card.key.as_bytes());
            let machine = Link::new(me, server);
            let at = addresses.iter().find(|peer| peer.key == key).cloned();
            let at = at.unwrap_or(StaticPeer {
                key,
                addresses: Vec::new(),
            });
            peers.insert(
                server,
                Peer::new(server, at, card.name.to_string(), machine),
            );
        }
        let by_key = peers
            .values()
            .map(|peer| (peer.at.key, peer.server))
            .collect();
        let mut seed = [0; 8];
        let _ = getrandom::fill(&mut seed);
        let mut driver = Self {
            links,
            events,
            inbox,
            engine,
            frontiers: Frontiers::default(),
            peers,
            by_key,
            lookups: Lookups::default(),
            offers: BTreeMap::new(),
            seed: u64::from_be_bytes(seed) | 1,
        };
        driver.read_back()?;
        Ok(driver)
    }

    fn read_back(&mut self) -> Result<(), comity_storage::ReadError> {
        let shared = Arc::clone(&self.engine.shared);
        let mut frontiers = shared.rows.frontiers()?;
        for (conversation, row) in shared.rows.conversations()? {
            self.frontiers.know(conversation, row.offer);
            let tips = frontiers.remove(&conversation).unwrap_or_default();
            let own = tips
                .iter()
                .filter(|tip| tip.home == shared.me)
                .map(|tip| tip.seq)
                .max();
            self.frontiers.set(&conversation, tips);
            for (_, member) in shared.rows.members(&conversation, None, usize::MAX)? {
                if member.home != shared.me {
                    self.input(member.home, Input::TakesPart(conversation, own));
                }
            }
        }
        // Those whose last member is gone may not have heard of it yet.
        for (conversation, peer, until) in shared.rows.ended()? {
            self.input(peer, Input::TakesPart(conversation, until));
            self.input(peer, Input::LeftAt(conversation, until));
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
                self.input(server, Input::Up(Nonce::from_bytes(nonce)));
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
                    Ok(frame) => self.input(server, Input::Frame(frame)),
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
                self.input(server, Input::Down);
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
                self.committed(committed);
            }
            Event::Judged {
                peer,
                session,
                n,
                judged,
            } => {
                self.needs(peer, judged.users, judged.missing);
                self.count_refused(peer, judged.verdict);
                self.input(
                    peer,
                    Input::Judged {
                        session,
                        n,
                        verdict: judged.verdict,
                    },
                );
            }
            Event::Took {
                peer,
                session,
                id,
                judged,
            } => {
                self.needs(peer, judged.users, judged.missing);
                self.count_refused(peer, judged.verdict);
                self.took(peer, session, id);
            }
            Event::Read {
                peer,
                session,
                conversation,
                bundles,
            } => {
                self.input(
                    peer,
                    Input::Read {
                        session,
                        conversation,
                        bundles,
                    },
                );
            }
            Event::Served {
                peer,
                session,
                id,
                bundles,
                next,
            } => {
                self.input(
                    peer,
                    Input::Served {
                        session,
                        id,
                        bundles,
                        next,
                    },
                );
            }
            Event::Missing {
                peer,
                ranges,
                users,
            } => self.needs(peer, users, ranges),
            Event::Lookup {
                server,
                query,
                reply,
            } => self.lookup(server, &query, reply),
        }
    }

    fn count_refused(&mut self, peer: ServerId, verdict: Verdict) {
        if let (Verdict::Refused(_), Some(peer)) = (verdict, self.peers.get_mut(&peer)) {
            peer.refused_items += 1;
        }
    }

    fn needs(
        &mut self,
        peer: ServerId,
        users: Vec<UserId>,
        ranges: Vec<comity_protocol::link::Range>,
    ) {
        if !ranges.is_empty() {
            self.input(peer, Input::Missing(ranges));
        }
        for user in users {
            if let Some(id) = self.lookups.begin(peer, Why::Items(user), query(user)) {
                self.input(peer, Input::Lookup(id, query(user)));
            }
        }
    }

    fn took(&mut self, server: ServerId, session: u64, id: u64) {
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        let Some(taking) = peer.taking.get_mut(&id) else {
            return;
        };
        taking.left -= 1;
        if taking.left == 0 {
            peer.taking.remove(&id);
            self.input(server, Input::Taken { session, id });
        }
    }

    fn lookup(
        &mut self,
        server: Option<ServerId>,
        query: &Query,
        reply: tokio::sync::oneshot::Sender<Option<Arc<comity_protocol::identity::IdentityLog>>>,
    ) {
        let wanted = |peer: &&Peer| {
            peer.machine.is_open() && server.is_none_or(|server| server == peer.server)
        };
        let servers: Vec<_> = self
            .peers
            .values()
            .filter(wanted)
            .map(|peer| peer.server)
            .collect();
        for (server, id) in self.lookups.request(&servers, query, reply) {
            self.input(server, Input::Lookup(id, query.clone()));
        }
    }

    fn committed(&mut self, committed: Committed) {
        match committed {
            Committed::Known {
                conversation,
                offer,
                peers,
            } => {
                self.frontiers.know(conversation, offer);
                for peer in self.offers.remove(&conversation).unwrap_or_default() {
                    self.input(peer, Input::Known(conversation));
                }
                for peer in peers {
                    self.input(peer, Input::TakesPart(conversation, None));
                }
            }
            Committed::Commit {
                conversation,
                frontier,
                own,
                own_tip,
                joined,
                left,
            } => {
                self.frontiers.set(&conversation, frontier);
                for server in joined {
                    self.input(server, Input::TakesPart(conversation, own_tip));
                }
                if let Some((seq, bundle)) = own {
                    self.push(conversation, seq, bundle.as_ref());
                }
                for server in left {
                    self.input(server, Input::LeftAt(conversation, own_tip));
                }
            }
        }
    }

    fn push(&mut self, conversation: ConversationId, seq: u64, bundle: Option<&ForPeers>) {
        let servers: Vec<_> = self.peers.keys().copied().collect();
        for server in servers {
            let bundle = bundle.cloned();
            self.input(
                server,
                Input::Committed {
                    conversation,
                    seq,
                    bundle,
                },
            );
        }
    }

    fn tick(&mut self) {
        self.lookups.tick();
        let servers: Vec<_> = self.peers.keys().copied().collect();
        for server in servers {
            let random = self.random();
            self.input(server, Input::Tick { random });
        }
        self.store_positions();
        let as_of_ms = now().0;
        // What was committed and not told to the machines yet is not settled.
        let told = self.inbox.told_of_all();
        let state = |peer: &Peer| {
            let behind = |p: comity_protocol::link::Progress| match (p.tip, p.acked) {
                (Some(tip), Some(acked)) => tip.saturating_sub(acked),
                (Some(tip), None) => tip + 1,
                (None, _) => 0,
            };
            let progress: Vec<_> = peer.machine.progress().collect();
            PeerState {
                server: peer.server,
                name: peer.name.clone(),
                connected: peer.machine.is_open(),
                settled: told && peer.machine.is_settled(),
                as_of_ms,
                since_ms: peer.since_ms,
                conversations: progress.len(),
                waiting_commits: progress.iter().map(|(_, p)| behind(*p)).sum(),
                refused_items: peer.refused_items,
                last_error: peer.last_error.clone(),
            }
        };
        self.inbox.publish(self.peers.values().map(state).collect());
    }

    /// Writes positions that moved; nobody waits for it.
    fn store_positions(&mut self) {
        for peer in self
            .peers
            .values_mut()
            .filter(|peer| !peer.moved.is_empty())
        {
            let acked = std::mem::take(&mut peer.moved).into_iter().collect();
            let record = record(
                kind::OUTBOX,
                &OutboxRecord {
                    peer: peer.server,
                    acked,
                },
                Vec::new(),
            );
            self.engine
                .shared
                .storage
                .submit(vec![record], Box::new(|_| {}));
        }
    }

    /// Feeds a machine and does what it says.
    fn input(&mut self, server: ServerId, input: Input) {
        let mut outputs = Vec::new();
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        peer.machine
            .handle(now(), input, &self.frontiers, &mut outputs);
        for output in outputs {
            self.perform(server, output);
        }
    }

    fn send(&mut self, server: ServerId, channel: FrameChannel, frame: &Frame) {
        let Some(peer) = self.peers.get_mut(&server) else {
            return;
        };
        if !peer.send(&self.links, channel, frame) {
            self.close(server, "the peer does not read what it asked for");
        }
    }

    fn perform(&mut self, server: ServerId, output: Output) {
        let replication = self.engine.shared.replication.clone();
        match output {
            Output::Send(channel, frame) => self.send(server, channel, &frame),
            Output::Introduce(channel, users) => self.introduce(server, channel, &users),
            Output::Read {
                session,
                conversation,
                from,
                max_bytes,
            } => {
                let answer = Box::new(move |bundles| {
                    replication.tell(Event::Read {
                        peer: server,
                        session,
                        conversation,
                        bundles,
                    });
                });
                let command = Command::ReadOwn {
                    conversation,
                    from,
                    max_bytes,
                    answer,
                };
                self.engine.link_command(&conversation, command);
            }
            Output::Judge { session, n, bundle } => {
                let answer = move |judged| {
                    replication.tell(Event::Judged {
                        peer: server,
                        session,
                        n,
                        judged,
                    });
                };
                self.judge(bundle, Arc::new(answer));
            }
            Output::Take {
                session,
                id,
                bundles,
            } => self.take(server, session, id, bundles),
            Output::Offered(conversation, offer) => self.offered(server, conversation, offer),
            Output::Serve {
                session,
                id,
                range,
                max_bytes,
            } => {
                let answer = Box::new(move |bundles, next| {
                    replication.tell(Event::Served {
                        peer: server,
                        session,
                        id,
                        bundles,
                        next,
                    });
                });
                let command = Command::Serve {
                    peer: server,
                    range,
                    max_bytes,
                    answer,
                };
                self.engine.link_command(&range.conversation, command);
            }
            Output::Identities(logs) => self.learn(server, &logs),
            Output::Resolve { session, id, query } => {
                let identity = self.resolve(&query);
                self.input(
                    server,
                    Input::Resolved {
                        session,
                        id,
                        identity,
                    },
                );
            }
            Output::Found(id, identity) => self.found(server, id, identity.as_ref()),
            Output::Acked(conversation, progress) => {
                if let (Some(seq), Some(peer)) = (progress.acked, self.peers.get_mut(&server)) {
                    peer.moved.insert(conversation, seq);
                }
                let command = Command::Acked {
                    conversation,
                    peer: server,
                    seq: progress.acked,
                };
                self.engine.link_command(&conversation, command);
            }
            Output::Refused(conversation, seq, code) => {
                tracing::error!(peer = %server, %conversation, seq, %code, "a peer refused an own commit");
            }
            Output::Close(reason) => self.close(server, reason),
        }
    }

    fn judge(&self, bundle: Bundle, answer: crate::engine::OnJudged) {
        match crate::engine::conversation_of(&bundle) {
            Some(conversation) => {
                self.engine
                    .link_command(&conversation, Command::Judge { bundle, answer });
            }
            None => answer(Judged {
                verdict: Verdict::Refused(Code::Malformed),
                missing: Vec::new(),
                users: Vec::new(),
            }),
        }
    }

    fn take(&mut self, server: ServerId, session: u64, id: u64, bundles: Vec<Bundle>) {
        if bundles.is_empty() {
            return self.input(server, Input::Taken { session, id });
        }
        if let Some(peer) = self.peers.get_mut(&server) {
            peer.taking.insert(
                id,
                Taking {
                    left: bundles.len(),
                },
            );
        }
        for bundle in bundles {
            let replication = self.engine.shared.replication.clone();
            // The first verdict counts the item as taken in; a later one, of an item that waited,
            // only matters to pushes.
            let first = Mutex::new(true);
            let answer = move |judged: Judged| {
                if std::mem::take(&mut *first.lock().unwrap_or_else(PoisonError::into_inner)) {
                    replication.tell(Event::Took {
                        peer: server,
                        session,
                        id,
                        judged,
                    });
                } else {
                    let (ranges, users) = (judged.missing, judged.users);
                    replication.tell(Event::Missing {
                        peer: server,
                        ranges,
                        users,
                    });
                }
            };
            self.judge(bundle, Arc::new(answer));
        }
    }

    fn introduce(&mut self, server: ServerId, channel: FrameChannel, users: &[UserId]) {
        let shared = Arc::clone(&self.engine.shared);
        let logs: Vec<Identity> = users
            .iter()
            .filter_map(|user| shared.identities.get(user).ok().flatten())
            .map(|log| to_blobs(&log))
            .collect();
        for logs in logs.chunks(LOGS_PER_FRAME) {
            self.send(
                server,
                channel,
                &Frame::Identities {
                    logs: logs.to_vec(),
                },
            );
        }
    }

    fn resolve(&self, query: &Query) -> Option<Identity> {
        let shared = &self.engine.shared;
        let user = match query {
            Query::User(user) => *user,
            Query::Handle(handle) => shared.rows.account(handle).ok().flatten()?.user,
        };
        shared
            .identities
            .get(&user)
            .ok()
            .flatten()
            .map(|log| to_blobs(&log))
    }

    fn learn(&mut self, server: ServerId, logs: &[Identity]) {
        let (mut records, mut users) = (Vec::new(), Vec::new());
        for log in logs {
            match self.engine.shared.identities.learn(log) {
                Ok(Some((user, record))) => {
                    users.push(user);
                    records.push(record);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(peer = %server, %error, "an identity log was refused");
                    if let Some(peer) = self.peers.get_mut(&server) {
                        peer.refused_items += 1;
                    }
                }
            }
        }
        if !records.is_empty() {
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
    }

    fn found(&mut self, server: ServerId, id: u64, identity: Option<&Identity>) {
        let user_of = |log: &Identity| {
            let genesis = crate::identities::from_blobs(log)?.first()?.id();
            Some(UserId::from_bytes(*genesis.as_bytes()))
        };
        let user = identity.and_then(user_of);
        let user = user.filter(|user| self.lookups.is_about(id, &server, user));
        if let (Some(log), Some(_)) = (identity, user) {
            self.learn(server, std::slice::from_ref(log));
        }
        let log = user.and_then(|user| self.engine.shared.identities.get(&user).ok().flatten());
        let why = self.lookups.answered(id, log.as_ref());
        // Without the log there is nothing to go on with: asking again at once would never end.
        if let (Some(Why::Offer(conversation, offer)), Some(_)) = (why, log) {
            self.offered(server, conversation, offer);
        }
    }

    /// Takes a conversation that a peer offers, once the identities that it needs are held.
    fn offered(&mut self, server: ServerId, conversation: ConversationId, offer: Offer) {
        if self.frontiers.knows(&conversation) {
            return;
        }
        if self.offers.len() >= OFFERS_MAX {
            // Offered again in the next round.
            self.offers.clear();
        }
        self.offers.entry(conversation).or_default().insert(server);
        let shared = Arc::clone(&self.engine.shared);
        let Some(checked) = check_offer(&conversation, offer.clone()) else {
            tracing::warn!(peer = %server, %conversation, "an offer that makes no conversation");
            return;
        };
        let owner = match &checked {
            CheckedOffer::Group(genesis) => Some(genesis.root().owner),
            CheckedOffer::Direct(..) => None,
        };
        for user in users_of(&offer, owner) {
            if shared.identities.get(&user).ok().flatten().is_none() {
                let why = Why::Offer(conversation, offer);
                if let Some(id) = self.lookups.begin(server, why, query(user)) {
                    self.input(server, Input::Lookup(id, query(user)));
                }
                return;
            }
        }
        let (reply, _) = tokio::sync::oneshot::channel();
        let command = match checked {
            CheckedOffer::Group(genesis) => {
                let device = genesis.device();
                let owner = shared.identities.had_device(&genesis.root().owner, &device);
                if owner.ok().flatten() != Some(true) {
                    tracing::warn!(peer = %server, %conversation, "a group not signed by its owner");
                    return;
                }
                Command::Group {
                    genesis: *genesis,
                    reply,
                }
            }
            CheckedOffer::Direct(a, b) => {
                let member = |user: UserId| {
                    let home = shared.identities.get(&user).ok().flatten()?.home();
                    Some(MemberChange {
                        user,
                        role: Role::Member,
                        home,
                    })
                };
                let (Some(a), Some(b)) = (member(a), member(b)) else {
                    return;
                };
                // It exists on the homes of the two and nowhere else.
                let ours = [a.home, b.home].contains(&shared.me);
                if !ours || ![a.home, b.home].contains(&server) {
                    tracing::warn!(peer = %server, %conversation, "a direct conversation of others");
                    return;
                }
                Command::Direct {
                    members: [a, b],
                    reply,
                }
            }
        };
        self.engine.link_command(&conversation, command);
    }
}
