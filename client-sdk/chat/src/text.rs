//! Others' text made safe for a terminal.
//!
//! Nothing that another person wrote may move the cursor, change colours or titles, answer
//! queries of the terminal, or turn the direction of what follows it.

/// Opens and closes text whose direction is its own affair.
const ISOLATE: (char, char) = ('\u{2068}', '\u{2069}');

/// Characters that open or close a direction of text; unbalanced they reach beyond it.
const fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Several lines, each safe. Line breaks stay breaks; tabs become spaces; every other control
/// character, C0, C1 and DEL, is left out.
pub(crate) fn safe_lines(text: &str) -> Vec<String> {
    let breaks = |c: char| {
        matches!(
            c,
            '\n' | '\u{2028}' | '\u{2029}' | '\u{b}' | '\u{c}' | '\u{85}'
        )
    };
    text.replace("\r\n", "\n")
        .split(breaks)
        .map(|line| isolated(line.chars()))
        .collect()
}

/// One line: breaks become spaces.
pub(crate) fn safe(text: &str) -> String {
    let flat = |c: char| {
        if matches!(c, '\n' | '\r' | '\u{2028}' | '\u{2029}' | '\u{85}') {
            ' '
        } else {
            c
        }
    };
    isolated(text.chars().map(flat))
}

fn isolated(chars: impl Iterator<Item = char>) -> String {
    let inner: String = chars
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control() && !turns(*c))
        .collect();
    // Plain left-to-right text needs no marks, and pipes get none they did not ask for.
    if inner.chars().all(|c| c < '\u{590}') {
        inner
    } else {
        format!("{}{inner}{}", ISOLATE.0, ISOLATE.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_the_terminal() {
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        for line in safe_lines(&all).iter().chain([&safe(&all)]) {
            assert!(!line.chars().any(char::is_control));
        }
        assert_eq!(
            safe("\x1b[2J\x1b]0;title\x07hi\u{9b}31m"),
            "[2J]0;titlehi31m"
        );
        assert_eq!(safe("a\tb\nc\r"), "a b c ");
    }

    #[test]
    fn a_direction_stays_inside_its_own_text() {
        let shown = safe("\u{202e}evil\u{2066} שלום");
        assert_eq!(shown, "\u{2068}evil שלום\u{2069}");
        let turns = shown.chars().filter(|c| turns(*c)).count();
        assert_eq!(turns, 2, "one opening, one closing");
    }

    #[test]
    fn lines_stay_lines_and_plain_text_stays_as_it_is() {
        assert_eq!(safe_lines("a\r\nb\nc"), ["a", "b", "c"]);
        assert_eq!(safe("plain — text, é"), "\u{2068}plain — text, é\u{2069}");
        assert_eq!(safe("plain, é"), "plain, é");
    }
}
