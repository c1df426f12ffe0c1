//! Who a server is: a chain of signed cards. Source: `spec/08-identity.md`, sections 5 and 6.
//!
//! A card gives a server's name, keys and addresses. The newest standing one counts for reaching
//! it, the one of an epoch for verifying its commits.

#[cfg(test)]
mod tests;
mod text;
mod travel;
mod wire;

use std::collections::BTreeMap;

pub use text::ParseCardsError;

use crate::{
    encoding::{self, DecodeError},
    identity::{Branches, Effect, Signer},
    ids::{Blob, EntryId, PublicKey, ServerId, Signature},
    name::ServerName,
    signing::{self, Domain, SecretKey, WrongSignature},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Cards of one server, losing branches included.
pub const CARDS_MAX: usize = 1_024;
/// Cards of these that only the recovery key can use.
pub const RECOVERY_RESERVE: usize = 16;
/// Bytes of one address on a card.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Bytes of a region's name.
pub const REGION_BYTES_MAX: usize = 32;
/// Bytes of the cards in a line of configuration, before base64.
pub const CARD_TEXT_BYTES_MAX: usize = 256 * 1024;

/// A server card.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Card {
    /// Place in the chain, from 0.
    pub n: u64,
    /// The card before; none in card 0.
    pub prev: Option<EntryId>,
    /// Which key of the card before signs; in card 0 its own operational key.
    pub by: Signer,
    /// The server's name.
    pub name: ServerName,
    /// The operational key; also the server's key on links.
    pub key: PublicKey,
    /// The key kept offline, which outranks it. Only itself can change it.
    pub recovery: PublicKey,
    /// Where links are taken: multiaddrs, each 1..=256 bytes, at most 16, without repeats.
    pub addresses: Vec<String>,
    /// Where HTTPS is served, if not at the name.
    pub https: Option<ServerName>,
    /// For placing users and replicas: 1..=32 of `a-z 0-9 -`.
    pub region: Option<String>,
    /// The first epoch of `key`. Grows when, and only when, the key changes.
    pub epoch: u64,
    /// For display.
    pub issued_at: Timestamp,
}

/// A card's bytes and signatures as they travel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawCard {
    /// Canonical bytes of the card.
    pub card: Blob,
    /// Over the card's id, by the key that the card says.
    pub signature: Signature,
    /// Over the card's id, by a new operational key: nobody takes a key for his own that another
    /// holds. Present when, and only when, the key changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_key_signature: Option<Signature>,
}

impl RawCard {
    /// The card's id: BLAKE3 of its bytes, whatever they are.
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId::from_bytes(*blake3::hash(self.card.as_ref()).as_bytes())
    }
}

/// What a server says about itself when it makes a card.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CardFields {
    /// The server's name.
    pub name: ServerName,
    /// Where links are taken.
    pub addresses: Vec<String>,
    /// Where HTTPS is served, if not at the name.
    pub https: Option<ServerName>,
    /// For placing users and replicas.
    pub region: Option<String>,
}

/// What the next card says: the fields, and keys where they change.
#[derive(Clone, Debug)]
pub struct CardChange<'a> {
    /// The new fields; [`Card::fields`] gives those of an older card.
    pub fields: CardFields,
    /// A new operational key and its first epoch, greater than that of the key before.
    pub new_key: Option<(&'a SecretKey, u64)>,
    /// A new recovery key; only the recovery key can sign that.
    pub new_recovery: Option<PublicKey>,
}

impl From<CardFields> for CardChange<'_> {
    fn from(fields: CardFields) -> Self {
        Self {
            fields,
            new_key: None,
            new_recovery: None,
        }
    }
}

/// Why a card was refused. The chain is left as it was.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// The bytes are no card.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A signature is not of the key that the card says.
    #[error(transparent)]
    Signature(#[from] WrongSignature),
    /// A chain begins with card 0.
    #[error("the first card is not card 0")]
    NotGenesis,
    /// A card 0 of another server.
    #[error("a second card 0")]
    OtherGenesis,
    /// The card before is not held: it is to be fetched first.
    #[error("the card before, {0}, is not held")]
    MissingPrev(EntryId),
    /// Not one more than the number of the card before.
    #[error("card {found} where {expected} follows")]
    WrongNumber {
        /// The card's number.
        found: u64,
        /// One more than its `prev`'s.
        expected: u64,
    },
    /// The operational key changed the recovery key.
    #[error("only the recovery key can change the recovery key")]
    RecoveryChanged,
    /// A new key without a greater epoch, or a new epoch without a new key.
    #[error("the epoch grows with the key and not without")]
    Epoch,
    /// A new key without its own signature, or that signature without a new key.
    #[error("a new key signs the card that names it")]
    NewKeySignature,
    /// No room: [`CARDS_MAX`], less [`RECOVERY_RESERVE`] for the operational key.
    #[error("the chain of cards is full")]
    Full,
    /// The operational key cannot extend a contested chain; only the recovery key can.
    #[error("the server's identity is contested")]
    Contested,
}

/// What [`CardChain::extend`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CardExtended {
    /// The card.
    pub id: EntryId,
    /// What it changed.
    pub effect: Effect,
}

/// A server's cards, each checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CardChain {
    server: ServerId,
    cards: BTreeMap<EntryId, (Card, RawCard)>,
    branches: Branches,
}

impl CardChain {
    /// Makes a server: card 0, signed by its operational key, whose epoch is `epoch`.
    ///
    /// # Errors
    ///
    /// [`CardError::Decode`] for fields outside the limits.
    pub fn genesis(
        fields: CardFields,
        key: &SecretKey,
        recovery: PublicKey,
        epoch: u64,
        issued_at: Timestamp,
    ) -> Result<Self, CardError> {
        let CardFields {
            name,
            addresses,
            https,
            region,
        } = fields;
        let card = Card {
            n: 0,
            prev: None,
            by: Signer::Home,
            name,
            key: key.public(),
            recovery,
            addresses,
            https,
            region,
            epoch,
            issued_at,
        };
        Self::verify(&[card.sign(key, None)])
    }

    /// Checks a whole chain from outside: card 0 first, then each card after its `prev`. The
    /// caller compares [`Self::server`] with the server that it asked for or pinned.
    ///
    /// # Errors
    ///
    /// [`CardError`] of the first card that is wrong; nothing is kept.
    pub fn verify(cards: &[RawCard]) -> Result<Self, CardError> {
        if cards.len() > CARDS_MAX {
            return Err(CardError::Full);
        }
        let (first, rest) = cards.split_first().ok_or(CardError::NotGenesis)?;
        let card = Card::decode(first.card.as_ref())?;
        if card.n != 0 {
            return Err(CardError::NotGenesis);
        }
        if first.new_key_signature.is_some() {
            return Err(CardError::NewKeySignature);
        }
        let id = first.id();
        signing::verify(&card.key, Domain::Card, id.as_bytes(), &first.signature)?;
        let mut chain = Self {
            server: ServerId::from_bytes(*id.as_bytes()),
            cards: BTreeMap::from([(id, (card, first.clone()))]),
            branches: Branches::new(id),
        };
        for raw in rest {
            chain.extend(raw)?;
        }
        Ok(chain)
    }

    /// Adds one card from outside. Taking one that is held already changes nothing; one on a
    /// branch that does not stand is kept as proof.
    ///
    /// # Errors
    ///
    /// [`CardError`]; the chain is left as it was. After [`CardError::MissingPrev`] the same card
    /// may be tried again.
    pub fn extend(&mut self, raw: &RawCard) -> Result<CardExtended, CardError> {
        let id = raw.id();
        if self.branches.contains(&id) {
            let effect = Effect::Known;
            return Ok(CardExtended { id, effect });
        }
        let card = Card::decode(raw.card.as_ref())?;
        let prev = card.prev.ok_or(CardError::OtherGenesis)?;
        self.check(&card, prev, raw)?;
        let effect = self.branches.insert(id, prev, card.by == Signer::Recovery);
        self.cards.insert(id, (card, raw.clone()));
        Ok(CardExtended { id, effect })
    }

    fn check(&self, card: &Card, prev: EntryId, raw: &RawCard) -> Result<(), CardError> {
        let room = match card.by {
            Signer::Home => CARDS_MAX - RECOVERY_RESERVE,
            Signer::Recovery => CARDS_MAX,
        };
        if self.len() >= room {
            return Err(CardError::Full);
        }
        let before = self.card(&prev).ok_or(CardError::MissingPrev(prev))?;
        if card.n != before.n + 1 {
            return Err(CardError::WrongNumber {
                found: card.n,
                expected: before.n + 1,
            });
        }
        if card.recovery != before.recovery && card.by != Signer::Recovery {
            return Err(CardError::RecoveryChanged);
        }
        let new_key = card.key != before.key;
        let epoch_fits = if new_key {
            card.epoch > before.epoch
        } else {
            card.epoch == before.epoch
        };
        if !epoch_fits {
            return Err(CardError::Epoch);
        }
        let id = raw.id();
        let signer = match card.by {
            Signer::Home => &before.key,
            Signer::Recovery => &before.recovery,
        };
        signing::verify(signer, Domain::Card, id.as_bytes(), &raw.signature)?;
        match (new_key, &raw.new_key_signature) {
            (false, None) => Ok(()),
            (true, Some(signature)) => Ok(signing::verify(
                &card.key,
                Domain::Card,
                id.as_bytes(),
                signature,
            )?),
            _ => Err(CardError::NewKeySignature),
        }
    }

    /// Signs the next card on the standing tip. The chain does not change: the caller makes the
    /// card durable, then gives it to [`Self::extend`].
    ///
    /// # Errors
    ///
    /// [`CardError`] if the card would be refused; also [`CardError::Contested`] for the
    /// operational key on a contested chain.
    pub fn next(
        &self,
        change: CardChange<'_>,
        by: Signer,
        key: &SecretKey,
        issued_at: Timestamp,
    ) -> Result<RawCard, CardError> {
        if by == Signer::Home && self.is_contested() {
            return Err(CardError::Contested);
        }
        self.card_on(self.tip(), change, by, key, issued_at)
    }

    /// Signs a card on any held one: so the recovery key goes back to before a theft.
    ///
    /// # Errors
    ///
    /// As [`Self::next`], but a fork is not refused.
    pub fn card_on(
        &self,
        prev: EntryId,
        change: CardChange<'_>,
        by: Signer,
        key: &SecretKey,
        issued_at: Timestamp,
    ) -> Result<RawCard, CardError> {
        let before = self.card(&prev).ok_or(CardError::MissingPrev(prev))?;
        let CardChange {
            fields,
            new_key,
            new_recovery,
        } = change;
        let card = Card {
            n: before.n + 1,
            prev: Some(prev),
            by,
            name: fields.name,
            key: new_key.map_or(before.key, |(new, _)| new.public()),
            recovery: new_recovery.unwrap_or(before.recovery),
            addresses: fields.addresses,
            https: fields.https,
            region: fields.region,
            epoch: new_key.map_or(before.epoch, |(_, epoch)| epoch),
            issued_at,
        };
        let raw = card.sign(key, new_key.map(|(new, _)| new));
        // What is written is read back: the shape is checked by the one check there is.
        let card = Card::decode(raw.card.as_ref())?;
        self.check(&card, prev, &raw)?;
        Ok(raw)
    }

    /// BLAKE3 of card 0.
    #[must_use]
    pub const fn server(&self) -> ServerId {
        self.server
    }

    /// The last standing card.
    #[must_use]
    pub fn current(&self) -> &Card {
        self.card(&self.tip())
            .expect("the standing tip is a held card")
    }

    /// The key that verifies commits of `epoch`: of the last standing card whose first epoch is
    /// not greater. None for an epoch before the server's first.
    #[must_use]
    pub fn key_for_epoch(&self, epoch: u64) -> Option<PublicKey> {
        self.standing()
            .filter(|card| card.epoch <= epoch)
            .last()
            .map(|card| card.key)
    }

    /// Whether the chain ends at a fork that only the recovery key can settle.
    #[must_use]
    pub const fn is_contested(&self) -> bool {
        self.branches.is_contested()
    }

    /// The id of the last standing card.
    #[must_use]
    pub fn tip(&self) -> EntryId {
        self.branches.tip()
    }

    /// Cards held, losing branches included; at least 1.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a chain has its card 0 at least"
    )]
    pub fn len(&self) -> usize {
        self.branches.len()
    }

    /// Whether the card is held.
    #[must_use]
    pub fn contains(&self, id: &EntryId) -> bool {
        self.branches.contains(id)
    }

    /// A card that is held.
    #[must_use]
    pub fn card(&self, id: &EntryId) -> Option<&Card> {
        self.cards.get(id).map(|(card, _)| card)
    }

    /// The cards that stand, from card 0 on. Their epochs never fall.
    pub fn standing(&self) -> impl Iterator<Item = &Card> {
        self.branches
            .standing()
            .iter()
            .filter_map(|id| self.card(id))
    }

    /// Every card as it travels, in an order that [`Self::verify`] takes.
    pub fn cards(&self) -> impl Iterator<Item = &RawCard> {
        self.branches
            .in_order()
            .into_iter()
            .filter_map(|id| self.cards.get(&id).map(|(_, raw)| raw))
    }
}

impl Card {
    /// Canonical bytes; their BLAKE3 is the card's id.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::encode(&wire::WireCard::from(self))
    }

    /// What a server says about itself: to be changed and signed again.
    #[must_use]
    pub fn fields(&self) -> CardFields {
        CardFields {
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            https: self.https.clone(),
            region: self.region.clone(),
        }
    }

    fn sign(&self, key: &SecretKey, new: Option<&SecretKey>) -> RawCard {
        let bytes = self.to_bytes();
        let id = blake3::hash(&bytes);
        RawCard {
            card: Blob(bytes),
            signature: key.sign(Domain::Card, id.as_bytes()),
            new_key_signature: new.map(|new| new.sign(Domain::Card, id.as_bytes())),
        }
    }
}
