//! The name of a server: a DNS name or an address, and a port where it is not 443.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::canonical_text;
use crate::limits::SERVER_NAME_BYTES_MAX;

/// The port that a name without one means: names are looked up by HTTPS.
const DEFAULT_PORT: u16 = 443;
/// Bytes of a DNS label (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;
/// Bytes that a port adds to a name: a colon and five digits.
const PORT_BYTES_MAX: usize = 6;

/// Where a server is reached.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Host {
    /// A DNS name: 1..=253 bytes, lower case, without a final dot. Only letters, digits and
    /// hyphens; an internationalised name is its `xn--` form, which is neither made nor read here.
    Dns(String),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, never one that stands for an IPv4 address.
    V6(Ipv6Addr),
}

/// A server's name: `acme.example`, `192.0.2.7:8443`, `[2001:db8::1]:7443`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServerName {
    host: Host,
    port: Option<u16>,
}

/// Text that is no server name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseServerNameError {
    /// No host.
    #[error("the server name is empty")]
    Empty,
    /// A host of more than 253 bytes.
    #[error("the server name has more than {SERVER_NAME_BYTES_MAX} bytes")]
    TooLong,
    /// A label that is empty, too long, begins or ends with a hyphen, or has another character
    /// than ASCII letters, digits and hyphens.
    #[error("the server name has a part that is not 1 to 63 letters, digits and inner hyphens")]
    Label,
    /// The last label is a number, as in an address, but the whole is no IPv4 address.
    #[error("the server name ends like an IPv4 address but is none")]
    Ipv4,
    /// Brackets around something that is no IPv6 address, or one that stands for an IPv4 address.
    #[error("the server name has brackets without a plain IPv6 address in them")]
    Ipv6,
    /// A port that is not 1..=65535 in decimal without leading zeros.
    #[error("the port of the server name is not a number from 1 to 65535")]
    Port,
}

impl ServerName {
    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port if it is not 443.
    #[must_use]
    pub const fn explicit_port(&self) -> Option<u16> {
        self.port
    }

    /// The port, 443 unless the name says another.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }
}

impl FromStr for ServerName {
    type Err = ParseServerNameError;

    fn from_str(text: &str) -> Result<Self, ParseServerNameError> {
        // Before any other work: everything below is linear, this keeps it small.
        if text.len() > SERVER_NAME_BYTES_MAX + PORT_BYTES_MAX {
            return Err(ParseServerNameError::TooLong);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, tail) = rest.split_once(']').ok_or(ParseServerNameError::Ipv6)?;
                let port = match tail {
                    "" => None,
                    tail => Some(tail.strip_prefix(':').ok_or(ParseServerNameError::Ipv6)?),
                };
                (Host::V6(v6(address)?), port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (named(host)?, Some(port)),
                None => (named(text)?, None),
            },
        };
        let port = port.map(parse_port).transpose()?;
        // Two texts for one place would be two names of one server.
        let port = port.filter(|port| *port != DEFAULT_PORT);
        Ok(Self { host, port })
    }
}

fn v6(text: &str) -> Result<Ipv6Addr, ParseServerNameError> {
    let address: Ipv6Addr = text.parse().map_err(|_| ParseServerNameError::Ipv6)?;
    if address.to_ipv4_mapped().is_some() {
        return Err(ParseServerNameError::Ipv6);
    }
    Ok(address)
}

fn named(text: &str) -> Result<Host, ParseServerNameError> {
    if text.is_empty() {
        return Err(ParseServerNameError::Empty);
    }
    if text.len() > SERVER_NAME_BYTES_MAX {
        return Err(ParseServerNameError::TooLong);
    }
    if !text.split('.').all(is_label) {
        return Err(ParseServerNameError::Label);
    }
    // What resolvers read as an address in one of the old forms (`127.1`, `0x7f000001`) must not
    // be taken for a DNS name: the check of a dialled address would see another host.
    let last = text.rsplit('.').next().unwrap_or(text);
    let hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return text
            .parse()
            .map(Host::V4)
            .map_err(|_| ParseServerNameError::Ipv4);
    }
    Ok(Host::Dns(text.to_ascii_lowercase()))
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn parse_port(text: &str) -> Result<u16, ParseServerNameError> {
    // `u16::from_str` alone would take a sign and leading zeros.
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(port) if canonical => Ok(port),
        _ => Err(ParseServerNameError::Port),
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Dns(name) => f.write_str(name)?,
            Host::V4(address) => write!(f, "{address}")?,
            Host::V6(address) => write!(f, "[{address}]")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

canonical_text!(ServerName);

#[cfg(test)]
mod tests {
    use super::*;

    fn text(input: &str) -> Result<String, ParseServerNameError> {
        input.parse::<ServerName>().map(|name| name.to_string())
    }

    #[test]
    fn host_and_port_are_told_apart_in_addresses_too() {
        let name: ServerName = "[2001:DB8:0::1]:7443".parse().unwrap();
        assert_eq!(name.host(), &Host::V6("2001:db8::1".parse().unwrap()));
        assert_eq!((name.port(), name.explicit_port()), (7443, Some(7443)));
        let name: ServerName = "host:7443".parse().unwrap();
        assert_eq!(name.host(), &Host::Dns("host".into()));
        assert_eq!(name.port(), 7443);
        assert_eq!("acme.example".parse::<ServerName>().unwrap().port(), 443);
    }

    #[test]
    fn one_place_has_one_name() {
        assert_eq!(text("ACME.Example:443").unwrap(), "acme.example");
        assert_eq!(text("[0:0::1]").unwrap(), "[::1]");
    }

    #[test]
    fn length_is_of_the_host_and_its_labels() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), 253);
        assert!(text(&format!("{longest}:65535")).is_ok());
        assert_eq!(
            text(&format!("{longest}a")),
            Err(ParseServerNameError::TooLong)
        );
        assert_eq!(text(&"a".repeat(64)), Err(ParseServerNameError::Label));
        assert_eq!(text(&"a".repeat(300)), Err(ParseServerNameError::TooLong));
    }

    #[test]
    fn signed_bytes_hold_the_canonical_text_only() {
        let read = |text: &str| {
            let bytes = serde_ipld_dagcbor::to_vec(text).unwrap();
            serde_ipld_dagcbor::from_slice::<ServerName>(&bytes)
        };
        assert_eq!(read("acme.example").unwrap().to_string(), "acme.example");
        for other in [
            "Acme.example",
            "acme.example:443",
            "[::0:1]",
            "acme example",
        ] {
            assert!(read(other).is_err(), "{other}");
        }
    }
}
