//! How the way from one host to another is.

use serde::{Deserialize, Serialize};

/// Longest delay, and longest jitter, in microseconds.
pub const DELAY_US_MAX: u64 = 10_000_000;
/// Slowest rate that can be set, in bytes a second: below it one packet takes more than a second.
pub const RATE_MIN: u64 = 1_500;
/// Longest queue before a slow way, in microseconds of waiting.
pub const QUEUE_US_MAX: u64 = 10_000_000;
/// A chance that is certainty: chances are parts of a million.
pub const CERTAIN_PPM: u32 = 1_000_000;

/// The way of packets from one host to another, one direction only. By default a perfect one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Time that a packet is under way, in microseconds.
    pub delay_us: u64,
    /// Up to so much more, drawn for each packet, in microseconds. Packets do not overtake each
    /// other by it.
    pub jitter_us: u64,
    /// Chance that a packet is lost, in parts of a million.
    pub loss_ppm: u32,
    /// Chance that a packet is held back, so that those behind it overtake it, in parts of a
    /// million.
    pub reorder_ppm: u32,
    /// Bytes that go through in a second; 0 is without limit.
    pub rate: u64,
    /// With a rate: a packet that had to wait longer than this before it is sent is dropped, in
    /// microseconds.
    pub queue_us: u64,
    /// Nothing gets through, also not what was under way when the rule was set.
    pub cut: bool,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            delay_us: 0,
            jitter_us: 0,
            loss_ppm: 0,
            reorder_ppm: 0,
            rate: 0,
            queue_us: 200_000,
            cut: false,
        }
    }
}

/// A rule asks for what the router does not do; the rule before stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Delay or jitter is too long.
    #[error("delay and jitter are at most {DELAY_US_MAX} microseconds each")]
    Delay,
    /// A chance above certainty.
    #[error("chances are parts of a million, at most {CERTAIN_PPM}")]
    Chance,
    /// A rate at which nothing moves.
    #[error("a rate is 0, which is no limit, or at least {RATE_MIN} bytes a second")]
    Rate,
    /// A queue that is too long.
    #[error("a queue holds at most {QUEUE_US_MAX} microseconds")]
    Queue,
}

impl Rule {
    /// Whether the router can do this.
    ///
    /// # Errors
    ///
    /// [`RuleError`], for the first value that is out of its range.
    pub fn check(&self) -> Result<(), RuleError> {
        if self.delay_us > DELAY_US_MAX || self.jitter_us > DELAY_US_MAX {
            return Err(RuleError::Delay);
        }
        if self.loss_ppm > CERTAIN_PPM || self.reorder_ppm > CERTAIN_PPM {
            return Err(RuleError::Chance);
        }
        if self.rate != 0 && self.rate < RATE_MIN {
            return Err(RuleError::Rate);
        }
        if self.queue_us > QUEUE_US_MAX {
            return Err(RuleError::Queue);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_outside_their_ranges_are_refused() {
        let good = Rule::default();
        assert_eq!(good.check(), Ok(()));
        let delay_us = DELAY_US_MAX + 1;
        assert_eq!(Rule { delay_us, ..good }.check(), Err(RuleError::Delay));
        let loss_ppm = CERTAIN_PPM + 1;
        assert_eq!(Rule { loss_ppm, ..good }.check(), Err(RuleError::Chance));
        let rate = RATE_MIN - 1;
        assert_eq!(Rule { rate, ..good }.check(), Err(RuleError::Rate));
        let queue_us = QUEUE_US_MAX + 1;
        assert_eq!(Rule { queue_us, ..good }.check(), Err(RuleError::Queue));
    }

    #[test]
    fn a_misspelt_value_is_refused_and_not_ignored() {
        assert!(serde_json::from_str::<Rule>(r#"{"delay_ms": 5}"#).is_err());
        let rule: Rule = serde_json::from_str(r#"{"delay_us": 5}"#).unwrap();
        assert_eq!(rule.delay_us, 5);
        assert_eq!(rule.queue_us, Rule::default().queue_us);
    }
}
