//! An open conversation: its machine and who waits for what in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Due, Opening, Output, ReplyTo, ballots::Ballot, withheld::Looks, work::Waiter};
use crate::{
    authority::Sight,
    commit::RootRef,
    conversation::{Conversation, Homes, RoleChange},
    ids::{CommitId, EventId, ServerId, UserId},
    link::{Offer, Verdict},
    replication::{Judged, Ticket},
    role::Role,
    root::Steward,
    session::Code,
    time::Timestamp,
};

/// Answers kept for items that wait; beyond it the peer learns their fate from the next round.
const WAITING_ANSWERS_MAX: usize = 4_096;
/// Answers kept for one of them: pushed by its home, and handed over by a few others.
const ANSWERS_EACH_MAX: usize = 8;
/// Own commits whose way to the peers is followed for their authors.
const FOLLOWED_MAX: usize = 4_096;

/// A conversation as it was read from the store.
#[derive(Debug)]
pub struct Stored {
    /// With its commits, in the order in which they were stored.
    pub machine: Conversation,
    /// Members and their homes.
    pub members: Vec<(UserId, ServerId)>,
    /// How far each peer was when that was last stored.
    pub acked: BTreeMap<ServerId, u64>,
    /// Where the own chain ended before damage took part of it, if it did.
    pub own_end: Option<u64>,
    /// What this home promised and signed as a steward, as it was last stored.
    pub steward: Option<Steward>,
    /// What it waits for, as that was last stored.
    pub due: Due,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) machine: Conversation,
    pub(super) opening: Opening,
    /// Local members, sorted.
    locals: Arc<Vec<UserId>>,
    /// Other homes that take part.
    pub(super) peers: BTreeSet<ServerId>,
    /// Who waits for an own event to be durable.
    pub(super) senders: BTreeMap<EventId, Vec<ReplyTo>>,
    /// Who waits for the conversation itself, while it is new and not durable.
    pub(super) creating: Option<Vec<ReplyTo>>,
    /// Who waits for a commit that is on its way to the disk.
    pub(super) on_disk: BTreeMap<CommitId, Vec<Waiter>>,
    /// Who waits for a commit that waits itself.
    pub(super) on_arrival: BTreeMap<CommitId, Vec<Ticket>>,
    acked: BTreeMap<ServerId, u64>,
    followed: BTreeMap<u64, Vec<(EventId, UserId)>>,
    /// What the members at peers see, as far as somebody asked.
    pub(super) sights: BTreeMap<ServerId, Sight>,
    /// What the next submission makes this home ask for.
    pub(super) looks: Looks,
    /// Newest own commit that is durable.
    pub(super) own_tip: Option<u64>,
    /// Where the own chain ended before damage took part of it.
    own_end: Option<u64>,
    pub(super) used: u64,
    /// Bytes of its open documents, as the shard counts them.
    pub(super) document_bytes: usize,
    /// What this home promised and signed as a steward; see [`Open::steward`].
    pub(super) steward: Option<Steward>,
    /// Changes of that on their way to the disk.
    pub(super) stewarding: usize,
    /// What it waits for, as that is stored or on its way there.
    pub(super) due: Due,
    /// None is begun by itself before.
    pub(super) not_before: Timestamp,
    /// The next record being made.
    pub(super) ballot: Option<Box<Ballot>>,
    /// Root records on their way to the disk.
    pub(super) recording: BTreeSet<RootRef>,
    /// Who waits for them.
    pub(super) owed: Vec<(RootRef, ReplyTo)>,
}

impl Open {
    /// Opens a stored conversation.
    pub(super) fn read(stored: Stored, me: &ServerId, opening: Opening) -> Self {
        let members = &stored.members;
        let local = |(user, home): &(UserId, ServerId)| (home == me).then_some(*user);
        let mut locals: Vec<_> = members.iter().filter_map(local).collect();
        locals.sort_unstable();
        let others = members.iter().map(|(_, home)| *home);
        let peers: BTreeSet<_> = others.filter(|home| home != me).collect();
        let tip = stored.machine.graph().standing_tip(me);
        let own_tip = tip.map(|tip| stored.machine.graph().node(tip).seq());
        let mut open = Self::new(stored.machine, locals, peers, opening);
        open.acked = stored.acked;
        open.acked.retain(|peer, _| open.peers.contains(peer));
        open.own_tip = own_tip;
        open.own_end = stored.own_end;
        open.steward = stored.steward;
        open.due = stored.due;
        open
    }

    pub(super) fn new(
        machine: Conversation,
        locals: Vec<UserId>,
        peers: BTreeSet<ServerId>,
        opening: Opening,
    ) -> Self {
        Self {
            machine,
            opening,
            locals: Arc::new(locals),
            peers,
            senders: BTreeMap::new(),
            creating: None,
            on_disk: BTreeMap::new(),
            on_arrival: BTreeMap::new(),
            acked: BTreeMap::new(),
            followed: BTreeMap::new(),
            sights: BTreeMap::new(),
            looks: Looks::default(),
            own_tip: None,
            own_end: None,
            used: 0,
            document_bytes: 0,
            steward: None,
            due: Due::default(),
            stewarding: 0,
            not_before: Timestamp(0),
            ballot: None,
            recording: BTreeSet::new(),
            owed: Vec::new(),
        }
    }

    /// Notes that it is in use.
    pub(super) const fn touch(&mut self, uses: u64) -> &mut Self {
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
            && self.ballot.is_none()
            && self.owed.is_empty()
    }

    /// Takes note of roles that changed. Gives the users to be told: local members as they are
    /// now, and those who just ceased to be.
    pub(super) fn roles(&mut self, me: &ServerId, changes: &[RoleChange]) -> Arc<Vec<UserId>> {
        let local = |user: &UserId| self.locals.binary_search(user).is_ok();
        // One who moved away is at another home now.
        let concerns = |change: &&RoleChange| change.home == *me || local(&change.user);
        let changes: Vec<_> = changes.iter().filter(concerns).collect();
        if changes.is_empty() {
            return Arc::clone(&self.locals);
        }
        // Who is on his way to be told of an earlier commit is told as he was; nothing is copied
        // where nobody is.
        let locals = Arc::make_mut(&mut self.locals);
        let mut gone = Vec::new();
        for change in changes {
            let stays = change.role > Role::None && change.home == *me;
            match (locals.binary_search(&change.user), stays) {
                (Ok(at), false) => gone.push(locals.remove(at)),
                (Err(_), false) => gone.push(change.user),
                (Err(at), true) => locals.insert(at, change.user),
                (Ok(_), true) => {}
            }
        }
        if gone.is_empty() {
            return Arc::clone(&self.locals);
        }
        let mut told = locals.clone();
        told.append(&mut gone);
        told.sort_unstable();
        told.dedup();
        Arc::new(told)
    }

    /// Local members, sorted.
    pub(super) fn locals(&self) -> Arc<Vec<UserId>> {
        Arc::clone(&self.locals)
    }

    /// Takes note of homes that began or ceased to take part; gives those that are not this one.
    /// Those of a direct conversation are its members' for ever.
    pub(super) fn homes(&mut self, me: &ServerId, changes: &Homes) -> Homes {
        let others = |homes: &[ServerId]| {
            let other = homes.iter().filter(|home| *home != me);
            other.copied().collect::<Vec<_>>()
        };
        let (joined, left) = (others(&changes.joined), others(&changes.left));
        if !matches!(self.machine.offer(), Offer::Direct(..)) {
            self.peers.extend(&joined);
            self.peers.retain(|home| !left.contains(home));
        }
        Homes { joined, left }
    }

    pub(super) fn wait_for_arrival(
        &mut self,
        commit: CommitId,
        ticket: Ticket,
        out: &mut Vec<Output>,
    ) {
        if self.on_arrival.len() >= WAITING_ANSWERS_MAX {
            self.give_up_waiting(out);
        }
        let waiting = self.on_arrival.entry(commit).or_default();
        if waiting.len() < ANSWERS_EACH_MAX {
            waiting.push(ticket);
        } else {
            out.push(Waiter::again(ticket).answer(Verdict::Refused(Code::Busy)));
        }
    }

    /// Whoever gave an item that waits for identity logs is asked for them once more: what was asked
    /// before may be lost, or what came could not be stored.
    pub(super) fn ask_again(&self, out: &mut Vec<Output>) {
        for (commit, users) in self.machine.waits_for_users() {
            for ticket in self.on_arrival.get(&commit).into_iter().flatten() {
                let mut judged = Judged::of(Verdict::Waiting);
                judged.users.clone_from(&users);
                judged.again = true;
                out.push(Output::Judged(*ticket, judged));
            }
        }
    }

    /// Answers for items that waited and do so no longer.
    pub(super) fn answer_given_up(&mut self, out: &mut Vec<Output>) {
        for (commit, code) in self.machine.take_given_up() {
            for ticket in self.on_arrival.remove(&commit).unwrap_or_default() {
                out.push(Waiter::again(ticket).answer(Verdict::Refused(code)));
            }
        }
    }

    /// Tells whoever waits that the items may come again.
    pub(super) fn give_up_waiting(&mut self, out: &mut Vec<Output>) {
        for ticket in std::mem::take(&mut self.on_arrival).into_values().flatten() {
            out.push(Waiter::again(ticket).answer(Verdict::Refused(Code::Busy)));
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

    /// A peer's position moved: the authors of the events on the way are told.
    pub(super) fn acked(&mut self, peer: ServerId, seq: Option<u64>, out: &mut Vec<Output>) {
        let before = match seq {
            Some(seq) => self.acked.insert(peer, seq),
            None => self.acked.remove(&peer),
        };
        let (Some(to), from) = (seq, before.map_or(0, |before| before + 1)) else {
            return;
        };
        let conversation = self.machine.id();
        let of = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
        let mut done = Vec::new();
        let range = if from <= to { from..=to } else { to..=to };
        for (seq, events) in self.followed.range(range) {
            let (replicated, waiting) = self.delivery(*seq);
            if waiting.is_empty() {
                done.push(*seq);
            }
            out.extend(events.iter().map(|(event, author)| Output::Delivery {
                conversation,
                author: *author,
                event: *event,
                replicated,
                of,
            }));
        }
        for seq in done {
            self.followed.remove(&seq);
        }
    }
}
