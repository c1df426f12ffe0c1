//! Errors as text for people.

use std::{error::Error, fmt};

/// Longest reason, in characters.
const REASON_MAX: usize = 300;

/// Why no link came of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum SetupError {
    /// The connection ended. A server that does not know us does that without a word, so the
    /// operator gets a hint.
    Lost(String),
    /// The peer said or did something that makes no link.
    Unusable(String),
}

impl SetupError {
    pub(crate) fn closed() -> Self {
        Self::Lost("connection closed".to_owned())
    }

    pub(crate) fn lost(error: &dyn Error) -> Self {
        Self::Lost(format!("connection lost: {}", with_causes(error)))
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(text) => write!(f, "{text} (is this server's key configured there?)"),
            Self::Unusable(text) => f.write_str(text),
        }
    }
}

/// An error and its causes in one line, without repetitions. Parts of it may come from the peer
/// (the reason it closed with), so control characters are left out and the length is bounded:
/// reasons end up in logs and on screens.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.chars()
        .filter(|char| !char.is_control())
        .take(REASON_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn text_of_a_peer_stays_in_its_line() {
        let error = io::Error::other(format!("bye\r\n\x1b[2Jforged{}", "x".repeat(1_000)));
        let text = with_causes(&error);
        assert!(
            text.starts_with("bye[2Jforged") && text.chars().count() == REASON_MAX,
            "{text}"
        );
    }
}
