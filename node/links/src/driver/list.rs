//! Which peers there are, and who else knocked.

use std::sync::{Arc, Weak};

use libp2p::{Multiaddr, swarm::ListenError};

use super::{Driver, Peer};
use crate::{behaviour::NotAllowed, config::Known, hello::Role, key::PeerKey, link::Stop};

impl Driver {
    pub(crate) fn set_peers(&mut self, peers: Vec<Known>) {
        let absent = |key: &PeerKey| !peers.iter().any(|peer| peer.key == *key);
        let gone: Vec<PeerKey> = self.peers.keys().copied().filter(absent).collect();
        gone.into_iter().for_each(|key| self.remove_peer(key));
        peers.into_iter().for_each(|peer| self.put_peer(peer));
    }

    pub(super) fn put_peer(&mut self, known: Known) {
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

    pub(super) fn remove_peer(&mut self, key: PeerKey) {
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

    pub(super) fn on_refused(
        &mut self,
        key: Option<PeerKey>,
        address: &Multiaddr,
        error: &ListenError,
    ) {
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
}
