//! Many hostile inputs for one target: counted, measured, and nothing hidden that went wrong.

use std::{
    cell::RefCell,
    panic::{self, AssertUnwindSafe},
    time::Instant,
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::{
    Target,
    allocation::{self, Usage},
    mutate,
    random::Random,
};

/// Bytes that a decoder may ask for in one piece whatever its input says: what serde believes of a
/// count before it has seen the items.
pub const PIECE_BYTES_FLAT: usize = 1024 * 1024;
/// Bytes that a decoder may ask for in one piece for each byte of its input: items in memory are
/// larger than on the wire, and lists grow by doubling.
pub const PIECE_BYTES_PER_BYTE: usize = 16;
/// Bytes that a machine may ask for in one piece: its queues are its own, and bounded.
pub const MACHINE_PIECE_BYTES: usize = 4 * 1024 * 1024;
/// Failures that are kept with their input.
const FAILURES_KEPT: usize = 3;
/// Bytes of an input that are kept with a failure.
const INPUT_KEPT: usize = 4 * 1024;

/// What one input did that none may do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// What was said.
    pub what: String,
    /// The input in hexadecimal, cut to a few thousand bytes.
    pub input: String,
}

/// What became of all inputs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// Inputs given.
    pub inputs: u64,
    /// Inputs that were not refused.
    pub taken: u64,
    /// Inputs longer than the decoder takes.
    pub oversize: u64,
    /// Inputs that made it panic, a broken promise among them.
    pub panics: u64,
    /// Inputs for which more memory was asked in one piece than [`piece_bytes_max`] says.
    pub too_large: u64,
    /// The largest piece of memory asked for, in bytes.
    pub largest_piece: usize,
    /// The length of the input that it was asked for.
    pub largest_piece_for: usize,
    /// The most memory held at once during one input, in bytes.
    pub peak: usize,
    /// The longest time that one input took, in microseconds; the machine's other work included.
    pub slowest_us: u64,
    /// Time that all took, in seconds.
    pub seconds: f64,
    /// The first failures.
    pub failures: Vec<Failure>,
}

/// The most memory that `target` may ask for in one piece for an input of this length.
#[must_use]
pub const fn piece_bytes_max(target: &Target, input: usize) -> usize {
    match target.form {
        crate::Form::Decoder => PIECE_BYTES_FLAT + PIECE_BYTES_PER_BYTE * input,
        crate::Form::Machine => MACHINE_PIECE_BYTES,
    }
}

/// Inputs of a run of `inputs` that the target gets: machines get fewer, since they do more.
#[must_use]
pub const fn inputs_of(target: &Target, inputs: u64) -> u64 {
    if target.one_in == 0 {
        return inputs;
    }
    inputs.div_ceil(target.one_in)
}

/// Gives `target` so many hostile inputs, the same for the same seed, after its seeds themselves.
/// Memory is measured if the program's allocator counts.
#[must_use]
pub fn run(target: &Target, seed: u64, inputs: u64) -> Report {
    let seeds = (target.seeds)();
    let mut random = Random::new(seed);
    let mut report = Report::default();
    let start = Instant::now();
    quietly(|| {
        // Whatever is made once a thread is made before anything is measured.
        let _ = panic::catch_unwind(|| seeds.first().is_some_and(|seed| (target.take)(seed)));
        let sound = seeds.iter().cloned().map(Some);
        for input in sound.chain(std::iter::repeat_with(|| None)) {
            if report.inputs >= inputs {
                break;
            }
            let input = input.unwrap_or_else(|| {
                mutate::hostile(&mut random, target.kind, &seeds, target.bytes_max)
            });
            one(target, &input, &mut report);
        }
    });
    report.seconds = start.elapsed().as_secs_f64();
    report
}

fn one(target: &Target, input: &[u8], report: &mut Report) {
    let before = Instant::now();
    let (outcome, usage) =
        allocation::measure(|| panic::catch_unwind(AssertUnwindSafe(|| (target.take)(input))));
    let took = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
    report.inputs += 1;
    report.slowest_us = report.slowest_us.max(took);
    report.oversize += u64::from(input.len() > target.bytes_max);
    match outcome {
        Ok(taken) => {
            report.taken += u64::from(taken);
            note_usage(target, input, usage, report);
        }
        Err(_) => {
            report.panics += 1;
            let what = LAST_WORDS.take();
            fail(report, input, what);
        }
    }
}

fn note_usage(target: &Target, input: &[u8], usage: Usage, report: &mut Report) {
    report.peak = report.peak.max(usage.peak);
    if usage.largest > report.largest_piece {
        report.largest_piece = usage.largest;
        report.largest_piece_for = input.len();
    }
    let max = piece_bytes_max(target, input.len());
    if usage.largest > max {
        report.too_large += 1;
        let len = input.len();
        let what = format!("{} bytes in one piece for an input of {len}", usage.largest);
        fail(report, input, what);
    }
}

fn fail(report: &mut Report, input: &[u8], what: String) {
    if report.failures.len() < FAILURES_KEPT {
        let input = HEXLOWER.encode(&input[..input.len().min(INPUT_KEPT)]);
        report.failures.push(Failure { what, input });
    }
}

thread_local! {
    static LAST_WORDS: RefCell<String> = const { RefCell::new(String::new()) };
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Keeps what panics on this thread say instead of printing it.
fn quietly(call: impl FnOnce()) {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                LAST_WORDS.set(info.to_string());
            } else {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    call();
    QUIET.set(false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, mutate::Kind};

    fn target(take: fn(&[u8]) -> bool) -> Target {
        Target {
            name: "planted",
            form: Form::Decoder,
            kind: Kind::Bytes,
            take,
            seeds: || vec![b"seed".to_vec()],
            bytes_max: 100,
            one_in: 1,
        }
    }

    #[test]
    fn a_panic_is_counted_and_kept_with_its_input_and_the_run_goes_on() {
        let planted = target(|bytes| {
            assert_ne!(bytes.first(), Some(&b's'), "planted");
            true
        });
        let report = run(&planted, 1, 2_000);
        assert_eq!(report.inputs, 2_000);
        assert!(report.panics > 100 && report.taken > 100, "{report:?}");
        assert_eq!(report.panics + report.taken, 2_000);
        assert_eq!(report.failures.len(), FAILURES_KEPT);
        assert!(report.failures[0].what.contains("planted"));
        assert!(report.failures[0].input.starts_with("73"));
    }

    #[test]
    fn runs_of_one_seed_are_the_same() {
        let planted = target(|bytes| bytes.len() % 2 == 0);
        let taken = |seed| run(&planted, seed, 1_000).taken;
        assert_eq!(taken(3), taken(3));
        assert!(run(&planted, 3, 20_000).oversize > 0);
    }
}
