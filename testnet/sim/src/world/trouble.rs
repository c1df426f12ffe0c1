//! Faults around the machines, as they happen.

use comity_protocol::{event::Act, role::Role};

use super::{Event, World};
use crate::{
    faults::Kind,
    people::{self, Change},
    random::Random,
};

/// Bounds of a wall clock against the true time: a commit is held that is five minutes ahead of
/// its receiver, so two clocks further apart than that could not be whole in time.
const SKEW_MS: std::ops::RangeInclusive<i64> = -40_000..=230_000;

impl World {
    pub(super) fn trouble(&mut self, kind: Kind, random: &mut Random) {
        if self.resting {
            return;
        }
        let honest: Vec<_> = self.honest().collect();
        let Some(n) = random.pick(&honest) else {
            return;
        };
        let other = honest.iter().copied().filter(|other| *other != n);
        let other = random.pick(&other.collect::<Vec<_>>());
        let span = random.between(2_000, 60_000);
        let happened = match kind {
            Kind::PowerCut | Kind::Kill => {
                let unsynced = self.servers[n].disk.unsynced();
                let kept = if kind == Kind::Kill {
                    unsynced
                } else {
                    random.place(unsynced + 1)
                };
                let up = self.servers[n].up;
                self.crash(n, kept, span / 3);
                up
            }
            Kind::DiskError => {
                self.servers[n].disk.fail_next_write();
                // An operator starts it again after a while.
                let (at, life) = (self.now + span, self.servers[n].life);
                self.push(at, Event::Restart(n, life));
                self.servers[n].up
            }
            Kind::DiskFull => {
                self.servers[n].disk.full_until = self.now + span;
                true
            }
            Kind::SlowDisk => {
                self.servers[n].disk.slow_until = self.now + span;
                true
            }
            Kind::LinkCut => {
                let Some(other) = other else { return };
                let pair = self.network.pair(n, other);
                pair.blocked_until = self.now + span / 4;
                let up = pair.up;
                self.cut(n, other);
                up
            }
            Kind::Partition => {
                let sides = (0..self.servers.len()).map(|_| random.percent(50));
                let side: Vec<bool> = sides.collect();
                for (a, b) in self.network.pairs().collect::<Vec<_>>() {
                    if side[a] != side[b] {
                        self.network.pair(a, b).blocked_until = self.now + 4 * span;
                        self.cut(a, b);
                    }
                }
                side.contains(&true) && side.contains(&false)
            }
            Kind::SlowLink => {
                let Some(other) = other else { return };
                self.network.pair(n, other).slow_until = self.now + span;
                true
            }
            Kind::SlowPeer => {
                self.servers[n].stalled_until = self.now + span / 2;
                true
            }
            Kind::ClockForward | Kind::ClockBack => {
                let step = i64::try_from(random.between(1_000, 240_000)).unwrap_or(0);
                let step = if kind == Kind::ClockBack { -step } else { step };
                let server = &mut self.servers[n];
                let before = server.skew_ms;
                server.skew_ms = (before + step).clamp(*SKEW_MS.start(), *SKEW_MS.end());
                server.skew_ms != before
            }
            Kind::LostAnswers => {
                let user = random.place(self.users.len());
                self.answers_lost_until[user] = self.now + span;
                self.send_again(user);
                true
            }
            Kind::RemovalRace => self.removal_race(random),
            _ => self.misbehave(kind, random),
        };
        if happened {
            *self.faults.entry(kind).or_default() += 1;
        }
    }

    /// A member is removed at one home while he does everything at his own.
    fn removal_race(&mut self, random: &mut Random) -> bool {
        for _ in 0..8 {
            if self.race(random) {
                return true;
            }
        }
        false
    }

    fn race(&mut self, random: &mut Random) -> bool {
        let user = random.place(self.users.len());
        let Some(conversation) = self.some_conversation_of(user, random) else {
            return false;
        };
        let home = self.users[user].home_in(&conversation);
        let members = &self.servers[home].rows.known[&conversation].members;
        let ranked = self.users.iter().enumerate().filter(|(n, other)| {
            let role = members.get(&other.id).map(|(role, _)| *role);
            *n != user && role >= Some(Role::Admin)
        });
        let above: Vec<_> = ranked.map(|(n, _)| n).collect();
        let Some(above) = random.pick(&above) else {
            return false;
        };
        let at = self.users[above].home_in(&conversation);
        if !self.servers[at].up || !self.servers[home].up {
            return false;
        }
        for n in [at, home] {
            self.servers[n].now_ms = self.now;
        }
        let change = if random.percent(50) {
            Change::Ban
        } else {
            Change::Remove
        };
        let (by, of) = (&self.users[above], &self.users[user]);
        let server = &mut self.servers[at];
        let act = people::grant(change, by, of, conversation, server, random);
        let made = act.and_then(|act| people::make(by, conversation, act, None, server, random));
        let Some(made) = made else { return false };
        self.send_made(above, at, made);
        let mut kinds = people::EVERYTHING;
        for last in (1..kinds.len()).rev() {
            kinds.swap(last, random.place(last + 1));
        }
        for kind in kinds {
            let server = &mut self.servers[home];
            let (users, texts) = (&self.users, &mut self.texts);
            let wish = people::wish_in(kind, user, users, conversation, server, texts, random);
            if let Some(made) = wish {
                self.send_made(user, home, made);
            }
        }
        // He comes in again if the door is open, gives away what he owns, and lives elsewhere.
        let (role, at_home) = (Role::Member, self.servers[home].id);
        let join = Act::Join {
            role,
            home: at_home,
        };
        let (by, server) = (&self.users[user], &mut self.servers[home]);
        if let Some(made) = people::make(by, conversation, join, None, server, random) {
            self.send_made(user, home, made);
        }
        self.hand_over(user, conversation, random);
        if random.percent(30) {
            self.move_user(user, conversation, random);
        }
        true
    }
}
