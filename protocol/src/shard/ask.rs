//! Questions about one conversation that its machine answers.

use super::{Shard, Store, not_found};
use crate::{
    event::Act,
    ids::{ConversationId, EventId, ServerId, UserId},
    role::Role,
    session::{Code, Grantee, WireError},
    time::Timestamp,
};

impl Shard {
    /// What an act of `asker` about a user has to name; without a user, what the door lets the
    /// asker come in as. `home` is the user's by his identity log.
    ///
    /// # Errors
    ///
    /// `not_found` also if there is nothing here for the asker to know.
    pub fn grantee(
        &mut self,
        now: Timestamp,
        id: &ConversationId,
        asker: &UserId,
        user: Option<UserId>,
        home: Option<ServerId>,
        store: &dyn Store,
    ) -> Result<Grantee, WireError> {
        let me = self.me;
        let open = self.known(id, store)?;
        let (authority, graph) = (open.machine.authority(), open.machine.graph());
        let own_role = authority.role(asker);
        let Some(user) = user else {
            // The door: what the asker may come in as, told to whoever holds the conversation's id.
            let lets_in = |role: &Role| {
                let join = Act::Join {
                    role: *role,
                    home: me,
                };
                authority
                    .judge_new(graph, now, &me, asker, *role, &join)
                    .is_ok()
            };
            let role = [Role::Member, Role::Guest]
                .into_iter()
                .find(lets_in)
                .unwrap_or_default();
            if role == Role::None && own_role == Role::None {
                return Err(not_found());
            }
            return Ok(Grantee {
                role,
                own_role,
                ..Grantee::default()
            });
        };
        // Who was a member once may ask about himself; to a stranger there is nothing here.
        if own_role == Role::None && (user != *asker || authority.homes_of(asker).is_empty()) {
            return Err(not_found());
        }
        Ok(Grantee {
            role: authority.role(&user),
            own_role,
            home: authority
                .member(&user)
                .and_then(|member| member.home)
                .or(home),
            cut: authority.cut_for(graph, now, &user),
            bans: authority.standing_bans(&user),
        })
    }

    /// How far an own event got: peers that stored it, peers that are to, and those that lack it.
    ///
    /// # Errors
    ///
    /// `not_found` if this home committed no such event.
    pub fn delivery(
        &mut self,
        id: &ConversationId,
        event: &EventId,
        store: &dyn Store,
    ) -> Result<(u32, u32, Vec<ServerId>), WireError> {
        let me = self.me;
        let open = self.known(id, store)?;
        let graph = open.machine.graph();
        let own = graph.find_event(event).find(|at| graph.home(at.node) == me);
        let own = own.ok_or_else(|| WireError::new(Code::NotFound, "not an event of this home"))?;
        let (replicated, waiting) = open.delivery(graph.node(own.node).seq());
        let of = u32::try_from(open.peers.len()).unwrap_or(u32::MAX);
        Ok((replicated, of, waiting))
    }
}
