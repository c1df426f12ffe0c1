//! Frames between the servers, and connections that come and go.

use std::sync::Arc;

use comity_protocol::link::FrameChannel;

use super::{Event, World};
use crate::network::BACKLOG_BYTES_MAX;

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, channel: FrameChannel, bytes: Vec<u8>) {
        if !self.network.pair(from, to).up {
            return;
        }
        if Some(from) == self.options.hostile() {
            return self.hostile_send(to, channel, bytes);
        }
        self.carry(from, to, channel, bytes, 0);
    }

    /// Puts a frame on its way; `early` lets it overtake those before it.
    pub(crate) fn carry(
        &mut self,
        from: usize,
        to: usize,
        channel: FrameChannel,
        bytes: Vec<u8>,
        early: u64,
    ) {
        if !self.network.pair(from, to).up {
            return;
        }
        if Some(to) == self.options.hostile() {
            let found = self.ledger.may_have(&self.servers[to], from, &bytes);
            self.break_promise(found);
        }
        let random = &mut self.random;
        let at = self
            .network
            .arrival(self.now, from, to, channel, bytes.len(), random);
        let pair = self.network.pair(from, to);
        let session = pair.session;
        if pair.on_the_way.iter().any(|n| *n > BACKLOG_BYTES_MAX) {
            return self.cut(from, to);
        }
        let bytes = Arc::new(bytes);
        let event = Event::Frame {
            from,
            to,
            session,
            bytes,
        };
        self.push(at.saturating_sub(early), event);
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, session: u64, bytes: &[u8]) {
        let pair = self.network.pair(from, to);
        if !pair.up || pair.session != session {
            return;
        }
        self.network.arrived(from, to, bytes.len());
        let peer = self.servers[from].id;
        self.servers[to].frame(peer, bytes);
        self.perform(to);
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let both = self.servers[a].up && self.servers[b].up;
        let now = self.now;
        let pair = self.network.pair(a, b);
        if pair.up || !both {
            // Whoever starts connects again.
            return;
        }
        if pair.blocked_until > now {
            let again = pair.blocked_until.min(now + 5_000);
            return self.push(again, Event::Connect(a, b));
        }
        pair.up = true;
        pair.session += 1;
        for (n, other) in [(a, b), (b, a)] {
            let (peer, nonce) = (self.servers[other].id, self.random.bytes());
            self.servers[n].now_ms = self.now;
            self.servers[n].link_up(peer, nonce);
            self.perform(n);
        }
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        if !self.network.cut(a, b) {
            return;
        }
        self.contacts.insert((a.min(b), a.max(b)), self.now);
        for (n, other) in [(a, b), (b, a)] {
            if self.servers[n].up {
                let peer = self.servers[other].id;
                self.servers[n].now_ms = self.now;
                self.servers[n].links(comity_protocol::replication::Input::Down(peer));
                self.perform(n);
            }
        }
        let pause = self.random.between(100, 1_500);
        self.push(self.now + pause, Event::Connect(a, b));
    }

    /// When two servers were last connected; a server always is with itself.
    pub(crate) fn contact(&self, a: usize, b: usize) -> u64 {
        if a == b || self.network.is_up(a, b) {
            return self.now;
        }
        let last = self.contacts.get(&(a.min(b), a.max(b)));
        last.copied().unwrap_or(0)
    }
}
