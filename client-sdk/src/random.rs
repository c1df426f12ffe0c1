//! Random bytes from the operating system.

use crate::error::{Error, ErrorKind, Result};

/// `N` bytes fit for keys.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(ErrorKind::Storage, "no random numbers").because(e))?;
    Ok(bytes)
}

/// A number that spreads clients out; its quality matters to nobody's security.
pub(crate) fn number() -> u64 {
    bytes().map_or(0, u64::from_le_bytes)
}
