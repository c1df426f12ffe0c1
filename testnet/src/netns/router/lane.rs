//! The way from one host to another.

use super::{Counters, LANE_BYTES_MAX};
use crate::netns::rule::{CERTAIN_PPM, Rule};

/// How long a packet is held back that others are to overtake, in microseconds.
pub(super) const HOLD_US: u64 = 10_000;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Arrives(u64),
    Dropped,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) rule: Rule,
    pub(super) counters: Counters,
    random: u64,
    /// When the slow part of the way has sent all that is queued before it.
    free_us: u64,
    /// When the last packet arrives that was not held back.
    last_us: u64,
    bytes: usize,
}

impl Lane {
    pub(super) fn new(seed: u64, number: u64) -> Self {
        // One step of the generator, so that neighbours do not begin alike.
        let mut random = seed ^ number.wrapping_mul(0xd134_2543_de82_ef95);
        let random = next(&mut random);
        Self {
            rule: Rule::default(),
            counters: Counters::default(),
            random,
            free_us: 0,
            last_us: 0,
            bytes: 0,
        }
    }

    /// Decides about a packet of `len` bytes that is sent at `now_us`.
    pub(super) fn send(&mut self, now_us: u64, len: usize) -> Fate {
        let rule = self.rule;
        // Drawn for every packet, whatever the rule asks for: a packet's luck depends on its number
        // in the lane and not on the rules of those before it.
        let (loss, reorder, jitter) = (self.draw(), self.draw(), self.draw());
        if rule.cut {
            self.counters.cut += 1;
            return Fate::Dropped;
        }
        if chance(loss, rule.loss_ppm) {
            self.counters.lost += 1;
            return Fate::Dropped;
        }
        let mut sent_us = now_us;
        if rule.rate > 0 {
            let begins_us = self.free_us.max(now_us);
            if begins_us - now_us > rule.queue_us {
                self.counters.overflow += 1;
                return Fate::Dropped;
            }
            sent_us = begins_us + (len as u64 * 1_000_000).div_ceil(rule.rate);
        }
        if self.bytes + len > LANE_BYTES_MAX {
            self.counters.overflow += 1;
            return Fate::Dropped;
        }
        if rule.rate > 0 {
            self.free_us = sent_us;
        }
        self.bytes += len;
        // The upper 32 bits of the product are even over 0..=jitter, nearly enough.
        let jitter_us = ((jitter >> 32) * (rule.jitter_us + 1)) >> 32;
        let at_us = (sent_us + rule.delay_us + jitter_us).max(self.last_us);
        if chance(reorder, rule.reorder_ppm) {
            self.counters.reordered += 1;
            return Fate::Arrives(at_us + HOLD_US);
        }
        self.last_us = at_us;
        Fate::Arrives(at_us)
    }

    /// Whether a packet of `len` bytes, whose time has come, gets there.
    pub(super) fn arrive(&mut self, len: usize) -> bool {
        self.bytes -= len;
        if self.rule.cut {
            self.counters.cut += 1;
            return false;
        }
        self.counters.forwarded += 1;
        self.counters.bytes += len as u64;
        true
    }

    pub(super) fn refused(&mut self, len: usize) {
        self.counters.forwarded -= 1;
        self.counters.bytes -= len as u64;
        self.counters.refused += 1;
    }

    fn draw(&mut self) -> u64 {
        next(&mut self.random)
    }
}

fn chance(drawn: u64, ppm: u32) -> bool {
    (drawn >> 32) * u64::from(CERTAIN_PPM) < u64::from(ppm) << 32
}

/// SplitMix64: a counter, mixed.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
