//! How often somebody may try: the generic cell rate algorithm (GCRA), one number a key.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use comity_protocol::session::{Code, WireError};

/// A pace: `burst` tries at once, then one every `every_ms`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// Tries at once; at least 1.
    pub burst: u32,
    /// Milliseconds in which one more comes; at least 1.
    pub every_ms: u64,
}

/// Tries to sign in to one account. Half a year makes half a million guesses.
const PER_HANDLE: Pace = Pace {
    burst: 10,
    every_ms: 30_000,
};
/// Tries to sign in from one address: an office behind one address signs in at nine.
const PER_ADDRESS: Pace = Pace {
    burst: 60,
    every_ms: 2_000,
};
/// Keys remembered by one throttle.
const KEYS_MAX: usize = 65_536;

/// Too often.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too many tries; wait {} s", .retry_after_ms.div_ceil(1_000))]
pub struct TooOften {
    /// Milliseconds until one more try is allowed; at least 1.
    pub retry_after_ms: u64,
}

impl From<TooOften> for WireError {
    fn from(error: TooOften) -> Self {
        Self {
            retry_after_ms: Some(error.retry_after_ms),
            ..Self::new(Code::RateLimited, error.to_string())
        }
    }
}

/// One pace for each of many keys, in bounded memory.
///
/// Times are milliseconds of a monotonic clock.
#[derive(Debug)]
pub struct Throttle<K> {
    pace: Pace,
    keys_max: usize,
    /// Per key the time at which it has its whole burst again.
    full_at: BTreeMap<K, u64>,
    /// The same, in order of time.
    by_time: BTreeSet<(u64, K)>,
}

impl<K: Clone + Ord> Throttle<K> {
    /// A throttle that remembers at most `keys_max` keys.
    #[must_use]
    pub fn new(pace: Pace, keys_max: usize) -> Self {
        let pace = Pace {
            burst: pace.burst.max(1),
            every_ms: pace.every_ms.max(1),
        };
        Self {
            pace,
            keys_max: keys_max.max(1),
            full_at: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Counts one try.
    ///
    /// # Errors
    ///
    /// [`TooOften`]; the try was not counted, so asking again costs nothing.
    pub fn check(&mut self, key: K, now_ms: u64) -> Result<(), TooOften> {
        self.forget_full(now_ms);
        let burst_ms = self.pace.every_ms.saturating_mul(self.pace.burst.into());
        // A clock that went back, against its nature, locks nobody out for longer than a burst.
        let full_at = self.full_at.get(&key).copied().unwrap_or(now_ms);
        let full_at = full_at.clamp(now_ms, now_ms.saturating_add(burst_ms));
        let next = full_at.saturating_add(self.pace.every_ms);
        let allowed_until = now_ms.saturating_add(burst_ms);
        if next > allowed_until {
            let retry_after_ms = next - allowed_until;
            return Err(TooOften { retry_after_ms });
        }
        self.forget(&key);
        if self.full_at.len() >= self.keys_max {
            // Of all that are known this one has the least to lose: it is the next to be full.
            self.by_time
                .pop_first()
                .map(|(_, oldest)| self.full_at.remove(&oldest));
        }
        self.full_at.insert(key.clone(), next);
        self.by_time.insert((next, key));
        Ok(())
    }

    /// Gives a key its whole burst again.
    pub fn forget(&mut self, key: &K) {
        if let Some(full_at) = self.full_at.remove(key) {
            self.by_time.remove(&(full_at, key.clone()));
        }
    }

    /// A key with its whole burst is as one never seen.
    fn forget_full(&mut self, now_ms: u64) {
        while let Some((full_at, _)) = self.by_time.first() {
            if *full_at > now_ms {
                break;
            }
            self.by_time
                .pop_first()
                .map(|(_, key)| self.full_at.remove(&key));
        }
    }
}

/// Who asks, as far as an address tells: an IPv4 address, or the /64 of an IPv6 address, of which
/// one customer has 2^64 others.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Asker(IpAddr);

impl From<IpAddr> for Asker {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// Limits tries to sign in, by account and by address.
///
/// Whoever guesses at an account uses up its tries. So that he does not lock its user out, an
/// address from which that user signed in has tries of its own.
#[derive(Debug)]
pub struct SignInThrottle {
    by_handle: Throttle<String>,
    by_address: Throttle<Asker>,
    by_both: Throttle<(String, Asker)>,
    /// Handles and addresses that went together, with when they last did.
    proven: BTreeMap<(String, Asker), u64>,
    proven_by_time: BTreeSet<(u64, (String, Asker))>,
}

impl Default for SignInThrottle {
    fn default() -> Self {
        Self {
            by_handle: Throttle::new(PER_HANDLE, KEYS_MAX),
            by_address: Throttle::new(PER_ADDRESS, KEYS_MAX),
            by_both: Throttle::new(PER_HANDLE, KEYS_MAX),
            proven: BTreeMap::new(),
            proven_by_time: BTreeSet::new(),
        }
    }
}

impl SignInThrottle {
    /// Counts one try. `handle` is the canonical form, or the text as typed where it has none;
    /// whether anybody has it makes no difference. More than a handle's limit in bytes is cut.
    /// A try refused for its account still counts against the address.
    ///
    /// # Errors
    ///
    /// [`TooOften`].
    pub fn check(&mut self, handle: &str, from: IpAddr, now_ms: u64) -> Result<(), TooOften> {
        let (handle, asker) = key(handle, from);
        self.by_address.check(asker, now_ms)?;
        let both = (handle, asker);
        if self.proven.contains_key(&both) {
            return self.by_both.check(both, now_ms);
        }
        self.by_handle.check(both.0, now_ms)
    }

    /// The try just counted was right: forgives the account's wrong ones, and remembers the
    /// address as its user's.
    pub fn succeeded(&mut self, handle: &str, from: IpAddr, now_ms: u64) {
        let both = key(handle, from);
        self.by_handle.forget(&both.0);
        self.by_both.forget(&both);
        if let Some(before) = self.proven.insert(both.clone(), now_ms) {
            self.proven_by_time.remove(&(before, both.clone()));
        }
        self.proven_by_time.insert((now_ms, both));
        if self.proven.len() > KEYS_MAX {
            self.proven_by_time
                .pop_first()
                .map(|(_, oldest)| self.proven.remove(&oldest));
        }
    }
}

fn key(handle: &str, from: IpAddr) -> (String, Asker) {
    let end = handle.floor_char_boundary(comity_protocol::limits::HANDLE_BYTES_MAX);
    (handle[..end].to_owned(), from.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        burst: 3,
        every_ms: 100,
    };

    fn allowed(throttle: &mut Throttle<u32>, key: u32, now_ms: u64) -> usize {
        (0..100)
            .take_while(|_| throttle.check(key, now_ms).is_ok())
            .count()
    }

    #[test]
    fn burst_then_one_every_period() {
        let mut throttle = Throttle::new(PACE, 10);
        assert_eq!(allowed(&mut throttle, 1, 1_000), 3);
        assert_eq!(
            throttle.check(1, 1_000),
            Err(TooOften {
                retry_after_ms: 100
            })
        );
        assert_eq!(
            throttle.check(1, 1_099),
            Err(TooOften { retry_after_ms: 1 })
        );
        assert_eq!(throttle.check(1, 1_100), Ok(()));
        assert_eq!(allowed(&mut throttle, 1, 1_350), 2);
        assert_eq!(allowed(&mut throttle, 2, 1_350), 3, "another key");
        assert_eq!(allowed(&mut throttle, 1, 9_000), 3);
    }

    #[test]
    fn asking_while_refused_does_not_lengthen_the_wait() {
        let mut throttle = Throttle::new(PACE, 10);
        allowed(&mut throttle, 1, 0);
        for now_ms in 0..100 {
            assert!(throttle.check(1, now_ms).is_err());
        }
        assert!(throttle.check(1, 100).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_the_busiest_key_is_kept() {
        let mut throttle = Throttle::new(PACE, 4);
        allowed(&mut throttle, 0, 1_000);
        for key in 1..1_000 {
            assert!(throttle.check(key, 1_000).is_ok());
            assert!(throttle.full_at.len() <= 4 && throttle.by_time.len() <= 4);
        }
        assert!(throttle.check(0, 1_000).is_err());
        assert!(throttle.check(0, 2_000).is_ok());
        assert_eq!(
            throttle.full_at.len(),
            1,
            "keys with a whole burst are forgotten"
        );
    }

    #[test]
    fn clock_that_goes_back_locks_nobody_out_for_longer_than_a_burst() {
        let mut throttle = Throttle::new(PACE, 4);
        allowed(&mut throttle, 1, u64::MAX - 1);
        let TooOften { retry_after_ms } = throttle.check(1, 5).unwrap_err();
        assert!(retry_after_ms <= 300, "{retry_after_ms}");
    }

    fn tries(throttle: &mut SignInThrottle, handle: &str, from: &str, now_ms: u64) -> usize {
        let from = from.parse().unwrap();
        (0..1_000)
            .take_while(|_| throttle.check(handle, from, now_ms).is_ok())
            .count()
    }

    #[test]
    fn guesses_at_one_account_are_few_from_however_many_addresses() {
        let mut throttle = SignInThrottle::default();
        let total: usize = (0..200)
            .map(|n| tries(&mut throttle, "alice", &format!("192.0.2.{n}"), 1_000))
            .sum();
        assert_eq!(total, 10);
        assert_eq!(tries(&mut throttle, "bob", "198.51.100.1", 1_000), 10);
    }

    /// One try at each of many accounts, from these addresses in turn.
    fn spread(from: impl Fn(usize) -> String) -> usize {
        let mut throttle = SignInThrottle::default();
        (0..200)
            .filter(|n| {
                let from = from(*n).parse().unwrap();
                throttle.check(&format!("user{n}"), from, 1_000).is_ok()
            })
            .count()
    }

    #[test]
    fn guesses_from_one_address_are_few_at_however_many_accounts() {
        assert_eq!(spread(|_| "192.0.2.1".to_owned()), 60);
        assert_eq!(spread(|n| format!("192.0.2.{n}")), 200);
    }

    #[test]
    fn addresses_of_one_customer_count_as_one() {
        assert_eq!(spread(|n| format!("2001:db8::{n:x}")), 60);
        assert_eq!(spread(|n| format!("2001:db8:0:{n:x}::1")), 200);
        let mapped = ["192.0.2.1", "::ffff:192.0.2.1"];
        assert_eq!(spread(|n| mapped[n % 2].to_owned()), 60);
    }

    #[test]
    fn user_signs_in_from_a_known_address_while_others_guess() {
        let mut throttle = SignInThrottle::default();
        let home = "192.0.2.1".parse().unwrap();
        throttle.check("alice", home, 0).unwrap();
        throttle.succeeded("alice", home, 0);
        assert_eq!(tries(&mut throttle, "alice", "198.51.100.1", 0), 10);
        assert_eq!(tries(&mut throttle, "alice", "203.0.113.1", 0), 0);
        assert_eq!(tries(&mut throttle, "alice", "192.0.2.1", 0), 10);
    }

    #[test]
    fn right_password_forgives_the_wrong_ones() {
        let mut throttle = SignInThrottle::default();
        let from = "192.0.2.1".parse().unwrap();
        for _ in 0..9 {
            throttle.check("alice", from, 0).unwrap();
        }
        throttle.succeeded("alice", from, 0);
        assert_eq!(tries(&mut throttle, "alice", "198.51.100.1", 0), 10);
    }

    #[test]
    fn long_text_in_place_of_a_handle_takes_no_more_memory() {
        let mut throttle = SignInThrottle::default();
        let text = "é".repeat(100_000);
        assert_eq!(tries(&mut throttle, &text, "192.0.2.1", 0), 10);
        assert!(throttle.by_handle.full_at.keys().all(|key| key.len() <= 64));
    }
}
