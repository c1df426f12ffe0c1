//! Names that people type: of servers, of users, and the handle between them.
//! Source: `spec/01-encoding.md`, section 6.
//!
//! Every name has one canonical text. Parsing accepts what a person may type and folds it; decoding
//! signed bytes accepts the canonical text only.

mod handle;
mod server;
mod user;

pub use handle::{Handle, ParseHandleError};
pub use server::{Host, ParseServerNameError, ServerName};
pub use user::{ParseUserAddressError, UserAddress};

/// Serde for a name: its canonical text, and no other text when read.
macro_rules! canonical_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let name: Self = text.parse().map_err(serde::de::Error::custom)?;
                if name.to_string() == text {
                    Ok(name)
                } else {
                    Err(serde::de::Error::custom(
                        "a name in another than its canonical form",
                    ))
                }
            }
        }
    };
}
use canonical_text;
