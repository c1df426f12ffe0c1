//! When a client tries again: full jitter, doubling from 0.5 s to 60 s.
//! Source: `spec/06-client-protocol.md`, section 6.

use crate::limits::{RECONNECT_MAX_MS, RECONNECT_MIN_MS};

/// Counts failed tries in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure and gives the wait before the next try, in milliseconds: uniform between
    /// the shortest wait and a ceiling that doubles, so that clients cut off together come back
    /// spread out. `random` is any uniform number.
    #[must_use]
    pub fn failed(&mut self, random: u64) -> u64 {
        let ceiling = RECONNECT_MIN_MS
            .saturating_mul(1 << self.failures.min(32))
            .clamp(RECONNECT_MIN_MS, RECONNECT_MAX_MS);
        self.failures = self.failures.saturating_add(1);
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
        assert_eq!(longest_wait(backoff), 1_000);
        for _ in 0..20 {
            let _ = backoff.failed(0);
        }
        assert_eq!(longest_wait(backoff), RECONNECT_MAX_MS);
        backoff.succeeded();
        assert_eq!(longest_wait(backoff), 749);
    }

    #[test]
    fn no_wait_is_below_a_quarter_second() {
        let mut backoff = Backoff::default();
        assert!((0..40).all(|_| backoff.failed(0) >= 250));
    }
}
