//! A server's cards as servers hand them to each other and store them.

use super::{CARD_TEXT_BYTES_MAX, CardChain, CardError, RawCard};
use crate::ids::ServerId;

impl CardChain {
    /// The form that travels: every card, card 0 first, each after its `prev`.
    #[must_use]
    pub fn to_travel(&self) -> Vec<RawCard> {
        self.cards().cloned().collect()
    }

    /// Whose cards they claim to be.
    #[must_use]
    pub fn server_of_travel(cards: &[RawCard]) -> Option<ServerId> {
        let first = cards.first()?.id();
        Some(ServerId::from_bytes(*first.as_bytes()))
    }

    /// Verifies cards that came and merges them with what is held of the same server: the chain to
    /// be held from now on, or `None` if nothing is new.
    ///
    /// # Errors
    ///
    /// [`CardError`], also [`CardError::Full`] for more bytes than a chain has; what is held stays.
    pub fn merge_travel(held: Option<&Self>, cards: &[RawCard]) -> Result<Option<Self>, CardError> {
        // Before any signature is checked.
        let bytes: usize = cards.iter().map(|raw| raw.card.as_ref().len() + 160).sum();
        if bytes > CARD_TEXT_BYTES_MAX {
            return Err(CardError::Full);
        }
        let Some(held) = held else {
            return Self::verify(cards).map(Some);
        };
        if Self::server_of_travel(cards) != Some(held.server) {
            return Err(CardError::OtherGenesis);
        }
        if cards.iter().all(|card| held.contains(&card.id())) {
            return Ok(None);
        }
        let mut merged = held.clone();
        for card in cards.iter().skip(1) {
            merged.extend(card)?;
        }
        Ok(Some(merged))
    }
}
