//! Harm to text and to JSON.

use super::GROWTH;
use crate::random::Random;

/// Pieces of text that readers of names stumble over.
const TEXT_TRAPS: &[&str] = &[
    "",
    "@",
    ":",
    "..",
    "-",
    "//",
    "%",
    "\0",
    "\n",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{200b}",
    "\u{200d}",
    "\u{202e}",
    "\u{2066}",
    "\u{feff}",
    "\u{fe0f}",
    "\u{301}",
    "\u{e0041}",
    "\u{10ffff}",
    "\u{fffd}",
    "İ",
    "ß",
    "ſ",
    "K",
    "а",
    "日本",
    "👩‍👩‍👧‍👦",
    "xn--",
    "0x7f",
    "127.1",
    "1.2.3.4",
    "[::1]",
    "[::ffff:1.2.3.4]",
    ":443",
    ":0",
    ":65536",
    ":+1",
    ":01",
    "comity-card:",
    "====",
    "_",
    "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a",
];

/// Values that JSON readers stumble over.
const JSON_TRAPS: &[&str] = &[
    "null",
    "true",
    "0",
    "-0",
    "-1",
    "1.0",
    "1e2",
    "1e400",
    "-1e400",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "NaN",
    "Infinity",
    "\"\"",
    "\"\\ud800\"",
    "\"\\ud800\\ud800\"",
    "\"\\udc00\"",
    "\"\\u0000\"",
    "\"\u{feff}\"",
    "\"AA=\"",
    "\"AAA\"",
    "\"A===\"",
    "\"_-_-\"",
    "\"zz\"",
    "[]",
    "{}",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "{\"id\":1,\"id\":1}",
    "[1,]",
    "{,}",
    "01",
    "+1",
    ".5",
    "'a'",
    "/**/1",
    "\"a",
    "\\",
    "\u{7f}",
    "[0,0,0,0,0,0,0,0]",
];

/// Changes text by whole characters, so that it stays text.
pub(super) fn change_text(random: &mut Random, bytes: &mut Vec<u8>) {
    let mut text: Vec<char> = String::from_utf8_lossy(bytes).chars().collect();
    let at = random.below(text.len() + 1);
    match random.below(6) {
        0 if at < text.len() => drop(text.remove(at)),
        1 if at < text.len() => {
            let c = char::from_u32(u32::try_from(random.below(0x11_0000)).unwrap_or(0));
            text[at] = c.unwrap_or('\u{fffd}');
        }
        2 if at < text.len() => {
            text[at] = if text[at].is_lowercase() {
                text[at].to_ascii_uppercase()
            } else {
                text[at].to_ascii_lowercase()
            };
        }
        3 => {
            let to = (at + random.below(GROWTH)).min(text.len());
            let copy = text[at..to].to_vec();
            text.splice(at..at, copy);
        }
        4 => text.truncate(at),
        _ => drop(text.splice(at..at, random.pick::<&str>(TEXT_TRAPS).chars())),
    }
    *bytes = text.into_iter().collect::<String>().into_bytes();
}

/// Where the values, names and marks of a JSON text begin and end, roughly.
fn tokens(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let from = at;
        at += 1;
        match bytes[from] {
            b'"' => {
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
            }
            b'{' | b'}' | b'[' | b']' | b':' | b',' => {}
            _ => {
                while at < bytes.len() && !b"\"{}[]:,".contains(&bytes[at]) {
                    at += 1;
                }
            }
        }
        tokens.push(from..at);
    }
    tokens
}

/// Changes a JSON text by its tokens.
pub(super) fn change_json(random: &mut Random, bytes: &mut Vec<u8>) {
    let tokens = tokens(bytes);
    if tokens.is_empty() {
        return change_text(random, bytes);
    }
    let token = random.pick(&tokens).clone();
    match random.below(6) {
        0 => drop(bytes.drain(token)),
        1 | 2 => {
            let trap = random.pick::<&str>(JSON_TRAPS).bytes();
            bytes.splice(token, trap);
        }
        3 => {
            let other = random.pick(&tokens).clone();
            let copy = bytes[other].to_vec();
            bytes.splice(token, copy);
        }
        4 => {
            // Some of it once more, as a field that comes twice does.
            let end = random.pick(&tokens).end;
            let copy = bytes[token.start.min(end)..token.start.max(end)].to_vec();
            bytes.splice(end..end, copy);
        }
        _ if bytes[token.start] == b'"' && token.len() >= 2 => {
            let mut inside = bytes[token.start + 1..token.end - 1].to_vec();
            change_text(random, &mut inside);
            bytes.splice(token.start + 1..token.end - 1, inside);
        }
        _ => change_text(random, bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_json_are_whole() {
        let text = br#"{"a":[1,"b\"c"],"d":true}"#;
        let found: Vec<&[u8]> = tokens(text).into_iter().map(|t| &text[t]).collect();
        let expected: [&[u8]; 13] = [
            b"{",
            b"\"a\"",
            b":",
            b"[",
            b"1",
            b",",
            br#""b\"c""#,
            b"]",
            b",",
            b"\"d\"",
            b":",
            b"true",
            b"}",
        ];
        assert_eq!(found, expected);
        let open = tokens(br#""open\"#);
        assert_eq!(open.first(), Some(&(0..6)));
        assert_eq!(open.len(), 1);
    }
}
