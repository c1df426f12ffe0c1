//! Time as the core sees it: wall-clock milliseconds that come in as arguments, and the hybrid
//! logical clock that orders commits. Source: `spec/02-events-and-commits.md`, section 5.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `ms` milliseconds later, saturating.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 if that is not earlier.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

const COUNTER_BITS: u32 = 16;
const MILLIS_MAX: u64 = (1 << 48) - 1;

/// Hybrid logical clock reading: 48 bits of milliseconds above a 16-bit counter.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Hlc(u64);

impl Hlc {
    /// The reading with these parts; milliseconds beyond 48 bits saturate.
    #[must_use]
    pub const fn new(at: Timestamp, counter: u16) -> Self {
        let millis = if at.0 > MILLIS_MAX { MILLIS_MAX } else { at.0 };
        Self(millis << COUNTER_BITS | counter as u64)
    }

    /// The reading as one number whose order is the clock's.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The reading that [`Self::to_bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Wall-clock part.
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        Timestamp(self.0 >> COUNTER_BITS)
    }

    /// The smallest reading that is at least `now` and greater than `self`.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Self {
        Self::new(now, 0).max(Self(self.0.saturating_add(1)))
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hlc({}.{})", self.timestamp().0, self.0 & 0xffff)
    }
}

// 64 bits do not fit a JSON number, so the human-readable form is a string of digits.
impl Serialize for Hlc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&self.0)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Hlc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            let clock: u64 = text.parse().map_err(de::Error::custom)?;
            // `u64::from_str` alone would take a sign and leading zeros: two texts for one clock.
            if clock.to_string() == text {
                Ok(Self(clock))
            } else {
                Err(de::Error::custom(
                    "a clock in another than its canonical form",
                ))
            }
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_reading_exceeds_both_the_clock_and_the_last_one() {
        let last = Hlc::new(Timestamp(1_000), 3);
        assert_eq!(last.next(Timestamp(999)), Hlc::new(Timestamp(1_000), 4));
        assert_eq!(last.next(Timestamp(1_001)), Hlc::new(Timestamp(1_001), 0));
        assert_eq!(
            Hlc::new(Timestamp(5), u16::MAX).next(Timestamp(5)),
            Hlc::new(Timestamp(6), 0)
        );
    }

    #[test]
    fn a_clock_has_one_text() {
        let read = |text: &str| serde_json::from_value::<Hlc>(text.into()).ok();
        assert_eq!(read("3"), Some(Hlc::from_bits(3)));
        assert_eq!(read("18446744073709551615"), Some(Hlc::from_bits(u64::MAX)));
        for other in ["03", "+3", "-0", "", " 3", "3.0", "18446744073709551616"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
