//! When a client tries again: full jitter under a ceiling that grows from 0.5 s to 60 s.
//! Source: `spec/06-client-protocol.md`, section 6.

use crate::limits::{RECONNECT_MAX_MS, RECONNECT_MIN_MS};

/// Failures after which the ceiling is at its highest.
const FAILURES_MAX: u32 = 32;

/// Counts failed tries in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure and gives the wait before the next try, in milliseconds: uniform between
    /// the shortest wait and a ceiling, so that clients cut off together come back spread out.
    /// The ceiling grows by a fifth each time, which keeps it below half of the time that was
    /// spent waiting: who was away for ten seconds is not kept away for another ten. `random` is
    /// any uniform number.
    #[must_use]
    pub fn failed(&mut self, random: u64) -> u64 {
        let mut ceiling = RECONNECT_MIN_MS;
        for _ in 0..self.failures {
            ceiling = (ceiling * 6 / 5).min(RECONNECT_MAX_MS);
        }
        self.failures = (self.failures + 1).min(FAILURES_MAX);
        if ceiling == RECONNECT_MIN_MS {
            return random % RECONNECT_MIN_MS + RECONNECT_MIN_MS / 2;
        }
        RECONNECT_MIN_MS + random % (ceiling - RECONNECT_MIN_MS + 1)
    }

    /// A session was opened: the next failure starts from the shortest wait again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest_wait(backoff: Backoff) -> u64 {
        (0..RECONNECT_MAX_MS)
            .map(|random| Backoff::failed(&mut { backoff }, random))
            .max()
            .unwrap()
    }

    #[test]
    fn waits_grow_to_a_minute_and_start_again_after_success() {
        let mut backoff = Backoff::default();
        assert_eq!(longest_wait(backoff), 749);
        let _ = backoff.failed(0);
        assert_eq!(longest_wait(backoff), 600);
        for _ in 0..FAILURES_MAX {
            let _ = backoff.failed(0);
        }
        assert_eq!(longest_wait(backoff), RECONNECT_MAX_MS);
        backoff.succeeded();
        assert_eq!(longest_wait(backoff), 749);
    }

    #[test]
    fn after_ten_seconds_of_mean_waits_no_wait_is_longer_than_five() {
        let (mut backoff, mut waited) = (Backoff::default(), 0);
        while waited < 10_000 {
            waited += u64::midpoint(RECONNECT_MIN_MS, longest_wait(backoff));
            let _ = backoff.failed(0);
        }
        assert!(longest_wait(backoff) <= 5_000, "{}", longest_wait(backoff));
    }

    #[test]
    fn no_wait_is_below_a_quarter_second() {
        let mut backoff = Backoff::default();
        assert!((0..40).all(|_| backoff.failed(0) >= 250));
    }
}
