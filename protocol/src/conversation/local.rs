//! Events of the home's own users, on their way into its next commit.

use super::{CheckedBundle, CheckedEvent, Conversation, Inserted, Slot, Taken};
use crate::{
    authority::Reason,
    commit::Commit,
    event::{Act, SealedContent, SignedEvent},
    history::{Appearance, NodeIx},
    ids::{CommitId, EventId},
    limits::{COMMIT_EVENTS_MAX, COMMIT_PARENTS_MAX, COMMIT_TOTAL_BYTES_MAX},
    preference::{self, PreferenceError},
    session::{Code, Place},
    signing::SecretKey,
    time::{Hlc, Timestamp},
};

/// Events waiting for their commit in one conversation; beyond it senders are told to come again.
const QUEUE_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Queued {
    event: SignedEvent,
    content: Option<SealedContent>,
}

impl Queued {
    fn size(&self) -> usize {
        let content = self
            .content
            .as_ref()
            .map_or(0, |content| content.bytes().len());
        self.event.bytes().len() + content + 256
    }
}

/// Why a local event was refused. Nothing of it is kept.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It would be void.
    #[error("{0}")]
    Authority(Reason),
    /// It names a content that did not come with it, or another.
    #[error("the content is not the one that the event names")]
    Content,
    /// It sets something of its author's to what that cannot be.
    #[error(transparent)]
    Preference(#[from] PreferenceError),
    /// Too many events wait here.
    #[error("too many events wait in this conversation")]
    Busy,
}

impl Refusal {
    /// The code for the client.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Authority(Reason::NotMember | Reason::Removed | Reason::GrantVoid) => {
                Code::NotMember
            }
            Self::Authority(Reason::UnknownTarget) => Code::NotFound,
            Self::Authority(_) => Code::NotAllowed,
            Self::Content => Code::ContentMismatch,
            Self::Preference(_) => Code::Malformed,
            Self::Busy => Code::Busy,
        }
    }
}

impl Conversation {
    /// Where an event is shown, or, void, was committed by this home. A void appearance in another
    /// home's commit is none: anybody can make one of an event that he saw.
    #[must_use]
    pub fn place_of(&self, event: &EventId) -> Option<Place> {
        let at: Appearance = self.authority.shown(&self.graph, event).or_else(|| {
            self.graph
                .find_event(event)
                .filter(|at| self.graph.home(at.node) == self.me)
                .min_by_key(|at| self.graph.place(*at))
        })?;
        let node = self.graph.node(at.node);
        Some(Place {
            hlc: node.hlc(),
            commit: node.id(),
            index: at.index,
        })
    }

    /// Whether an event waits for its commit.
    #[must_use]
    pub fn is_queued(&self, event: &EventId) -> bool {
        self.queued.contains(event)
    }

    /// Takes an event of a local user for the next commit. Whether it came before is asked first,
    /// of [`Self::place_of`] and [`Self::is_queued`].
    ///
    /// # Errors
    ///
    /// [`Refusal`]; the conversation is left as it was.
    pub fn submit(
        &mut self,
        now: Timestamp,
        event: SignedEvent,
        content: Option<SealedContent>,
    ) -> Result<(), Refusal> {
        if self.queue.len() >= QUEUE_MAX {
            return Err(Refusal::Busy);
        }
        if event.event().act.content() != content.as_ref().map(SealedContent::reference) {
            return Err(Refusal::Content);
        }
        if let Act::State { field, .. } = &event.event().act
            && self.is_of_one()
        {
            preference::check(field, content.as_ref().map(SealedContent::content))?;
        }
        // What it is about may itself be waiting for the same commit.
        let target = event.event().act.target();
        let pending = target.is_some_and(|target| self.is_queued(&target));
        let it = event.event();
        let judged =
            self.authority
                .judge_new(&self.graph, now, &self.me, &it.author, it.claims, &it.act);
        match judged {
            Ok(()) => {}
            Err(Reason::UnknownTarget) if pending => {}
            Err(reason) => return Err(Refusal::Authority(reason)),
        }
        self.queued.insert(event.id());
        self.queue.push_back(Queued { event, content });
        Ok(())
    }

    /// Makes the next commit of what waits, unless one is on its way to the disk already: then
    /// whatever comes meanwhile shares the next one. While events are to be committed again
    /// ([`Self::has_lost`]) nothing new is committed: it was said after them.
    pub fn next_commit(&mut self, now: Timestamp, key: &SecretKey) -> Option<Taken> {
        if self.in_flight.is_some() || self.queue.is_empty() || self.has_lost() {
            return None;
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.queue.front() {
            bytes += next.size();
            let full = events.len() >= COMMIT_EVENTS_MAX || bytes > COMMIT_TOTAL_BYTES_MAX;
            if full && !events.is_empty() {
                break;
            }
            let Some(Queued { event, content }) = self.queue.pop_front() else {
                break;
            };
            self.queued.remove(&event.id());
            events.push(CheckedEvent {
                event,
                slot: content.map_or(Slot::None, Slot::Held),
            });
        }
        let prev = self.graph.standing_tip(&self.me);
        let commit = self.commit_of(now, prev, self.epoch, &events).sign(key);
        let bundle = CheckedBundle { commit, events };
        self.documents.settle_restored(&self.graph, &self.authority);
        match self.graph.insert(&bundle.commit) {
            Inserted::New(node) => {
                self.in_flight = Some(bundle.commit.id());
                Some(self.taken(node, bundle))
            }
            // The home's own commit follows the rules by construction.
            other => unreachable!("an own commit was {other:?}"),
        }
    }

    /// The commit of the own chain that follows `prev`, of these events.
    pub(super) fn commit_of(
        &self,
        now: Timestamp,
        prev: Option<NodeIx>,
        epoch: u64,
        events: &[CheckedEvent],
    ) -> Commit {
        let prev_node = prev.map(|ix| self.graph.node(ix));
        let parents = self
            .graph
            .tips_for_parents_after(prev, now, &self.me, COMMIT_PARENTS_MAX);
        let parent_hlc = |id: &CommitId| self.graph.ix(id).map(|ix| self.graph.node(ix).hlc());
        let newest_parent = parents.iter().filter_map(parent_hlc).max();
        let before = prev_node.map(|node| node.hlc()).max(newest_parent);
        let authority = self
            .authority
            .authority_change_after(&self.graph, prev, now, &self.me);
        Commit {
            v: 1,
            conversation: self.id,
            origin: self.me,
            epoch: prev_node.map_or(epoch, |node| node.epoch().max(epoch)),
            seq: prev_node.map_or(0, |node| node.seq() + 1),
            prev: prev_node.map(|node| node.id()),
            hlc: before.unwrap_or_else(|| Hlc::from_bits(0)).next(now),
            parents,
            authority,
            events: events.iter().map(|e| e.event.id()).collect(),
        }
    }

    /// The commit in flight is durable: the next one may be made.
    pub fn durable(&mut self, commit: &CommitId) {
        if self.in_flight.as_ref() == Some(commit) {
            self.in_flight = None;
        }
    }
}
