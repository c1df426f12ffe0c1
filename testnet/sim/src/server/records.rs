//! Root records that owners ask this server for, and those that it makes beside the machines if it
//! lies.

use comity_protocol::{
    commit::RootRef,
    conversation::{CheckpointPace, RootChange},
    ids::{ConversationId, Nonce, ServerId},
    replication::RecordsOf,
    root::{Ballot, Proposal, RawRoot, Root, Steward},
    shard::OwnerAsks,
};

use super::{Server, Task};
use crate::people::User;

/// Days are short here, so that a run of a few hours has many checkpoints.
pub(super) const PACE: CheckpointPace = CheckpointPace {
    acts: 12,
    ms: 20 * 60_000,
};

impl Server {
    /// An owner asks for the next record, for his device to sign.
    pub(crate) fn next_root(&mut self, asks: OwnerAsks, change: RootChange) {
        let now = self.wall();
        let (shard, view, out) = self.shard();
        shard.next_root(now, asks, change, &view, out);
        self.work();
    }

    /// What his device signed of it.
    pub(crate) fn sign_root(&mut self, asks: OwnerAsks, raw: RawRoot) {
        let now = self.wall();
        let (shard, view, out) = self.shard();
        shard.sign_root(now, asks, raw, &view, out);
        self.work();
    }

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
