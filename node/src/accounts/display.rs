//! Names shown among other text: they may not turn its direction nor pass for another's.
//!
//! For names only. The text of a message is kept and handed on byte for byte; whoever shows it
//! isolates it as a whole (`<bdi>`, `dir="auto"`).

use super::handle::Look;

const FIRST_STRONG_ISOLATE: char = '\u{2068}';
const POP_ISOLATE: char = '\u{2069}';

/// `text` without marks, embeddings, overrides and isolates of direction, and without controls and
/// separators of lines: on its own it cannot end an isolate that somebody puts around it.
#[must_use]
pub fn without_direction(text: &str) -> String {
    let turns = |c: char| {
        matches!(
            c,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
    };
    text.chars()
        .filter(|c| !c.is_control() && !turns(*c))
        .collect()
}

/// `text` to be put among other text, between the marks that isolate its direction.
#[must_use]
pub fn isolated(text: &str) -> String {
    let inner = without_direction(text);
    format!("{FIRST_STRONG_ISOLATE}{inner}{POP_ISOLATE}")
}

/// Whether two names could be taken for each other: equal up to form, case or confusable letters.
/// Two members of a conversation with such names are shown with their addresses.
#[must_use]
pub fn looks_like(one: &str, other: &str) -> bool {
    let look = |text: &str| Look::of(&without_direction(text).to_lowercase());
    look(one) == look(other)
}

#[cfg(test)]
mod tests {
    use comity_protocol::{
        event::{Content, SealedContent},
        ids::Salt,
    };

    use super::*;

    #[test]
    fn name_cannot_turn_what_follows_it() {
        let name = "eve\u{202e}\u{2066}\u{2069}\u{2069}\u{200f}\n\u{2028}";
        assert_eq!(isolated(name), "\u{2068}eve\u{2069}");
        let line = format!("{}: hello", isolated(name));
        let opened = line
            .chars()
            .filter(|c| matches!(c, '\u{2066}'..='\u{2068}'))
            .count();
        let closed = line.chars().filter(|c| *c == '\u{2069}').count();
        assert_eq!((opened, closed), (1, 1));
        assert!(!line.contains('\u{202e}'));
    }

    #[test]
    fn names_of_every_direction_keep_their_letters() {
        for name in ["Zoë", "עברית", "عربي", "日本語", "👩\u{200d}🚀"] {
            assert_eq!(without_direction(name), name);
        }
    }

    #[test]
    fn members_whose_names_differ_in_form_only_collide() {
        assert!(looks_like("\u{e9}", "e\u{301}"));
        assert!(looks_like("User", "us\u{435}r"));
        assert!(looks_like("eve", "eve\u{202e}"));
        assert!(looks_like("eve", "e\u{200b}ve"));
        assert!(!looks_like("eve", "adam"));
    }

    #[test]
    fn text_of_a_message_keeps_every_byte() {
        let text = "a\u{202e}b\u{2066}e\u{301}\u{200b}\n";
        let content = Content::text(Salt::from_bytes([1; 16]), text);
        let sealed = SealedContent::seal(&content).unwrap();
        let read = SealedContent::open(sealed.into_bytes()).unwrap();
        assert_eq!(read.content().text, text);
    }
}
