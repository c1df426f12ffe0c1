//! Addresses of users, and ways to name one.

use std::{fmt, str::FromStr};

use comity_protocol::ids::UserId;

use crate::error::{Error, ErrorKind};

/// `alice@eu.example`: a handle and the name of its home server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    handle: String,
    server: String,
}

impl Address {
    /// The part before `@`.
    #[must_use]
    pub fn handle(&self) -> &str {
        &self.handle
    }

    /// The part after `@`, in lower case.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is no address: expected something like alice@eu.example"),
            )
        };
        let (handle, server) = text.split_once('@').ok_or_else(bad)?;
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        let blank = |c: char| c.is_whitespace() || c.is_control();
        if handle.is_empty() || handle.contains(blank) || server.is_empty() {
            return Err(bad());
        }
        if !server.chars().all(name) || server.contains("..") || server.starts_with('.') {
            return Err(bad());
        }
        Ok(Self {
            handle: handle.to_owned(),
            server: server.to_ascii_lowercase(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.handle, self.server)
    }
}

/// A user, by id or by address. Methods that take `impl Into<Who>` accept both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Who {
    /// By id.
    Id(UserId),
    /// By address, or a handle of the own server.
    Address(String),
}

impl From<UserId> for Who {
    fn from(user: UserId) -> Self {
        Self::Id(user)
    }
}

impl From<&str> for Who {
    fn from(address: &str) -> Self {
        Self::Address(address.to_owned())
    }
}

impl From<String> for Who {
    fn from(address: String) -> Self {
        Self::Address(address)
    }
}

impl From<&Address> for Who {
    fn from(address: &Address) -> Self {
        Self::Address(address.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_handle_and_a_server() {
        let address: Address = "Alice@EU.example".parse().unwrap();
        assert_eq!(
            (address.handle(), address.server()),
            ("Alice", "eu.example")
        );
        assert_eq!(address.to_string(), "Alice@eu.example");
        for bad in [
            "", "alice", "@x", "a@", "a@b@c", "a b@c", "a@b/c", "a@b..c", "a@.b", "a@é",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
