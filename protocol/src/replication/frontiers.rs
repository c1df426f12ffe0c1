//! The durable frontiers, as links ask for them.

use std::collections::BTreeMap;

use crate::{
    commit::RootRef,
    event::Tip,
    ids::{ConversationId, ServerId},
    link::{Offer, World},
};

/// Conversations and the ends of their chains.
#[derive(Debug, Default)]
pub(super) struct Frontiers {
    conversations: BTreeMap<ConversationId, (Vec<Tip>, Offer)>,
    /// Newest root records from 1 on.
    roots: BTreeMap<ConversationId, RootRef>,
}

impl Frontiers {
    pub(super) fn know(&mut self, conversation: ConversationId, offer: Offer) {
        self.conversations
            .entry(conversation)
            .or_insert_with(|| (Vec::new(), offer));
    }

    pub(super) fn set(&mut self, conversation: &ConversationId, tips: Vec<Tip>) {
        if let Some((held, _)) = self.conversations.get_mut(conversation) {
            *held = tips;
        }
    }

    pub(super) fn set_root(&mut self, conversation: ConversationId, root: RootRef) {
        self.roots.insert(conversation, root);
    }

    /// Where a home's own chain ends.
    pub(super) fn own_tip(&self, conversation: &ConversationId, me: &ServerId) -> Option<u64> {
        let (tips, _) = self.conversations.get(conversation)?;
        let own = tips.iter().filter(|tip| tip.home == *me);
        own.map(|tip| tip.seq).max()
    }

    pub(super) fn knows(&self, conversation: &ConversationId) -> bool {
        self.conversations.contains_key(conversation)
    }
}

impl World for Frontiers {
    fn frontier(&self, conversation: &ConversationId) -> Option<Vec<Tip>> {
        self.conversations
            .get(conversation)
            .map(|(tips, _)| tips.clone())
    }

    fn offer(&self, conversation: &ConversationId) -> Option<Offer> {
        self.conversations
            .get(conversation)
            .map(|(_, offer)| offer.clone())
    }

    fn root(&self, conversation: &ConversationId) -> Option<RootRef> {
        self.roots.get(conversation).copied()
    }
}
