//! Root records that this server makes: checkpoints by itself, what an owner asks it for as the only
//! steward.

use comity_protocol::{
    commit::RootRef,
    conversation::CheckpointPace,
    ids::{ConversationId, Nonce, ServerId},
    replication::RecordsOf,
    root::{Ballot, Proposal, RawRoot, Root, Steward},
};

use super::{Server, Task};
use crate::people::User;

/// Days are short here, so that a run of a few hours has many checkpoints; none is begun while
/// everybody waits for everything to be everywhere.
pub(super) const fn pace(rests: bool) -> CheckpointPace {
    if rests {
        return CheckpointPace {
            acts: usize::MAX,
            ms: 1 << 40,
        };
    }
    CheckpointPace {
        acts: 12,
        ms: 20 * 60_000,
    }
}

impl Server {
    /// The newest root record of a group, as this server holds it; opens the conversation.
    pub(crate) fn newest_root(&mut self, conversation: &ConversationId, of: &User) -> Option<Root> {
        self.grantee(conversation, &of.id, Some(of.id), None)?;
        let (_, root) = self.shard.conversation(conversation)?.newest_record()?;
        Some(root)
    }

    /// The next record as the owner changes it, signed with his device and noted by this server,
    /// which has to be the only steward. Nobody has it yet.
    pub(crate) fn next_record(
        &mut self,
        conversation: &ConversationId,
        owner: &User,
        nonce: Nonce,
        change: impl FnOnce(&mut Root),
    ) -> Option<RawRoot> {
        if self.newest_root(conversation, owner)?.stewards != [self.id] {
            return None;
        }
        let now = self.wall();
        let machine = self.shard.conversation(conversation)?;
        let mut root = machine.next_root(now, nonce)?;
        change(&mut root);
        self.noted(&root, &owner.sign_root(&root))
    }

    /// A record with this server's note on it.
    pub(crate) fn noted(&self, root: &Root, made: &RawRoot) -> Option<RawRoot> {
        let (now, by) = (self.wall(), self.id);
        let before = RootRef {
            n: root.n.checked_sub(1)?,
            id: root.prev?,
        };
        let ballot = Ballot::new(now, 0, by, None);
        let mut steward = Steward::after(before);
        let mut proposal = Proposal::new(before, ballot, vec![by]);
        let promise = steward.prepare(now, &before, ballot, Vec::new).ok()?;
        proposal.promised(by, promise)?;
        proposal.propose(made.clone());
        let note = steward.propose(&before, ballot, made, (1, &self.key), |_, _| Ok(()));
        let own = |_: &ServerId, _| Some(self.key.public());
        proposal.noted(by, note.ok()?, own).ok()?
    }

    /// Takes a record as if it had come.
    pub(crate) fn take_record(&mut self, conversation: ConversationId, raw: RawRoot) {
        let of = RecordsOf {
            peer: self.id,
            session: 0,
            conversation,
        };
        self.tasks.push_back(Task::Records(of, vec![raw]));
        self.work();
    }
}
