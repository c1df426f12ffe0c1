//! Who has an account here: handles, passwords, tokens, and how often somebody may try.
//!
//! Logic only. Random bytes and times come in as arguments, and what is to last is the caller's to
//! write: these indexes live in memory, are filled from rows at the start, and are changed *before*
//! the write (so that two requests cannot both take one handle or one token) and changed back if
//! the write fails.

mod display;
mod handle;
mod password;
mod registry;
mod throttle;
mod token;

pub use display::{isolated, looks_like, without_direction};
pub use handle::{HandleError, canonical};
pub use password::{PasswordError, Passwords};
pub use registry::Registry;
pub use throttle::{Pace, SignInThrottle, Throttle, TooOften};
pub use token::{
    InvalidToken, Taken, Token, TokenHash, TokenKind, TokenSecret, Tokens, TooManyTokens,
};
