//! The swarm loop. It decides who is connected and when to dial, and awaits nothing but its
//! inputs: one slow peer would otherwise stop all of them.

mod dial;
mod network;
mod peer;
mod setup;

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::StreamExt as _;
use libp2p::{
    Multiaddr, Swarm,
    core::{ConnectedPoint, transport::ListenerId},
    swarm::{ConnectionId, ListenError, SwarmEvent},
};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

pub(crate) use self::network::network;
use self::{
    network::Network,
    peer::{Chosen, Dial, Peer, Running},
    setup::{Setup, Streams},
};
use crate::{
    behaviour::NotAllowed,
    board::{Board, Direction},
    config::{Known, PeerError},
    event::{Feed, LinkEvent},
    hello::{Hello, Role},
    key::PeerKey,
    limits::{CLOSE_TIMEOUT, COMMAND_QUEUE, PEERS_MAX},
    link::{Link, Stop},
};

/// What the handles ask for.
#[derive(Debug)]
pub(crate) enum Command {
    Set(Vec<Known>, oneshot::Sender<()>),
    Add(Known, oneshot::Sender<Result<(), PeerError>>),
    Remove(PeerKey, oneshot::Sender<()>),
    Wake(PeerKey, oneshot::Sender<()>),
    Shutdown(Duration, oneshot::Sender<()>),
}

/// What the tasks report.
#[derive(Debug)]
pub(crate) enum Note {
    /// The follower's hello came; the answer is ours, or nothing.
    Offer {
        peer: PeerKey,
        connection: ConnectionId,
        hello: Hello,
        answer: oneshot::Sender<Hello>,
    },
    /// Both hellos went through.
    Ready {
        peer: PeerKey,
        connection: ConnectionId,
        hello: Hello,
        streams: Box<Streams>,
    },
    SetupFailed {
        peer: PeerKey,
        connection: ConnectionId,
        error: String,
    },
    /// A link's tasks have ended.
    Ended {
        peer: PeerKey,
        link: u64,
        reason: String,
    },
    /// Addresses for the next dial.
    Resolved {
        peer: PeerKey,
        addresses: Result<Vec<Multiaddr>, String>,
    },
}

pub(crate) struct Driver {
    key: PeerKey,
    /// Tells this run of the server from earlier ones with the same key.
    instance: [u8; 16],
    hellos: u64,
    links_started: u64,
    swarm: Swarm<Network>,
    board: Arc<Board>,
    feed: Feed,
    commands: mpsc::Receiver<Command>,
    notes: mpsc::Receiver<Note>,
    note_sender: mpsc::Sender<Note>,
    peers: BTreeMap<PeerKey, Peer>,
    /// Of removed peers too, while their last link still has its `Down` to say.
    turns: BTreeMap<PeerKey, Weak<Mutex<()>>>,
    setups: JoinSet<()>,
    links: JoinSet<()>,
    /// Whether commands may still come.
    asked: bool,
    closing: Option<Closing>,
}

struct Closing {
    deadline: Instant,
    done: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(crate) fn new(
        key: PeerKey,
        instance: [u8; 16],
        swarm: Swarm<Network>,
        board: Arc<Board>,
        feed: Feed,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let (note_sender, notes) = mpsc::channel(COMMAND_QUEUE);
        Self {
            key,
            instance,
            hellos: 0,
            links_started: 0,
            swarm,
            board,
            feed,
            commands,
            notes,
            note_sender,
            peers: BTreeMap::new(),
            turns: BTreeMap::new(),
            setups: JoinSet::new(),
            links: JoinSet::new(),
            asked: true,
            closing: None,
        }
    }

    /// Waits until each of `listeners` has an address.
    pub(crate) async fn listening(&mut self, mut listeners: Vec<ListenerId>) -> Result<(), String> {
        while !listeners.is_empty() {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    listeners.retain(|listener| *listener != listener_id);
                }
                SwarmEvent::ListenerClosed {
                    listener_id,
                    reason,
                    ..
                } if listeners.contains(&listener_id) => {
                    return Err(reason
                        .err()
                        .map_or_else(String::new, |error| error.to_string()));
                }
                _ => {}
            }
        }
        self.publish_listeners();
        Ok(())
    }

    fn publish_listeners(&self) {
        self.board
            .set_listen(self.swarm.listeners().map(ToString::to_string).collect());
    }

    pub(crate) async fn run(mut self) {
        loop {
            self.dial_due();
            let due = self.next_due();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(note) = self.notes.recv() => self.on_note(note),
                command = self.commands.recv(), if self.asked => match command {
                    Some(command) => self.on_command(command),
                    None => {
                        self.asked = false;
                        if self.closing.is_none() {
                            self.close(Duration::ZERO, None);
                        }
                    }
                },
                () = self.feed.closed(), if self.closing.is_none() => {
                    self.close(Duration::ZERO, None);
                }
                Some(_) = self.setups.join_next() => {}
                Some(_) = self.links.join_next() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            if let Some(Closing { deadline, .. }) = self.closing
                && (self.links.is_empty() || Instant::now() >= deadline)
            {
                return self.finish().await;
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        match &self.closing {
            Some(closing) => Some(closing.deadline),
            None => self.peers.values().filter_map(Peer::dial_at).min(),
        }
    }

    // ---- inputs ----

    fn on_swarm(&mut self, event: SwarmEvent<network::NetworkEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                if let Some(key) = PeerKey::of_peer_id(&peer_id) {
                    self.on_connected(key, connection_id, &endpoint);
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                if let Some(key) = PeerKey::of_peer_id(&peer_id) {
                    let up = self
                        .peers
                        .get(&key)
                        .is_some_and(|peer| peer.uses(connection_id));
                    // A server that does not know us closes without a word.
                    let hint = if up {
                        ""
                    } else {
                        " (is this server's key configured there?)"
                    };
                    let reason = match cause {
                        Some(cause) => {
                            format!("connection lost: {}{hint}", dial::with_causes(&cause))
                        }
                        None => format!("connection closed{hint}"),
                    };
                    self.on_closed(key, connection_id, &reason);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id,
                connection_id,
                error,
            } => {
                if let Some(key) = peer_id.as_ref().and_then(PeerKey::of_peer_id) {
                    self.on_dial_failed(key, connection_id, &dial::describe(&error));
                }
            }
            SwarmEvent::IncomingConnectionError {
                peer_id,
                send_back_addr,
                error,
                ..
            } => {
                self.on_refused(
                    peer_id.as_ref().and_then(PeerKey::of_peer_id),
                    &send_back_addr,
                    &error,
                );
            }
            SwarmEvent::NewListenAddr { .. } | SwarmEvent::ExpiredListenAddr { .. } => {
                self.publish_listeners();
            }
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                self.publish_listeners();
                tracing::error!(?addresses, ?reason, "a listener ended");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener"),
            _ => {}
        }
    }

    fn on_note(&mut self, note: Note) {
        match note {
            Note::Offer {
                peer,
                connection,
                hello,
                answer,
            } => {
                self.on_offer(peer, connection, hello, answer);
            }
            Note::Ready {
                peer,
                connection,
                hello,
                streams,
            } => {
                self.on_ready(peer, connection, hello, *streams);
            }
            Note::SetupFailed {
                peer,
                connection,
                error,
            } => {
                self.swarm.close_connection(connection);
                self.on_closed(peer, connection, &error);
            }
            Note::Ended { peer, link, reason } => self.on_ended(peer, link, &reason),
            Note::Resolved { peer, addresses } => self.on_resolved(peer, addresses),
        }
    }

    fn on_command(&mut self, command: Command) {
        if self.closing.is_some() && !matches!(command, Command::Shutdown(..)) {
            return; // The dropped answer says that the links are stopped.
        }
        match command {
            Command::Set(peers, done) => {
                self.set_peers(peers);
                let _ = done.send(());
            }
            Command::Add(peer, done) => {
                let full = self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer.key);
                if !full {
                    self.put_peer(peer);
                }
                let _ = done.send(if full {
                    Err(PeerError::TooManyPeers)
                } else {
                    Ok(())
                });
            }
            Command::Remove(peer, done) => {
                self.remove_peer(peer);
                let _ = done.send(());
            }
            Command::Wake(peer, done) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.wake();
                }
                let _ = done.send(());
            }
            Command::Shutdown(patience, done) => self.close(patience, Some(done)),
        }
    }

    // ---- the list ----

    pub(crate) fn set_peers(&mut self, peers: Vec<Known>) {
        let absent = |key: &PeerKey| !peers.iter().any(|peer| peer.key == *key);
        let gone: Vec<PeerKey> = self.peers.keys().copied().filter(absent).collect();
        gone.into_iter().for_each(|key| self.remove_peer(key));
        peers.into_iter().for_each(|peer| self.put_peer(peer));
    }

    fn put_peer(&mut self, known: Known) {
        let key = known.key;
        if let Some(peer) = self.peers.get_mut(&key) {
            if peer.known != known {
                peer.known = known;
                peer.wake();
            }
            return;
        }
        self.turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = self
            .turns
            .get(&key)
            .and_then(Weak::upgrade)
            .unwrap_or_default();
        self.turns.insert(key, Arc::downgrade(&turn));
        self.swarm.behaviour_mut().links.allow(key.peer_id());
        let peer = Peer::new(known, Role::of(self.key, key), self.board.add(key), turn);
        self.peers.insert(key, peer);
    }

    fn remove_peer(&mut self, key: PeerKey) {
        let Some(mut peer) = self.peers.remove(&key) else {
            return;
        };
        self.swarm.behaviour_mut().links.disallow(&key.peer_id());
        self.board.remove(key);
        if let Some(link) = peer.link.take() {
            link.stop.send_replace(Stop::Cut("peer removed".to_owned()));
        }
        for (connection, known) in &peer.connections {
            known.setup.abort();
            self.swarm.close_connection(*connection);
        }
    }

    fn on_refused(&mut self, key: Option<PeerKey>, address: &Multiaddr, error: &ListenError) {
        match (key, error) {
            (Some(key), ListenError::Denied { cause })
                if cause.downcast_ref::<NotAllowed>().is_some() =>
            {
                let now = std::time::Instant::now();
                if self.board.note_refused(key, address.to_string(), now) {
                    tracing::warn!(peer = %key, %address, "refused a server that is not configured");
                }
            }
            (key, error) => tracing::debug!(?key, %address, %error, "inbound connection failed"),
        }
    }

    // ---- connections ----

    fn on_connected(&mut self, key: PeerKey, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let wires = self.swarm.behaviour_mut().links.take(connection);
        let (Some(wires), Some(peer), None) = (wires, self.peers.get_mut(&key), &self.closing)
        else {
            self.swarm.close_connection(connection);
            return;
        };
        let direction = if endpoint.is_dialer() {
            Direction::Outbound
        } else {
            Direction::Inbound
        };
        self.hellos += 1;
        let hello = Hello {
            instance: self.instance,
            order: self.hellos,
            others: u8::try_from(peer.connections.len()).unwrap_or(u8::MAX),
        };
        let setup = Setup {
            peer: key,
            connection,
            role: peer.role,
            hello,
            wires,
        };
        let task = self.setups.spawn(setup.run(self.note_sender.clone()));
        peer.connected(connection, direction, task);
    }

    /// Any end of a connection that we did not end ourselves.
    fn on_closed(&mut self, key: PeerKey, connection: ConnectionId, reason: &str) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let Some(known) = peer.connections.remove(&connection) else {
            return;
        };
        known.setup.abort();
        if peer
            .chosen
            .as_ref()
            .is_some_and(|chosen| chosen.connection == connection)
        {
            peer.chosen = None;
        }
        if let Some(link) = peer.link.take_if(|link| link.connection == connection) {
            link.stop.send_replace(Stop::Gone(reason.to_owned()));
            peer.link_over(link.since, reason);
        } else if peer.connections.is_empty() {
            let outbound = known.direction == Direction::Outbound;
            let pause = peer.set_up_failed(reason);
            if outbound {
                self.report_failure(key, reason, pause);
            }
        }
    }

    /// Ends a connection of our own accord: no failure of the peer.
    fn drop_connection(&mut self, key: PeerKey, connection: ConnectionId) {
        self.swarm.close_connection(connection);
        if let Some(known) = self
            .peers
            .get_mut(&key)
            .and_then(|peer| peer.connections.remove(&connection))
        {
            known.setup.abort();
        }
    }

    fn on_offer(
        &mut self,
        key: PeerKey,
        connection: ConnectionId,
        hello: Hello,
        answer: oneshot::Sender<Hello>,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !peer.connections.contains_key(&connection) {
            return;
        }
        if !peer.would_choose(&hello) {
            tracing::debug!(peer = %key, %connection, "one more connection than needed");
            return self.drop_connection(key, connection);
        }
        self.choose(
            key,
            Chosen {
                connection,
                theirs: hello,
            },
        );
        self.hellos += 1;
        let ours = Hello {
            instance: self.instance,
            order: self.hellos,
            others: 0,
        };
        let _ = answer.send(ours);
    }

    /// Makes a connection the one to use and ends the one before.
    fn choose(&mut self, key: PeerKey, chosen: Chosen) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let connection = chosen.connection;
        let before = peer.chosen.replace(chosen);
        if let Some(link) = peer.link.take_if(|link| link.connection != connection) {
            link.stop
                .send_replace(Stop::Cut("replaced by a newer connection".to_owned()));
        }
        if let Some(before) = before.filter(|before| before.connection != connection) {
            self.drop_connection(key, before.connection);
        }
    }

    fn on_ready(&mut self, key: PeerKey, connection: ConnectionId, hello: Hello, streams: Streams) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let Some(direction) = peer
            .connections
            .get(&connection)
            .map(|known| known.direction)
        else {
            return;
        };
        match peer.role {
            Role::Leader => {
                if peer
                    .chosen
                    .as_ref()
                    .is_none_or(|chosen| chosen.connection != connection)
                {
                    return self.drop_connection(key, connection);
                }
            }
            Role::Follower => {
                if !peer.would_choose(&hello) {
                    return self.drop_connection(key, connection);
                }
                self.choose(
                    key,
                    Chosen {
                        connection,
                        theirs: hello,
                    },
                );
            }
        }
        self.start_link(key, connection, direction, streams);
    }

    // ---- links ----

    fn start_link(
        &mut self,
        key: PeerKey,
        connection: ConnectionId,
        direction: Direction,
        streams: Streams,
    ) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if self.closing.is_some() {
            return self.drop_connection(key, connection);
        }
        self.links_started += 1;
        let number = self.links_started;
        let (stop, stopped) = watch::channel(Stop::Run);
        let link = Link {
            peer: key,
            number,
            direction,
            outbound: streams.outbound,
            inbound: streams.inbound,
            wires: streams.wires,
            entry: Arc::clone(&peer.entry),
            feed: self.feed.clone(),
            turn: Arc::clone(&peer.turn),
            stop: stopped,
            notes: self.note_sender.clone(),
        };
        peer.link_started(Running {
            connection,
            number,
            stop,
            since: Instant::now(),
        });
        self.links.spawn(link.run());
    }

    fn on_ended(&mut self, key: PeerKey, number: u64, reason: &str) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let Some(link) = peer.link.take_if(|link| link.number == number) else {
            return;
        };
        peer.chosen = None;
        let (connection, since) = (link.connection, link.since);
        self.drop_connection(key, connection);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.link_over(since, reason);
        }
    }

    // ---- the end ----

    fn close(&mut self, patience: Duration, done: Option<oneshot::Sender<()>>) {
        let deadline = Instant::now() + patience;
        let closing = self.closing.get_or_insert_with(|| Closing {
            deadline,
            done: Vec::new(),
        });
        closing.deadline = closing.deadline.min(deadline);
        closing.done.extend(done);
        self.commands.close();
        let mut idle = Vec::new();
        for (key, peer) in &mut self.peers {
            peer.stop_dialling();
            match &peer.link {
                Some(link) => drop(link.stop.send_replace(Stop::Drain)),
                None => idle.extend(
                    peer.connections
                        .keys()
                        .map(|connection| (*key, *connection)),
                ),
            }
        }
        idle.into_iter()
            .for_each(|(key, connection)| self.drop_connection(key, connection));
    }

    /// Closes what is left, and ends. No task is left afterwards but those of QUIC, which say
    /// goodbye to the peers by themselves.
    async fn finish(mut self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        for peer in self.peers.values() {
            if let Some(link) = &peer.link {
                link.stop.send_replace(Stop::Cut("shut down".to_owned()));
            }
        }
        // The links' last notes find no reader, and need none.
        self.notes.close();
        let last_words = async { while self.links.join_next().await.is_some() {} };
        let _ = timeout_at(deadline, last_words).await;
        self.links.shutdown().await;
        self.setups.shutdown().await;
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        while self.swarm.connected_peers().next().is_some() {
            if timeout_at(deadline, self.swarm.select_next_some())
                .await
                .is_err()
            {
                break;
            }
        }
        drop(self.swarm);
        for done in self.closing.into_iter().flat_map(|closing| closing.done) {
            let _ = done.send(());
        }
    }

    fn report_failure(&self, peer: PeerKey, error: &str, pause: Duration) {
        let next_try_ms = crate::board::millis(pause);
        tracing::debug!(%peer, error, next_try_ms, "no link");
        self.feed.offer(LinkEvent::DialFailed {
            peer,
            error: error.to_owned(),
            next_try_ms,
        });
    }

    fn random() -> u32 {
        // Without randomness the pauses are the longest allowed, which is safe.
        getrandom::u32().unwrap_or(u32::MAX)
    }
}
