//! Contents: text and what hangs on it, apart from the event so that it can be erased.
//! Source: `spec/02-events-and-commits.md`, section 3.

use serde::{Deserialize, Serialize};

use crate::{
    encoding::{self, DecodeError},
    ids::{BlobId, ContentHash, EventId, Salt, UserId},
    limits::{
        ATTACHMENT_TEXT_BYTES_MAX, ATTACHMENTS_MAX, CONTENT_BYTES_MAX, MENTIONS_MAX, REPLY_TO_MAX,
    },
};

/// A content named by the event that carries it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ContentRef {
    /// BLAKE3 of the content's canonical bytes.
    pub hash: ContentHash,
    /// Their length, so that a size is judged before the bytes are had.
    pub len: u32,
}

/// A file that a message carries.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The file, by hash.
    pub blob: BlobId,
    /// Its length in bytes.
    pub len: u64,
    /// The name it was sent under; a label, never a path.
    pub name: String,
    /// The media type its sender claims.
    pub media_type: String,
}

/// What a message, an edit or a state event says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Version: 1.
    pub v: u8,
    /// Random, so that the hash of an erased text cannot be guessed from likely texts.
    pub salt: SaltOrZero,
    /// The text, kept byte for byte; may be empty.
    pub text: String,
    /// Something the author does rather than says (`/me waves`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub action: bool,
    /// Messages that this one answers, in the author's order, without repeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reply_to: Vec<EventId>,
    /// Users that this message calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// Files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// A salt; its default is zeros so that [`Content`] can be written with `..Default::default()`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct SaltOrZero(pub Salt);

impl Default for SaltOrZero {
    fn default() -> Self {
        Self(Salt::from_bytes([0; 16]))
    }
}

impl Content {
    /// A text and nothing else.
    #[must_use]
    pub fn text(salt: Salt, text: impl Into<String>) -> Self {
        Self {
            v: 1,
            salt: SaltOrZero(salt),
            text: text.into(),
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        if self.v != 1 {
            return Err(DecodeError::UnknownVersion(self.v.into()));
        }
        let too_many = self.reply_to.len() > REPLY_TO_MAX
            || self.mentions.len() > MENTIONS_MAX
            || self.attachments.len() > ATTACHMENTS_MAX;
        if too_many {
            return Err(DecodeError::Invalid(
                "more references than a content may have",
            ));
        }
        let repeats = |i: usize, id: &EventId| self.reply_to[..i].contains(id);
        if self
            .reply_to
            .iter()
            .enumerate()
            .any(|(i, id)| repeats(i, id))
        {
            return Err(DecodeError::Invalid("a message answered twice"));
        }
        let label = |text: &str| {
            text.len() <= ATTACHMENT_TEXT_BYTES_MAX && !text.chars().any(char::is_control)
        };
        if !self
            .attachments
            .iter()
            .all(|a| label(&a.name) && label(&a.media_type))
        {
            return Err(DecodeError::Invalid("attachment name or type"));
        }
        Ok(())
    }
}

/// A content with the bytes that its hash covers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedContent {
    content: Content,
    bytes: Vec<u8>,
    reference: ContentRef,
}

impl SealedContent {
    /// Encodes and names a content.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it breaks a limit, by the same check that every server makes.
    pub fn seal(content: &Content) -> Result<Self, DecodeError> {
        Self::open(encoding::encode(content))
    }

    /// Checks and decodes bytes from outside.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are no content within the limits.
    pub fn open(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let content: Content = encoding::decode(&bytes, CONTENT_BYTES_MAX)?;
        content.check()?;
        let hash = ContentHash::from_bytes(*blake3::hash(&bytes).as_bytes());
        let len = u32::try_from(bytes.len()).map_err(|_| DecodeError::Invalid("length"))?;
        Ok(Self {
            content,
            bytes,
            reference: ContentRef { hash, len },
        })
    }

    /// What the bytes say.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// Canonical bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Hash and length, as an event names it.
    #[must_use]
    pub const fn reference(&self) -> ContentRef {
        self.reference
    }

    /// The bytes, for storing or sending.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
