//! What the router reads of a packet: from where, and to where (RFC 791, section 3.1; RFC 8200,
//! section 3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an IPv4 header without options.
const V4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
const V6_HEADER: usize = 40;

/// Source and destination, or `None` of what is no whole header of IPv4 or IPv6.
#[must_use]
pub fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 if packet.len() >= V4_HEADER => {
            let at = |start: usize| -> Option<IpAddr> {
                let bytes: [u8; 4] = packet.get(start..start + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).into())
            };
            Some((at(12)?, at(16)?))
        }
        6 if packet.len() >= V6_HEADER => {
            let at = |start: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = packet.get(start..start + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            Some((at(8)?, at(24)?))
        }
        _ => None,
    }
}
