//! The card's form on the wire. Source: `spec/08-identity.md`, section 5.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ADDRESS_BYTES_MAX, Card, REGION_BYTES_MAX};
use crate::{
    encoding::{self, DecodeError},
    identity::Signer,
    ids::{EntryId, PublicKey},
    limits::{CARD_ADDRESSES_MAX, ENTRY_BYTES_MAX},
    name::ServerName,
    time::Timestamp,
};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireCard {
    v: u64,
    n: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prev: Option<EntryId>,
    by: Signer,
    name: ServerName,
    key: PublicKey,
    recovery: PublicKey,
    addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    https: Option<ServerName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    epoch: u64,
    issued_at: Timestamp,
}

impl From<&Card> for WireCard {
    fn from(card: &Card) -> Self {
        let card = card.clone();
        Self {
            v: 1,
            n: card.n,
            prev: card.prev,
            by: card.by,
            name: card.name,
            key: card.key,
            recovery: card.recovery,
            addresses: card.addresses,
            https: card.https,
            region: card.region,
            epoch: card.epoch,
            issued_at: card.issued_at,
        }
    }
}

impl Card {
    /// Reads a card. No signature is checked.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] for bytes that are no card within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: WireCard = encoding::decode(bytes, ENTRY_BYTES_MAX)?;
        if wire.v != 1 {
            return Err(DecodeError::UnknownVersion(wire.v));
        }
        if (wire.n == 0) != wire.prev.is_none() {
            return Err(DecodeError::Invalid("card 0, and only that, has no prev"));
        }
        if wire.n == 0 && wire.by != Signer::Home {
            return Err(DecodeError::Invalid("the operational key signs card 0"));
        }
        if wire.key == wire.recovery {
            return Err(DecodeError::Invalid(
                "the recovery key is another than the operational key",
            ));
        }
        if !addresses_fit(&wire.addresses) {
            return Err(DecodeError::Invalid("addresses"));
        }
        if !wire.region.as_deref().is_none_or(region_fits) {
            return Err(DecodeError::Invalid("region"));
        }
        Ok(Self {
            n: wire.n,
            prev: wire.prev,
            by: wire.by,
            name: wire.name,
            key: wire.key,
            recovery: wire.recovery,
            addresses: wire.addresses,
            https: wire.https,
            region: wire.region,
            epoch: wire.epoch,
            issued_at: wire.issued_at,
        })
    }
}

/// Shape only: which transports there are is for those who dial to know.
fn addresses_fit(addresses: &[String]) -> bool {
    let shape = |address: &String| {
        (2..=ADDRESS_BYTES_MAX).contains(&address.len())
            && address.starts_with('/')
            && address.bytes().all(|b| b.is_ascii_graphic())
    };
    addresses.len() <= CARD_ADDRESSES_MAX
        && addresses.iter().all(shape)
        && addresses.iter().collect::<BTreeSet<_>>().len() == addresses.len()
}

fn region_fits(region: &str) -> bool {
    (1..=REGION_BYTES_MAX).contains(&region.len())
        && region
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
