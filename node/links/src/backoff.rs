//! Pauses between dials: full jitter, doubling, gentle during the first minute.

use std::time::{Duration, Instant};

use crate::limits::{
    BACKOFF_EARLY_MAX, BACKOFF_EARLY_SPAN, BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_MIN,
};

/// Failures since the last contact with one peer.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    first_failure: Option<Instant>,
    doublings: u32,
}

impl Backoff {
    /// Counts a failure at `now` and returns the pause until the next dial; `random` chooses
    /// within it.
    pub(crate) fn failed(&mut self, now: Instant, random: u32) -> Duration {
        let first = *self.first_failure.get_or_insert(now);
        let doubled = BACKOFF_FIRST.saturating_mul(1 << self.doublings.min(16));
        let early = now.saturating_duration_since(first) < BACKOFF_EARLY_SPAN;
        let longest = doubled.min(if early {
            BACKOFF_EARLY_MAX
        } else {
            BACKOFF_MAX
        });
        // The first minute's failures count once, so that the pauses after it start low too.
        if !early || self.doublings == 0 {
            self.doublings += 1;
        }
        longest
            .mul_f64(f64::from(random) / f64::from(u32::MAX))
            .max(BACKOFF_MIN)
    }

    /// There was contact, or the operator asked.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest_pauses(backoff: &mut Backoff, start: Instant, span: Duration) -> Vec<Duration> {
        let mut now = start;
        let mut pauses = Vec::new();
        while now < start + span {
            let pause = backoff.failed(now, u32::MAX);
            pauses.push(pause);
            now += pause;
        }
        pauses
    }

    #[test]
    fn first_minute_stays_short_then_doubles_to_the_limit() {
        let pauses = longest_pauses(
            &mut Backoff::default(),
            Instant::now(),
            Duration::from_secs(3_000),
        );
        assert_eq!(pauses[0], BACKOFF_FIRST);
        let (early, late) = pauses.split_at(31);
        assert!(
            early.iter().all(|pause| *pause <= BACKOFF_EARLY_MAX),
            "{early:?}"
        );
        assert!(
            late.windows(2)
                .all(|pair| pair[1] == (pair[0] * 2).min(BACKOFF_MAX)),
            "{late:?}"
        );
        assert_eq!(late.last(), Some(&BACKOFF_MAX));
    }

    #[test]
    fn contact_starts_over() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        longest_pauses(&mut backoff, start, Duration::from_secs(3_000));
        backoff.reset();
        assert_eq!(
            backoff.failed(start + Duration::from_secs(3_000), u32::MAX),
            BACKOFF_FIRST
        );
    }

    #[test]
    fn jitter_is_full_but_never_zero() {
        assert_eq!(Backoff::default().failed(Instant::now(), 0), BACKOFF_MIN);
        let half = Backoff::default().failed(Instant::now(), u32::MAX / 2);
        assert!(
            half > BACKOFF_FIRST / 3 && half < BACKOFF_FIRST * 2 / 3,
            "{half:?}"
        );
    }
}
