//! Random histories with partial gossip, and a home among them that does whatever it likes.

use super::{
    oracle::Oracle,
    world::{How, NOW, Rng, World, content, grant, home, message, user},
};
use crate::{
    event::{Act, Event, Field, Grant, Target, Tip},
    ids::{CommitId, EventId, UserId},
    limits::CUT_TIPS_MAX,
    role::Role,
};

pub(super) const HOMES: [char; 5] = ['1', '2', '3', '4', '5'];
pub(super) const USERS: [char; 10] = ['O', 'A', 'B', 'C', 'M', 'N', 'U', 'V', 'W', 'X'];
/// The home of a dishonest admin: it backdates, forks, replays, cuts and claims at will.
const EVIL: char = '5';

pub(super) fn role(number: usize) -> Role {
    Role::try_from(u8::try_from(number).unwrap()).unwrap()
}

/// A history with partial gossip, as `wander` of the model makes them.
pub(super) struct Wander {
    rng: Rng,
    world: World,
    at: [char; 10],
    held: [u128; 5],
    moved: u64,
    /// Of a hundred steps those that make a root record.
    records: usize,
}

impl Wander {
    fn new(seed: u64) -> Self {
        let mut world = World::group();
        let mut at = ['1'; 10];
        for (i, name) in USERS.iter().enumerate() {
            at[i] = if *name == 'C' { EVIL } else { HOMES[i % 5] };
        }
        // Record 0 binds the owner to home `o`; he moves on to home 1 at once.
        at[0] = 'o';
        let given = [
            ('A', 4),
            ('B', 4),
            ('C', 4),
            ('M', 3),
            ('N', 3),
            ('U', 2),
            ('V', 2),
        ];
        for (name, number) in given {
            let i = USERS.iter().position(|u| *u == name).unwrap();
            let act = Act::Grant(grant(name, at[i], role(number)));
            let event = world.event(user('O'), role(number + 1), act);
            let how = How {
                prev: world.newest_of(home('o')),
                at_ms: NOW.0 / 2,
                ..How::default()
            };
            world.commit(home('o'), &how, vec![event]);
        }
        let act = Act::Move {
            home: home('1'),
            n: 1,
            cut: vec![world.tip(world.made.len() - 1)],
        };
        at[0] = '1';
        let event = world.event(user('O'), Role::None, act);
        let how = How {
            seen: world.all(),
            at_ms: NOW.0 / 2,
            ..How::default()
        };
        world.commit(home('1'), &how, vec![event]);
        let held = [world.all(); 5];
        Self {
            rng: Rng(seed),
            world,
            at,
            held,
            moved: 1,
            records: 0,
        }
    }

    pub(super) fn run(seed: u64) -> World {
        Self::run_with(seed, 5)
    }

    /// The same with a root record at so many of a hundred steps.
    pub(super) fn run_with(seed: u64, records: usize) -> World {
        let mut wander = Self::new(seed);
        wander.records = records;
        let size = wander.world.made.len() + 10 + wander.rng.below(31);
        while wander.world.made.len() < size {
            wander.step();
        }
        wander.world
    }

    /// A root record by the owner's side or, of a majority that lies, a twin of an older one.
    fn record(&mut self) {
        let records: Vec<usize> = (0..self.world.made.len())
            .filter(|i| self.world.made[*i].record.is_some())
            .collect();
        let newest = records.last().copied();
        let prev = if self.rng.chance(15) {
            self.rng
                .pick(&records)
                .and_then(|i| self.world.made[i].prev)
        } else {
            newest
        };
        let mask = self.held[self.rng.below(5)] | self.held[self.rng.below(5)];
        let mask = mask & self.world.closed(mask) & !self.world.records();
        let owner = match prev
            .or(newest)
            .and_then(|i| self.world.made[i].record.as_ref())
        {
            Some(record) => record.root().owner,
            None => user('O'),
        };
        let name = USERS.iter().copied().find(|name| user(*name) == owner);
        let to = if self.rng.chance(40) {
            self.rng.pick(&USERS)
        } else {
            name
        };
        let Some(to) = to else { return };
        let at = home(self.home_of(to));
        let i = self.world.record(user(to), at, mask, prev);
        let made = &self.world.made[i];
        let all = made.past | made.chain;
        for held in &mut self.held {
            if self.rng.chance(50) {
                *held |= all;
            }
        }
    }

    fn step(&mut self) {
        if self.rng.chance(self.records) {
            return self.record();
        }
        let h = self.rng.below(5);
        if self.rng.chance(50) {
            self.held[h] |= self.held[self.rng.below(5)];
        }
        let here: Vec<char> = (0..USERS.len())
            .filter(|i| self.at[*i] == HOMES[h])
            .map(|i| USERS[i])
            .collect();
        let evil = HOMES[h] == EVIL;
        let mask = self.held[h];
        let known = mask & self.world.closed(mask);
        let events_wanted = if self.rng.chance(25) { 3 } else { 1 };
        let mut events: Vec<(EventId, Event)> = Vec::new();
        let mut moved_to = None;
        for _ in 0..events_wanted {
            // A home may go on for who moved away, and a dishonest one commits what others wrote.
            let any = self.rng.chance(10);
            let author = if any {
                self.rng.pick(&USERS)
            } else {
                self.rng.pick(&here)
            };
            let Some(author) = author else { continue };
            if let Some((event, to)) = self.draft(author, h, known, evil, &events) {
                if events.iter().any(|(id, _)| *id == event.0) {
                    continue;
                }
                if to.is_some() && !events.is_empty() {
                    continue;
                }
                events.push(event);
                moved_to = to;
                if moved_to.is_some() {
                    break;
                }
            }
        }
        if events.is_empty() {
            return;
        }
        let of = moved_to.unwrap_or(HOMES[h]);
        let at_home = HOMES.iter().position(|x| *x == of).unwrap();
        let mut seen = known;
        if moved_to.is_some() {
            seen |= self.held[at_home];
        }
        let own = self.newest_held(of);
        let mut prev = own;
        let mut epoch = prev.map_or(0, |p| self.world.made[p].signed().commit().epoch);
        let mut at_ms = NOW.0 / 2 + self.rng.next() % 1_000;
        if evil && moved_to.is_none() {
            if self.rng.chance(60) {
                seen &= self.rng.bits();
            }
            if self.rng.chance(25) {
                let chain: Vec<usize> = (0..self.world.made.len())
                    .filter(|i| self.world.made[*i].home == home(of))
                    .collect();
                prev = self.rng.pick(&chain).filter(|_| self.rng.chance(90));
                epoch = prev.map_or(0, |p| self.world.made[p].signed().commit().epoch);
                epoch += self.rng.next() % 2;
            }
            at_ms = self.rng.next() % 1_000;
        }
        let how = How {
            seen,
            prev,
            epoch,
            at_ms,
        };
        let i = self.world.commit(home(of), &how, events);
        let made = &self.world.made[i];
        self.held[at_home] |= made.past | made.chain;
        self.held[h] |= self.held[at_home] & (made.past | made.chain);
    }

    /// An honest home's chain is one; the dishonest one goes on where it committed last.
    fn newest_held(&self, of: char) -> Option<usize> {
        self.world.newest_of(home(of))
    }

    fn home_of(&self, name: char) -> char {
        let i = USERS.iter().position(|u| *u == name).unwrap();
        self.at[i]
    }

    fn cut_of(&mut self, who: char, known: u128, evil: bool) -> Vec<Tip> {
        if !evil || self.rng.chance(40) {
            return self.world.cut(user(who), known);
        }
        let mut cut: Vec<Tip> = (0..self.rng.below(4))
            .filter_map(|_| {
                let i = self.rng.below(self.world.made.len());
                let commits = known & !self.world.records();
                (commits >> i & 1 == 1).then(|| self.world.tip(i))
            })
            .collect();
        if self.rng.chance(20) {
            cut.push(Tip {
                home: home(self.home_of(who)),
                epoch: 0,
                seq: 7,
                id: CommitId::from_bytes([9; 32]),
            });
        }
        cut.sort_unstable();
        cut.dedup();
        cut.truncate(CUT_TIPS_MAX);
        cut
    }

    fn draft(
        &mut self,
        author: char,
        h: usize,
        known: u128,
        evil: bool,
        mine: &[(EventId, Event)],
    ) -> Option<((EventId, Event), Option<char>)> {
        let target = self.rng.pick(&USERS)?;
        let by = user(author);
        let oracle = Oracle::new(&self.world, known, None);
        let top = if evil && self.rng.chance(60) {
            [Role::Moderator, Role::Admin][self.rng.below(2)]
        } else {
            oracle.role(by)
        };
        let r = self.rng.below(100);
        let evil_replay = evil && r < 8;
        if evil_replay {
            let all: Vec<(EventId, Event)> = self.world.events_of(known).cloned().collect();
            return Some((all[self.rng.below(all.len())].clone(), None));
        }
        let act = match r {
            0..45 if top > Role::Guest => {
                return Some((self.draft_grant(by, target, top, known, evil, mine), None));
            }
            45..53 => Act::Join {
                role: [Role::Member, Role::Member, Role::Guest][self.rng.below(3)],
                home: home(HOMES[h]),
            },
            53..57 => Act::Leave {
                cut: self.cut_of(author, known, evil),
            },
            57..62 => {
                let to = self.rng.pick(&HOMES)?;
                self.moved += 1;
                let mut cut = self.cut_of(author, known, false);
                cut.extend(
                    self.world
                        .newest_of(home(HOMES[h]))
                        .filter(|i| known >> i & 1 == 1)
                        .map(|i| self.world.tip(i)),
                );
                cut.sort_unstable();
                cut.dedup();
                let act = Act::Move {
                    home: home(to),
                    n: self.moved,
                    cut,
                };
                let i = USERS.iter().position(|u| *u == author)?;
                self.at[i] = to;
                return Some((self.world.event(by, Role::None, act), Some(to)));
            }
            62..68 => {
                let value = [1, 2, 3, 3, 9][self.rng.below(5)];
                let field = if self.rng.chance(85) {
                    Field::Posting
                } else {
                    Field::History
                };
                let act = Act::Policy { field, value };
                let claims = top.max(Role::Admin);
                return Some((self.world.event(by, claims, act), None));
            }
            68..84 => {
                let messages: Vec<EventId> = self
                    .world
                    .events_of(if self.rng.chance(90) {
                        known
                    } else {
                        self.world.all()
                    })
                    .chain(mine)
                    .filter(|(_, e)| matches!(e.act, Act::Message { .. }) || e.author == by)
                    .map(|(id, _)| *id)
                    .collect();
                let target = self.rng.pick(&messages)?;
                let (act, claims) = match self.rng.below(5) {
                    0 => (
                        Act::Edit {
                            target,
                            content: content(),
                        },
                        Role::Member,
                    ),
                    1 | 2 => (Act::Delete { target }, top.max(Role::Member)),
                    3 => (
                        Act::React {
                            target,
                            emoji: "+".into(),
                            on: true,
                            version: None,
                        },
                        Role::Member,
                    ),
                    _ => (Act::Pin { target, on: true }, Role::Moderator),
                };
                return Some((self.world.event(by, claims, act), None));
            }
            84..87 => Act::State {
                field: ["name", "title"][self.rng.below(2)].into(),
                content: None,
            },
            _ => message(),
        };
        let claims = if self.rng.chance(80) {
            Role::Member
        } else {
            top.max(Role::Guest)
        };
        Some((self.world.event(by, claims, act), None))
    }

    fn draft_grant(
        &mut self,
        by: UserId,
        target: char,
        top: Role,
        known: u128,
        evil: bool,
        mine: &[(EventId, Event)],
    ) -> (EventId, Event) {
        let top_number = usize::from(u8::from(top));
        let given = if self.rng.chance(60) {
            role(self.rng.below(top_number).min(4))
        } else {
            Role::None
        };
        let door = self.rng.chance(25);
        let claims = if given == Role::None || self.rng.chance(50) {
            top
        } else {
            role(usize::from(u8::from(given)) + 1)
        };
        let claims = if evil && self.rng.chance(10) {
            given
        } else {
            claims
        };
        if door {
            let act = Act::Grant(Grant {
                target: Target::Anyone,
                ..grant('?', '?', given.min(Role::Member))
            });
            return self.world.event(by, claims, act);
        }
        let pure_lift = self.rng.chance(30);
        let is_ban = |e: &Event| {
            matches!(&e.act, Act::Grant(g) if g.ban
                && matches!(g.target, Target::User { user: u, .. } if u == user(target)))
        };
        let mut lifts: Vec<EventId> = self
            .world
            .events_of(known)
            .chain(mine)
            .filter(|(_, e)| is_ban(e))
            .map(|(id, _)| *id)
            .filter(|_| given > Role::None || pure_lift)
            .collect();
        lifts.sort_unstable();
        lifts.dedup();
        if self.rng.chance(40) {
            lifts.clear();
        }
        let lowered = self.cut_of(target, known, evil);
        let act = Act::Grant(Grant {
            ban: given == Role::None && lifts.is_empty() && self.rng.chance(50),
            lifts,
            cut: lowered,
            ..grant(target, self.home_of(target), given)
        });
        self.world.event(by, claims, act)
    }
}
