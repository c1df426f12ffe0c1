//! History: the grow-only set of one conversation's commits, and what follows from it alone.
//! Source: `spec/04-authority.md`, section 2.
//!
//! Union is the merge: [`Graph`] only grows, and everything it answers (pasts, standing branches,
//! frontiers) is a function of the set it holds, never of the order of arrival. It knows nothing of
//! roles; [`crate::authority`] judges on top of it.

mod causal;
mod fork;
mod frontier;
mod graph;
mod records;

pub use crate::place::Place;
pub use causal::CausalPast;
pub use fork::Fork;
pub use frontier::Span;
pub(crate) use graph::Past;
pub use graph::{Graph, Inserted, Node};
pub use records::Twins;
pub(crate) use records::{Ground, NoGround, SettledBefore};

/// A commit's place in one [`Graph`]; means nothing in another. Dependencies have smaller ones.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeIx(pub(crate) u32);

/// A run of one home's commits without a fork inside; numbered as they arrived.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct BranchIx(pub(crate) u32);

/// One event in one commit: an event that was committed twice has two appearances.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Appearance {
    /// The commit.
    pub node: NodeIx,
    /// Which of its events.
    pub index: u16,
}

/// Why a commit can never be part of this history: a verdict, the same on every server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// It is of another conversation.
    #[error("of another conversation")]
    Conversation,
    /// Its `prev` is a commit of another home.
    #[error("prev is of another home")]
    Home,
    /// Its seq is not one more than its `prev`'s.
    #[error("seq does not follow prev")]
    Seq,
    /// Its epoch is lower than its `prev`'s.
    #[error("the epoch falls")]
    Epoch,
    /// Its clock is not greater than its `prev`'s.
    #[error("the clock does not advance")]
    Clock,
    /// A tip it names has another home, epoch or seq than the commit it names.
    #[error("a tip differs from the commit it names")]
    Tip,
    /// A tip or record it names lies in the past it already had: frontiers never shrink or repeat.
    #[error("the authority frontier does not advance")]
    Frontier,
    /// The root record it names is of another conversation or has another number.
    #[error("no such root record")]
    Root,
}

impl Invalid {
    /// Stable name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Conversation => "commit_of_other_conversation",
            Self::Home => "commit_prev_of_other_home",
            Self::Seq => "commit_seq_gap",
            Self::Epoch => "commit_epoch_falls",
            Self::Clock => "commit_clock_stands_still",
            Self::Tip => "commit_tip_differs",
            Self::Frontier => "commit_frontier_shrinks",
            Self::Root => "commit_root_differs",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
