//! Events: what one device did. Source: `spec/02-events-and-commits.md`, sections 2 and 3.
//!
//! Bytes from outside become a [`SignedEvent`] once, here: decoded strictly, shape checked,
//! signature verified. Whether the act is *allowed* is asked of [`crate::authority`].

mod act;
mod content;
mod wire;

pub use act::{Act, Field, Grant, Target, Tip};
pub use content::{Attachment, Content, ContentRef, SealedContent};

use crate::{
    encoding::{self, DecodeError},
    ids::{Blob, ConversationId, DeviceKey, EventId, Nonce, Signature, UserId},
    limits::EVENT_BYTES_MAX,
    role::Role,
    signing::{self, Domain, SecretKey, WrongSignature},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// An event as its author wrote it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Where it happened.
    pub conversation: ConversationId,
    /// Who did it.
    pub author: UserId,
    /// The device that signs.
    pub device: DeviceKey,
    /// Made once when the user pressed send.
    pub nonce: Nonce,
    /// The role claimed: the event stands only while its author holds that much.
    pub claims: Role,
    /// What was done.
    pub act: Act,
    /// The device's clock, for display only; nothing is ever refused or ordered by it.
    pub sent_at: Timestamp,
}

impl Event {
    /// Canonical bytes; their BLAKE3 is the event's id.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::encode(&wire::WireEvent::from(self))
    }

    /// Signs with the device's key.
    ///
    /// # Panics
    ///
    /// In debug builds, if `key` is not the key of `self.device`.
    #[must_use]
    pub fn sign(self, key: &SecretKey) -> SignedEvent {
        debug_assert_eq!(
            key.public(),
            self.device,
            "an event is signed by its own device"
        );
        let bytes = self.to_bytes();
        let id = event_id(&bytes);
        let signature = key.sign(Domain::Event, id.as_bytes());
        SignedEvent {
            id,
            event: self,
            bytes,
            signature,
        }
    }
}

fn event_id(bytes: &[u8]) -> EventId {
    EventId::from_bytes(*blake3::hash(bytes).as_bytes())
}

/// An event's bytes and signature as they travel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawEvent {
    /// Canonical bytes of the event.
    pub event: Blob,
    /// The device's signature over the event's id.
    pub signature: Signature,
}

/// Why an event's bytes were refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The bytes are no event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The signature is not the device's.
    #[error(transparent)]
    Signature(#[from] WrongSignature),
}

/// An event whose bytes, shape and signature were checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedEvent {
    id: EventId,
    event: Event,
    bytes: Vec<u8>,
    signature: Signature,
}

impl SignedEvent {
    /// Checks everything that can be checked without knowing the conversation.
    ///
    /// # Errors
    ///
    /// [`EventError`]; nothing is kept.
    pub fn verify(raw: RawEvent) -> Result<Self, EventError> {
        let unverified = Self::from_trusted(raw)?;
        let id = unverified.id;
        signing::verify(
            &unverified.event.device,
            Domain::Event,
            id.as_bytes(),
            &unverified.signature,
        )?;
        Ok(unverified)
    }

    /// Decodes an event that this program verified before it stored it: no signature is checked.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are no event, as after damage to a disk.
    pub fn from_trusted(raw: RawEvent) -> Result<Self, DecodeError> {
        let bytes = raw.event.0;
        let wire: wire::WireEvent = encoding::decode(&bytes, EVENT_BYTES_MAX)?;
        let event = Event::try_from(wire)?;
        Ok(Self {
            id: event_id(&bytes),
            event,
            bytes,
            signature: raw.signature,
        })
    }

    /// BLAKE3 of the canonical bytes.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// What the bytes say.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// Canonical bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The form that travels.
    #[must_use]
    pub fn to_raw(&self) -> RawEvent {
        RawEvent {
            event: Blob(self.bytes.clone()),
            signature: self.signature,
        }
    }
}

#[cfg(test)]
mod tests;
