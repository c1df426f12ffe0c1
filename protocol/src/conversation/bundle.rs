//! A peer's bundle, checked: the border between bytes and the conversation.

use crate::{
    commit::{SignedCommit, UnverifiedCommit},
    encoding::DecodeError,
    event::{ContentRef, EventError, SealedContent, SignedEvent},
    ids::{ConversationId, PublicKey, ServerId},
    limits::COMMIT_TOTAL_BYTES_MAX,
    link::{Bundle, ContentSlot},
    session::Code,
    signing::WrongSignature,
};

/// The content of one event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Slot {
    /// The event names none.
    None,
    /// Here.
    Held(SealedContent),
    /// Erased.
    Gone,
    /// Older than the conversation keeps contents.
    Expired,
    /// Not for this server.
    Withheld,
}

/// An event with its content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedEvent {
    /// The event.
    pub event: SignedEvent,
    /// Its content.
    pub slot: Slot,
}

impl CheckedEvent {
    /// Bytes that it takes in a bundle, at most.
    pub(super) fn size(&self) -> usize {
        let content = match &self.slot {
            Slot::Held(content) => content.bytes().len(),
            _ => 0,
        };
        self.event.bytes().len() + content + 256
    }
}

/// A commit with its events and contents, every hash and signature checked.
#[derive(Clone, Debug)]
pub struct CheckedBundle {
    /// The commit.
    pub commit: SignedCommit,
    /// Its events, in its order.
    pub events: Vec<CheckedEvent>,
}

/// Why a bundle was refused. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The commit, an event or a content is malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A signature is wrong.
    #[error(transparent)]
    Signature(#[from] WrongSignature),
    /// The origin is not a server whose key of that epoch is known.
    #[error("the commit's origin {0} is not known here")]
    UnknownOrigin(ServerId),
    /// The events are not those that the commit names.
    #[error("the events are not those of the commit")]
    OtherEvents,
    /// A content is not the one that its event names.
    #[error("a content is not the one that its event names")]
    OtherContent,
    /// More than a commit may carry.
    #[error("more bytes than a commit may carry")]
    TooLarge,
}

impl From<EventError> for BundleError {
    fn from(error: EventError) -> Self {
        match error {
            EventError::Decode(error) => Self::Decode(error),
            EventError::Signature(error) => Self::Signature(error),
        }
    }
}

impl BundleError {
    /// The code of the verdict.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Decode(DecodeError::UnknownVersion(_)) => Code::UnknownVersion,
            Self::Decode(DecodeError::TooLarge { .. }) | Self::TooLarge => Code::TooLarge,
            Self::Decode(_) | Self::OtherEvents => Code::Malformed,
            Self::Signature(_) => Code::WrongSignature,
            Self::UnknownOrigin(_) => Code::NotFound,
            Self::OtherContent => Code::ContentMismatch,
        }
    }
}

impl BundleError {
    /// The server whose cards would have to be had first.
    #[must_use]
    pub const fn unknown_origin(&self) -> Option<ServerId> {
        match self {
            Self::UnknownOrigin(server) => Some(*server),
            _ => None,
        }
    }
}

impl CheckedBundle {
    /// Checks a bundle, cheapest first: sizes, shapes, the commit's signature, the events'.
    ///
    /// `key` gives the key of an origin's epoch.
    ///
    /// # Errors
    ///
    /// [`BundleError`].
    pub fn check(
        bundle: Bundle,
        key: impl Fn(&ServerId, u64) -> Option<PublicKey>,
    ) -> Result<Self, BundleError> {
        if bundle.size() > COMMIT_TOTAL_BYTES_MAX + COMMIT_TOTAL_BYTES_MAX / 2 {
            return Err(BundleError::TooLarge);
        }
        let commit = UnverifiedCommit::decode(bundle.commit)?;
        let (origin, epoch) = (commit.commit().origin, commit.commit().epoch);
        if bundle.events.len() != commit.commit().events.len() {
            return Err(BundleError::OtherEvents);
        }
        let key = key(&origin, epoch).ok_or(BundleError::UnknownOrigin(origin))?;
        let commit = commit.verify(&key)?;
        let mut contents = bundle.contents.into_iter();
        let mut events = Vec::with_capacity(bundle.events.len());
        for (raw, id) in bundle.events.into_iter().zip(&commit.commit().events) {
            // The hash is compared before the signature is verified: it costs a tenth.
            if blake3::hash(&raw.event.0).as_bytes() != id.as_bytes() {
                return Err(BundleError::OtherEvents);
            }
            let event = SignedEvent::verify(raw)?;
            if event.event().conversation != commit.commit().conversation {
                return Err(BundleError::OtherEvents);
            }
            let slot = match event.event().act.content() {
                None => Slot::None,
                Some(named) => slot(contents.next().ok_or(BundleError::OtherContent)?, named)?,
            };
            events.push(CheckedEvent { event, slot });
        }
        if contents.next().is_some() {
            return Err(BundleError::OtherContent);
        }
        Ok(Self { commit, events })
    }

    /// The conversation.
    #[must_use]
    pub const fn conversation(&self) -> ConversationId {
        self.commit.commit().conversation
    }

    /// Bytes held while it waits.
    #[must_use]
    pub fn size(&self) -> usize {
        let event = |e: &CheckedEvent| {
            let content = match &e.slot {
                Slot::Held(content) => 2 * content.bytes().len(),
                _ => 0,
            };
            2 * e.event.bytes().len() + content + 256
        };
        2 * self.commit.bytes().len() + 512 + self.events.iter().map(event).sum::<usize>()
    }
}

fn slot(slot: ContentSlot, named: ContentRef) -> Result<Slot, BundleError> {
    Ok(match slot {
        ContentSlot::Gone => Slot::Gone,
        ContentSlot::Withheld => Slot::Withheld,
        ContentSlot::Held(bytes) => {
            let content = SealedContent::open(bytes.0)?;
            if content.reference() != named {
                return Err(BundleError::OtherContent);
            }
            Slot::Held(content)
        }
    })
}
