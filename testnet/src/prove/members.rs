//! The claim `members` (P8): what one act more costs does not grow with the group.
//!
//! Groups of three sizes with real signatures, judged on one thread of this process. For each kind of
//! act the middle one of several counts, and of the kinds the worst. Broken, what is known already is
//! forgotten: every act judges the whole history anew.

use std::{hint::black_box, time::Duration};

use comity_fuzz::{
    allocation,
    work::{self, Crowd, One},
};

use super::core_speed::{at, best, seconds};
use crate::{
    claims::{Claim, Context, Outcome, Promise, Run},
    machine::verify_per_s,
};

/// Members of each group.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// How often each kind of act is done.
const EACH: usize = 40;
/// The same, broken.
const EACH_BROKEN: usize = 1;
/// Acts between the two checkpoints of which the second is measured.
const BETWEEN: usize = 100;
/// Rounds of what is measured as a whole; the best counts.
const ROUNDS: usize = 3;
/// Proofs made in a row.
const PROOFS: usize = 1_000;
/// Time in which the rate of bare signature checks is known.
const VERIFY: Duration = Duration::from_millis(200);

/// Microseconds for one act more, of the worst kind: a few checks of signatures.
const ONE_MORE_US_MAX: f64 = 200.0;
/// So many times what it costs in the smallest group may it cost in the largest: what it looks up no
/// longer lies in the processor's caches, and trees are higher. What walked over the members would
/// cost a hundred times as much.
const GROWTH_MAX: f64 = 20.0;
/// Judging a member's whole history, for the one or two signatures in it that had to be checked.
const COLD_RATIO_MAX: f64 = 0.5;
/// Bytes kept for a member and all that he did.
const MEMBER_BYTES_MAX: f64 = 1_000.0;
/// Milliseconds for a checkpoint of [`BETWEEN`] acts, made and taken; every member's leaf is hashed
/// twice. It comes once in a thousand acts.
const CHECKPOINT_MS_MAX: f64 = 1_000.0;
/// Microseconds for a proof.
const PROOF_US_MAX: f64 = 50.0;

/// The claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members;

impl Claim for Members {
    fn name(&self) -> &'static str {
        "members"
    }

    fn says(&self) -> &'static str {
        "in a group of 100,000 members one act more of any kind takes 200 us and at most 20 times \
         what it takes among 1,000; a member takes 1,000 bytes, a checkpoint of 100 acts a second"
    }

    fn promise(&self) -> Promise {
        Promise::P8
    }

    fn quick(&self) -> bool {
        // Its limits are times: no test run on a busy machine is to fall by them.
        false
    }

    fn run<'a>(&'a self, _: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(async move {
            // Only a thread of its own may be kept busy; it ends by itself within a minute.
            let measured = tokio::task::spawn_blocking(move || measure(broken)).await?;
            Ok(measured.outcome())
        })
    }
}

/// One group.
#[derive(Clone, Copy, Debug)]
struct Size {
    cold_ms: f64,
    kept_bytes: u64,
    /// The worst of the kinds, by its middle one and by the one that nineteen of twenty do not exceed.
    one_more_us: f64,
    one_more_p95_us: f64,
    digest_ms: f64,
    proof_us: f64,
    checkpoint_ms: f64,
}

#[derive(Debug)]
struct Measured {
    verify_per_s: f64,
    small: Size,
    middle: Size,
    large: Size,
}

fn measure(broken: bool) -> Measured {
    let before = verify_per_s(VERIFY);
    let [small, middle, large] = SIZES.map(|size| measure_size(size, broken));
    Measured {
        verify_per_s: f64::midpoint(before, verify_per_s(VERIFY)),
        small,
        middle,
        large,
    }
}

/// The time that `call` takes, in microseconds.
fn micros<T>(call: impl FnOnce() -> T) -> f64 {
    seconds(call) * 1e6
}

fn measure_size(size: usize, broken: bool) -> Size {
    let mut crowd = work::crowd(size);
    let log = work::verified(&crowd.history);
    let cold = best((0..ROUNDS).map(|_| micros(|| work::resolve(&crowd.history.world, &log))));
    let (resolved, usage) = allocation::measure(|| work::resolve(&crowd.history.world, &log));
    drop(resolved);
    let (one_more_us, one_more_p95_us) = one_more(&mut crowd, broken);
    let (digest_us, proof_us, checkpoint_us) = records(&mut crowd);
    Size {
        cold_ms: cold / 1e3,
        kept_bytes: (usage.kept / size) as u64,
        one_more_us,
        one_more_p95_us,
        digest_ms: digest_us / 1e3,
        proof_us,
        checkpoint_ms: checkpoint_us / 1e3,
    }
}

/// Microseconds for one act more of the worst kind.
fn one_more(crowd: &mut Crowd, broken: bool) -> (f64, f64) {
    let mut log = work::verified(&crowd.history);
    let (mut graph, mut authority) = work::resolve(&crowd.history.world, &log);
    let mut times = One::ALL.map(|_| Vec::new());
    for _ in 0..if broken { EACH_BROKEN } else { EACH } {
        for (one, times) in One::ALL.iter().zip(&mut times) {
            let at = crowd.one_more(*one);
            let more = work::verified_at(&crowd.history, at);
            times.push(if broken {
                log.push(more);
                micros(|| work::resolve(&crowd.history.world, &log))
            } else {
                micros(|| {
                    let stood = work::resolve_one(&mut graph, &mut authority, &more);
                    assert_eq!(stood, 1, "a {} stands", one.name());
                })
            });
        }
    }
    times
        .into_iter()
        .fold((0.0, 0.0), |worst: (f64, f64), times| {
            // A figure that is missing is worse than any.
            let worse = |a: f64, b: f64| if b.is_nan() { b } else { a.max(b) };
            let middle = worse(worst.0, at(50, times.clone()));
            (middle, worse(worst.1, at(95, times)))
        })
}

/// Microseconds for the digest, for a proof, and for a checkpoint of a few acts.
fn records(crowd: &mut Crowd) -> (f64, f64, f64) {
    let mut machine = work::machine(&crowd.history);
    let frontier = machine
        .authority()
        .frontier_for_record(machine.graph(), work::NOW);
    let members = machine.authority().members_at(machine.graph(), &frontier);
    let Some((members, _)) = members else {
        return (f64::NAN, f64::NAN, f64::NAN);
    };
    let digest = best((0..ROUNDS).map(|_| micros(|| members.digest())));
    let tree = members.tree();
    let (root, leaves) = (tree.digest(), members.leaves());
    let one = leaves[leaves.len() / 2];
    let proof = micros(|| {
        for _ in 0..PROOFS {
            black_box(tree.prove(&one.user));
        }
    });
    let proven = tree.prove(&one.user);
    assert!(proven.is_some_and(|proof| proof.holds(&one, &root)));
    work::checkpoint(&mut machine, &crowd.history.world);
    let checkpoint = (0..ROUNDS).map(|_| {
        for _ in 0..BETWEEN {
            let at = crowd.one_more(One::Join);
            work::restore_one(&mut machine, &crowd.history, at);
        }
        micros(|| work::checkpoint(&mut machine, &crowd.history.world))
    });
    (digest, proof / PROOFS as f64, best(checkpoint))
}

impl Measured {
    fn outcome(&self) -> Outcome {
        let (small, middle, large) = (self.small, self.middle, self.large);
        let per_member_us = large.cold_ms * 1e3 / SIZES[2] as f64;
        let largest = [small, middle, large].map(|size| size.kept_bytes);
        Outcome::of(ROUNDS as u64)
            .figure("verify_strict_per_s", self.verify_per_s)
            .figure("cold_ms_1k", small.cold_ms)
            .figure("cold_ms_10k", middle.cold_ms)
            .figure("cold_ms_100k", large.cold_ms)
            .figure("cold_ratio", per_member_us * self.verify_per_s / 1e6)
            .max("cold_ratio", COLD_RATIO_MAX)
            .figure("one_more_us_1k", small.one_more_us)
            .figure("one_more_us_10k", middle.one_more_us)
            .figure("one_more_us_100k", large.one_more_us)
            .figure("one_more_p95_us_100k", large.one_more_p95_us)
            .max("one_more_us_100k", ONE_MORE_US_MAX)
            .figure("one_more_growth", large.one_more_us / small.one_more_us)
            .max("one_more_growth", GROWTH_MAX)
            .figure("member_bytes_1k", small.kept_bytes)
            .figure("member_bytes_10k", middle.kept_bytes)
            .figure("member_bytes_100k", large.kept_bytes)
            // Whoever counts nothing finds nothing.
            .min("member_bytes_100k", 1.0)
            .figure("member_bytes", largest.into_iter().max().unwrap_or(0))
            .max("member_bytes", MEMBER_BYTES_MAX)
            .figure("digest_ms_1k", small.digest_ms)
            .figure("digest_ms_10k", middle.digest_ms)
            .figure("digest_ms_100k", large.digest_ms)
            .figure("proof_us_100k", large.proof_us)
            .max("proof_us_100k", PROOF_US_MAX)
            .figure("checkpoint_ms_1k", small.checkpoint_ms)
            .figure("checkpoint_ms_10k", middle.checkpoint_ms)
            .figure("checkpoint_ms_100k", large.checkpoint_ms)
            .max("checkpoint_ms_100k", CHECKPOINT_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::judge;

    const AT_THE_LIMITS: Size = Size {
        cold_ms: 2_500.0,
        kept_bytes: 1_000,
        one_more_us: ONE_MORE_US_MAX,
        one_more_p95_us: 300.0,
        digest_ms: 60.0,
        proof_us: PROOF_US_MAX,
        checkpoint_ms: CHECKPOINT_MS_MAX,
    };

    fn holds(change: impl Fn(&mut Measured)) -> bool {
        let mut measured = Measured {
            verify_per_s: 20_000.0,
            small: Size {
                one_more_us: 10.0,
                ..AT_THE_LIMITS
            },
            middle: AT_THE_LIMITS,
            large: AT_THE_LIMITS,
        };
        change(&mut measured);
        judge(&measured.outcome()).0.is_empty()
    }

    #[test]
    fn each_figure_beyond_its_limit_makes_it_false() {
        assert!(holds(|_| ()));
        assert!(!holds(|m| m.large.cold_ms = 2_501.0));
        assert!(!holds(|m| m.large.one_more_us = 201.0));
        assert!(!holds(|m| m.small.one_more_us = 9.9));
        assert!(!holds(|m| m.middle.kept_bytes = 1_001));
        assert!(!holds(|m| m.large.checkpoint_ms = 1_001.0));
        assert!(!holds(|m| m.large.proof_us = f64::NAN));
        let nothing_counted = |m: &mut Measured| {
            for size in [&mut m.small, &mut m.middle, &mut m.large] {
                size.kept_bytes = 0;
            }
        };
        assert!(!holds(nothing_counted));
    }
}
