//! What will happen in a run, decided beforehand: each step has numbers of its own, so that the
//! others stay what they are when one is left out.

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

/// When the rest after part `nth` begins and when its look is taken.
pub(crate) fn rest(options: &Options, nth: u64) -> (u64, u64) {
    let end = options.length_ms / RESTS * (nth + 1);
    // Every other one begins with a new contact, after which everybody is whole in 30 s. In the
    // others links stay up, and what they missed is found by the next round.
    let length = if nth.is_multiple_of(2) {
        HEALS_MS
    } else {
        ROUNDS_MS
    };
    (end.saturating_sub(length), end)
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
