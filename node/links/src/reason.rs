//! Errors as text for people.

use std::error::Error;

/// Longest reason, in characters.
const REASON_MAX: usize = 300;

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
