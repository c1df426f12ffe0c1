//! The swarm loop. It decides who is connected and when to dial, and awaits nothing but its
//! inputs: one slow peer would otherwise stop all of them.

mod connections;
mod dial;
mod list;
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
    core::transport::ListenerId,
    swarm::{ConnectionId, SwarmEvent},
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
    board::Board,
    config::{Known, PeerError},
    event::{Feed, LinkEvent},
    hello::Hello,
    key::PeerKey,
    limits::{CLOSE_TIMEOUT, COMMAND_QUEUE, PATIENCE_MAX, PEERS_MAX},
    link::Stop,
    reason::SetupError,
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
        error: SetupError,
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
    /// Links whose connection is gone and that still deliver what had arrived.
    draining: BTreeMap<u64, watch::Sender<Stop>>,
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
            draining: BTreeMap::new(),
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
                    let reason = match cause {
                        Some(cause) => SetupError::lost(&cause),
                        None => SetupError::closed(),
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

    fn close(&mut self, patience: Duration, done: Option<oneshot::Sender<()>>) {
        let deadline = Instant::now() + patience.min(PATIENCE_MAX);
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
        let running = self.peers.values().filter_map(|peer| peer.link.as_ref());
        for stop in running.map(|link| &link.stop).chain(self.draining.values()) {
            stop.send_replace(Stop::Cut("shut down".to_owned()));
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
