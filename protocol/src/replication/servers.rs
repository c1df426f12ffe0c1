//! Which servers are peers, and the cards by which they are known. Source: `spec/05-links.md`,
//! section 6, and `spec/08-identity.md`, section 5.
//!
//! A server id is the hash of its first card: cards prove themselves, whoever hands them on. What
//! they do not prove is that the name on them is that server's; that is asked of the name itself,
//! by who makes a server a peer.

use std::{collections::BTreeMap, sync::Arc};

use super::{Note, Output, Peer, Turn, lookups::Why};
use crate::{
    card::{CardChain, CardError},
    ids::{ConversationId, ServerId},
    link::{self, Cards, Frame, FrameChannel, Query},
    time::Timestamp,
};

/// Homes that take part and are no peers, that are remembered.
const SOUGHT_MAX: usize = 1_024;
/// Cards of them are asked for again after this long, in milliseconds.
const SEEK_AGAIN_MS: u64 = 60_000;
/// Peers that are asked at once.
const ASKED_AT_ONCE: usize = 3;

/// Homes that take part and are no peers, and when their cards were last asked for.
#[derive(Debug, Default)]
pub(super) struct Sought(BTreeMap<ServerId, Option<Timestamp>>);

impl Sought {
    /// Notes one; it is asked for at the next tick.
    pub(super) fn add(&mut self, server: ServerId) {
        if self.0.len() < SOUGHT_MAX {
            self.0.entry(server).or_insert(None);
        }
    }
}

impl Turn<'_> {
    /// A home takes part from here on.
    pub(super) fn takes_part(
        &mut self,
        server: ServerId,
        conversation: ConversationId,
        own_tip: Option<u64>,
    ) {
        if server == self.machine.me {
            return;
        }
        if self.machine.peers.contains_key(&server) {
            return self.link(server, link::Input::TakesPart(conversation, own_tip));
        }
        self.machine.sought.add(server);
        self.seek(server);
    }

    pub(super) fn peer_added(&mut self, server: ServerId, conversations: Vec<ConversationId>) {
        self.machine.sought.0.remove(&server);
        let me = self.machine.me;
        if server == me {
            return;
        }
        let peers = &mut self.machine.peers;
        peers.entry(server).or_insert_with(|| Peer::new(me, server));
        for conversation in conversations {
            let own_tip = self.machine.frontiers.own_tip(&conversation, &me);
            self.link(server, link::Input::TakesPart(conversation, own_tip));
        }
    }

    /// This server says who it is, first of all: the peer may hold older cards of it.
    pub(super) fn introduce_me(&mut self, server: ServerId) {
        let cards = self.directory.cards(&self.machine.me);
        if let Some(cards) = cards {
            let chains = vec![cards.to_travel()];
            let frame = Frame::Cards { chains };
            self.out
                .push(Output::Send(server, FrameChannel::Live, frame));
        }
    }

    /// Has a home that takes part made a peer, or asks for its cards first.
    fn seek(&mut self, server: ServerId) {
        let Some(asked) = self.machine.sought.0.get_mut(&server) else {
            return;
        };
        *asked = Some(self.now);
        if self.directory.cards(&server).is_some() {
            return self.out.push(Output::Sought(server));
        }
        let open = self.machine.peers.iter();
        let open = open.filter(|(_, peer)| peer.link.is_open());
        let asked: Vec<_> = open.map(|(id, _)| *id).take(ASKED_AT_ONCE).collect();
        for peer in asked {
            self.ask_for_cards(peer, server);
        }
    }

    pub(super) fn seek_again(&mut self) {
        let due = |asked: &Option<Timestamp>| {
            asked.is_none_or(|asked| self.now.ms_since(asked) >= SEEK_AGAIN_MS)
        };
        let sought = self.machine.sought.0.iter();
        let sought: Vec<_> = sought
            .filter(|(_, asked)| due(asked))
            .map(|(server, _)| *server)
            .collect();
        for server in sought {
            self.seek(server);
        }
    }

    pub(super) fn ask_for_cards(&mut self, peer: ServerId, server: ServerId) {
        let (why, query) = (Why::Cards(server), Query::Server(server));
        let lookups = &mut self.machine.lookups;
        if let Some(id) = lookups.begin(self.now, peer, why, query.clone()) {
            self.link(peer, link::Input::Lookup(id, query));
        }
    }

    /// Cards that a peer gave unasked: of those that are of no use here nothing is kept.
    pub(super) fn cards_came(&mut self, peer: ServerId, cards: &Cards) {
        let Some(server) = CardChain::server_of_travel(cards) else {
            return;
        };
        let held = self.directory.cards(&server);
        let wanted =
            server == peer || held.is_some() || self.machine.sought.0.contains_key(&server);
        if wanted && server != self.machine.me {
            self.learn_cards(peer, server, held.as_deref(), cards);
        }
    }

    pub(super) fn found_cards(&mut self, peer: ServerId, id: u64, cards: &Cards) {
        let server = CardChain::server_of_travel(cards);
        let server =
            server.filter(|server| self.machine.lookups.is_about_server(id, &peer, server));
        if let Some(server) = server {
            let held = self.directory.cards(&server);
            self.learn_cards(peer, server, held.as_deref(), cards);
        }
        self.machine.lookups.answered(id, server.is_some());
    }

    fn learn_cards(
        &mut self,
        peer: ServerId,
        server: ServerId,
        held: Option<&CardChain>,
        cards: &Cards,
    ) {
        match CardChain::merge_travel(held, cards) {
            Ok(Some(news)) => {
                self.directory.learn_cards(Arc::new(news));
                self.seek(server);
                // What it signed, and what was not taken for want of its key, may be now.
                self.link(peer, link::Input::Compare);
            }
            Ok(None) => {}
            Err(error) => self.cards_refused(peer, server, error),
        }
    }

    fn cards_refused(&mut self, peer: ServerId, server: ServerId, error: CardError) {
        self.count_refused(&peer);
        self.out
            .push(Output::Note(peer, Note::Cards(server, error)));
    }
}
