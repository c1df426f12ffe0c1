//! An open conversation: its machine and who waits for what in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
};

use comity_protocol::{
    conversation::Conversation,
    ids::{CommitId, ConversationId, EventId, ServerId, UserId},
    role::Role,
    session::{Accepted, Change, Code, Place, WireError},
};
use comity_storage::ReadError;

use super::{Claim, Judged, OnJudged, Reply, Shared, load};
use crate::{hub::Live, records::MemberChange};

/// Answers kept for items that wait; beyond it the peer learns their fate from the next round.
const WAITING_ANSWERS_MAX: usize = 4_096;
/// Answers kept for one of them: pushed by its home, and handed over by a few others.
const ANSWERS_EACH_MAX: usize = 8;
/// Own commits whose way to the peers is followed for their authors.
const FOLLOWED_MAX: usize = 4_096;

/// What is on its way to the disk.
pub(crate) enum Work {
    /// A conversation that is new here.
    Conversation,
    /// A commit.
    Commit {
        commit: CommitId,
        /// Its seq, if it is an own one.
        own: Option<u64>,
        /// Where its events are shown, their authors, and why they do not count.
        events: Vec<(EventId, Place, UserId, Option<&'static str>)>,
    },
}

/// Who waits for an own event.
pub(super) struct Sender {
    reply: Reply<Accepted>,
    /// Dropped with the answer, when the nonce is found in the store or is free again.
    _claim: Claim,
}

impl Sender {
    pub(super) fn new(reply: Reply<Accepted>, claim: Claim) -> Self {
        Self {
            reply,
            _claim: claim,
        }
    }

    pub(super) fn answer(self, result: Result<Accepted, WireError>) {
        let _ = self.reply.send(result);
    }
}

pub(super) struct Open {
    pub(super) machine: Conversation,
    /// Local members, sorted.
    pub(super) locals: Arc<Vec<UserId>>,
    /// Other homes that take part.
    pub(super) peers: BTreeSet<ServerId>,
    /// Who waits for an own event to be durable.
    pub(super) senders: BTreeMap<EventId, Vec<Sender>>,
    /// Who waits for the conversation itself, while it is new and not durable.
    pub(super) creating: Option<Vec<Reply<()>>>,
    /// Who waits for a commit that is on its way to the disk.
    pub(super) on_disk: BTreeMap<CommitId, Vec<OnJudged>>,
    /// Who waits for a commit that waits itself.
    pub(super) on_arrival: BTreeMap<CommitId, Vec<OnJudged>>,
    /// Set once something that the machine took could not be made durable. Nothing more is stored
    /// then: what follows may build on what is missing.
    pub(super) broken: Arc<AtomicBool>,
    acked: BTreeMap<ServerId, u64>,
    followed: BTreeMap<u64, Vec<(EventId, UserId)>>,
    /// Newest own commit that is durable.
    pub(super) own_tip: Option<u64>,
    /// Where the own chain ended before damage took part of it.
    own_end: Option<u64>,
    pub(super) used: u64,
}

impl Open {
    /// Opens a stored conversation; `None` if there is none.
    pub(super) fn read(shared: &Shared, id: &ConversationId) -> Result<Option<Self>, ReadError> {
        let Some(machine) = load::conversation(&shared.rows, id, shared.me, shared.epoch)? else {
            return Ok(None);
        };
        let members = shared.rows.members(id, None, usize::MAX)?;
        let local = |(user, row): &(UserId, crate::rows::MemberRow)| {
            (row.home == shared.me).then_some(*user)
        };
        let locals = members.iter().filter_map(local).collect();
        let others = members
            .iter()
            .map(|(_, row)| row.home)
            .filter(|home| *home != shared.me);
        let peers: BTreeSet<_> = others.collect();
        let mut open = Self::new(machine, locals, peers);
        for peer in open.peers.clone() {
            if let Some(seq) = shared.rows.acked(&peer, id)? {
                open.acked.insert(peer, seq);
            }
        }
        let tip = open.machine.graph().standing_tip(&shared.me);
        open.own_tip = tip.map(|tip| open.machine.graph().node(tip).seq());
        open.own_end = shared.rows.own_end(id)?;
        Ok(Some(open))
    }

    pub(super) fn new(
        machine: Conversation,
        locals: Vec<UserId>,
        peers: BTreeSet<ServerId>,
    ) -> Self {
        Self {
            machine,
            locals: Arc::new(locals),
            peers,
            senders: BTreeMap::new(),
            creating: None,
            on_disk: BTreeMap::new(),
            on_arrival: BTreeMap::new(),
            broken: Arc::default(),
            acked: BTreeMap::new(),
            followed: BTreeMap::new(),
            own_tip: None,
            own_end: None,
            used: 0,
        }
    }

    /// Notes that it is in use.
    pub(super) fn touch(&mut self, uses: u64) -> &mut Self {
        self.used = uses;
        self
    }

    /// Part of the own chain is lost here and not fetched back yet. Peers may hold it: a commit
    /// made now would fork the chain. Without peers nobody holds it, and the chain goes on where
    /// it is whole.
    pub(super) fn is_mending(&self) -> bool {
        self.own_tip < self.own_end && !self.peers.is_empty()
    }

    /// It can be put away: at most items wait that can be fetched again.
    pub(super) fn can_close(&self) -> bool {
        !self.machine.has_own_work()
            && self.senders.is_empty()
            && self.on_disk.is_empty()
            && self.creating.is_none()
    }

    /// Takes note of roles that changed. Gives the users to be told: local members as they are
    /// now, and those who just ceased to be.
    pub(super) fn roles(&mut self, me: &ServerId, changes: &[MemberChange]) -> Arc<Vec<UserId>> {
        let changes: Vec<_> = changes.iter().filter(|change| change.home == *me).collect();
        if changes.is_empty() {
            return Arc::clone(&self.locals);
        }
        let mut locals: BTreeSet<UserId> = self.locals.iter().copied().collect();
        let mut told = locals.clone();
        for change in changes {
            told.insert(change.user);
            if change.role == Role::None {
                locals.remove(&change.user);
            } else {
                locals.insert(change.user);
            }
        }
        self.locals = Arc::new(locals.into_iter().collect());
        Arc::new(told.into_iter().collect())
    }

    pub(super) fn wait_for_arrival(&mut self, commit: CommitId, answer: OnJudged) {
        if self.on_arrival.len() >= WAITING_ANSWERS_MAX {
            self.give_up_waiting();
        }
        let answers = self.on_arrival.entry(commit).or_default();
        if answers.len() < ANSWERS_EACH_MAX {
            answers.push(answer);
        } else {
            answer(Judged::refused(Code::Busy));
        }
    }

    /// Answers for items that waited and do so no longer.
    pub(super) fn answer_given_up(&mut self) {
        for (commit, code) in self.machine.take_given_up() {
            for answer in self.on_arrival.remove(&commit).unwrap_or_default() {
                answer(Judged::refused(code));
            }
        }
    }

    /// Tells whoever waits that the items may come again.
    pub(super) fn give_up_waiting(&mut self) {
        for answer in std::mem::take(&mut self.on_arrival).into_values().flatten() {
            answer(Judged::refused(Code::Busy));
        }
    }

    /// Follows an own commit until every peer has it.
    pub(super) fn follow(&mut self, seq: u64, events: Vec<(EventId, UserId)>) {
        if self.peers.is_empty() {
            return;
        }
        if self.followed.len() >= FOLLOWED_MAX {
            self.followed.pop_first();
        }
        self.followed.insert(seq, events);
    }

    /// How many peers stored an own commit, and which did not.
    pub(super) fn delivery(&self, seq: u64) -> (u32, Vec<ServerId>) {
        let lacks = |peer: &&ServerId| self.acked.get(peer).is_none_or(|acked| *acked < seq);
        let waiting: Vec<_> = self.peers.iter().filter(lacks).copied().collect();
        (
            u32::try_from(self.peers.len() - waiting.len()).unwrap_or(u32::MAX),
            waiting,
        )
    }

    /// A peer's position moved: what the authors of the events on the way are told.
    pub(super) fn acked(&mut self, peer: ServerId, seq: Option<u64>) -> Vec<(UserId, Live)> {
        let before = match seq {
            Some(seq) => self.acked.insert(peer, seq),
            None => self.acked.remove(&peer),
        };
        let (Some(to), from) = (seq, before.map_or(0, |before| before + 1)) else {
            return Vec::new();
        };
        let conversation = self.machine.id();
        let of = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        let (mut news, mut done) = (Vec::new(), Vec::new());
        let range = if from <= to { from..=to } else { to..=to };
        for (seq, events) in self.followed.range(range) {
            let (replicated, waiting) = self.delivery(*seq);
            if waiting.is_empty() {
                done.push(*seq);
            }
            news.extend(events.iter().map(|(event, author)| {
                let event = *event;
                let change = Change::Delivery {
                    conversation,
                    event,
                    replicated,
                    of,
                };
                (*author, Live::Ready(change))
            }));
        }
        for seq in done {
            self.followed.remove(&seq);
        }
        news
    }
}
