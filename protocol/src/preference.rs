//! The user document: what a user's own devices agree on and nobody else sees. Its settings are
//! `state` events of his conversation with himself. Source: `spec/03-history-and-documents.md`,
//! part "Documents", section 7.
//!
//! The field's name says what a setting is about, its content what it is set to; an event without
//! content clears it. Names and values have one form each, which homes check before they commit and
//! devices check before they believe.

use data_encoding::{BASE32_NOPAD, HEXLOWER};

use crate::{
    event::Content,
    ids::{ConversationId, Salt},
    limits::{FOLDER_CONVERSATIONS_MAX, FOLDER_NAME_BYTES_MAX},
    time::Timestamp,
};

const MUTE: &str = "mute_";
const DRAFT: &str = "draft_";
const FOLDER: &str = "folder_";
/// What a mute without end says.
const FOREVER: &str = "forever";

/// Why a setting was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PreferenceError {
    /// The field begins like a setting's and names nothing.
    #[error("the field names no setting")]
    Name,
    /// The content is not in the form of what the field is about.
    #[error("not a value of this setting: {0}")]
    Value(&'static str),
}

/// Names a folder: chosen at random by the device that makes it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FolderId(pub [u8; 16]);

/// What a setting is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Setting {
    /// Whether a conversation makes itself heard.
    Mute(ConversationId),
    /// A message that was begun in a conversation.
    Draft(ConversationId),
    /// A folder of conversations.
    Folder(FolderId),
}

/// For how long a conversation is muted.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mute {
    /// Until this time, by the clock of the device that reads it.
    Until(Timestamp),
    /// Until it is cleared.
    Forever,
}

/// Conversations that a user keeps together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Folder {
    /// 1 to [`FOLDER_NAME_BYTES_MAX`] bytes without control characters.
    pub name: String,
    /// At most [`FOLDER_CONVERSATIONS_MAX`], in the user's order, no repeats.
    pub conversations: Vec<ConversationId>,
}

/// What something is set to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Of [`Setting::Mute`].
    Mute(Mute),
    /// Of [`Setting::Draft`]: the content as it would be sent.
    Draft(Content),
    /// Of [`Setting::Folder`].
    Folder(Folder),
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn id<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes());
    let bytes: [u8; N] = bytes.ok()?.try_into().ok()?;
    // One name each: what is not written as it is here is no name.
    (base32(&bytes) == text).then_some(bytes)
}

impl Setting {
    /// The name of its field: at most 58 characters of `a-z 2-7 _`.
    #[must_use]
    pub fn field(&self) -> String {
        match self {
            Self::Mute(conversation) => format!("{MUTE}{}", base32(conversation.as_bytes())),
            Self::Draft(conversation) => format!("{DRAFT}{}", base32(conversation.as_bytes())),
            Self::Folder(folder) => format!("{FOLDER}{}", base32(&folder.0)),
        }
    }

    /// Whether a field's name begins like that of a setting.
    #[must_use]
    pub fn is_named_by(field: &str) -> bool {
        [MUTE, DRAFT, FOLDER]
            .iter()
            .any(|name| field.starts_with(name))
    }

    /// What a field is about; `None` for one that is no setting.
    ///
    /// # Errors
    ///
    /// [`PreferenceError::Name`] for a name that begins like a setting's and goes on otherwise.
    pub fn of(field: &str) -> Result<Option<Self>, PreferenceError> {
        if !Self::is_named_by(field) {
            return Ok(None);
        }
        let conversation = |text| id(text).map(ConversationId::from_bytes);
        let setting = if let Some(text) = field.strip_prefix(MUTE) {
            conversation(text).map(Self::Mute)
        } else if let Some(text) = field.strip_prefix(DRAFT) {
            conversation(text).map(Self::Draft)
        } else {
            let text = field.strip_prefix(FOLDER).and_then(id);
            text.map(|id| Self::Folder(FolderId(id)))
        };
        setting.map(Some).ok_or(PreferenceError::Name)
    }

    /// Reads what it is set to.
    ///
    /// # Errors
    ///
    /// [`PreferenceError::Value`].
    pub fn read(&self, content: &Content) -> Result<Value, PreferenceError> {
        let plain = !content.action
            && content.reply_to.is_empty()
            && content.mentions.is_empty()
            && content.attachments.is_empty();
        match self {
            Self::Draft(_) => Ok(Value::Draft(content.clone())),
            _ if !plain => Err(PreferenceError::Value("more than a text")),
            Self::Mute(_) => mute(&content.text).map(Value::Mute),
            Self::Folder(_) => folder(&content.text).map(Value::Folder),
        }
    }
}

/// Checks a `state` event of a user's conversation with himself: that a field which begins like a
/// setting's is one, and its content, if it has one, in its form. Other fields are as they are.
///
/// # Errors
///
/// [`PreferenceError`].
pub fn check(field: &str, content: Option<&Content>) -> Result<(), PreferenceError> {
    match (Setting::of(field)?, content) {
        (Some(setting), Some(content)) => setting.read(content).map(drop),
        _ => Ok(()),
    }
}

impl Value {
    /// The content that says it, with this salt.
    ///
    /// # Errors
    ///
    /// [`PreferenceError::Value`] for one outside the limits.
    pub fn to_content(&self, salt: Salt) -> Result<Content, PreferenceError> {
        let text = match self {
            Self::Draft(content) => {
                let mut content = content.clone();
                content.salt.0 = salt;
                return Ok(content);
            }
            Self::Mute(Mute::Forever) => FOREVER.to_owned(),
            Self::Mute(Mute::Until(time)) => time.0.to_string(),
            Self::Folder(folder) => {
                let mut text = folder.name.clone();
                for conversation in &folder.conversations {
                    text.push('\n');
                    text.push_str(&conversation.to_string());
                }
                text
            }
        };
        match self {
            Self::Folder(value) if folder(&text).as_ref() != Ok(value) => {
                Err(PreferenceError::Value("a folder outside the limits"))
            }
            _ => Ok(Content::text(salt, text)),
        }
    }
}

fn mute(text: &str) -> Result<Mute, PreferenceError> {
    if text == FOREVER {
        return Ok(Mute::Forever);
    }
    let time = text.parse().ok().map(Timestamp);
    // Without sign or leading zeros: one form for each time.
    let time = time.filter(|time| time.0.to_string() == text);
    time.map(Mute::Until)
        .ok_or(PreferenceError::Value("neither a time nor for ever"))
}

fn folder(text: &str) -> Result<Folder, PreferenceError> {
    let mut lines = text.split('\n');
    let name = lines.next().unwrap_or_default();
    if !(1..=FOLDER_NAME_BYTES_MAX).contains(&name.len()) || name.contains(char::is_control) {
        return Err(PreferenceError::Value("the name of a folder"));
    }
    let mut conversations = Vec::new();
    for line in lines {
        let bytes = HEXLOWER.decode(line.as_bytes()).ok();
        let id = bytes.and_then(|bytes| ConversationId::from_slice(&bytes));
        let id = id.ok_or(PreferenceError::Value("no conversation's id"))?;
        if conversations.contains(&id) {
            return Err(PreferenceError::Value("a conversation twice"));
        }
        conversations.push(id);
        if conversations.len() > FOLDER_CONVERSATIONS_MAX {
            return Err(PreferenceError::Value("too many conversations"));
        }
    }
    Ok(Folder {
        name: name.to_owned(),
        conversations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CONTENT_BYTES_MAX, STATE_FIELD_BYTES_MAX};

    fn conversation(n: u8) -> ConversationId {
        ConversationId::from_bytes([n; 32])
    }

    fn text(text: &str) -> Content {
        Content::text(Salt::from_bytes([1; 16]), text)
    }

    fn settings() -> [Setting; 3] {
        [
            Setting::Mute(conversation(0xff)),
            Setting::Draft(conversation(7)),
            Setting::Folder(FolderId([9; 16])),
        ]
    }

    #[test]
    fn a_setting_has_one_name_and_no_other_text_is_one() {
        for setting in settings() {
            let field = setting.field();
            assert!(field.len() <= STATE_FIELD_BYTES_MAX, "{field}");
            assert_eq!(Setting::of(&field), Ok(Some(setting)));
            for bad in [
                field.to_ascii_uppercase().replacen("MUTE_", "mute_", 1),
                format!("{field}a"),
                field[..field.len() - 1].to_owned(),
                // Bits behind the last byte.
                format!("{}7", &field[..field.len() - 1]),
            ] {
                let read = Setting::of(&bad);
                assert!(
                    read == Err(PreferenceError::Name) || read == Ok(None),
                    "{bad}: {read:?}"
                );
            }
        }
        assert_eq!(Setting::of("title"), Ok(None));
        assert_eq!(Setting::of("mute"), Ok(None));
        assert_eq!(Setting::of("mute_"), Err(PreferenceError::Name));
    }

    #[test]
    fn values_are_read_back_as_they_were_written() {
        let [mute, draft, folder] = settings();
        let draft_content = Content {
            reply_to: vec![crate::ids::EventId::from_bytes([3; 32])],
            ..text("to be continued")
        };
        let values = [
            (mute, Value::Mute(Mute::Forever)),
            (mute, Value::Mute(Mute::Until(Timestamp(0)))),
            (mute, Value::Mute(Mute::Until(Timestamp(u64::MAX)))),
            (draft, Value::Draft(draft_content)),
            (
                folder,
                Value::Folder(Folder {
                    name: "Arbeit 🏢".to_owned(),
                    conversations: vec![conversation(2), conversation(1)],
                }),
            ),
        ];
        for (setting, value) in values {
            let content = value.to_content(Salt::from_bytes([1; 16])).unwrap();
            assert_eq!(setting.read(&content), Ok(value));
        }
    }

    #[test]
    fn values_outside_their_form_or_limits_are_refused() {
        let [mute, _, folder] = settings();
        for bad in [
            "",
            "for ever",
            "+1",
            "01",
            "-1",
            "18446744073709551616",
            "1 ",
        ] {
            assert!(mute.read(&text(bad)).is_err(), "{bad:?}");
        }
        let one = conversation(1);
        let upper = one.to_string().to_ascii_uppercase().replace('0', "A");
        for bad in [
            String::new(),
            format!("\n{one}"),
            "a\tb".to_owned(),
            "x".repeat(FOLDER_NAME_BYTES_MAX + 1),
            format!("a\n{one}\n{one}"),
            format!("a\n{one}\n"),
            format!("a\n{upper}"),
        ] {
            assert!(folder.read(&text(&bad)).is_err(), "{bad:?}");
        }
        let action = Content {
            action: true,
            ..text("forever")
        };
        assert!(mute.read(&action).is_err());
        let numbered = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            ConversationId::from_bytes(id)
        };
        let large = |count| {
            Value::Folder(Folder {
                name: "n".repeat(FOLDER_NAME_BYTES_MAX),
                conversations: (0..count).map(numbered).collect(),
            })
        };
        let salt = Salt::from_bytes([1; 16]);
        let content = large(FOLDER_CONVERSATIONS_MAX).to_content(salt).unwrap();
        assert!(content.text.len() < CONTENT_BYTES_MAX);
        assert!(
            large(FOLDER_CONVERSATIONS_MAX + 1)
                .to_content(salt)
                .is_err()
        );
    }

    #[test]
    fn fields_that_are_no_settings_take_any_content() {
        assert_eq!(check("title", Some(&text("notes"))), Ok(()));
        let [mute, ..] = settings();
        assert_eq!(check(&mute.field(), None), Ok(()));
        assert!(check(&mute.field(), Some(&text("later"))).is_err());
        assert!(check("folder_x", None).is_err());
    }
}
