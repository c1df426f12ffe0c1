//! Users who hand a conversation to another, and users who move.

use comity_protocol::{
    ids::{ConversationId, Nonce, ServerId, UserId},
    root::{RawRoot, Root},
};

use super::World;
use crate::random::Random;

impl World {
    /// Makes another member the owner. None if that cannot be done now.
    pub(super) fn hand_over(
        &mut self,
        user: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) -> Option<()> {
        let at = self.users[user].home_in(&conversation);
        let root = self.servers[at].newest_root(&conversation, &self.users[user])?;
        // His client asks the only steward, wherever that is.
        let steward = self.by_id.get(root.stewards.first()?).copied()?;
        if !self.servers[steward].up || self.servers[steward].stalled_until > self.now {
            return None;
        }
        self.servers[steward].now_ms = self.now;
        let raw = self.transfer(user, steward, conversation, random)?;
        self.servers[steward].take_record(conversation, raw);
        self.perform(steward);
        Some(())
    }

    /// A record that makes some other member the owner, or a checkpoint of the owner's own.
    pub(crate) fn transfer(
        &mut self,
        user: usize,
        steward: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) -> Option<RawRoot> {
        let owner = self.users[user].id;
        let server = &mut self.servers[steward];
        let root = server.newest_root(&conversation, &self.users[user])?;
        let known = server.rows.known.get(&conversation)?;
        let others = known.members.iter().filter(|(other, _)| **other != owner);
        let others: Vec<(UserId, ServerId)> = others.map(|(id, (_, home))| (*id, *home)).collect();
        // A steward that takes part no longer is told of nothing, and heard by nobody.
        let takes_part = known.members.values().any(|(_, home)| *home == server.id);
        if root.owner != owner || !takes_part {
            return None;
        }
        let next = random.pick(&others).filter(|_| random.percent(85));
        let (nonce, follows) = (Nonce::from_bytes(random.bytes()), random.percent(75));
        let change = |root: &mut Root| {
            if let Some((owner, home)) = next {
                (root.owner, root.home) = (owner, home);
                if follows {
                    root.stewards = vec![home];
                }
            }
        };
        let raw = server.next_record(&conversation, &self.users[user], nonce, change)?;
        if let Some((_, home)) = next {
            self.ledger.handed_to(conversation, home);
        }
        Some(raw)
    }

    /// A user moves to another server that takes part in the conversation.
    pub(super) fn move_user(
        &mut self,
        user: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) {
        let from = self.users[user].home_in(&conversation);
        let others = (0..self.servers.len()).filter(|n| {
            let server = &self.servers[*n];
            *n != from && server.up && server.rows.known.contains_key(&conversation)
        });
        let Some(to) = random.pick(&others.collect::<Vec<_>>()) else {
            return;
        };
        let id = self.servers[to].id;
        let server = &mut self.servers[from];
        let made = self.users[user].move_to(conversation, server, id, random);
        if let Some(made) = made {
            self.send_made(user, to, made);
        }
    }
}
