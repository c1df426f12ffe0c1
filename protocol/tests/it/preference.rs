//! `preference.json`: names and values of a user's settings.

use comity_protocol::{
    event::{Content, SealedContent},
    ids::{ConversationId, Salt},
    preference::{Folder, FolderId, Mute, Setting, Value, check},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::vectors::{self, hex, unhex};

const FILE: &str = "preference.json";
const SALT: [u8; 16] = [0x5a; 16];

#[derive(Deserialize, Serialize)]
struct File {
    settings: Vec<SettingVector>,
    refused: Vec<Refused>,
}

#[derive(Deserialize, Serialize)]
struct SettingVector {
    about: String,
    field: String,
    text: String,
    /// Canonical bytes of the content.
    content: String,
}

#[derive(Deserialize, Serialize)]
struct Refused {
    about: String,
    field: String,
    text: String,
}

fn conversation(n: u8) -> ConversationId {
    ConversationId::from_bytes([n; 32])
}

fn settings() -> Vec<(&'static str, Setting, Value)> {
    let folder = Folder {
        name: "Work".to_owned(),
        conversations: vec![conversation(0x22), conversation(0x11)],
    };
    let empty = Folder {
        name: "später".to_owned(),
        conversations: vec![],
    };
    let draft = Content::text(Salt::from_bytes(SALT), "what I wanted to say");
    let (mute, id) = (Setting::Mute(conversation(0x11)), FolderId([0x33; 16]));
    let until = Timestamp(1_800_000_000_000);
    vec![
        ("muted until a time", mute, Value::Mute(Mute::Until(until))),
        ("muted for ever", mute, Value::Mute(Mute::Forever)),
        (
            "a draft",
            Setting::Draft(conversation(0x11)),
            Value::Draft(draft),
        ),
        ("a folder", Setting::Folder(id), Value::Folder(folder)),
        ("an empty folder", Setting::Folder(id), Value::Folder(empty)),
    ]
}

fn refused() -> Vec<Refused> {
    let refused = |about: &str, field: String, text: String| Refused {
        about: about.to_owned(),
        field,
        text,
    };
    let mute = Setting::Mute(conversation(0x11)).field();
    let folder = Setting::Folder(FolderId([0x33; 16])).field();
    let id = conversation(0x11);
    vec![
        refused("a mute of nothing", "mute_".into(), "forever".into()),
        refused("an id that is too short", mute[..50].into(), "1".into()),
        refused("no time", mute.clone(), "tomorrow".into()),
        refused("a time in two forms", mute, "007".into()),
        refused("a folder without name", folder.clone(), String::new()),
        refused("no id", folder.clone(), "Work\nfriends".into()),
        refused("one twice", folder, format!("Work\n{id}\n{id}")),
    ]
}

#[test]
fn preference_json_is_what_this_program_makes() {
    let setting = |(about, setting, value): (&str, Setting, Value)| {
        let content = value.to_content(Salt::from_bytes(SALT)).unwrap();
        SettingVector {
            about: about.to_owned(),
            field: setting.field(),
            text: content.text.clone(),
            content: hex(SealedContent::seal(&content).unwrap().bytes()),
        }
    };
    let file = File {
        settings: settings().into_iter().map(setting).collect(),
        refused: refused(),
    };
    vectors::compare_or_write(FILE, &file);
}

#[test]
fn preference_json_is_read_as_it_says() {
    let file: File = vectors::read(FILE);
    assert_eq!(file.settings.len(), settings().len());
    for (vector, (about, setting, value)) in file.settings.iter().zip(settings()) {
        let content = SealedContent::open(unhex(&vector.content)).unwrap();
        assert_eq!(content.content().text, vector.text, "{about}");
        assert_eq!(Setting::of(&vector.field), Ok(Some(setting)), "{about}");
        assert_eq!(setting.read(content.content()), Ok(value), "{about}");
    }
    for case in &file.refused {
        let content = Content::text(Salt::from_bytes(SALT), case.text.clone());
        assert!(
            check(&case.field, Some(&content)).is_err(),
            "{}",
            case.about
        );
    }
}
