//! The part of a user's address before the `@`.

use std::{fmt, str::FromStr};

use super::canonical_text;
use crate::limits::HANDLE_BYTES_MAX;

/// A handle in the form that identity logs hold: 1..=64 bytes of UTF-8.
///
/// ASCII is limited to `a-z 0-9 . _ + -`, begins and ends with none of `. + -`; beyond ASCII every
/// character is allowed but those that show nothing, change direction, belong to nobody or, in
/// first place, combine with what stands before.
///
/// These ranges are fixed by the protocol and ask no Unicode table, so that the verdict on signed
/// bytes never differs between two releases. That a handle is also in Normalization Form C, lower
/// case beyond ASCII and no imitation of another is the duty of the home that gives it out.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Handle(String);

/// Text that is no handle.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseHandleError {
    /// No text.
    #[error("the handle is empty")]
    Empty,
    /// More than 64 bytes.
    #[error("the handle has more than {HANDLE_BYTES_MAX} bytes")]
    TooLong,
    /// A character that handles do not have.
    #[error("the handle has a character that handles do not have: U+{:04X}", u32::from(*.0))]
    Character(char),
    /// A character that may not be the first or the last one.
    #[error("the handle begins or ends with {0:?}")]
    Edge(char),
}

impl Handle {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Handle {
    type Err = ParseHandleError;

    fn from_str(text: &str) -> Result<Self, ParseHandleError> {
        if text.len() > HANDLE_BYTES_MAX {
            return Err(ParseHandleError::TooLong);
        }
        if let Some(c) = text.chars().find(|c| !is_allowed(*c)) {
            return Err(ParseHandleError::Character(c));
        }
        let (Some(first), Some(last)) = (text.chars().next(), text.chars().next_back()) else {
            return Err(ParseHandleError::Empty);
        };
        let edge = |c| matches!(c, '.' | '+' | '-');
        if edge(first) || combines(first) {
            return Err(ParseHandleError::Edge(first));
        }
        if edge(last) {
            return Err(ParseHandleError::Edge(last));
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_allowed(c: char) -> bool {
    if c.is_ascii() {
        // `@ : /` separate parts of addresses and paths; upper case is folded before.
        return matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '+' | '-');
    }
    let code = u32::from(c);
    let nobody = matches!(code, 0xe000..=0xf8ff | 0xfdd0..=0xfdef | 0xfff0..=0xffff)
        || code >= 0xe_0000
        || code & 0xfffe == 0xfffe;
    !nobody && !is_invisible(c)
}

/// Controls, spaces, marks of direction and what shows nothing (Unicode calls most of these
/// default-ignorable), as fixed ranges.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{80}'..='\u{a0}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{1680}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2000}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3000}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
    )
}

const fn combines(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{36f}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

canonical_text!(Handle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_every_script_are_taken_as_they_are() {
        for text in [
            "alice",
            "o_o",
            "a.b-c+d",
            "josé",
            "алиса",
            "日本語",
            "ẹ\u{301}kọ",
            "7",
        ] {
            assert_eq!(text.parse::<Handle>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_separates_hides_or_turns_text_is_refused() {
        for c in "@:/\\ \t\n%#?<>\"'A\u{7f}\u{85}\u{a0}\u{ad}\u{200b}\u{200d}\u{202e}\u{2066}\u{2028}\u{3000}\u{feff}\u{fe0f}\u{e000}\u{e0041}\u{fffe}\u{1ffff}\u{10ffff}".chars() {
            let text = format!("a{c}b");
            assert_eq!(text.parse::<Handle>(), Err(ParseHandleError::Character(c)));
        }
    }

    #[test]
    fn edges_and_length_are_checked() {
        assert_eq!("".parse::<Handle>(), Err(ParseHandleError::Empty));
        for (text, c) in [
            (".a", '.'),
            ("a.", '.'),
            ("-a", '-'),
            ("a+", '+'),
            ("\u{301}a", '\u{301}'),
        ] {
            assert_eq!(text.parse::<Handle>(), Err(ParseHandleError::Edge(c)));
        }
        assert!("é".repeat(32).parse::<Handle>().is_ok());
        assert_eq!(
            "a".repeat(65).parse::<Handle>(),
            Err(ParseHandleError::TooLong)
        );
    }
}
