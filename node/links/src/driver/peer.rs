//! What the swarm loop knows of one configured peer.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use libp2p::swarm::ConnectionId;
use tokio::{
    sync::{Mutex, watch},
    task::AbortHandle,
    time::Instant,
};

use super::Driver;
use crate::{
    backoff::Backoff,
    board::{Direction, Entry},
    config::Known,
    hello::{Hello, Role},
    limits::{CONNECT_SPAN, CONNECTS_MAX, DIAL_STALE, LINK_STABLE},
    link::Stop,
};

pub(super) struct Peer {
    pub(super) known: Known,
    pub(super) role: Role,
    pub(super) entry: Arc<Entry>,
    pub(super) turn: Arc<Mutex<()>>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// The connection that is or becomes the link.
    pub(super) chosen: Option<Chosen>,
    pub(super) link: Option<Running>,
    pub(super) dial: Dial,
    backoff: Backoff,
    /// It answers, but no link lasts: contact alone is then no reason to hurry, or two servers
    /// that cannot agree would dial each other without pause.
    unwilling: bool,
    /// Only while there is neither connection nor dial.
    next_dial: Option<Instant>,
    /// When it last opened connections to us.
    connects: VecDeque<Instant>,
}

pub(super) struct Connection {
    pub(super) direction: Direction,
    pub(super) setup: AbortHandle,
}

pub(super) struct Chosen {
    pub(super) connection: ConnectionId,
    pub(super) theirs: Hello,
}

pub(super) struct Running {
    pub(super) connection: ConnectionId,
    pub(super) number: u64,
    pub(super) stop: watch::Sender<Stop>,
    pub(super) since: Instant,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Dial {
    Idle,
    Resolving,
    Dialling(ConnectionId, Instant),
}

impl Peer {
    pub(super) fn new(known: Known, role: Role, entry: Arc<Entry>, turn: Arc<Mutex<()>>) -> Self {
        let mut peer = Self {
            known,
            role,
            entry,
            turn,
            connections: BTreeMap::new(),
            chosen: None,
            link: None,
            dial: Dial::Idle,
            backoff: Backoff::default(),
            unwilling: false,
            next_dial: None,
            connects: VecDeque::new(),
        };
        peer.plan(Instant::now());
        peer
    }

    pub(super) fn dial_at(&self) -> Option<Instant> {
        self.next_dial
    }

    /// No state may be left in which nothing will ever happen again.
    pub(super) fn never_stuck(&mut self) {
        if self.next_dial.is_none() && self.connections.is_empty() && self.dial == Dial::Idle {
            self.failed();
        }
    }

    pub(super) fn would_choose(&self, offered: &Hello) -> bool {
        self.chosen
            .as_ref()
            .is_none_or(|chosen| self.role.prefers(offered, &chosen.theirs))
    }

    /// Whether the dial that counts is this one.
    pub(super) fn dials(&self, connection: ConnectionId) -> bool {
        matches!(self.dial, Dial::Dialling(dialled, _) if dialled == connection)
    }

    /// Whether a peer that opens a connection now may have it.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        self.connects
            .retain(|at| now.duration_since(*at) < CONNECT_SPAN);
        let admitted = self.connects.len() < CONNECTS_MAX;
        if admitted {
            self.connects.push_back(now);
        }
        admitted
    }

    pub(super) fn wake(&mut self) {
        self.backoff.reset();
        self.unwilling = false;
        // Should the old dial succeed after all, the hello rule leaves one of the two.
        if matches!(self.dial, Dial::Dialling(_, since) if since.elapsed() >= DIAL_STALE) {
            self.dial = Dial::Idle;
        }
        self.plan(Instant::now());
    }

    pub(super) fn dialling(&mut self, dial: Dial) {
        self.dial = dial;
        self.set_next_dial(None);
    }

    pub(super) fn stop_dialling(&mut self) {
        self.set_next_dial(None);
    }

    pub(super) fn connected(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        setup: AbortHandle,
    ) {
        if self.dials(connection) {
            self.dial = Dial::Idle;
        }
        if direction == Direction::Inbound && !self.unwilling {
            self.backoff.reset();
        }
        self.connections
            .insert(connection, Connection { direction, setup });
        self.set_next_dial(None);
    }

    pub(super) fn link_started(&mut self, link: Running) {
        self.link = Some(link);
        self.set_next_dial(None);
    }

    /// The link that ran since `since` is over: dial at once if it lasted, else after a pause.
    pub(super) fn link_over(&mut self, since: Instant, reason: &str) {
        self.entry.note_error(reason);
        if since.elapsed() >= LINK_STABLE {
            self.wake();
        } else {
            self.failed();
        }
    }

    /// There was contact, and no link came of it.
    pub(super) fn set_up_failed(&mut self, reason: &str) -> Duration {
        self.entry.note_error(reason);
        self.unwilling = true;
        self.failed()
    }

    pub(super) fn dial_failed(&mut self, error: &str) -> Duration {
        self.dial = Dial::Idle;
        self.entry.note_error(error);
        self.failed()
    }

    fn failed(&mut self) -> Duration {
        let pause = self
            .backoff
            .failed(std::time::Instant::now(), Driver::random());
        self.plan(Instant::now() + pause);
        pause
    }

    fn plan(&mut self, at: Instant) {
        let busy = !self.connections.is_empty() || self.dial != Dial::Idle;
        let nowhere = self.known.targets.is_empty();
        self.set_next_dial((!busy && !nowhere).then_some(at));
    }

    fn set_next_dial(&mut self, at: Option<Instant>) {
        self.next_dial = at;
        self.entry.note_next_dial(at.map(Instant::into_std));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::StaticPeer, key::PeerKey, reach::Reach};

    fn peer() -> Peer {
        let key = PeerKey::of_seed([1; 32]);
        let address = "/ip4/127.0.0.1/udp/9/quic-v1".to_owned();
        let peer = StaticPeer {
            key,
            addresses: vec![address],
            reach: Reach::anywhere(),
        };
        let known = Known::read(&peer, PeerKey::of_seed([2; 32])).unwrap();
        Peer::new(known, Role::Leader, Arc::default(), Arc::default())
    }

    #[test]
    fn peer_that_connects_without_pause_is_held_off_for_a_while() {
        let mut peer = peer();
        let now = Instant::now();
        let admitted = (0..1_000).filter(|_| peer.admit(now)).count();
        assert_eq!(admitted, CONNECTS_MAX);
        assert!(!peer.admit(now + CONNECT_SPAN / 2));
        assert!(peer.admit(now + CONNECT_SPAN));
        assert!(peer.connects.len() <= CONNECTS_MAX);
    }

    #[test]
    fn first_dial_is_at_once_and_one_after_a_lasting_link_too() {
        let mut peer = peer();
        assert!(peer.dial_at().unwrap() <= Instant::now());
        let Some(long_ago) = Instant::now().checked_sub(LINK_STABLE) else {
            return;
        };
        peer.link_over(long_ago, "lost");
        assert!(peer.dial_at().unwrap() <= Instant::now());
        peer.link_over(Instant::now(), "lost again");
        assert!(peer.dial_at().unwrap() > Instant::now());
    }

    #[test]
    fn wake_replaces_a_dial_that_is_under_way_for_long_but_not_a_fresh_one() {
        let mut peer = peer();
        let connection = ConnectionId::new_unchecked(1);
        peer.dialling(Dial::Dialling(connection, Instant::now()));
        peer.wake();
        assert!(peer.dials(connection) && peer.dial_at().is_none());
        let Some(long_ago) = Instant::now().checked_sub(DIAL_STALE) else {
            return;
        };
        peer.dialling(Dial::Dialling(connection, long_ago));
        peer.wake();
        assert!(!peer.dials(connection) && peer.dial_at().is_some());
    }

    #[test]
    fn no_state_is_left_without_a_next_step() {
        let mut peer = peer();
        peer.stop_dialling();
        peer.never_stuck();
        assert!(peer.dial_at().is_some());
    }
}
