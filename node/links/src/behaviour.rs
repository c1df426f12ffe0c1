//! libp2p glue: lets configured peers in, and hands each connection's substreams to its tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, InboundUpgrade, OutboundUpgrade, UpgradeInfo, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        handler::{
            ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
        },
    },
};
use tokio::sync::{mpsc, oneshot};

use crate::{event::Channel, reason::SetupError};

const LIVE: StreamProtocol = StreamProtocol::new("/comity/link/1");
const BULK: StreamProtocol = StreamProtocol::new("/comity/bulk/1");

fn protocol(channel: Channel) -> StreamProtocol {
    match channel {
        Channel::Live => LIVE,
        Channel::Bulk => BULK,
    }
}

/// The peer's key is not in the list.
#[derive(Debug)]
pub(crate) struct NotAllowed;

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("key is not configured")
    }
}

impl std::error::Error for NotAllowed {}

/// The tasks' end of a connection.
#[derive(Debug)]
pub(crate) struct Wires {
    pub(crate) opener: Opener,
    inbound: [Option<oneshot::Receiver<Stream>>; 2],
}

/// Asks for substreams on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Opener(mpsc::Sender<Open>);

impl Opener {
    /// Opens our substream of `channel`.
    pub(crate) async fn open(&self, channel: Channel) -> Result<Stream, SetupError> {
        let (reply, opened) = oneshot::channel();
        self.0
            .send(Open { channel, reply })
            .await
            .map_err(|_| SetupError::closed())?;
        opened.await.map_err(|_| SetupError::closed())?
    }
}

impl Wires {
    /// Waits for the peer's substream of `channel`; each can be had once.
    pub(crate) async fn accept(&mut self, channel: Channel) -> Result<Stream, SetupError> {
        let Some(receiver) = self.inbound[channel.index()].take() else {
            return Err(SetupError::Unusable(
                "substream was taken before".to_owned(),
            ));
        };
        receiver.await.map_err(|_| SetupError::closed())
    }
}

#[derive(Debug)]
pub(crate) struct Open {
    channel: Channel,
    reply: oneshot::Sender<Result<Stream, SetupError>>,
}

/// Part of the swarm: no events of its own, the swarm loop calls [`Behaviour::take`].
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    allowed: BTreeSet<PeerId>,
    /// Of connections that were let in and not taken yet.
    wires: BTreeMap<ConnectionId, Wires>,
}

impl Behaviour {
    pub(crate) fn allow(&mut self, peer: PeerId) {
        self.allowed.insert(peer);
    }

    /// New connections are refused from now on; present ones are for the caller to close.
    pub(crate) fn disallow(&mut self, peer: &PeerId) {
        self.allowed.remove(peer);
    }

    pub(crate) fn take(&mut self, connection: ConnectionId) -> Option<Wires> {
        self.wires.remove(&connection)
    }

    fn enter(
        &mut self,
        connection: ConnectionId,
        peer: &PeerId,
    ) -> Result<Handler, ConnectionDenied> {
        if !self.allowed.contains(peer) {
            return Err(ConnectionDenied::new(NotAllowed));
        }
        let (open, requests) = mpsc::channel(2);
        let (live_sender, live) = oneshot::channel();
        let (bulk_sender, bulk) = oneshot::channel();
        self.wires.insert(
            connection,
            Wires {
                opener: Opener(open),
                inbound: [Some(live), Some(bulk)],
            },
        );
        Ok(Handler {
            requests,
            opening: None,
            inbound: [Some(live_sender), Some(bulk_sender)],
        })
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(connection, &peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(connection, &peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // Another behaviour may have refused after we agreed.
        match event {
            FromSwarm::DialFailure(failure) => drop(self.wires.remove(&failure.connection_id)),
            FromSwarm::ListenFailure(failure) => drop(self.wires.remove(&failure.connection_id)),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One connection's substreams. Negotiates one outbound substream at a time.
#[derive(Debug)]
pub(crate) struct Handler {
    requests: mpsc::Receiver<Open>,
    opening: Option<oneshot::Sender<Result<Stream, SetupError>>>,
    /// Taken with the first substream of each channel; further ones are dropped, which resets them.
    inbound: [Option<oneshot::Sender<Stream>>; 2],
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols> {
        SubstreamProtocol::new(Protocols(Channel::ALL.map(protocol).to_vec()), ())
    }

    /// The link's tasks close connections that are of no use.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Protocols, (), Infallible>> {
        if self.opening.is_none()
            && let Poll::Ready(Some(Open { channel, reply })) = self.requests.poll_recv(context)
        {
            self.opening = Some(reply);
            let protocol = SubstreamProtocol::new(Protocols(vec![protocol(channel)]), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, name),
                ..
            }) => {
                let channel = if name == LIVE {
                    Channel::Live
                } else {
                    Channel::Bulk
                };
                if let Some(waiting) = self.inbound[channel.index()].take() {
                    let _ = waiting.send(stream);
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                ..
            }) => self.opened(Ok(stream)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.opened(Err(match error {
                    StreamUpgradeError::Timeout => {
                        SetupError::Unusable("opening a substream timed out".to_owned())
                    }
                    StreamUpgradeError::NegotiationFailed => {
                        SetupError::Unusable("peer does not speak this version of links".to_owned())
                    }
                    StreamUpgradeError::Io(error) => SetupError::lost(&error),
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }
}

impl Handler {
    fn opened(&mut self, result: Result<Stream, SetupError>) {
        if let Some(reply) = self.opening.take() {
            let _ = reply.send(result);
        }
    }
}

/// The names a substream may be negotiated to.
#[derive(Clone, Debug)]
pub(crate) struct Protocols(Vec<StreamProtocol>);

impl UpgradeInfo for Protocols {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}
