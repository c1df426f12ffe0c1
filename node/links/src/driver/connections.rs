//! From connections to the one link: setting up, choosing, replacing, ending.

use std::sync::Arc;

use libp2p::{core::ConnectedPoint, swarm::ConnectionId};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::{Chosen, Driver, Running, Setup, Streams};
use crate::{
    board::Direction,
    hello::{Hello, Role},
    key::PeerKey,
    link::{Link, Stop},
    reason::SetupError,
};

impl Driver {
    pub(super) fn on_connected(
        &mut self,
        key: PeerKey,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
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
        if direction == Direction::Inbound && !peer.admit(Instant::now()) {
            tracing::debug!(peer = %key, "connects too often");
            self.swarm.close_connection(connection);
            return;
        }
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
    pub(super) fn on_closed(&mut self, key: PeerKey, connection: ConnectionId, error: &SetupError) {
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
            let (SetupError::Lost(reason) | SetupError::Unusable(reason)) = error;
            link.stop.send_replace(Stop::Gone(reason.clone()));
            peer.link_over(link.since, reason);
            self.draining.insert(link.number, link.stop);
        } else if peer.connections.is_empty() {
            let outbound = known.direction == Direction::Outbound;
            let reason = error.to_string();
            let pause = peer.set_up_failed(&reason);
            if outbound {
                self.report_failure(key, &reason, pause);
            }
        }
    }

    /// Ends a connection of our own accord: no failure of the peer.
    pub(super) fn drop_connection(&mut self, key: PeerKey, connection: ConnectionId) {
        self.swarm.close_connection(connection);
        if let Some(known) = self
            .peers
            .get_mut(&key)
            .and_then(|peer| peer.connections.remove(&connection))
        {
            known.setup.abort();
        }
    }

    pub(super) fn on_offer(
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
    pub(super) fn choose(&mut self, key: PeerKey, chosen: Chosen) {
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

    pub(super) fn on_ready(
        &mut self,
        key: PeerKey,
        connection: ConnectionId,
        hello: Hello,
        streams: Streams,
    ) {
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

    pub(super) fn start_link(
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

    pub(super) fn on_ended(&mut self, key: PeerKey, number: u64, reason: &str) {
        self.draining.remove(&number);
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
}
