//! For how long a peer was not reached. Source: `spec/04-authority.md`, section 6.
//!
//! Only time counts in which this server ran and tried: a server that was switched off knows nothing
//! about others. A count that was lost makes the wait longer, never shorter.

use crate::time::Timestamp;

/// Time between two looks that counts at most, in milliseconds: in a longer one the machine slept.
const LOOK_MS_MAX: u64 = 10_000;
/// The count is stored each time it grew by this much, in milliseconds.
const STORE_EVERY_MS: u64 = 3_600_000;
/// After a start nothing is said before this much was tried in vain, in milliseconds: that the peer
/// was reached just before may have been lost.
const TRIED_MIN_MS: u64 = 3_600_000;

/// Time without a word from a peer, by a monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Unreached {
    ms: u64,
    /// Of these, since the start.
    since_start_ms: u64,
    stored_ms: u64,
    looked_at: Option<Timestamp>,
}

impl Unreached {
    /// As it was stored.
    pub(super) const fn restored(ms: u64) -> Self {
        Self {
            ms,
            since_start_ms: 0,
            stored_ms: ms,
            looked_at: None,
        }
    }

    pub(super) const fn ms(&self) -> u64 {
        if self.since_start_ms < TRIED_MIN_MS {
            0
        } else {
            self.ms
        }
    }

    /// Looks whether the peer is reached now; gives what is to be stored, if anything.
    pub(super) fn look(&mut self, now: Timestamp, reached: bool) -> Option<u64> {
        let since = self.looked_at.replace(now);
        if reached {
            (self.ms, self.since_start_ms) = (0, 0);
        } else if let Some(since) = since {
            let passed = now.0.saturating_sub(since.0).min(LOOK_MS_MAX);
            self.ms += passed;
            self.since_start_ms += passed;
        }
        let news = self.ms < self.stored_ms || self.ms >= self.stored_ms + STORE_EVERY_MS;
        news.then(|| {
            self.stored_ms = self.ms;
            self.ms
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;

    /// Half a second a tick, as a server has them.
    fn pass(unreached: &mut Unreached, now: &mut u64, ms: u64, reached: bool) -> Vec<u64> {
        let until = *now + ms;
        let mut stored = Vec::new();
        while *now < until {
            *now += 500;
            stored.extend(unreached.look(Timestamp(*now), reached));
        }
        stored
    }

    #[test]
    fn only_time_tried_in_vain_counts_and_one_word_ends_it() {
        let (mut unreached, mut now) = (Unreached::default(), 0);
        pass(&mut unreached, &mut now, DAY_MS, false);
        let counted = unreached.ms();
        assert!((DAY_MS - 500..=DAY_MS).contains(&counted), "{counted}");
        // Asleep for a week: seconds of it count.
        now += 7 * DAY_MS;
        pass(&mut unreached, &mut now, 500, false);
        assert!(unreached.ms() <= DAY_MS + 2 * LOOK_MS_MAX);
        assert_eq!(pass(&mut unreached, &mut now, 500, true), [0]);
        assert_eq!(unreached.ms(), 0);
    }

    #[test]
    fn a_restart_never_shortens_the_wait_and_costs_it_an_hour_at_most() {
        let (mut unreached, mut now, mut stored) = (Unreached::default(), 0, 0);
        let mut true_ms = 0;
        for life in 1..=40 {
            let ms = 7 * 3_600_000 + life * 60_000;
            for newest in pass(&mut unreached, &mut now, ms, false) {
                stored = newest;
            }
            true_ms += ms;
            assert!(unreached.ms() <= true_ms);
            unreached = Unreached::restored(stored);
            assert_eq!(unreached.ms(), 0, "it has not tried in this life yet");
            // Off for a day, on a clock that begins anew.
            now = life;
        }
        assert!(stored + 41 * STORE_EVERY_MS >= true_ms);
        pass(&mut unreached, &mut now, TRIED_MIN_MS + 500, false);
        assert!(unreached.ms() > 6 * DAY_MS, "{}", unreached.ms());
    }
}
