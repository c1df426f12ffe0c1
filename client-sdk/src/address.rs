//! Ways to name a user.

use comity_protocol::{ids::UserId, name::UserAddress};

use crate::error::{Error, ErrorKind, Result};

/// Reads the address that a client is made with.
pub(crate) fn parse(text: &str) -> Result<UserAddress> {
    text.parse().map_err(|e| {
        let text = format!("{text:?} is no address: expected something like alice@eu.example");
        Error::new(ErrorKind::Invalid, text).because(e)
    })
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

impl From<&UserAddress> for Who {
    fn from(address: &UserAddress) -> Self {
        Self::Address(address.to_string())
    }
}
