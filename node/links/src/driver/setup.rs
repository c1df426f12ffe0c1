//! From a connection to two live substreams with a hello on each.

use libp2p::{Stream, swarm::ConnectionId};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::Note;
use crate::{
    behaviour::Wires,
    event::Channel,
    hello::{Hello, Role},
    key::PeerKey,
    limits::SETUP_TIMEOUT,
    reason::SetupError,
};

/// What a link starts with.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(super) outbound: Stream,
    pub(super) inbound: Stream,
    pub(super) wires: Wires,
}

pub(super) struct Setup {
    pub(super) peer: PeerKey,
    pub(super) connection: ConnectionId,
    pub(super) role: Role,
    /// The follower's hello; a leader gets its own when it decides.
    pub(super) hello: Hello,
    pub(super) wires: Wires,
}

impl Setup {
    pub(super) async fn run(self, notes: mpsc::Sender<Note>) {
        let (peer, connection) = (self.peer, self.connection);
        let result = timeout(SETUP_TIMEOUT, self.exchange(&notes)).await;
        let silent = || SetupError::Unusable("peer did not set up a link".to_owned());
        let note = match result.unwrap_or_else(|_| Err(silent())) {
            Ok((hello, streams)) => Note::Ready {
                peer,
                connection,
                hello,
                streams: Box::new(streams),
            },
            Err(error) => Note::SetupFailed {
                peer,
                connection,
                error,
            },
        };
        let _ = notes.send(note).await;
    }

    async fn exchange(
        mut self,
        notes: &mpsc::Sender<Note>,
    ) -> Result<(Hello, Streams), SetupError> {
        let unwritten = |error: std::io::Error| SetupError::lost(&error);
        match self.role {
            Role::Follower => {
                let mut outbound = self.wires.opener.open(Channel::Live).await?;
                self.hello.write(&mut outbound).await.map_err(unwritten)?;
                let mut inbound = self.wires.accept(Channel::Live).await?;
                let theirs = Hello::read(&mut inbound).await?;
                Ok((
                    theirs,
                    Streams {
                        outbound,
                        inbound,
                        wires: self.wires,
                    },
                ))
            }
            Role::Leader => {
                let mut inbound = self.wires.accept(Channel::Live).await?;
                let theirs = Hello::read(&mut inbound).await?;
                let ours = self.decision(notes, theirs).await?;
                let mut outbound = self.wires.opener.open(Channel::Live).await?;
                ours.write(&mut outbound).await.map_err(unwritten)?;
                Ok((
                    theirs,
                    Streams {
                        outbound,
                        inbound,
                        wires: self.wires,
                    },
                ))
            }
        }
    }

    async fn decision(
        &self,
        notes: &mpsc::Sender<Note>,
        hello: Hello,
    ) -> Result<Hello, SetupError> {
        let (answer, decision) = oneshot::channel();
        let offer = Note::Offer {
            peer: self.peer,
            connection: self.connection,
            hello,
            answer,
        };
        let refused = || SetupError::Unusable("another connection is the link".to_owned());
        notes.send(offer).await.map_err(|_| refused())?;
        decision.await.map_err(|_| refused())
    }
}
