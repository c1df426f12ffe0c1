//! The claim `core-speed` (P8): what the core itself adds to the signatures that it has to check.
//!
//! All figures are of one thread of this process, over histories with real signatures. The rate of
//! bare signature checks is measured between the rounds of what is compared with it. Broken, the
//! mechanisms are taken out: every event gets a commit of its own, every act judges the whole log
//! anew, every change of a document is applied by itself after loading a snapshot.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use comity_fuzz::work;
use comity_protocol::document::PackDocument;

use crate::{
    claims::{Claim, Context, Outcome, Promise, Run},
    machine::verify_per_s,
};

/// Commits, acts, and changes of a document: the size that the limits are about.
const SIZE: usize = 10_000;
/// Events appended in one round.
const APPENDED: usize = 10_000;
/// Events of a commit where many wait.
const COMMIT_EVENTS: usize = 256;
/// Acts added one by one to a log of [`SIZE`].
const MORE_ACTS: usize = 200;
/// The same, broken: each judges the whole log.
const MORE_ACTS_BROKEN: usize = 5;
/// Changes applied at once.
const BATCH: usize = 100;
/// Changes, broken: each loads the document.
const CHANGES_BROKEN: usize = 200;
/// Rounds of each measurement. Of ratios the middle one counts, of times the best: what else the
/// machine does only adds to them.
const ROUNDS: usize = 5;
/// The same when time is short.
const ROUNDS_QUICK: usize = 3;
/// Time in which the rate of bare signature checks is known.
const VERIFY: Duration = Duration::from_millis(200);

/// Events appended for each signature that could have been checked instead.
const APPEND_RATIO_MIN: f64 = 0.6;
/// Milliseconds to resolve a log of [`SIZE`] acts whose signatures were verified.
const RESOLVE_MS_MAX: f64 = 200.0;
/// Milliseconds for one act more: nineteen of twenty take at most this.
const ONE_MORE_MS_MAX: f64 = 1.0;
/// Microseconds for a change of a document in a batch.
const CHANGE_US_MAX: f64 = 15.0;
/// Seconds to catch up with [`SIZE`] commits.
const CATCH_UP_S_MAX: f64 = 2.0;

/// The claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoreSpeed;

impl Claim for CoreSpeed {
    fn name(&self) -> &'static str {
        "core-speed"
    }

    fn says(&self) -> &'static str {
        "validating and appending runs at 0.6 of the rate of bare signature checks; 10,000 acts are \
         resolved in 200 ms and one more in 1 ms; a change of a document takes 15 us in batches; \
         10,000 commits are caught up with in 2 s"
    }

    fn promise(&self) -> Promise {
        Promise::P8
    }

    fn quick(&self) -> bool {
        // Its limits are times: no test run on a busy machine is to fall by them.
        false
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a> {
        let rounds = if context.quick || broken {
            ROUNDS_QUICK
        } else {
            ROUNDS
        };
        Box::pin(async move {
            // Only a thread of its own may be kept busy; it ends by itself within seconds.
            let measured = tokio::task::spawn_blocking(move || measure(rounds, broken)).await?;
            Ok(measured.outcome())
        })
    }
}

#[derive(Debug)]
struct Measured {
    rounds: u64,
    verify_per_s: f64,
    append_per_s: f64,
    /// Of each round its own: other work on the machine slows both.
    append_ratio: f64,
    resolve_ms: f64,
    one_more_p50_ms: f64,
    one_more_p95_ms: f64,
    change_us: f64,
    change_single_us: f64,
    catch_up_s: f64,
    catch_up_signatures: u64,
}

fn measure(rounds: usize, broken: bool) -> Measured {
    let (verify, append, ratio) = append(rounds, broken);
    let (resolve_ms, p50, p95) = resolve(rounds, broken);
    let (catch_up_s, signatures) = catch_up(rounds);
    Measured {
        rounds: rounds as u64,
        verify_per_s: verify,
        append_per_s: append,
        append_ratio: ratio,
        resolve_ms,
        one_more_p50_ms: p50,
        one_more_p95_ms: p95,
        change_us: change(rounds, broken),
        change_single_us: single_change(),
        catch_up_s,
        catch_up_signatures: signatures,
    }
}

/// The time that `call` takes, in seconds; what it gives is dropped after that.
pub(super) fn seconds<T>(call: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    let value = black_box(call());
    let took = start.elapsed().as_secs_f64();
    drop(value);
    took
}

/// The value that so many in a hundred do not exceed.
pub(super) fn at(hundredths: usize, mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    crate::machine::percentile(&values, 10 * hundredths).unwrap_or(f64::NAN)
}

/// The shortest time.
pub(super) fn best(times: impl Iterator<Item = f64>) -> f64 {
    times.fold(f64::INFINITY, f64::min)
}

/// Rates of bare checks and of appending, in events a second, and the one for the other.
fn append(rounds: usize, broken: bool) -> (f64, f64, f64) {
    let mut history = work::talk(SIZE);
    let batch = if broken { 1 } else { COMMIT_EVENTS };
    let (mut bare, mut rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut machine = work::machine(&history);
        let sent = work::sent(&mut history.world, APPENDED);
        let before = verify_per_s(VERIFY);
        let took = seconds(|| {
            let appended = work::append(&mut machine, &history.world, sent, batch);
            assert_eq!(appended, APPENDED, "all that was sent stands");
        });
        let bare_now = f64::midpoint(before, verify_per_s(VERIFY));
        let rate = APPENDED as f64 / took;
        bare.push(bare_now);
        rates.push(rate);
        ratios.push(rate / bare_now);
    }
    (at(50, bare), at(50, rates), at(50, ratios))
}

/// Milliseconds to resolve a whole log, and for one act more: the middle one, and nineteen of twenty.
fn resolve(rounds: usize, broken: bool) -> (f64, f64, f64) {
    let history = work::acts(SIZE + MORE_ACTS);
    let log = work::verified(&history);
    let (first, more) = log.split_at(log.len() - MORE_ACTS);
    let cold = (0..rounds).map(|_| seconds(|| work::resolve(&history.world, first)) * 1e3);
    let cold = best(cold);
    let (mut graph, mut authority) = work::resolve(&history.world, first);
    let one_more: Vec<f64> = if broken {
        let ends = first.len() + 1..first.len() + 1 + MORE_ACTS_BROKEN;
        ends.map(|end| seconds(|| work::resolve(&history.world, &log[..end])) * 1e3)
            .collect()
    } else {
        let one = |one| seconds(|| work::resolve_one(&mut graph, &mut authority, one)) * 1e3;
        more.iter().map(one).collect()
    };
    (cold, at(50, one_more.clone()), at(95, one_more))
}

/// Microseconds a change, over a document that grows to [`SIZE`] changes in batches.
fn change(rounds: usize, broken: bool) -> f64 {
    if broken {
        return loaded_change();
    }
    let once = |_| {
        let changes = work::changes(0, SIZE);
        let mut document = PackDocument::new();
        seconds(|| {
            assert_eq!(
                work::apply(&mut document, changes, BATCH),
                0,
                "all are taken"
            )
        })
    };
    best((0..rounds).map(once)) * 1e6 / SIZE as f64
}

/// The same one by one, in a document of [`SIZE`] changes.
fn single_change() -> f64 {
    let mut document = PackDocument::new();
    work::apply(&mut document, work::changes(0, SIZE), BATCH);
    let more = work::changes(SIZE, CHANGES_BROKEN);
    seconds(|| work::apply(&mut document, more, 1)) * 1e6 / CHANGES_BROKEN as f64
}

/// Broken: each change loads the document, is applied by itself, and the document is saved.
fn loaded_change() -> f64 {
    let mut document = PackDocument::new();
    work::apply(&mut document, work::changes(0, SIZE / 10), BATCH);
    let Ok(mut snapshot) = document.save() else {
        return f64::NAN;
    };
    let took = seconds(|| {
        for change in work::changes(SIZE / 10, CHANGES_BROKEN) {
            if let Ok(mut loaded) = PackDocument::load(&snapshot, &document.heads()) {
                work::apply(&mut loaded, vec![change], 1);
                snapshot = loaded.save().unwrap_or_default();
                document = loaded;
            }
        }
    });
    took * 1e6 / CHANGES_BROKEN as f64
}

/// Seconds to catch up with a history, and the signatures in it.
fn catch_up(rounds: usize) -> (f64, u64) {
    let history = work::talk(SIZE);
    let frames = work::frames(&history);
    let events: usize = (0..frames.len()).map(|at| history.events(at).len()).sum();
    let once = |_| {
        seconds(|| {
            let (machine, taken) = work::catch_up(&history.world, &frames);
            assert_eq!(taken, frames.len(), "all of it is taken");
            machine
        })
    };
    let took = best((0..rounds).map(once));
    (took, (frames.len() + events) as u64)
}

impl Measured {
    fn outcome(&self) -> Outcome {
        Outcome::of(self.rounds)
            .figure("size", SIZE as u64)
            .figure("verify_strict_per_s", self.verify_per_s)
            .figure("append_per_s", self.append_per_s)
            .figure("append_ratio", self.append_ratio)
            .min("append_ratio", APPEND_RATIO_MIN)
            .figure("resolve_ms", self.resolve_ms)
            .max("resolve_ms", RESOLVE_MS_MAX)
            .figure("one_more_p50_ms", self.one_more_p50_ms)
            .figure("one_more_p95_ms", self.one_more_p95_ms)
            .max("one_more_p95_ms", ONE_MORE_MS_MAX)
            .figure("change_us", self.change_us)
            .max("change_us", CHANGE_US_MAX)
            .figure("change_single_us", self.change_single_us)
            .figure("catch_up_s", self.catch_up_s)
            .max("catch_up_s", CATCH_UP_S_MAX)
            .figure("catch_up_signatures", self.catch_up_signatures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::judge;

    fn at_the_limits() -> Measured {
        Measured {
            rounds: 3,
            verify_per_s: 20_000.0,
            append_per_s: 12_000.0,
            append_ratio: APPEND_RATIO_MIN,
            resolve_ms: RESOLVE_MS_MAX,
            one_more_p50_ms: 0.1,
            one_more_p95_ms: ONE_MORE_MS_MAX,
            change_us: CHANGE_US_MAX,
            change_single_us: 40.0,
            catch_up_s: CATCH_UP_S_MAX,
            catch_up_signatures: 20_000,
        }
    }

    fn holds(change: impl Fn(&mut Measured)) -> bool {
        let mut measured = at_the_limits();
        change(&mut measured);
        judge(&measured.outcome()).0.is_empty()
    }

    #[test]
    fn each_figure_beyond_its_limit_makes_it_false() {
        assert!(holds(|_| ()));
        assert!(!holds(|m| m.append_ratio = 0.59));
        assert!(!holds(|m| m.resolve_ms = 201.0));
        assert!(!holds(|m| m.one_more_p95_ms = 1.01));
        assert!(!holds(|m| m.change_us = 15.1));
        assert!(!holds(|m| m.catch_up_s = 2.01));
        assert!(!holds(|m| m.change_us = f64::NAN));
    }
}
