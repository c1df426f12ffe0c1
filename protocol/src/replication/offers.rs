//! Conversations that a peer offers. Source: `spec/05-links.md`, section 5.

use super::{Note, OFFERS_MAX, Output, Turn, lookups::Why};
use crate::{
    conversation::RoleChange,
    ids::{ConversationId, ServerId, UserId},
    link::Offer,
    role::Role,
    root::{Genesis, direct_conversation},
};

/// A conversation that may be made known here.
#[derive(Clone, Debug)]
pub enum NewConversation {
    /// A group.
    Group(Box<Genesis>),
    /// The direct conversation of two users, or of one with himself, and their homes.
    Direct([RoleChange; 2]),
}

impl NewConversation {
    /// The conversation's id.
    #[must_use]
    pub fn conversation(&self) -> ConversationId {
        match self {
            Self::Group(genesis) => genesis.conversation(),
            Self::Direct([a, b]) => direct_conversation(&a.user, &b.user),
        }
    }
}

/// An offer checked as far as it can be without identity logs.
enum Checked {
    Group(Box<Genesis>),
    Direct(UserId, UserId),
}

/// Checks that an offer makes this conversation.
fn check(conversation: &ConversationId, offer: Offer) -> Option<Checked> {
    match offer {
        Offer::Group(raw) => {
            let genesis = Genesis::verify(raw).ok()?;
            (genesis.conversation() == *conversation).then(|| Checked::Group(Box::new(genesis)))
        }
        Offer::Direct(a, b) => {
            let id = direct_conversation(&a, &b);
            (id == *conversation).then_some(Checked::Direct(a, b))
        }
    }
}

impl Turn<'_> {
    /// Takes a conversation that a peer offers, once the identities that it needs are held.
    pub(super) fn offered(&mut self, server: ServerId, conversation: ConversationId, offer: Offer) {
        if self.machine.frontiers.knows(&conversation) {
            return;
        }
        let offers = &mut self.machine.offers;
        if offers.len() >= OFFERS_MAX {
            // Offered again in the next round.
            offers.clear();
        }
        offers.entry(conversation).or_default().insert(server);
        let Some(checked) = check(&conversation, offer.clone()) else {
            return self.not_taken(server, conversation, "an offer that makes no conversation");
        };
        let users = match &checked {
            Checked::Group(genesis) => vec![genesis.root().owner],
            Checked::Direct(a, b) => vec![*a, *b],
        };
        let lacking = |user: &&UserId| self.directory.log(user).is_none();
        if let Some(user) = users.iter().find(lacking).copied() {
            return self.ask_for(server, Why::Offer(conversation, offer), user);
        }
        match self.judge_offer(server, checked) {
            Ok(new) => self.out.push(Output::Create(new)),
            Err(why) => self.not_taken(server, conversation, why),
        }
    }

    fn not_taken(&mut self, server: ServerId, conversation: ConversationId, why: &'static str) {
        let note = Note::Offer(conversation, why);
        self.out.push(Output::Note(server, note));
    }

    fn judge_offer(
        &self,
        server: ServerId,
        checked: Checked,
    ) -> Result<NewConversation, &'static str> {
        match checked {
            Checked::Group(genesis) => {
                let log = self.directory.log(&genesis.root().owner);
                if !log.is_some_and(|log| log.had_device(&genesis.device())) {
                    return Err("a group not signed by its owner");
                }
                Ok(NewConversation::Group(genesis))
            }
            Checked::Direct(a, b) => {
                let member = |user: UserId| {
                    let home = self.directory.log(&user)?.home();
                    Some(RoleChange {
                        user,
                        role: Role::Member,
                        home,
                    })
                };
                let (Some(a), Some(b)) = (member(a), member(b)) else {
                    return Err("a direct conversation of users who are not known");
                };
                // It exists on the homes of the two and nowhere else.
                let homes = [a.home, b.home];
                if !homes.contains(&self.machine.me) || !homes.contains(&server) {
                    return Err("a direct conversation of others");
                }
                Ok(NewConversation::Direct([a, b]))
            }
        }
    }
}
