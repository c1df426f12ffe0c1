//! All links of one server, as a state machine: what is held durably, which peers take part where,
//! what they offer, and whose identity logs are looked up. Source: `spec/05-links.md`.
//!
//! Each peer has a [`Link`]; this machine feeds them with what became durable, takes their effects
//! and passes on what needs a disk, a conversation or the network. Time is monotonic: only pauses
//! and patience are measured with it, so a step of the wall clock delays nothing.

mod frontiers;
mod io;
mod lookups;
mod offers;
mod servers;
mod turn;
mod unreached;

pub use io::{
    Committed, Directory, ForPeers, Input, Judged, Note, Output, OwnRead, PeerWant, RecordsNeed,
    RecordsOf, Ticket,
};
pub use offers::NewConversation;
pub use turn::conversation_of;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    commit::RootRef,
    event::Tip,
    ids::{ConversationId, ServerId},
    link::{self, Link, Offer},
    time::Timestamp,
};

use frontiers::Frontiers;
use lookups::Lookups;
use servers::Sought;
use turn::Turn;
use unreached::Unreached;

/// Conversations that are being made known at once.
const OFFERS_MAX: usize = 1_024;

/// One peer.
#[derive(Debug)]
pub struct Peer {
    link: Link,
    /// Answers that are being taken in: items without a verdict yet, by want.
    taking: BTreeMap<u64, usize>,
    /// Positions that moved since they were last stored.
    moved: BTreeMap<ConversationId, u64>,
    refused_items: u64,
    unreached: Unreached,
}

impl Peer {
    fn new(me: ServerId, peer: ServerId) -> Self {
        Self {
            link: Link::new(me, peer),
            taking: BTreeMap::new(),
            moved: BTreeMap::new(),
            refused_items: 0,
            unreached: Unreached::default(),
        }
    }

    /// Its link.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// Items and identity logs of it that were refused for good, since the start.
    #[must_use]
    pub const fn refused_items(&self) -> u64 {
        self.refused_items
    }
}

/// All links of one server.
#[derive(Debug)]
pub struct Replication {
    me: ServerId,
    peers: BTreeMap<ServerId, Peer>,
    frontiers: Frontiers,
    lookups: Lookups,
    sought: Sought,
    /// Conversations that are being made known, and who offered them.
    offers: BTreeMap<ConversationId, BTreeSet<ServerId>>,
}

impl Replication {
    /// The links between this server and its peers, all down.
    #[must_use]
    pub fn new(me: ServerId, peers: impl IntoIterator<Item = ServerId>) -> Self {
        let others = peers.into_iter().filter(|peer| *peer != me);
        Self {
            me,
            peers: others.map(|id| (id, Peer::new(me, id))).collect(),
            frontiers: Frontiers::default(),
            lookups: Lookups::default(),
            sought: Sought::default(),
            offers: BTreeMap::new(),
        }
    }

    /// Reads back a stored conversation: the ends of its chains and the other homes of its members.
    pub fn restore(
        &mut self,
        conversation: ConversationId,
        offer: Offer,
        tips: Vec<Tip>,
        homes: impl IntoIterator<Item = ServerId>,
    ) {
        let own = tips.iter().filter(|tip| tip.home == self.me);
        let own = own.map(|tip| tip.seq).max();
        self.frontiers.know(conversation, offer);
        self.frontiers.set(&conversation, tips);
        for home in homes {
            if home != self.me && !self.peers.contains_key(&home) {
                self.sought.add(home);
            }
            self.restore_link(&home, link::Input::TakesPart(conversation, own));
        }
    }

    /// Reads back the newest root record from 1 on that stands in a conversation.
    pub fn restore_root(&mut self, conversation: ConversationId, root: RootRef) {
        self.frontiers.set_root(conversation, root);
    }

    /// Reads back that the last member of a peer is gone, who may not have heard of it yet; after
    /// [`Self::restore`].
    pub fn restore_ended(
        &mut self,
        conversation: ConversationId,
        peer: ServerId,
        until: Option<u64>,
    ) {
        self.restore_link(&peer, link::Input::TakesPart(conversation, until));
        self.restore_link(&peer, link::Input::LeftAt(conversation, until));
    }

    fn restore_link(&mut self, peer: &ServerId, input: link::Input) {
        if let Some(peer) = self.peers.get_mut(peer) {
            let mut out = Vec::new();
            // A link that is down says nothing.
            peer.link
                .handle(Timestamp(0), input, &self.frontiers, &mut out);
            debug_assert!(out.is_empty(), "a link that is down said {out:?}");
        }
    }

    /// Reads back for how long a peer had not been reached when that was last stored.
    pub fn restore_unreached(&mut self, peer: &ServerId, ms: u64) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.unreached = Unreached::restored(ms);
        }
    }

    /// For how many milliseconds this server has tried in vain to reach a peer: never more than
    /// since it last did. 0 for one that is no peer.
    #[must_use]
    pub fn unreached_ms(&self, peer: &ServerId) -> u64 {
        let peer = self.peers.get(peer);
        peer.map_or(0, |peer| peer.unreached.ms())
    }

    /// A peer, by its id.
    #[must_use]
    pub fn peer(&self, peer: &ServerId) -> Option<&Peer> {
        self.peers.get(peer)
    }

    /// Whether a conversation is known and durable.
    #[must_use]
    pub fn knows(&self, conversation: &ConversationId) -> bool {
        self.frontiers.knows(conversation)
    }

    /// Applies `input` at monotonic time `now` and appends its effects to `out`.
    pub fn handle(
        &mut self,
        now: Timestamp,
        input: Input,
        directory: &mut dyn Directory,
        out: &mut Vec<Output>,
    ) {
        let mut turn = Turn {
            now,
            machine: self,
            directory,
            out,
        };
        match input {
            Input::Peer {
                server,
                conversations,
            } => turn.peer_added(server, conversations),
            Input::NoPeer(server) => {
                turn.machine.peers.remove(&server);
            }
            Input::Up(peer, nonce) => {
                let Some(known) = turn.machine.peers.get_mut(&peer) else {
                    return;
                };
                known.taking.clear();
                turn.link(peer, link::Input::Up(nonce));
                turn.introduce_me(peer);
            }
            Input::Down(peer) => {
                if let Some(peer) = turn.machine.peers.get_mut(&peer) {
                    peer.taking.clear();
                }
                turn.link(peer, link::Input::Down);
            }
            Input::Frame(peer, frame) => turn.link(peer, link::Input::Frame(frame)),
            Input::Committed(committed) => turn.committed(committed),
            Input::Judged(ticket, judged) => turn.judged(ticket, judged),
            Input::Read(read, bundles) => {
                let input = link::Input::Read {
                    session: read.session,
                    conversation: read.conversation,
                    bundles,
                };
                turn.link(read.peer, input);
            }
            Input::Served(want, bundles, next) => {
                let input = link::Input::Served {
                    session: want.session,
                    id: want.id,
                    bundles,
                    next,
                };
                turn.link(want.peer, input);
            }
            Input::RecordsTaken(of, need) => turn.records_taken(of, need),
            Input::Say(peer, conversation, message) => {
                turn.link(peer, link::Input::Say(conversation, message));
            }
            Input::Ask(peer, ranges) => turn.link(peer, link::Input::Ask(ranges)),
            Input::Heard(of, need) => turn.heard(of, need),
            Input::ServedRecords(of, records) => {
                let input = link::Input::ServedRecords {
                    session: of.session,
                    conversation: of.conversation,
                    records,
                };
                turn.link(of.peer, input);
            }
            Input::Lookup {
                request,
                server,
                query,
                patient,
            } => turn.lookup(request, server, &query, patient),
            Input::Tick { random } => turn.tick(&random),
        }
    }
}

#[cfg(test)]
mod tests;
