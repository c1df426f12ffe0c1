//! Servers that start and stop, rests in which everything heals, and days that go by: clocks that are days further on after a rest, and a month in which most servers
//! are away.

use std::collections::BTreeMap;

use comity_protocol::limits::DAY_MS;

use super::{Event, World};
use crate::{
    random::Random,
    steps::{self, NIGHT_MS, RESTS},
};

/// Days that go by in a night at most.
const NIGHT_DAYS: u64 = 5;

impl World {
    pub(super) fn start(&mut self, n: usize) {
        self.servers[n].start(self.now);
        let life = self.servers[n].life;
        self.push(self.now + 1, Event::Tick(n, life, true));
        for other in (0..self.servers.len()).filter(|other| *other != n) {
            let wait = self.random.between(50, 600);
            self.push(self.now + wait, Event::Connect(n, other));
        }
        let found = self.ledger.all_there(&self.servers[n], n);
        if Some(n) != self.options.hostile() {
            self.break_promise(found);
        }
        self.perform(n);
    }

    pub(crate) fn crash(&mut self, n: usize, kept: usize, pause: u64) {
        if !self.servers[n].up {
            return;
        }
        self.servers[n].crash(kept);
        for other in (0..self.servers.len()).filter(|other| *other != n) {
            self.cut(n, other);
        }
        self.push(self.now + pause, Event::Start(n));
    }

    /// Everything that went wrong ends, and nothing new happens until the look at everything.
    pub(super) fn rest(&mut self, nth: u64) {
        (self.resting, self.slow) = (true, false);
        self.hostile.stop();
        self.answers_lost_until.fill(0);
        for n in 0..self.servers.len() {
            let server = &mut self.servers[n];
            (server.disk.full_until, server.disk.slow_until) = (0, 0);
            server.stalled_until = 0;
            server.rests = true;
            let stuck = server.disk.is_read_only();
            if stuck {
                let kept = server.disk.unsynced();
                let kept = self.random.place(kept + 1);
                self.crash(n, kept, 0);
            }
            if !self.servers[n].up {
                self.start(n);
            }
        }
        for (a, b) in self.network.pairs().collect::<Vec<_>>() {
            let pair = self.network.pair(a, b);
            (pair.blocked_until, pair.slow_until) = (0, 0);
            if nth.is_multiple_of(2) {
                self.cut(a, b);
            }
            let pause = self.random.between(50, 900);
            self.push(self.now + pause, Event::Connect(a, b));
        }
    }

    /// Days go by in which every machine stands still: all wall clocks are further on, and nothing
    /// else. What is too old then has to be gone at the next look.
    pub(super) fn night(&mut self, nth: u64) {
        let mut random = Random::new(self.options.seed, 16 + nth);
        let days = random.between(1, NIGHT_DAYS + 1);
        self.leapt_ms += days * DAY_MS;
        for server in &mut self.servers {
            server.leapt_ms = self.leapt_ms;
        }
        self.night_at = self.now;
        self.push(self.now + NIGHT_MS, Event::Dawn(nth));
    }

    /// Who stays while the others are away for a month: the two servers that most often are the other
    /// stewards of conversations whose owner lives elsewhere.
    fn who_stays(&self) -> Vec<usize> {
        let mut pairs: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        for server in &self.servers {
            for known in server.rows.known.values() {
                let newest = known.root.as_ref();
                let root = newest.and_then(|root| known.root_of(&root.id, &server.disk.log));
                let Some(root) = root.filter(|root| root.home == server.id) else {
                    continue;
                };
                let others = root.stewards.iter().filter(|id| **id != root.home);
                let others: Vec<usize> = others
                    .filter_map(|id| self.by_id.get(id).copied())
                    .collect();
                *pairs.entry(others).or_default() += usize::from(root.stewards.len() == 3);
            }
        }
        let most = pairs.into_iter().max_by_key(|(_, count)| *count);
        most.map_or(vec![], |(pair, _)| pair)
    }

    /// The month begins. In every other run those that are away are seen again for a while in the
    /// middle of it, and then nobody may follow their owners.
    pub(super) fn absence(&mut self) {
        let back = self.now + steps::AWAY_MS;
        let stay = self.who_stays();
        self.slow = true;
        for n in 0..self.servers.len() {
            if stay.contains(&n) {
                self.away(n, self.now + 1_000);
                continue;
            }
            self.away(n, back);
            if steps::is_seen_again(&self.options) {
                let from = self.now + steps::SEEN_AFTER_MS;
                self.push(from, Event::Start(n));
                self.push(from + steps::SEEN_MS, Event::Away(n, back));
            }
        }
        self.push(back + 1, Event::Rest(RESTS));
        self.push(back + 1 + steps::HEALS_MS, Event::Look(RESTS));
    }

    /// A server is switched off until then.
    pub(super) fn away(&mut self, n: usize, until: u64) {
        let unsynced = self.servers[n].disk.unsynced();
        self.crash(n, unsynced, until.saturating_sub(self.now));
    }
}
