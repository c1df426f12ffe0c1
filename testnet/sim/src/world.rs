//! Everything together: one queue of events in virtual time, and the loop that takes them out.

mod clients;
mod days;
mod links;
mod owners;
mod trouble;

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::{
    ids::{Blob, ServerId},
    shard::ReplyTo,
    signing::SecretKey,
};

use crate::{
    check::{self, Ledger, Violation},
    faults::Kind,
    hostile::Hostile,
    network::Network,
    options::Options,
    people::User,
    random::Random,
    server::{Cards, Effect, Server},
    steps::{self, RESTS, Step, What},
};
use clients::Sending;
use owners::Asking;

/// Time between looks of a server at what is due.
const TICK_MS: u64 = 500;
/// The same while a month goes by: the longest pause that is counted as time in which a server ran.
const SLOW_TICK_MS: u64 = 10_000;

#[derive(Debug)]
enum Event {
    Tick(usize, u64, bool),
    Written(usize, u64),
    Commit(usize, u64),
    Frame {
        from: usize,
        to: usize,
        session: u64,
        bytes: Arc<Vec<u8>>,
    },
    Connect(usize, usize),
    Start(usize),
    /// An operator starts a server again that is still in this life.
    Restart(usize, u64),
    Step(Step),
    Submit(usize),
    /// An owner asks for the next record.
    Ask(usize),
    /// He got no answer to this try.
    AskLate(usize, u32),
    /// His device signs.
    Sign(usize, Blob),
    Rest(u64),
    Look(u64),
    /// The morning after a look.
    Dawn(u64),
    /// A server is switched off until then.
    Away(usize, u64),
}

/// A run.
pub(crate) struct World {
    pub(crate) options: Options,
    random: Random,
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pushed: u64,
    pub(crate) servers: Vec<Server>,
    by_id: BTreeMap<ServerId, usize>,
    pub(crate) network: Network,
    pub(crate) users: Vec<User>,
    pub(crate) texts: u64,
    sendings: Vec<Sending>,
    replies: BTreeMap<ReplyTo, usize>,
    askings: Vec<Asking>,
    answers_lost_until: Vec<u64>,
    resting: bool,
    /// A month goes by: servers look at what is due less often.
    slow: bool,
    /// Days that went by in nights, in milliseconds.
    leapt_ms: u64,
    /// When the last of them went by.
    pub(crate) night_at: u64,
    /// When two servers were last connected that are not now.
    contacts: BTreeMap<(usize, usize), u64>,
    pub(crate) hostile: Hostile,
    pub(crate) ledger: Ledger,
    /// Faults that happened.
    pub(crate) faults: BTreeMap<Kind, u64>,
    pub(crate) violation: Option<Violation>,
    /// Steps taken before the violation.
    pub(crate) steps_taken: usize,
    pub(crate) handled: u64,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let mut random = Random::new(options.seed, 2);
        let keys: Vec<(ServerId, SecretKey)> = (0..options.servers)
            .map(|_| {
                let key = SecretKey::from_seed(random.bytes());
                (ServerId::from_bytes(random.bytes()), key)
            })
            .collect();
        let public = keys.iter().map(|(id, key)| (*id, key.public())).collect();
        let cards = Cards(Arc::new(public));
        let hostile = options.hostile();
        let mut servers: Vec<Server> = Vec::new();
        for (n, (id, key)) in keys.into_iter().enumerate() {
            let honest = Some(n) != hostile;
            let planted = options.planted.filter(|_| honest);
            let skew = i64::try_from(random.below(4_000)).unwrap_or(0) - 2_000;
            servers.push(Server::new(id, key, cards.clone(), planted, skew));
        }
        let network = Network::new(options.servers, &mut random);
        let users: Vec<User> = (0..options.users)
            .map(|n| {
                let home = n % options.servers;
                User::new(n, home, &servers[home], &mut random)
            })
            .collect();
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            pushed: 0,
            by_id: servers.iter().enumerate().map(|(n, s)| (s.id, n)).collect(),
            servers,
            network,
            answers_lost_until: vec![0; users.len()],
            users,
            texts: 0,
            sendings: Vec::new(),
            replies: BTreeMap::new(),
            askings: Vec::new(),
            resting: false,
            slow: false,
            leapt_ms: 0,
            night_at: 0,
            contacts: BTreeMap::new(),
            hostile: Hostile::new(hostile),
            ledger: Ledger::default(),
            faults: BTreeMap::new(),
            violation: None,
            steps_taken: 0,
            handled: 0,
            random,
            options,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for n in 0..self.servers.len() {
            self.start(n);
        }
        for n in 0..self.users.len() {
            let (home, log) = (self.users[n].home, Arc::clone(&self.users[n].log));
            self.ledger.devices_of(&log);
            self.servers[home].keep_identity(log);
            self.perform(home);
        }
        for step in steps::steps(&self.options) {
            self.push(step.at, Event::Step(step));
        }
        for nth in 0..RESTS {
            let (rest, look) = steps::rest(&self.options, nth);
            self.push(rest, Event::Rest(nth));
            self.push(look, Event::Look(nth));
        }
    }

    fn push(&mut self, at: u64, event: Event) {
        self.pushed += 1;
        self.queue.insert((at.max(self.now), self.pushed), event);
    }

    /// Runs to the end, or to the first broken promise.
    pub(crate) fn run(&mut self) {
        while self.violation.is_none() {
            let Some(((at, _), event)) = self.queue.pop_first() else {
                break;
            };
            if at > steps::end(&self.options) {
                break;
            }
            self.now = at;
            self.handled += 1;
            self.handle(event);
        }
    }

    pub(crate) fn honest(&self) -> impl Iterator<Item = usize> + use<> {
        let hostile = self.options.hostile();
        (0..self.servers.len()).filter(move |n| Some(*n) != hostile)
    }

    fn break_promise(&mut self, found: Result<(), Violation>) {
        if let Err(violation) = found {
            self.violation.get_or_insert(violation);
        }
    }

    /// Whether everybody waits for a look.
    pub(crate) const fn rests(&self) -> bool {
        self.resting
    }

    /// A server that does nothing now gets to it later.
    fn is_stalled(&mut self, server: usize) -> Option<u64> {
        let until = self.servers[server].stalled_until;
        (until > self.now).then_some(until)
    }

    fn alive(&self, server: usize, life: u64) -> bool {
        self.servers[server].up && self.servers[server].life == life
    }

    fn handle(&mut self, event: Event) {
        let of = match &event {
            Event::Tick(n, ..) | Event::Written(n, _) | Event::Commit(n, _) => Some(*n),
            Event::Frame { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(until) = of.and_then(|n| self.is_stalled(n)) {
            return self.push(until, event);
        }
        if let Some(n) = of {
            self.servers[n].now_ms = self.now;
        }
        match event {
            Event::Tick(n, life, second) => {
                if self.alive(n, life) {
                    let count = self.servers.len();
                    let random = (0..count).map(|_| self.random.step()).collect();
                    self.servers[n].tick(random, second);
                    let (pause, next) = if self.slow {
                        (SLOW_TICK_MS, true)
                    } else {
                        (TICK_MS, !second)
                    };
                    self.push(self.now + pause, Event::Tick(n, life, next));
                    self.hostile_turn(n);
                    self.perform(n);
                }
            }
            Event::Written(n, life) => {
                if self.alive(n, life) {
                    self.servers[n].written();
                    self.perform(n);
                }
            }
            Event::Commit(n, life) => {
                if self.alive(n, life) {
                    self.servers[n].commit();
                    self.perform(n);
                }
            }
            Event::Frame {
                from,
                to,
                session,
                bytes,
            } => self.deliver(from, to, session, &bytes),
            Event::Connect(a, b) => self.connect(a, b),
            Event::Start(n) => {
                if !self.servers[n].up {
                    self.start(n);
                }
            }
            Event::Restart(n, life) => {
                if self.alive(n, life) {
                    let unsynced = self.servers[n].disk.unsynced();
                    let kept = self.random.place(unsynced + 1);
                    self.crash(n, kept, 500);
                }
            }
            Event::Step(step) => {
                self.steps_taken += 1;
                let mut random = Random::new(step.seed, 3);
                match step.what {
                    What::Group => self.make_group(&mut random),
                    What::Act => self.act(&mut random),
                    What::Fault(kind) => self.trouble(kind, &mut random),
                }
            }
            Event::Submit(sending) => self.submit(sending),
            Event::Ask(nth) => self.ask_next(nth),
            Event::AskLate(nth, tries) => self.asked_in_vain(nth, tries),
            Event::Sign(nth, bytes) => self.sign_next(nth, bytes),
            Event::Away(n, until) => self.away(n, until),
            Event::Rest(nth) => self.rest(nth),
            Event::Look(nth) => {
                let found = check::everything(self, nth);
                self.break_promise(found);
                if nth < RESTS {
                    self.night(nth);
                }
            }
            Event::Dawn(nth) => {
                let found = check::everything(self, nth);
                self.break_promise(found);
                let found = check::kept(self);
                self.break_promise(found);
                self.resting = false;
                self.servers.iter_mut().for_each(|s| s.rests = false);
                if nth + 1 == RESTS && steps::has_absence(&self.options) {
                    self.absence();
                }
            }
        }
    }

    // ---- servers ----

    /// Does what a server wants of the world.
    pub(crate) fn perform(&mut self, n: usize) {
        loop {
            let effects = std::mem::take(&mut self.servers[n].effects);
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.effect(n, effect);
            }
        }
        let found = check::bounds(&self.servers[n]);
        if Some(n) != self.options.hostile() {
            self.break_promise(found);
        }
    }

    fn effect(&mut self, n: usize, effect: Effect) {
        let life = self.servers[n].life;
        match effect {
            Effect::Send(peer, channel, bytes) => {
                if let Some(to) = self.by_id.get(&peer).copied() {
                    self.send(n, to, channel, bytes);
                }
            }
            Effect::Close(peer) => {
                if let Some(to) = self.by_id.get(&peer).copied() {
                    self.cut(n, to);
                }
            }
            Effect::Write => {
                let slow = self.now < self.servers[n].disk.slow_until;
                let sync = if slow {
                    self.random.between(200, 3_000)
                } else {
                    self.random.between(1, 12)
                };
                self.push(self.now + sync, Event::Written(n, life));
            }
            Effect::Commit => {
                let pause = self.random.below(5);
                self.push(self.now + pause, Event::Commit(n, life));
            }
            Effect::Accepted(to, result) => self.answered(n, to, &result),
            Effect::NextRoot(to, result) => self.next_root(n, to, result),
            Effect::Signs(conversation, raw) if Some(n) != self.options.hostile() => {
                let found = check::signs(self, n, conversation, &raw);
                self.break_promise(found);
            }
            Effect::Expires(conversation, late, events, at)
                if Some(n) != self.options.hostile() =>
            {
                let found = check::expires(self, n, conversation, late, &events, at);
                self.break_promise(found);
            }
            Effect::Signs(..) | Effect::Expires(..) => {}
        }
    }
}
