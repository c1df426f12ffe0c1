//! The libp2p swarm and its settings.

use libp2p::{
    Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    identity::Keypair,
    quic,
    swarm::NetworkBehaviour,
};

use crate::{
    behaviour::Behaviour,
    limits::{
        CONNECTION_WINDOW, CONNECTIONS_PER_PEER, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE,
        PENDING_INBOUND, STREAM_WINDOW, SUBSTREAMS_MAX,
    },
};

/// Further transports and behaviours (TCP, relay, gossip) would be added here.
#[derive(NetworkBehaviour)]
pub(crate) struct Network {
    limits: connection_limits::Behaviour,
    pub(crate) links: Behaviour,
}

pub(crate) fn network(keypair: Keypair) -> Swarm<Network> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INBOUND))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER));
    let network = Network {
        limits: connection_limits::Behaviour::new(limits),
        links: Behaviour::default(),
    };
    SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_quic_config(settings)
        .with_behaviour(|_| network)
        .expect("giving out what is there cannot fail")
        .build()
}

fn settings(mut config: quic::Config) -> quic::Config {
    config.handshake_timeout = HANDSHAKE_TIMEOUT;
    config.keep_alive_interval = KEEP_ALIVE;
    config.max_idle_timeout =
        u32::try_from(IDLE_TIMEOUT.as_millis()).expect("the constant is a few seconds");
    config.max_concurrent_stream_limit = SUBSTREAMS_MAX;
    config.max_stream_data = STREAM_WINDOW;
    config.max_connection_data = CONNECTION_WINDOW;
    config
}
