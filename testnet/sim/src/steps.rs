//! What will happen in a run, decided beforehand: each step has numbers of its own, so that the
//! others stay what they are when one is left out.

use comity_protocol::limits::{DAY_MS, SUCCESSION_MS};

use crate::{faults::Kind, options::Options, random::Random};

/// Acts of users in an hour.
const ACTS_AN_HOUR: u64 = 1_900;
/// Times that each kind of fault happens in an hour.
const FAULTS_AN_HOUR: u64 = 2;
/// Rests in a run, each with a look at everything.
pub(crate) const RESTS: u64 = 4;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum What {
    /// A user makes a group.
    Group,
    /// A user does something.
    Act,
    /// Something goes wrong.
    Fault(Kind),
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Step {
    pub(crate) at: u64,
    /// Decides the details.
    pub(crate) seed: u64,
    pub(crate) what: What,
}

/// When the rest after part `nth` begins and when its look is taken. A night follows.
pub(crate) fn rest(options: &Options, nth: u64) -> (u64, u64) {
    let look = options.length_ms / RESTS * (nth + 1) - NIGHT_MS;
    // Every other one begins with a new contact, after which everybody is whole in 30 s. In the
    // others links stay up, and what they missed is found by the next round.
    let length = if nth.is_multiple_of(2) {
        HEALS_MS
    } else {
        ROUNDS_MS
    };
    (look.saturating_sub(length), look)
}

/// From a look until the next morning: time to erase what became too old in the night, a
/// conversation a second.
pub(crate) const NIGHT_MS: u64 = 90_000;
/// Servers are away for so long at the end of some runs: longer than a succession takes.
pub(crate) const AWAY_MS: u64 = SUCCESSION_MS + DAY_MS;
/// If they are seen again meanwhile, after so long, and for so long.
pub(crate) const SEEN_AFTER_MS: u64 = 12 * DAY_MS;
pub(crate) const SEEN_MS: u64 = 600_000;
/// Acts of users meanwhile.
const ACTS_MEANWHILE: u64 = 150;

/// Whether servers are away for a month at the end.
pub(crate) const fn has_absence(options: &Options) -> bool {
    options.servers >= 4 && options.seed.is_multiple_of(4)
}

/// Whether they are seen again meanwhile.
pub(crate) const fn is_seen_again(options: &Options) -> bool {
    options.seed.is_multiple_of(8)
}

/// When the run is over.
pub(crate) fn end(options: &Options) -> u64 {
    let away = if has_absence(options) {
        AWAY_MS + HEALS_MS + 1
    } else {
        0
    };
    options.length_ms / RESTS * RESTS + away
}

/// Whole after contact, with the second that it takes to connect.
pub(crate) const HEALS_MS: u64 = 31_000;
/// Whole without a new contact: the longest pause between two rounds, and the same 30 s.
pub(crate) const ROUNDS_MS: u64 = 121_000;

/// All steps of a run, in order.
pub(crate) fn steps(options: &Options) -> Vec<Step> {
    let mut random = Random::new(options.seed, 1);
    let mut steps = Vec::new();
    let hours = |an_hour: u64| an_hour * options.length_ms / 3_600_000;
    for _ in 0..12 {
        let (at, seed) = (random.between(1_000, 60_000), random.step());
        let what = What::Group;
        steps.push(Step { at, seed, what });
    }
    // Lively at first, so that conversations have members before much goes wrong.
    for nth in 0..hours(ACTS_AN_HOUR) {
        let early = nth < 200;
        let at = if early {
            random.between(60_000, 300_000)
        } else {
            anywhere(options, &mut random)
        };
        let (seed, what) = (random.step(), What::Act);
        steps.push(Step { at, seed, what });
    }
    for kind in Kind::ALL {
        for _ in 0..hours(FAULTS_AN_HOUR).max(1) {
            let (at, seed) = (anywhere(options, &mut random), random.step());
            let what = What::Fault(*kind);
            steps.push(Step { at, seed, what });
        }
    }
    if has_absence(options) {
        let from = options.length_ms;
        for _ in 0..ACTS_MEANWHILE {
            let at = random.between(from + 1_000, from + AWAY_MS);
            let (seed, what) = (random.step(), What::Act);
            steps.push(Step { at, seed, what });
        }
    }
    steps.sort_unstable();
    steps.truncate(options.steps.unwrap_or(usize::MAX));
    let out =
        |step: &Step| matches!(step.what, What::Fault(kind) if options.without.contains(&kind));
    steps.retain(|step| !out(step));
    steps
}

/// A time outside the rests.
fn anywhere(options: &Options, random: &mut Random) -> u64 {
    let part = random.below(RESTS);
    let (until, _) = rest(options, part);
    let from = options.length_ms / RESTS * part;
    random.between(from.max(60_000), until)
}
