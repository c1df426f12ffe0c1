//! Which addresses may be dialled: what others name must not make this server speak to its own
//! network.
//!
//! Asked of the address that is dialled, after names were resolved, so that no name stands for
//! another address at the time of the check. Sources: the IANA registries of special-purpose
//! addresses (RFC 6890 and its updates), RFC 6052 for what stands for IPv4 in IPv6.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A range of addresses: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text that is no range of addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a range of addresses like 10.0.0.0/8 or fd00::/8, with zeros behind the prefix")]
pub struct ParseNetworkError;

/// What may be dialled. The default: public addresses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reach {
    anywhere: bool,
    also: Vec<Network>,
}

impl Network {
    const fn bits(address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// The first `prefix` bits of an address, at the top of 128.
    fn head(address: IpAddr, prefix: u8) -> u128 {
        let bits = match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
            IpAddr::V6(v6) => u128::from(v6),
        };
        match prefix {
            0 => 0,
            prefix => bits >> (128 - u32::from(prefix)),
        }
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::bits(address) == Self::bits(self.address)
            && Self::head(address, self.prefix) == Self::head(self.address, self.prefix)
    }

    const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)),
            prefix,
        }
    }

    const fn v6(a: u16, b: u16, prefix: u8) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)),
            prefix,
        }
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        let bits = Self::bits(address);
        let prefix = match prefix {
            None => bits,
            Some(text) if text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().map_err(|_| ParseNetworkError)?
            }
            Some(_) => return Err(ParseNetworkError),
        };
        // `10.0.0.1/8` is more likely a typing error than the wish for all of 10.0.0.0/8.
        let network = Self { address, prefix };
        let host = Self::head(address, bits) << (128 - u32::from(bits));
        let kept = match prefix {
            0 => 0,
            prefix => Self::head(address, prefix.min(128)) << (128 - u32::from(prefix.min(128))),
        };
        if prefix > bits || host != kept {
            return Err(ParseNetworkError);
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// IPv4 addresses that are not public.
const V4: [Network; 14] = [
    // This network.
    Network::v4(0, 0, 0, 8),
    // Private.
    Network::v4(10, 0, 0, 8),
    // Shared by carriers (RFC 6598).
    Network::v4(100, 64, 0, 10),
    // Loopback.
    Network::v4(127, 0, 0, 8),
    // Link-local: where clouds keep their credentials.
    Network::v4(169, 254, 0, 16),
    // Private.
    Network::v4(172, 16, 0, 12),
    // Protocol assignments.
    Network::v4(192, 0, 0, 24),
    // Documentation.
    Network::v4(192, 0, 2, 24),
    // 6to4 relays, given up (RFC 7526).
    Network::v4(192, 88, 99, 24),
    // Private.
    Network::v4(192, 168, 0, 16),
    // Benchmarks.
    Network::v4(198, 18, 0, 15),
    // Documentation.
    Network::v4(198, 51, 100, 24),
    Network::v4(203, 0, 113, 24),
    // Multicast, reserved, broadcast.
    Network::v4(224, 0, 0, 3),
];

/// Within 2000::/3, the only public IPv6 addresses, those that are not.
const V6: [Network; 3] = [
    // Protocol assignments: Teredo, benchmarks, identifiers that are no addresses.
    Network::v6(0x2001, 0, 23),
    // Documentation.
    Network::v6(0x2001, 0xdb8, 32),
    Network::v6(0x3fff, 0, 20),
];

const GLOBAL: Network = Network::v6(0x2000, 0, 3);
const SIX_TO_FOUR: Network = Network::v6(0x2002, 0, 16);
const TRANSLATED: Network = Network::v6(0x64, 0xff9b, 96);

fn is_public_v4(address: Ipv4Addr) -> bool {
    !V4.iter().any(|network| network.contains(address.into()))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    GLOBAL.contains(address.into()) && !V6.iter().any(|network| network.contains(address.into()))
}

/// The IPv4 address that an IPv6 one leads to, where it does.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(mapped);
    }
    let bytes = address.octets();
    let at = |i: usize| Ipv4Addr::new(bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]);
    if SIX_TO_FOUR.contains(address.into()) {
        return Some(at(2));
    }
    TRANSLATED.contains(address.into()).then(|| at(12))
}

impl Reach {
    /// Everything: for addresses that the operator gave.
    #[must_use]
    pub const fn anywhere() -> Self {
        Self {
            anywhere: true,
            also: Vec::new(),
        }
    }

    /// Public addresses, and these.
    #[must_use]
    pub const fn public_and(also: Vec<Network>) -> Self {
        Self {
            anywhere: false,
            also,
        }
    }

    /// Whether an address may be dialled.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        if self.anywhere || self.also.iter().any(|network| network.contains(address)) {
            return true;
        }
        match address {
            IpAddr::V4(v4) => is_public_v4(v4),
            IpAddr::V6(v6) => match embedded(v6) {
                // An address that the operator allows is allowed in its other form too.
                Some(v4) => self.permits(v4.into()),
                None => is_public_v6(v6),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(reach: &Reach, address: &str) -> bool {
        reach.permits(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_dialled_and_nothing_else() {
        let reach = Reach::default();
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            // Through a translator to a public address.
            "64:ff9b::101:101",
            "2002:101:101::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(permits(&reach, address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!permits(&reach, address), "{address}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_dialled_in_each_of_its_forms() {
        let reach = Reach::public_and(vec![
            "10.1.0.0/16".parse().unwrap(),
            "fd00:1::/32".parse().unwrap(),
        ]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::7", "1.1.1.1"] {
            assert!(permits(&reach, address), "{address}");
        }
        for address in ["10.2.0.1", "fd00:2::7", "127.0.0.1"] {
            assert!(!permits(&reach, address), "{address}");
        }
        assert!(permits(&Reach::anywhere(), "127.0.0.1"));
    }

    #[test]
    fn ranges_are_read_by_an_exact_list() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.168.1.7/32",
            "fd00::/8",
            "::/0",
            "::1/128",
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), text);
        }
        assert_eq!(
            "127.0.0.1".parse::<Network>().unwrap().to_string(),
            "127.0.0.1/32"
        );
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "fd00::1/8",
            "::/129",
            "::/999",
            "localhost",
            "[::1]",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
