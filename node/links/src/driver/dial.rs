//! Dialling: when it is due, where to, and what went wrong.

use std::net::IpAddr;

use libp2p::{
    Multiaddr,
    swarm::{
        ConnectionId, DialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    net::lookup_host,
    time::{Instant, timeout},
};

use super::{Dial, Driver, Note};
use crate::{
    config::{Family, Target, quic_address},
    key::PeerKey,
    limits::{ADDRESSES_MAX, RESOLVE_TIMEOUT},
    reach::Reach,
    reason::with_causes,
};

impl Driver {
    pub(super) fn dial_due(&mut self) {
        if self.closing.is_some() {
            return;
        }
        let now = Instant::now();
        let mut due = Vec::new();
        for (key, peer) in &mut self.peers {
            if peer.known.targets.is_empty() {
                continue;
            }
            peer.never_stuck();
            if peer.dial_at().is_some_and(|at| at <= now) {
                due.push(*key);
            }
        }
        due.into_iter().for_each(|key| self.dial(key));
    }

    fn dial(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.dialling(Dial::Resolving);
        let (targets, reach) = (peer.known.targets.clone(), peer.known.reach.clone());
        let numbers: Option<Vec<(IpAddr, u16)>> = targets
            .iter()
            .map(|target| match target {
                Target::Ip(ip, port) => Some((*ip, *port)),
                Target::Name { .. } => None,
            })
            .collect();
        if let Some(addresses) = numbers {
            return self.on_resolved(key, permitted(addresses, &reach, Vec::new()));
        }
        let notes = self.note_sender.clone();
        self.setups.spawn(async move {
            let addresses = timeout(RESOLVE_TIMEOUT, resolve(targets, reach))
                .await
                .unwrap_or_else(|_| Err("name resolution timed out".to_owned()));
            let _ = notes
                .send(Note::Resolved {
                    peer: key,
                    addresses,
                })
                .await;
        });
    }

    pub(super) fn on_resolved(&mut self, key: PeerKey, addresses: Result<Vec<Multiaddr>, String>) {
        let closing = self.closing.is_some();
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        // The peer may have been removed and added again, or have come to us meanwhile.
        if peer.dial != Dial::Resolving {
            return;
        }
        if closing || !peer.connections.is_empty() {
            peer.dial = Dial::Idle;
            return;
        }
        let dialled = addresses.and_then(|addresses| {
            let options = DialOpts::peer_id(key.peer_id())
                .condition(PeerCondition::Always)
                .addresses(addresses)
                .build();
            let connection = options.connection_id();
            self.swarm
                .dial(options)
                .map(|()| connection)
                .map_err(|error| describe(&error))
        });
        match dialled {
            Ok(connection) => peer.dialling(Dial::Dialling(connection, Instant::now())),
            Err(error) => {
                let pause = peer.dial_failed(&error);
                self.report_failure(key, &error, pause);
            }
        }
    }

    pub(super) fn on_dial_failed(&mut self, key: PeerKey, connection: ConnectionId, error: &str) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !peer.dials(connection) {
            return;
        }
        if peer.connections.is_empty() {
            let pause = peer.dial_failed(error);
            self.report_failure(key, error, pause);
        } else {
            // The peer came to us meanwhile: no failure.
            peer.dial = Dial::Idle;
        }
    }
}

/// The addresses of all targets that can be found and may be dialled; an error only if there are
/// none.
async fn resolve(targets: Vec<Target>, reach: Reach) -> Result<Vec<Multiaddr>, String> {
    let mut addresses = Vec::new();
    let mut errors = Vec::new();
    for target in targets {
        match target {
            Target::Ip(ip, port) => addresses.push((ip, port)),
            Target::Name { host, port, family } => match lookup_host((host.as_str(), port)).await {
                Ok(found) => addresses.extend(
                    found
                        .map(|address| address.ip())
                        .filter(|ip| match family {
                            Family::Any => true,
                            Family::V4 => ip.is_ipv4(),
                            Family::V6 => ip.is_ipv6(),
                        })
                        .map(|ip| (ip, port)),
                ),
                Err(error) => errors.push(format!("{host}: {error}")),
            },
        }
    }
    permitted(addresses, &reach, errors)
}

/// Those that may be dialled.
fn permitted(
    addresses: Vec<(IpAddr, u16)>,
    reach: &Reach,
    mut errors: Vec<String>,
) -> Result<Vec<Multiaddr>, String> {
    let mut permitted = Vec::new();
    for (ip, port) in addresses {
        if reach.permits(ip) {
            permitted.push(quic_address(ip, port));
        } else {
            errors.push(format!("{ip} is not a public address and not allowed here"));
        }
    }
    permitted.truncate(ADDRESSES_MAX);
    if permitted.is_empty() {
        errors.push("no address to dial".to_owned());
        return Err(errors.join("; "));
    }
    Ok(permitted)
}

pub(super) fn describe(error: &DialError) -> String {
    match error {
        DialError::Transport(tried) => {
            let tried = tried
                .iter()
                .map(|(address, error)| format!("{address}: {}", with_causes(error)));
            tried.collect::<Vec<_>>().join("; ")
        }
        DialError::WrongPeerId { obtained, .. } => match PeerKey::of_peer_id(obtained) {
            Some(key) => format!("another server answered, with key {key}"),
            None => "another server answered".to_owned(),
        },
        error => with_causes(error),
    }
}
