//! A server's cards as one line of text, for configuration and for people to hand on.
//! Source: `spec/08-identity.md`, section 6.

use data_encoding::BASE64URL_NOPAD;

use super::{CARD_TEXT_BYTES_MAX, CardChain, CardError, RawCard};
use crate::encoding::{self, DecodeError};

const PREFIX: &str = "comity-card:";

/// Text that is no server's cards.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseCardsError {
    /// Another beginning.
    #[error("a server card begins with {PREFIX}")]
    Prefix,
    /// More than [`CARD_TEXT_BYTES_MAX`] before base64.
    #[error("the server card is too long")]
    TooLong,
    /// Not base64url without padding, as when a part of the line was lost.
    #[error("the server card is damaged: it is not base64url")]
    Base64,
    /// Not a list of cards.
    #[error("the server card is damaged")]
    Decode(#[source] DecodeError),
    /// A card in it is wrong.
    #[error("the server card does not verify")]
    Card(#[from] CardError),
}

impl CardChain {
    /// The standing cards as one line. Branches that do not stand stay out of it.
    ///
    /// # Errors
    ///
    /// [`ParseCardsError::TooLong`] if nobody could read it back.
    pub fn to_text(&self) -> Result<String, ParseCardsError> {
        let cards: Vec<&RawCard> = self
            .branches
            .standing()
            .iter()
            .filter_map(|id| self.cards.get(id).map(|(_, raw)| raw))
            .collect();
        let bytes = encoding::encode(&cards);
        if bytes.len() > CARD_TEXT_BYTES_MAX {
            return Err(ParseCardsError::TooLong);
        }
        Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Reads and checks such a line; space around it is ignored.
    ///
    /// # Errors
    ///
    /// [`ParseCardsError`].
    pub fn from_text(text: &str) -> Result<Self, ParseCardsError> {
        let text = text.trim_ascii();
        let encoded = text.strip_prefix(PREFIX).ok_or(ParseCardsError::Prefix)?;
        if encoded.len() > CARD_TEXT_BYTES_MAX.div_ceil(3) * 4 {
            return Err(ParseCardsError::TooLong);
        }
        let bytes = BASE64URL_NOPAD
            .decode(encoded.as_bytes())
            .map_err(|_| ParseCardsError::Base64)?;
        let cards: Vec<RawCard> =
            encoding::decode_frame(&bytes, CARD_TEXT_BYTES_MAX).map_err(ParseCardsError::Decode)?;
        Ok(Self::verify(&cards)?)
    }
}
