//! Tokens: random text that stands for a right, shown once and stored as a hash.

use std::{collections::BTreeMap, fmt};

use comity_protocol::{
    ids::UserId,
    session::{Code, WireError},
    time::Timestamp,
};
use data_encoding::HEXLOWER;

const PREFIX: &str = "comity-token-";
/// Random bytes of a token.
const SECRET_BYTES: usize = 32;
/// Tokens that are good at one time.
const TOKENS_MAX: usize = 100_000;

/// The random bytes of a token. No `Debug` shows them.
#[derive(Clone)]
pub struct TokenSecret([u8; SECRET_BYTES]);

/// BLAKE3 of a token's random bytes: what is stored.
///
/// Finding a token by the hash of what was sent takes a time that tells about the hash, and from
/// the hash of a guess nothing follows about the next guess; so the comparison needs no care.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TokenHash(pub [u8; 32]);

/// What a token is good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TokenKind {
    /// Making an account.
    SignUp,
    /// Adding a device of this user.
    Device(UserId),
}

/// A token as it is stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token {
    /// What it is good for.
    pub kind: TokenKind,
    /// How often yet.
    pub uses_left: u32,
    /// Until when, this time not included.
    pub expires_at: Timestamp,
}

/// A token that is unknown, used up, expired or good for something else: one answer for all, so
/// that it tells nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the token is unknown, used up or expired")]
pub struct InvalidToken;

/// As many tokens as a home keeps, 100,000, are good already.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{TOKENS_MAX} tokens are good already")]
pub struct TooManyTokens;

impl From<InvalidToken> for WireError {
    fn from(error: InvalidToken) -> Self {
        Self::new(Code::InvalidToken, error.to_string())
    }
}

impl TokenSecret {
    /// A token of 32 bytes from a secure source.
    #[must_use]
    pub const fn from_random(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// The text to be shown, once.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", HEXLOWER.encode(&self.0))
    }

    /// Reads such a text; space around it is ignored.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`].
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let hex = text.trim_ascii().strip_prefix(PREFIX).ok_or(InvalidToken)?;
        // Before anything is allocated for it.
        if hex.len() != 2 * SECRET_BYTES {
            return Err(InvalidToken);
        }
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| InvalidToken)?;
        bytes.try_into().map(Self).map_err(|_| InvalidToken)
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(*blake3::hash(&self.0).as_bytes())
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret")
    }
}

impl Token {
    fn is_good(&self, now: Timestamp) -> bool {
        self.uses_left > 0 && now < self.expires_at
    }
}

/// One use of a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Taken {
    /// Which token.
    pub hash: TokenHash,
    /// As it was right after this use.
    pub after: Token,
}

/// The tokens that are good.
#[derive(Debug, Default)]
pub struct Tokens {
    tokens: BTreeMap<TokenHash, Token>,
}

impl Tokens {
    /// The tokens of these rows that are good at `now`.
    pub fn new(rows: impl IntoIterator<Item = (TokenHash, Token)>, now: Timestamp) -> Self {
        let good = rows.into_iter().filter(|(_, token)| token.is_good(now));
        Self {
            tokens: good.collect(),
        }
    }

    /// Adds a token, and forgets those that are no longer good if the room is needed.
    ///
    /// # Errors
    ///
    /// [`TooManyTokens`]; nothing was added.
    pub fn add(
        &mut self,
        hash: TokenHash,
        token: Token,
        now: Timestamp,
    ) -> Result<(), TooManyTokens> {
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.retain(|_, token| token.is_good(now));
            if self.tokens.len() >= TOKENS_MAX {
                return Err(TooManyTokens);
            }
        }
        self.tokens.insert(hash, token);
        Ok(())
    }

    /// Takes one use of a sign-up token.
    ///
    /// To be called before the account is written, and [`Self::give_back`] if that fails.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`]; nothing was taken.
    pub fn take_sign_up(&mut self, text: &str, now: Timestamp) -> Result<Taken, InvalidToken> {
        self.take(text, now, |kind| {
            matches!(kind, TokenKind::SignUp).then_some(())
        })
        .map(|(taken, ())| taken)
    }

    /// Takes one use of a token that adds a device, and tells whose.
    ///
    /// To be called before the device is written, and [`Self::give_back`] if that fails.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`]; nothing was taken.
    pub fn take_device(
        &mut self,
        text: &str,
        now: Timestamp,
    ) -> Result<(Taken, UserId), InvalidToken> {
        self.take(text, now, |kind| match kind {
            TokenKind::Device(user) => Some(user),
            TokenKind::SignUp => None,
        })
    }

    fn take<T>(
        &mut self,
        text: &str,
        now: Timestamp,
        wanted: impl FnOnce(TokenKind) -> Option<T>,
    ) -> Result<(Taken, T), InvalidToken> {
        let hash = TokenSecret::parse(text)?.hash();
        let token = self.tokens.get_mut(&hash).ok_or(InvalidToken)?;
        if !token.is_good(now) {
            return Err(InvalidToken);
        }
        let for_what = wanted(token.kind).ok_or(InvalidToken)?;
        token.uses_left -= 1;
        let after = *token;
        // Kept when used up: the use may be given back, and the next `add` sweeps.
        Ok((Taken { hash, after }, for_what))
    }

    /// A token as it is now. Of two uses at once the later write is to say the lesser number, so
    /// what is stored is asked for when it is handed to the log, not when the use was taken.
    #[must_use]
    pub fn get(&self, hash: &TokenHash) -> Option<Token> {
        self.tokens.get(hash).copied()
    }

    /// Gives back a use that could not be written.
    pub fn give_back(&mut self, taken: &Taken) {
        if let Some(token) = self.tokens.get_mut(&taken.hash) {
            token.uses_left = token.uses_left.saturating_add(1);
        }
    }

    /// Forgets a token; whether there was one. The caller removes its row.
    pub fn revoke(&mut self, hash: &TokenHash) -> bool {
        self.tokens.remove(hash).is_some()
    }

    /// Tokens with what they are good for, for an admin; some may have expired meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = (&TokenHash, &Token)> {
        self.tokens.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn secret(n: u8) -> TokenSecret {
        TokenSecret::from_random([n; 32])
    }

    fn user() -> UserId {
        UserId::from_bytes([9; 32])
    }

    /// Token 1 makes two accounts, token 2 adds one device; both expire at 2,000.
    fn tokens() -> Tokens {
        let token = |kind, uses_left| Token {
            kind,
            uses_left,
            expires_at: Timestamp(2_000),
        };
        let rows = [
            (secret(1).hash(), token(TokenKind::SignUp, 2)),
            (secret(2).hash(), token(TokenKind::Device(user()), 1)),
        ];
        Tokens::new(rows, NOW)
    }

    #[test]
    fn text_round_trips_and_other_text_is_invalid() {
        let text = secret(1).to_text();
        assert_eq!(text.len(), "comity-token-".len() + 64);
        assert_eq!(
            TokenSecret::parse(&format!(" {text}\n")).unwrap().hash(),
            secret(1).hash()
        );
        for bad in [
            "",
            "comity-token-",
            &text[1..],
            &text[..text.len() - 1],
            &text.to_uppercase(),
        ] {
            assert!(TokenSecret::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", secret(1)), "TokenSecret");
    }

    #[test]
    fn token_is_good_for_its_kind_and_number_of_uses() {
        let mut tokens = tokens();
        let (one, two) = (secret(1).to_text(), secret(2).to_text());
        assert_eq!(tokens.take_device(&one, NOW), Err(InvalidToken));
        assert_eq!(tokens.take_sign_up(&two, NOW), Err(InvalidToken));
        assert_eq!(tokens.take_sign_up(&one, NOW).unwrap().after.uses_left, 1);
        assert_eq!(tokens.take_sign_up(&one, NOW).unwrap().after.uses_left, 0);
        assert_eq!(tokens.take_sign_up(&one, NOW), Err(InvalidToken));
        let (taken, whose) = tokens.take_device(&two, NOW).unwrap();
        assert_eq!((taken.hash, whose), (secret(2).hash(), user()));
        assert_eq!(tokens.take_device(&two, NOW), Err(InvalidToken));
        assert_eq!(
            tokens.take_sign_up(&secret(3).to_text(), NOW),
            Err(InvalidToken)
        );
    }

    #[test]
    fn use_that_was_given_back_can_be_taken_again() {
        let mut tokens = tokens();
        let text = secret(2).to_text();
        let (taken, _) = tokens.take_device(&text, NOW).unwrap();
        assert_eq!(tokens.get(&taken.hash), Some(taken.after));
        tokens.give_back(&taken);
        assert_eq!(tokens.get(&taken.hash).unwrap().uses_left, 1);
        assert_eq!(tokens.take_device(&text, NOW).unwrap().0, taken);
    }

    #[test]
    fn expired_or_revoked_token_is_invalid() {
        let mut tokens = tokens();
        let text = secret(1).to_text();
        assert!(tokens.take_sign_up(&text, Timestamp(1_999)).is_ok());
        assert_eq!(
            tokens.take_sign_up(&text, Timestamp(2_000)),
            Err(InvalidToken)
        );
        assert!(tokens.revoke(&secret(1).hash()));
        assert_eq!(tokens.take_sign_up(&text, NOW), Err(InvalidToken));
        assert!(!tokens.revoke(&secret(1).hash()));
    }

    #[test]
    fn room_is_made_of_tokens_no_longer_good_only() {
        let token = |expires_at| Token {
            kind: TokenKind::SignUp,
            uses_left: 1,
            expires_at: Timestamp(expires_at),
        };
        let hash = |n: usize| TokenHash(*blake3::hash(&n.to_be_bytes()).as_bytes());
        let rows = (0..TOKENS_MAX).map(|n| (hash(n), token(if n == 0 { 1_500 } else { 9_000 })));
        let mut tokens = Tokens::new(rows, NOW);
        assert_eq!(
            tokens.add(hash(TOKENS_MAX), token(9_000), NOW),
            Err(TooManyTokens)
        );
        assert_eq!(
            tokens.add(hash(TOKENS_MAX), token(9_000), Timestamp(1_500)),
            Ok(())
        );
        assert_eq!(tokens.iter().count(), TOKENS_MAX);
    }
}
