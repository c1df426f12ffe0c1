//! A user's address: handle and server.

use std::{fmt, str::FromStr};

use super::{Handle, ParseHandleError, ParseServerNameError, ServerName, canonical_text};

/// `alice@acme.example`: how people name a user. It may change hands; a [`crate::ids::UserId`]
/// never does.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UserAddress {
    /// Before the `@`.
    pub handle: Handle,
    /// After it.
    pub server: ServerName,
}

/// Text that is no user address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseUserAddressError {
    /// No `@` between two parts.
    #[error("a user address looks like alice@acme.example")]
    Shape,
    /// The part before the `@`.
    #[error(transparent)]
    Handle(#[from] ParseHandleError),
    /// The part after the `@`.
    #[error(transparent)]
    Server(#[from] ParseServerNameError),
}

impl FromStr for UserAddress {
    type Err = ParseUserAddressError;

    fn from_str(text: &str) -> Result<Self, ParseUserAddressError> {
        // A mention is typed with an `@` before it; the canonical text has none.
        let text = text.strip_prefix('@').unwrap_or(text);
        // Neither part can hold an `@`, so the first one is the only one; a port's colon stays
        // with the server, whose own rules know brackets.
        let (handle, server) = text.split_once('@').ok_or(ParseUserAddressError::Shape)?;
        Ok(Self {
            handle: handle.parse()?,
            server: server.parse()?,
        })
    }
}

impl fmt::Display for UserAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.handle, self.server)
    }
}

canonical_text!(UserAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_with_port_or_brackets_round_trips() {
        for text in [
            "a@[2001:db8::1]:7443",
            "a@host:7443",
            "josé@acme.example",
            "a@[::1]",
        ] {
            let address: UserAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(format!("@{text}").parse::<UserAddress>().unwrap(), address);
        }
        let address: UserAddress = "a@[2001:db8::1]:7443".parse().unwrap();
        assert_eq!(address.server.port(), 7443);
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "",
            "@",
            "alice",
            "@alice",
            "@@a@b",
            "a@",
            "@a:host",
            "@a:host:7443",
            "a@b@c",
        ] {
            assert!(text.parse::<UserAddress>().is_err(), "{text}");
        }
    }
}
