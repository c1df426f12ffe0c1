//! The documents say what the code does where that can be compared: limits, codes, names of frames,
//! and the sections that comments cite.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use comity_protocol::{authority::Reason, history::Invalid, session::Code};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between backticks, code blocks left out.
fn quoted(text: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut found = BTreeSet::new();
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    found.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    found
}

fn documents() -> Vec<(String, String)> {
    let mut documents = vec![
        ("README.md".to_owned(), text("README.md")),
        ("ARCHITECTURE.md".to_owned(), text("ARCHITECTURE.md")),
    ];
    let mut files: Vec<_> = fs::read_dir(root().join("spec"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .collect();
    files.sort_unstable();
    for name in files {
        let path = format!("spec/{name}");
        let content = text(&path);
        documents.push((path, content));
    }
    documents
}

/// Name and value of every constant in a file of limits; only values that are products of numbers.
fn constants(path: &str) -> BTreeMap<String, Option<u64>> {
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    let value = |text: &str| -> Option<u64> {
        text.split('*')
            .map(number)
            .try_fold(1, |product, factor| Some(product * factor?))
    };
    let constant = |line: &str| {
        let line = line.trim_start();
        let rest = line
            .strip_prefix("pub const ")
            .or_else(|| line.strip_prefix("pub(crate) const "))?;
        let (name, rest) = rest.split_once(':')?;
        let (_, expression) = rest.split_once('=')?;
        Some((
            name.to_owned(),
            value(expression.trim().trim_end_matches(';')),
        ))
    };
    text(path).lines().filter_map(constant).collect()
}

/// The rows of the tables whose first cell is one quoted name, with the number in the second.
fn table(document: &str) -> BTreeMap<String, u64> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let value = cells.next()?.replace(',', "").parse().ok()?;
        Some((name.to_owned(), value))
    };
    document.lines().filter_map(row).collect()
}

fn is_constant(name: &str) -> bool {
    let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.len() > 4 && name.contains('_') && name.chars().all(upper) && !name.starts_with("COMITY_")
}

#[test]
fn the_overview_lists_every_limit_of_the_protocol_with_its_value() {
    let listed = table(&text("spec/00-overview.md"));
    let limits = constants("protocol/src/limits.rs");
    assert!(limits.len() > 40, "{limits:?}");
    for (name, value) in &limits {
        let value = value.unwrap_or_else(|| panic!("{name} is not a product of numbers"));
        assert_eq!(listed.get(name), Some(&value), "{name}");
    }
    for name in listed.keys() {
        assert!(limits.contains_key(name), "{name} is no limit of protocol");
    }
}

#[test]
fn every_limit_that_a_document_names_exists() {
    let mut known = BTreeSet::new();
    for file in [
        "protocol/src/limits.rs",
        "node/src/limits.rs",
        "node/links/src/limits.rs",
        "node/storage/src/limits.rs",
        "client-sdk/src/limits.rs",
    ] {
        known.extend(constants(file).into_keys());
    }
    for (path, document) in documents() {
        for name in quoted(&document).iter().filter(|name| is_constant(name)) {
            assert!(known.contains(name), "{path} names {name}");
        }
    }
}

#[test]
fn every_code_is_in_its_document() {
    let client = quoted(&text("spec/06-client-protocol.md"));
    for code in Code::ALL {
        assert!(client.contains(code.as_str()), "{code}");
    }
    let authority = quoted(&text("spec/04-authority.md"));
    for reason in Reason::ALL {
        assert!(authority.contains(reason.code()), "{}", reason.code());
    }
    for invalid in [
        Invalid::Conversation,
        Invalid::Home,
        Invalid::Seq,
        Invalid::Epoch,
        Invalid::Clock,
        Invalid::Tip,
        Invalid::Frontier,
    ] {
        assert!(authority.contains(invalid.code()), "{}", invalid.code());
    }
}

#[test]
fn every_form_of_frame_is_in_its_document() {
    #[derive(serde::Deserialize)]
    struct Frame {
        about: String,
    }
    #[derive(serde::Deserialize)]
    struct Session {
        client: Vec<Frame>,
        server: Vec<Frame>,
    }
    #[derive(serde::Deserialize)]
    struct Link {
        frames: Vec<Frame>,
    }
    // `accepted {event, place}` names the reply and shows its fields.
    let named = |path: &str| -> BTreeSet<String> {
        let first = |quoted: String| Some(quoted.split(' ').next()?.to_owned());
        quoted(&text(path)).into_iter().filter_map(first).collect()
    };
    let client = named("spec/06-client-protocol.md");
    let session: Session = super::vectors::read("session.json");
    for frame in session.client.iter().chain(&session.server) {
        for word in frame.about.split(' ') {
            assert!(client.contains(word), "{word} of session.json");
        }
    }
    let links = named("spec/05-links.md");
    let link: Link = super::vectors::read("link.json");
    for frame in &link.frames {
        assert!(links.contains(&frame.about), "{} of link.json", frame.about);
    }
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                rust_files(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The numbers of a document's sections: headings like `## 3. Title`.
fn sections(document: &str) -> BTreeSet<u32> {
    let number = |line: &str| line.strip_prefix("## ")?.split_once('.')?.0.parse().ok();
    document.lines().filter_map(number).collect()
}

/// The numbers that follow a cited path: `section 3`, `sections 2 to 6`, `sections 5 and 6`.
fn cited(rest: &str) -> Vec<u32> {
    let rest = rest.trim_start_matches(['`', ',', '(', ' ']);
    let rest = match rest.strip_prefix("sections ") {
        Some(rest) => rest,
        None => match rest.strip_prefix("section ") {
            Some(rest) => rest,
            None => return Vec::new(),
        },
    };
    let end = rest
        .find(['.', ';', '(', ')', '`', ':'])
        .unwrap_or(rest.len());
    let words = rest[..end].split([' ', ',']);
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn every_document_that_a_comment_cites_exists_with_the_section() {
    let mut files = Vec::new();
    for dir in ["protocol", "node", "client-sdk", "testnet"] {
        rust_files(&root().join(dir), &mut files);
    }
    let mut checked = 0;
    for file in files.iter().filter(|file| !file.ends_with("it/spec.rs")) {
        let source = fs::read_to_string(file).unwrap();
        // A citation may go on in the next line of the comment.
        let joined: String = source
            .lines()
            .map(|line| {
                line.trim_start()
                    .trim_start_matches(['/', '!'])
                    .trim_start()
            })
            .collect::<Vec<_>>()
            .join(" ");
        for (at, _) in joined.match_indices("`spec/") {
            let Some((name, rest)) = joined[at + 1..].split_once('`') else {
                continue;
            };
            if !name.ends_with(".md") {
                continue;
            }
            let document = text(name);
            for number in cited(rest) {
                checked += 1;
                let there = sections(&document).contains(&number);
                assert!(there, "{} cites {name}, section {number}", file.display());
            }
        }
    }
    assert!(checked > 30, "{checked} citations found");
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    for (path, document) in documents() {
        for (at, _) in document.match_indices("](") {
            let Some((target, _)) = document[at + 2..].split_once(')') else {
                continue;
            };
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.contains("://") {
                continue;
            }
            let base = root().join(&path);
            let there = base.parent().unwrap().join(file).exists();
            assert!(there, "{path} links to {target}");
        }
    }
}
