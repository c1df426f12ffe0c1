//! What the swarm loop knows of one configured peer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

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
    limits::LINK_STABLE,
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
    Dialling(ConnectionId),
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

    pub(super) fn wake(&mut self) {
        self.backoff.reset();
        self.unwilling = false;
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
        if self.dial == Dial::Dialling(connection) {
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
