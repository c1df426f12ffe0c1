//! Numbers that follow from a seed alone.

use std::time::Duration;

/// SplitMix64: a counter, mixed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each part of each run.
    #[must_use]
    pub const fn new(seed: u64, part: u64) -> Self {
        let mut random = Self(seed ^ part.rotate_left(32));
        // Neighbouring seeds part only after a step.
        random.step();
        random
    }

    /// Any number.
    pub const fn step(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 {
            return 0;
        }
        self.step() % end
    }

    /// A number from `low` to below `high`.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// A place in a list of this length; 0 if it is empty.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of a list.
    pub fn pick<T: Clone>(&mut self, list: &[T]) -> Option<T> {
        let place = self.place(list.len());
        list.get(place).cloned()
    }

    /// Whether something happens that happens so many times in a hundred.
    pub const fn percent(&mut self, times: u64) -> bool {
        self.below(100) < times
    }

    /// Whether something happens that happens once in `times`.
    pub const fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A time from `from_ms` to below `to_ms`.
    pub const fn time(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.between(from_ms, to_ms))
    }

    /// Bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            let random = self.step().to_be_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        bytes
    }
}
