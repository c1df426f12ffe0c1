//! Stewards and proposers over a network that loses, repeats and reorders, with restarts: at most
//! one record, and one once the network is quiet.

use comity_fuzz::random::Random;

use super::*;
use crate::{
    ids::{Blob, RootId},
    root::Steward,
    signing::SecretKey,
};

const BEFORE: RootRef = RootRef {
    n: 4,
    id: RootId::from_bytes([4; 32]),
};

fn server(n: u8) -> ServerId {
    ServerId::from_bytes([n; 32])
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn keys(server: &ServerId, _: u64) -> Option<PublicKey> {
    Some(key(server.as_bytes()[0]).public())
}

fn record(text: u8) -> RawRoot {
    RawRoot {
        root: Blob(vec![text]),
        ballot: None,
        signatures: Vec::new(),
    }
}

struct Network {
    random: Random,
    now: Timestamp,
    stewards: Vec<Steward>,
    /// Those of servers 101 and on; a restart begins anew.
    proposers: Vec<Proposer>,
    /// From, to, what.
    post: Vec<(ServerId, ServerId, StewardMessage)>,
    made: BTreeSet<Vec<u8>>,
    /// When the first was made.
    made_at: Option<Timestamp>,
    /// Restarted stewards know nothing.
    forgetful: bool,
}

impl Network {
    fn new(seed: u64, stewards: u8, proposers: u8) -> Self {
        let mut network = Self {
            random: Random::new(seed),
            now: Timestamp(1_800_000_000_000),
            stewards: (0..stewards).map(|_| Steward::after(BEFORE)).collect(),
            proposers: Vec::new(),
            post: Vec::new(),
            made: BTreeSet::new(),
            made_at: None,
            forgetful: false,
        };
        for n in 0..proposers {
            let proposer = network.proposer(n);
            network.proposers.push(proposer);
        }
        network
    }

    fn number(&mut self) -> u64 {
        self.random.below(1 << 30) as u64
    }

    fn proposer(&mut self, n: u8) -> Proposer {
        let stewards = (1..=u8::try_from(self.stewards.len()).unwrap()).map(server);
        let random = self.number();
        Proposer::new(
            server(101 + n),
            BEFORE,
            stewards.collect(),
            self.now,
            random,
        )
    }

    fn ask(&mut self, n: usize) {
        let from = server(101 + u8::try_from(n).unwrap());
        let asked = self.proposers[n].ask(self.now);
        self.post
            .extend(asked.into_iter().map(|(to, m)| (from, to, m)));
    }

    fn deliver(&mut self, (from, to, message): (ServerId, ServerId, StewardMessage)) {
        let n = to.as_bytes()[0];
        if n < 100 {
            let steward = &mut self.stewards[usize::from(n) - 1];
            let (before, ballot) = match &message {
                StewardMessage::Prepare { before, ballot }
                | StewardMessage::Propose { before, ballot, .. } => (*before, *ballot),
                other => panic!("a steward was told {other:?}"),
            };
            let answer = match &message {
                StewardMessage::Propose { record, .. } => steward
                    .propose(&before, ballot, record, (0, &key(n)), |_, _| Ok(()))
                    .map(StewardMessage::Note),
                _ => steward
                    .prepare(self.now, &before, ballot, Vec::new)
                    .map(StewardMessage::Promise),
            };
            let declined = |why| StewardMessage::Declined {
                before,
                ballot,
                why,
            };
            return self.post.push((to, from, answer.unwrap_or_else(declined)));
        }
        let n = usize::from(n) - 101;
        let random = self.number();
        match self.proposers[n].heard(self.now, random, from, message, keys) {
            Heard::Free(_) => {
                let own = record(u8::try_from(n).unwrap());
                self.proposers[n].propose(self.now, own);
            }
            Heard::Made(made) => {
                self.made.insert(made.root.0);
                self.made_at = self.made_at.or(Some(self.now));
            }
            Heard::Nothing | Heard::Lags(_) => {}
        }
        self.ask(n);
    }

    /// A step of a bad network.
    fn trouble(&mut self) {
        match self.random.below(20) {
            0 => {
                let n = self.random.below(self.proposers.len());
                self.proposers[n] = self.proposer(u8::try_from(n).unwrap());
                self.ask(n);
            }
            1 if self.forgetful => {
                let n = self.random.below(self.stewards.len());
                self.stewards[n] = Steward::after(BEFORE);
            }
            2 => {
                let by = self.random.below(3_000) as u64;
                self.pass(by);
            }
            _ if self.post.is_empty() => self.pass(1_000),
            _ => {
                let at = self.random.below(self.post.len());
                let message = match self.random.below(10) {
                    0 => self.post[at].clone(),
                    _ => self.post.swap_remove(at),
                };
                if self.random.below(6) != 0 {
                    self.deliver(message);
                }
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        for n in 0..self.proposers.len() {
            let random = self.number();
            self.proposers[n].tick(self.now, random);
            self.ask(n);
        }
    }

    /// A good network, with ticks a second apart as a server has them.
    fn quiet(&mut self, seconds: u64) {
        for _ in 0..seconds {
            while !self.post.is_empty() {
                let message = self.post.remove(0);
                self.deliver(message);
            }
            if !self.made.is_empty() {
                return;
            }
            self.pass(1_000);
        }
    }
}

#[test]
fn whatever_is_lost_repeated_or_restarted_one_record_is_made_and_soon_once_it_is_quiet() {
    let (mut in_trouble, mut slowest) = (0, 0);
    for seed in 0..200 {
        for (stewards, proposers) in [(1, 2), (3, 2), (3, 3), (5, 2)] {
            let mut network = Network::new(seed, stewards, proposers);
            (0..usize::from(proposers)).for_each(|n| network.ask(n));
            for _ in 0..300 {
                network.trouble();
            }
            in_trouble += usize::from(!network.made.is_empty());
            let quiet_from = network.now;
            network.quiet(300);
            let what = format!("SEED={seed} {stewards} stewards, {proposers} proposers");
            assert_eq!(network.made.len(), 1, "{what}: {:?}", network.made);
            let made_at = network.made_at.unwrap();
            slowest = slowest.max(made_at.0.saturating_sub(quiet_from.0));
            // Whoever asks later is bound to the same.
            let late = network.proposers.len();
            let proposer = network.proposer(u8::try_from(late).unwrap());
            network.proposers.push(proposer);
            network.ask(late);
            network.made.clear();
            network.quiet(300);
            assert_eq!(network.made.len(), 1, "{what}");
            for _ in 0..200 {
                network.trouble();
            }
            assert_eq!(network.made.len(), 1, "{what}, again");
        }
    }
    assert!(in_trouble > 200, "{in_trouble} of 800 were made in trouble");
    assert!(slowest <= 120_000, "{slowest} ms after the last trouble");
}

#[test]
fn stewards_that_forget_at_a_restart_are_caught() {
    let twins = (0..200).any(|seed| {
        let mut network = Network::new(seed, 3, 3);
        network.forgetful = true;
        (0..3).for_each(|n| network.ask(n));
        (0..2_000).for_each(|_| network.trouble());
        network.made.len() > 1
    });
    assert!(twins);
}

#[test]
fn a_step_of_the_clock_backwards_stops_no_proposer() {
    let mut network = Network::new(1, 3, 1);
    network.stewards.truncate(1);
    network.ask(0);
    network.post.clear();
    // No majority answers; then the clock is set back by a day.
    network.pass(10_000);
    network.now = Timestamp(network.now.0 - 24 * 3_600 * 1_000);
    network.stewards = (0..3).map(|_| Steward::after(BEFORE)).collect();
    network.quiet(200);
    assert!(
        network.made.is_empty(),
        "its ballots are ahead of the clock"
    );
    let proposer = network.proposer(0);
    network.proposers = vec![proposer];
    network.ask(0);
    network.quiet(200);
    assert_eq!(network.made.len(), 1);
}

#[test]
fn a_steward_that_holds_a_newer_record_is_told_of() {
    let mut network = Network::new(1, 3, 1);
    let newer = RootRef { n: 5, ..BEFORE };
    let [first, ..] = &network.proposers[0].ask(network.now)[..] else {
        panic!("nobody was asked");
    };
    let StewardMessage::Prepare { before, ballot } = first.1 else {
        panic!("{first:?}");
    };
    let declined = StewardMessage::Declined {
        before,
        ballot,
        why: Declined::Elsewhere(newer),
    };
    let now = network.now;
    let heard = network.proposers[0].heard(now, 0, server(1), declined, keys);
    assert_eq!(heard, Heard::Lags(newer));
}
