//! What users ask of their home.

use comity_protocol::{
    event::{SealedContent, SignedEvent},
    ids::{ConversationId, EventId, ServerId, UserId},
    replication::NewConversation,
    session::{Accepted, Code, Grantee, WireError},
    shard::{ReplyTo, first_answer},
};

use super::{Effect, Server};
use crate::planted::Planted;

impl Server {
    /// An event of a local user, in the order in which a home checks one.
    pub(crate) fn send(
        &mut self,
        event: SignedEvent,
        content: Option<SealedContent>,
        reply: ReplyTo,
    ) {
        let id = event.id();
        if let Some(answer) = self.known_answer(&id) {
            if self.is(Planted::SkipDedup) {
                self.rows.repeat_line(&id);
            }
            return self.effects.push(Effect::Accepted(reply, answer));
        }
        let author = self.identities.get(&event.event().author);
        if !author.is_some_and(|log| log.is_current(&event.event().device)) {
            let unknown = WireError::new(Code::UnknownDevice, "signed by another device");
            return self.effects.push(Effect::Accepted(reply, Err(unknown)));
        }
        let now = self.wall();
        let (shard, view, out) = self.shard();
        shard.send(now, event, content, reply, &view, out);
        self.work();
        self.ask_commit();
    }

    /// The first answer to an event that is stored.
    pub(crate) fn known_answer(&self, event: &EventId) -> Option<Result<Accepted, WireError>> {
        let row = self.rows.events.get(event)?;
        // What another home committed of it and is void is no answer of this one.
        let own = || self.rows.origin(&self.disk.log, event) == Some(self.id);
        (row.void.is_none() || own()).then(|| first_answer(*event, row.place, row.void))
    }

    pub(crate) fn create(&mut self, new: &NewConversation, reply: ReplyTo) {
        let (shard, view, out) = self.shard();
        shard.create(new, Some(reply), &view, out);
        self.work();
    }

    /// What an act about a user has to name; opens the conversation.
    pub(crate) fn grantee(
        &mut self,
        conversation: &ConversationId,
        asker: &UserId,
        user: Option<UserId>,
        home: Option<ServerId>,
    ) -> Option<Grantee> {
        let now = self.wall();
        let (shard, view, _) = self.shard();
        shard
            .grantee(now, conversation, asker, user, home, &view)
            .ok()
    }
}
