//! Roles and their order. Source: `spec/04-authority.md`, section 1.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a member may do, each role all that the ones below it may.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Role {
    /// Not a member; a grant of it removes.
    #[default]
    None = 0,
    /// Reads.
    Guest = 1,
    /// Posts.
    Member = 2,
    /// Deletes others' messages, pins, sets conversation state.
    Moderator = 3,
    /// Sets policies, opens and closes doors.
    Admin = 4,
    /// Holds the root chain; exactly one.
    Owner = 5,
}

impl From<Role> for u8 {
    fn from(role: Role) -> Self {
        role as Self
    }
}

/// A number that names no role.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no such role: {0}")]
pub struct UnknownRole(u8);

impl TryFrom<u8> for Role {
    type Error = UnknownRole;

    fn try_from(number: u8) -> Result<Self, UnknownRole> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Guest,
            2 => Self::Member,
            3 => Self::Moderator,
            4 => Self::Admin,
            5 => Self::Owner,
            _ => return Err(UnknownRole(number)),
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Guest => "guest",
            Self::Member => "member",
            Self::Moderator => "moderator",
            Self::Admin => "admin",
            Self::Owner => "owner",
        })
    }
}
