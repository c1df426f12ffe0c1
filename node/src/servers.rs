//! The servers known here, by their cards. Source: `spec/08-identity.md`, section 5.
//!
//! This server's own cards and those of the configuration are read at the start; others are learnt
//! from peers, kept, and read back.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use comity_links::{Network, PeerKey, Reach, StaticPeer};
use comity_protocol::{
    card::CardChain,
    ids::{PublicKey, ServerId},
    name::ServerName,
};

use crate::records::{ServerRecord, kind, record};

/// Servers known, those of the configuration included.
const SERVERS_MAX: usize = 10_000;

/// Where a server is reached.
#[derive(Clone, Debug)]
enum At {
    /// It is this one.
    Here,
    /// Where the operator says; nothing: at what its card says.
    Configured(Vec<String>),
    /// At what its card says. `named`: it answered at its name.
    Learnt { named: bool },
}

/// What became of cards that a server showed at its name.
#[derive(Debug)]
pub(crate) enum Named {
    /// They are new: to be stored.
    Kept(comity_storage::Record),
    /// They were known.
    Known,
    /// The name is known as this other server's.
    Other(ServerId),
    /// They do not go with what is held.
    Unsound(String),
    /// There is no room.
    Full,
}

#[derive(Clone, Debug)]
struct Known {
    cards: Arc<CardChain>,
    at: At,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Servers {
    me: ServerId,
    /// Addresses that are not public and may be dialled all the same.
    allowed: Vec<Network>,
    /// Only servers of the configuration are peers.
    closed: bool,
    known: RwLock<BTreeMap<ServerId, Known>>,
}

/// A server of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Configured {
    pub(crate) cards: CardChain,
    /// Where it is reached instead of where its card says.
    pub(crate) addresses: Vec<String>,
}

impl Servers {
    /// What the configuration names, and what was stored.
    pub(crate) fn new(
        own: CardChain,
        configured: Vec<Configured>,
        stored: Vec<ServerRecord>,
        (closed, allowed): (bool, Vec<Network>),
    ) -> Self {
        let me = own.server();
        let own = Known {
            cards: Arc::new(own),
            at: At::Here,
        };
        let mut known = BTreeMap::from([(me, own)]);
        for Configured { cards, addresses } in configured {
            let at = At::Configured(addresses);
            let cards = Arc::new(cards);
            known.entry(cards.server()).or_insert(Known { cards, at });
        }
        for stored in stored {
            let server = stored.server;
            let held = known.get(&server);
            let held_cards = held.map(|held| Arc::clone(&held.cards));
            match CardChain::merge_travel(held_cards.as_deref(), &stored.cards) {
                Ok(Some(news)) if server != me => {
                    let at = held.map(|held| held.at.clone());
                    let at = at.unwrap_or(At::Learnt {
                        named: stored.named,
                    });
                    let cards = Arc::new(news);
                    known.insert(server, Known { cards, at });
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%server, %error, "stored cards do not verify"),
            }
        }
        Self {
            me,
            allowed,
            closed,
            known: RwLock::new(known),
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, BTreeMap<ServerId, Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cards of a server.
    pub(crate) fn cards(&self, server: &ServerId) -> Option<Arc<CardChain>> {
        let known = self.known();
        known.get(server).map(|known| Arc::clone(&known.cards))
    }

    /// The key of an origin's epoch.
    pub(crate) fn key_of(&self, origin: &ServerId, epoch: u64) -> Option<PublicKey> {
        self.known().get(origin)?.cards.key_for_epoch(epoch)
    }

    /// The name on a server's newest card.
    pub(crate) fn name_of(&self, server: &ServerId) -> Option<ServerName> {
        Some(self.known().get(server)?.cards.current().name.clone())
    }

    /// The server with this name: configured, or one that answered there. What a card alone says
    /// makes no name.
    pub(crate) fn named(&self, name: &ServerName) -> Option<ServerId> {
        Self::name_in(&self.known(), name)
    }

    fn name_in(known: &BTreeMap<ServerId, Known>, name: &ServerName) -> Option<ServerId> {
        let proven = |known: &Known| match known.at {
            At::Here | At::Configured(_) => Some(false),
            At::Learnt { named } => named.then_some(true),
        };
        let named = known
            .iter()
            .filter(|(_, known)| known.cards.current().name == *name)
            .filter_map(|(server, known)| Some((proven(known)?, *server)));
        named.min().map(|(_, server)| server)
    }

    /// Only servers of the configuration are peers.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the cards that a server showed at its name.
    pub(crate) fn keep_named(&self, cards: &CardChain) -> Named {
        let server = cards.server();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let other = Self::name_in(&known, &cards.current().name);
        if let Some(other) = other.filter(|other| *other != server) {
            return Named::Other(other);
        }
        let held = known.get(&server).cloned();
        let merged =
            CardChain::merge_travel(held.as_ref().map(|held| &*held.cards), &cards.to_travel());
        let news = match merged {
            Ok(news) => news,
            Err(error) => return Named::Unsound(error.to_string()),
        };
        let was_named = held
            .as_ref()
            .is_some_and(|held| !matches!(held.at, At::Learnt { named: false }));
        if news.is_none() && was_named {
            return Named::Known;
        }
        if held.is_none() && known.len() >= SERVERS_MAX {
            return Named::Full;
        }
        let at = match held.as_ref().map(|held| &held.at) {
            Some(at @ (At::Here | At::Configured(_))) => at.clone(),
            Some(At::Learnt { .. }) | None => At::Learnt { named: true },
        };
        let cards = news.map(Arc::new).or(held.map(|held| held.cards));
        let Some(cards) = cards else {
            return Named::Known;
        };
        let record = record_of(&cards, true);
        known.insert(server, Known { cards, at });
        Named::Kept(record)
    }

    /// The record of what is known of a server.
    pub(crate) fn record_of(&self, server: &ServerId) -> Option<comity_storage::Record> {
        let known = self.known();
        let known = known.get(server)?;
        let named = matches!(known.at, At::Learnt { named: true });
        Some(record_of(&known.cards, named))
    }

    /// Whether a server that takes part may become a peer.
    pub(crate) fn may_be_peer(&self, server: &ServerId) -> bool {
        match self.known().get(server).map(|known| &known.at) {
            Some(At::Configured(_)) => true,
            Some(At::Learnt { .. }) => !self.closed,
            Some(At::Here) | None => false,
        }
    }

    /// How a server is reached: only where it may be, if its word is all there is on that.
    pub(crate) fn reached(&self, server: &ServerId) -> Option<StaticPeer> {
        let known = self.known();
        let Known { cards, at } = known.get(server)?;
        let card = cards.current();
        let (addresses, reach) = match at {
            At::Here => return None,
            At::Configured(addresses) if !addresses.is_empty() => {
                (addresses.clone(), Reach::anywhere())
            }
            At::Configured(_) => (card.addresses.clone(), Reach::anywhere()),
            At::Learnt { .. } => (
                card.addresses.clone(),
                Reach::public_and(self.allowed.clone()),
            ),
        };
        Some(StaticPeer {
            key: PeerKey(*card.key.as_bytes()),
            addresses,
            reach,
        })
    }

    /// Every peer of the configuration.
    pub(crate) fn configured(&self) -> Vec<ServerId> {
        let known = self.known();
        let configured = known
            .iter()
            .filter(|(_, known)| matches!(known.at, At::Configured(_)));
        configured.map(|(server, _)| *server).collect()
    }

    /// Takes cards with news. False if there is no room for one more server.
    pub(crate) fn keep(&self, cards: Arc<CardChain>) -> bool {
        let server = cards.server();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = known.get_mut(&server) {
            held.cards = cards;
            return true;
        }
        if known.len() >= SERVERS_MAX || server == self.me {
            return false;
        }
        let at = At::Learnt { named: false };
        known.insert(server, Known { cards, at });
        true
    }
}

fn record_of(cards: &CardChain, named: bool) -> comity_storage::Record {
    let body = ServerRecord {
        server: cards.server(),
        cards: cards.to_travel(),
        named,
    };
    record(kind::SERVER, &body, Vec::new())
}

#[cfg(test)]
mod tests;
