//! The handle.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use libp2p::{Multiaddr, TransportError, identity::Keypair, multiaddr::Error as MultiaddrError};
use tokio::sync::{mpsc, oneshot};

use crate::{
    board::{Board, PeerStatus, Refused},
    config::{Config, Known, PeerError, StaticPeer},
    driver::{Command, Driver, network},
    event::{Channel, Events, feed},
    key::{PeerKey, keypair},
    limits::COMMAND_QUEUE,
    outbox::SendError,
};

/// Why the links did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listen address is no multiaddress.
    #[error("listen address {address:?} cannot be read")]
    ListenUnreadable {
        /// As given.
        address: String,
        /// What the parser says.
        source: MultiaddrError,
    },
    /// The socket cannot be bound, or the address is not UDP with `quic-v1`.
    #[error("cannot listen on {address}")]
    Listen {
        /// As given.
        address: String,
        /// What the transport says.
        source: TransportError<std::io::Error>,
    },
    /// The listener ended before it had an address.
    #[error("listener ended at once: {reason}")]
    ListenerEnded {
        /// For people to read.
        reason: String,
    },
    /// A peer in the list is wrong.
    #[error("bad peer in the configuration")]
    Peer(#[from] PeerError),
    /// The operating system gives no random bytes.
    #[error("no random bytes")]
    Random(#[source] getrandom::Error),
}

/// The links are shut down.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the links are shut down")]
pub struct Stopped;

/// Handle to all links of this server; clones are the same links. When the last one is dropped
/// the links shut down as by [`Links::shutdown`] without patience.
#[derive(Clone, Debug)]
pub struct Links {
    key: PeerKey,
    board: Arc<Board>,
    commands: mpsc::Sender<Command>,
}

impl Links {
    /// Binds the listeners and starts to dial the peers. Must be called within a tokio runtime
    /// with time and IO enabled.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<(Self, Events), StartError> {
        let keypair = keypair(config.seed);
        let key = PeerKey::of_keypair(&keypair);
        let peers = Known::read_all(&config.peers, key)?;
        let mut instance = [0; 16];
        getrandom::fill(&mut instance).map_err(StartError::Random)?;

        let mut swarm = network(Keypair::from(keypair));
        let mut listeners = Vec::new();
        for address in &config.listen {
            let parsed: Multiaddr =
                address
                    .parse()
                    .map_err(|source| StartError::ListenUnreadable {
                        address: address.clone(),
                        source,
                    })?;
            let listener = swarm
                .listen_on(parsed)
                .map_err(|source| StartError::Listen {
                    address: address.clone(),
                    source,
                })?;
            listeners.push(listener);
        }
        let board = Arc::new(Board::default());
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (feed, events) = feed();
        let mut driver = Driver::new(key, instance, swarm, Arc::clone(&board), feed, commands);
        driver
            .listening(listeners)
            .await
            .map_err(|reason| StartError::ListenerEnded { reason })?;
        driver.set_peers(peers);
        tokio::spawn(driver.run());
        Ok((
            Self {
                key,
                board,
                commands: sender,
            },
            events,
        ))
    }

    /// This server's key.
    #[must_use]
    pub fn local_key(&self) -> PeerKey {
        self.key
    }

    /// Multiaddresses we listen on, with the ports the system chose.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<String> {
        self.board.listen()
    }

    /// Queues a frame for `peer` if its link is the one numbered `link`. Never waits.
    ///
    /// # Errors
    ///
    /// See [`SendError`]; the frame is not queued then. A queued frame can still be lost: the
    /// link may go down before it is written, or before the peer reads it.
    pub fn try_send(
        &self,
        peer: PeerKey,
        link: u64,
        channel: Channel,
        bytes: Bytes,
    ) -> Result<(), SendError> {
        let outboxes = self.board.peer(peer).and_then(|entry| entry.outboxes());
        match outboxes {
            Some(outboxes) if outboxes.link == link => outboxes.of(channel).push(bytes),
            _ => Err(SendError::NotUp),
        }
    }

    /// Makes `peers` the list: links to others are cut, new ones dialled, addresses replaced.
    ///
    /// # Errors
    ///
    /// See [`PeerError`]; the list is as before.
    pub async fn set_peers(&self, peers: &[StaticPeer]) -> Result<(), PeerError> {
        let peers = Known::read_all(peers, self.key)?;
        self.command(|done| Command::Set(peers, done))
            .await
            .map_err(|Stopped| PeerError::Stopped)
    }

    /// Adds a peer and dials it, or replaces its addresses.
    ///
    /// # Errors
    ///
    /// See [`PeerError`]; the list is as before.
    pub async fn add_peer(&self, peer: &StaticPeer) -> Result<(), PeerError> {
        let peer = Known::read(peer, self.key)?;
        self.command(|done| Command::Add(peer, done))
            .await
            .map_err(|Stopped| PeerError::Stopped)?
    }

    /// Forgets a peer and cuts its link at once. Without effect for an unknown one.
    ///
    /// # Errors
    ///
    /// [`Stopped`] after a shutdown.
    pub async fn remove_peer(&self, peer: PeerKey) -> Result<(), Stopped> {
        self.command(|done| Command::Remove(peer, done)).await
    }

    /// There is reason to believe that `peer` can be reached: dials it now if it is not connected
    /// and forgets earlier failures.
    ///
    /// # Errors
    ///
    /// [`Stopped`] after a shutdown.
    pub async fn wake(&self, peer: PeerKey) -> Result<(), Stopped> {
        self.command(|done| Command::Wake(peer, done)).await
    }

    /// The state of every configured peer, in order of keys.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        self.board.status()
    }

    /// Keys that tried to connect and are not configured, the latest last; at most
    /// [`REFUSED_MAX`](crate::limits::REFUSED_MAX).
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        self.board.refused()
    }

    /// Ends all links: takes no more frames, writes the queued ones, waits until the peers have
    /// read them and closed, at most `patience` (and an hour) long, then closes everything. Afterwards
    /// [`Events`] gives what it still holds, then `None`. A second call waits for the first.
    pub async fn shutdown(&self, patience: Duration) {
        let _ = self.command(|done| Command::Shutdown(patience, done)).await;
    }

    async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (sender, done) = oneshot::channel();
        self.commands
            .send(command(sender))
            .await
            .map_err(|_| Stopped)?;
        done.await.map_err(|_| Stopped)
    }
}
