//! `names.json`: which names are accepted, in which form, and which are refused.

use std::{fmt::Display, str::FromStr};

use comity_protocol::name::{Handle, ServerName, UserAddress};
use serde::{Deserialize, Serialize};

use super::vectors;

const FILE: &str = "names.json";

#[derive(Deserialize, Serialize)]
struct Names {
    servers: Lists,
    handles: Lists,
    addresses: Lists,
}

#[derive(Deserialize, Serialize)]
struct Lists {
    accepted: Vec<Accepted>,
    refused: Vec<Refused>,
}

#[derive(Deserialize, Serialize)]
struct Accepted {
    text: String,
    canonical: String,
}

#[derive(Deserialize, Serialize)]
struct Refused {
    text: String,
    why: String,
}

fn lists<T>(accepted: &[&str], refused: &[&str]) -> Lists
where
    T: FromStr<Err: Display> + Display,
{
    let accepted = accepted.iter().map(|text| {
        let name: T = text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"));
        Accepted {
            text: (*text).to_owned(),
            canonical: name.to_string(),
        }
    });
    let refused = refused.iter().map(|text| {
        let Err(why) = text.parse::<T>() else {
            panic!("{text:?} was accepted");
        };
        Refused {
            text: (*text).to_owned(),
            why: why.to_string(),
        }
    });
    Lists {
        accepted: accepted.collect(),
        refused: refused.collect(),
    }
}

fn servers() -> Lists {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    let accepted = [
        "acme.example",
        "Acme.EXAMPLE",
        "acme.example:443",
        "acme.example:8448",
        "localhost",
        "localhost:1",
        "host:65535",
        "a-b.c--d.example",
        "xn--bcher-kva.example",
        "1.example",
        "192.0.2.7",
        "192.0.2.7:8443",
        "255.255.255.255",
        "[::1]",
        "[::1]:8448",
        "[2001:db8::1]:7443",
        "[2001:0DB8:0:0:0:0:0:1]:443",
        &longest,
    ];
    let refused = [
        "",
        ":",
        ":443",
        "host:",
        "host:0",
        "host:99999",
        "host:65536",
        "host:08448",
        "host:+1",
        "host:-1",
        "host: 1",
        "host:1:2",
        "host:٣",
        "a..b",
        ".a",
        "a.",
        "-a.example",
        "a-.example",
        "a_b.example",
        "a b",
        " a",
        "a\n",
        "a\0",
        "bücher.example",
        "https://x",
        "https://acme.example",
        "acme.example/path",
        "user@acme.example",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[::1]:0",
        "[]",
        "[acme.example]",
        "[127.0.0.1]",
        "[fe80::1%eth0]",
        "[::ffff:127.0.0.1]",
        "::1",
        "2001:db8::1",
        "127.1",
        "1.2.3.4.5",
        "256.1.1.1",
        "01.2.3.4",
        "2130706433",
        "0x7f000001",
        "1.2.3.0x4",
        "a.0X",
        &"a".repeat(64),
        &format!("{longest}b"),
        &"a".repeat(300),
    ];
    lists::<ServerName>(&accepted, &refused)
}

fn handles() -> Lists {
    let accepted = [
        "alice",
        "a",
        "7",
        "_bot_",
        "o.o-o+o",
        "jos\u{e9}",
        "\u{430}\u{43b}\u{438}\u{441}\u{430}",
        "日本語",
        "\u{1eb9}\u{301}k\u{1ecd}",
        // Forms that a home gives to nobody, and that yet make no entry invalid.
        "jose\u{301}",
        "us\u{435}r",
        &"\u{e9}".repeat(32),
    ];
    let refused = [
        "",
        "Alice",
        "a b",
        "a@b",
        "a:b",
        "a/b",
        "a\\b",
        "a\tb",
        "a\0",
        "#a",
        "a!",
        "a'b",
        ".a",
        "a.",
        "-a",
        "a-",
        "+a",
        "\u{301}a",
        "a\u{a0}b",
        "a\u{ad}b",
        "a\u{200b}b",
        "a\u{200d}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "a\u{3000}b",
        "a\u{fe0f}",
        "\u{feff}a",
        "a\u{e000}",
        "a\u{fffd}",
        "a\u{e0061}",
        &"a".repeat(65),
        &"\u{e9}".repeat(33),
    ];
    lists::<Handle>(&accepted, &refused)
}

fn addresses() -> Lists {
    let accepted = [
        "alice@acme.example",
        "@alice@acme.example",
        "alice@Acme.Example:443",
        "a@host:7443",
        "@a@host:7443",
        "a@[2001:db8::1]:7443",
        "@a@[2001:db8::1]:7443",
        "a@[::1]",
        "a@192.0.2.7",
        "jos\u{e9}@acme.example",
    ];
    let refused = [
        "",
        "@",
        "alice",
        "@alice",
        "alice@",
        "@@acme.example",
        "@@alice@acme.example",
        "alice@acme.example@acme.example",
        "@a:host:7443",
        "@a:[2001:db8::1]:7443",
        "a@2001:db8::1",
        "a@[::1",
        "a@host:",
        "Alice@acme.example",
        "a b@acme.example",
        "alice@acme.example/",
    ];
    lists::<UserAddress>(&accepted, &refused)
}

#[test]
fn names_json_is_what_this_program_says() {
    let names = Names {
        servers: servers(),
        handles: handles(),
        addresses: addresses(),
    };
    vectors::compare_or_write(FILE, &names);
}

fn agree<T>(lists: &Lists)
where
    T: FromStr<Err: Display> + Display + Serialize + serde::de::DeserializeOwned,
{
    assert!(!lists.accepted.is_empty() && !lists.refused.is_empty());
    for Accepted { text, canonical } in &lists.accepted {
        let name = text.parse::<T>().map(|name| name.to_string());
        assert_eq!(name.as_ref().ok(), Some(canonical), "{text:?}");
        let again = canonical.parse::<T>().map(|name| name.to_string());
        assert_eq!(again.ok().as_ref(), Some(canonical), "{text:?}");
        let signed: Result<T, _> = serde_json::from_value(text.as_str().into());
        assert_eq!(
            signed.is_ok(),
            text == canonical,
            "{text:?} in signed bytes"
        );
    }
    for Refused { text, why } in &lists.refused {
        let refused = text.parse::<T>().err().map(|e| e.to_string());
        assert_eq!(refused.as_ref(), Some(why), "{text:?}");
    }
}

#[test]
fn names_json_agrees_with_the_parsers() {
    let names: Names = vectors::read(FILE);
    agree::<ServerName>(&names.servers);
    agree::<Handle>(&names.handles);
    agree::<UserAddress>(&names.addresses);
}
