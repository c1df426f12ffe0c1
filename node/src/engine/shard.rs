//! One shard: a thread that drives the conversations given to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use comity_protocol::{
    commit::UnverifiedCommit,
    conversation::{CheckedBundle, Received, RoleChange, Taken},
    event::{Act, SealedContent, SignedEvent},
    ids::{ConversationId, DeviceKey, EventId, ServerId, UserId},
    link::{Bundle, Offer, Range, Verdict},
    role::Role,
    root::Genesis,
    session::{Accepted, Code, Grantee, WireError},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Command, Done, Judged, OnJudged, Reply, Served, Shared, bundles,
    live::{self, Announcement},
    load, now,
    open::{Open, Sender, Work},
    submit_error,
};
use crate::{
    hub::Live,
    records::{ConversationRecord, MemberChange, kind, record},
    replication::Committed,
};

/// Commands taken in before commits are made of what they brought.
const BATCH: usize = 512;
/// Conversations kept open while nobody uses them.
const OPEN_MAX: usize = 1_024;

pub(super) struct ShardState {
    shared: Arc<Shared>,
    commands: mpsc::WeakUnboundedSender<Command>,
    waiting: Arc<AtomicU64>,
    open: BTreeMap<ConversationId, Open>,
    /// Conversations with events that wait for a commit.
    dirty: BTreeSet<ConversationId>,
    /// Submissions on their way to the disk, by conversation.
    on_the_way: BTreeMap<ConversationId, usize>,
    drains: Vec<oneshot::Sender<()>>,
    uses: u64,
}

fn not_found() -> WireError {
    WireError::new(Code::NotFound, "no such conversation")
}

fn unreadable(error: &comity_storage::ReadError) -> WireError {
    tracing::error!(%error, "a conversation could not be read");
    WireError::new(Code::Internal, "the store could not be read; try again")
}

impl ShardState {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::WeakUnboundedSender<Command>,
        waiting: Arc<AtomicU64>,
    ) -> Self {
        Self {
            shared,
            commands,
            waiting,
            open: BTreeMap::new(),
            dirty: BTreeSet::new(),
            on_the_way: BTreeMap::new(),
            drains: Vec::new(),
            uses: 0,
        }
    }

    pub(super) fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = inbox.blocking_recv() {
            self.command(command);
            // Whatever came meanwhile shares the commits that are made next.
            for _ in 0..BATCH {
                let Ok(command) = inbox.try_recv() else { break };
                self.command(command);
            }
            for conversation in std::mem::take(&mut self.dirty) {
                self.commit(conversation);
            }
            self.answer_drains();
            self.close_some();
        }
    }

    fn command(&mut self, command: Command) {
        if !matches!(command, Command::Durable(_)) {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        match command {
            Command::Send {
                event,
                content,
                claim,
                reply,
            } => self.send(*event, content, Sender::new(reply, claim)),
            Command::Group { genesis, reply } => self.group(&genesis, reply),
            Command::Direct { members, reply } => self.direct(members, reply),
            Command::Judge { bundle, answer } => self.judge(bundle, answer),
            Command::ReadOwn {
                conversation,
                from,
                max_bytes,
                answer,
            } => {
                answer(self.read_own(&conversation, from, max_bytes));
            }
            Command::Serve {
                peer,
                range,
                max_bytes,
                answer,
            } => {
                let (served, next) = self.serve(&peer, &range, max_bytes);
                answer(served, next);
            }
            Command::Acked {
                conversation,
                peer,
                seq,
            } => self.acked(&conversation, peer, seq),
            Command::Grantee {
                conversation,
                asker,
                user,
                home,
                reply,
            } => {
                let _ = reply.send(self.grantee(&conversation, &asker, user, home));
            }
            Command::Delivery {
                conversation,
                event,
                reply,
            } => {
                let _ = reply.send(self.delivery(&conversation, &event));
            }
            Command::IdentityLearnt | Command::Tick => self.release(),
            Command::Durable(done) => self.durable(*done),
            Command::Drain(done) => self.drains.push(done),
        }
    }

    fn opened(&mut self, id: &ConversationId) -> Result<Option<&mut Open>, WireError> {
        if !self.open.contains_key(id) {
            if self.on_the_way.contains_key(id) {
                // It was given up, and what is on its way is in no row yet: read now, its machine
                // would lack that and the home's next commit would fork its own chain.
                let busy = "the conversation is being read back; try again";
                return Err(WireError::new(Code::Busy, busy));
            }
            let read = Open::read(&self.shared, id).map_err(|error| unreadable(&error))?;
            let Some(open) = read else {
                return Ok(None);
            };
            self.open.insert(*id, open);
        }
        self.uses += 1;
        let open = self.open.get_mut(id);
        Ok(open.map(|open| open.touch(self.uses)))
    }

    fn known(&mut self, id: &ConversationId) -> Result<&mut Open, WireError> {
        self.opened(id)?.ok_or_else(not_found)
    }

    fn send(&mut self, event: SignedEvent, content: Option<SealedContent>, sender: Sender) {
        let (id, conversation) = (event.id(), event.event().conversation);
        let cannot_store = self.shared.cannot_store();
        let open = match self.known(&conversation) {
            Ok(open) => open,
            Err(error) => return sender.answer(Err(error)),
        };
        // A retry shares the answer of the first try, whatever has become of it meanwhile.
        if let Some(senders) = open.senders.get_mut(&id) {
            return senders.push(sender);
        }
        if let Some(place) = open.machine.place_of(&id) {
            return sender.answer(Ok(Accepted { event: id, place }));
        }
        if let Some(error) = cannot_store {
            return sender.answer(Err(error));
        }
        if open.is_mending() {
            let text = "part of this conversation was lost here and is being fetched back";
            return sender.answer(Err(WireError::new(Code::Busy, text)));
        }
        match open.machine.submit(now(), event, content) {
            Ok(()) => {
                open.senders.insert(id, vec![sender]);
                self.dirty.insert(conversation);
            }
            Err(refusal) => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
                sender.answer(Err(WireError::new(refusal.code(), refusal.to_string())));
            }
        }
    }

    fn group(&mut self, genesis: &Genesis, reply: Reply<()>) {
        let root = genesis.root();
        let owner = MemberChange {
            user: root.owner,
            role: Role::Owner,
            home: root.home,
        };
        self.create(
            genesis.conversation(),
            Offer::Group(genesis.raw().clone()),
            vec![owner],
            reply,
        );
    }

    fn direct(&mut self, members: [MemberChange; 2], reply: Reply<()>) {
        let [a, b] = members;
        let id = comity_protocol::root::direct_conversation(&a.user, &b.user);
        let offer = Offer::Direct(a.user.min(b.user), a.user.max(b.user));
        let members = if a.user == b.user {
            vec![a]
        } else {
            members.to_vec()
        };
        self.create(id, offer, members, reply);
    }

    fn create(
        &mut self,
        id: ConversationId,
        offer: Offer,
        members: Vec<MemberChange>,
        reply: Reply<()>,
    ) {
        match self.opened(&id) {
            Ok(Some(open)) => {
                // Known is what is durable: the rows are read next.
                return match &mut open.creating {
                    Some(waiting) => waiting.push(reply),
                    None => drop(reply.send(Ok(()))),
                };
            }
            Err(error) => return drop(reply.send(Err(error))),
            Ok(None) => {}
        }
        if let Some(error) = self.shared.cannot_store() {
            return drop(reply.send(Err(error)));
        }
        let Some(machine) = load::machine(&offer, self.shared.me, self.shared.epoch) else {
            return drop(reply.send(Err(WireError::new(Code::Malformed, "not a conversation"))));
        };
        let me = self.shared.me;
        let local = |member: &MemberChange| (member.home == me).then_some(member.user);
        let locals: Vec<_> = members.iter().filter_map(local).collect();
        let peers: BTreeSet<_> = members
            .iter()
            .map(|m| m.home)
            .filter(|home| *home != me)
            .collect();
        let known_peers = peers.clone();
        let mut open = Open::new(machine, locals.clone(), peers);
        open.creating = Some(vec![reply]);
        self.open.insert(id, open);
        let body = ConversationRecord {
            conversation: id,
            offer: offer.clone(),
            at: now(),
            members,
        };
        let record = record(kind::CONVERSATION, &body, Vec::new());
        let told = Announcement {
            common: Arc::new(vec![Live::Summary(id)]),
            own: BTreeMap::new(),
            users: Arc::new(locals),
        };
        let committed = Committed::Known {
            conversation: id,
            offer,
            peers: known_peers,
        };
        self.submit(id, record, told, committed, Work::Conversation);
    }

    /// Makes the next commit of what waits.
    fn commit(&mut self, id: ConversationId) {
        let shared = Arc::clone(&self.shared);
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.is_mending()) else {
            return;
        };
        if let Some(taken) = open.machine.next_commit(now(), &shared.key) {
            self.taken(id, &taken);
        }
    }

    fn judge(&mut self, bundle: Bundle, answer: OnJudged) {
        let shared = Arc::clone(&self.shared);
        let checked = CheckedBundle::check(bundle, |origin, epoch| shared.key_of(origin, epoch));
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) => {
                tracing::warn!(%error, "an item of a peer was refused");
                return answer(Judged::refused(error.code()));
            }
        };
        let (id, commit) = (checked.conversation(), checked.commit.id());
        let open = match self.known(&id) {
            Ok(open) => open,
            Err(error) => return answer(Judged::refused(error.code)),
        };
        if open.machine.graph().ix(&commit).is_none()
            && let Some(error) = shared.cannot_store()
        {
            return answer(Judged::refused(error.code));
        }
        let devices = |user: &UserId, device: &DeviceKey| {
            shared.identities.had_device(user, device).ok().flatten()
        };
        let received = open.machine.receive(now(), checked, &devices);
        match received {
            Received::Taken(all) => {
                open.on_disk.entry(commit).or_default().push(answer);
                open.answer_given_up();
                for taken in all {
                    self.taken(id, &taken);
                }
            }
            Received::Known => match open.on_disk.get_mut(&commit) {
                Some(waiting) => waiting.push(answer),
                None => answer(Judged::of(Verdict::Stored)),
            },
            Received::Waiting { commits, users, .. } => {
                answer(Judged {
                    verdict: Verdict::Waiting,
                    missing: commits,
                    users,
                });
                open.wait_for_arrival(commit, answer);
                open.answer_given_up();
            }
            Received::Refused(code, why) => {
                tracing::warn!(%id, why, "a commit of a peer was refused");
                answer(Judged::refused(code));
            }
        }
    }

    /// Something came that items may have waited for.
    fn release(&mut self) {
        let shared = Arc::clone(&self.shared);
        let devices = |user: &UserId, device: &DeviceKey| {
            shared.identities.had_device(user, device).ok().flatten()
        };
        if shared.cannot_store().is_some() {
            return;
        }
        let mut released = Vec::new();
        for (id, open) in &mut self.open {
            let all = open.machine.release_waiting(now(), &devices);
            open.answer_given_up();
            released.extend(all.into_iter().map(|taken| (*id, taken)));
        }
        for (id, taken) in released {
            self.taken(id, &taken);
        }
    }

    /// Sends a taken commit on its way to the disk.
    fn taken(&mut self, id: ConversationId, taken: &Taken) {
        let me = self.shared.me;
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let commit = taken.commit.id();
        let (origin, seq) = (taken.commit.commit().origin, taken.commit.commit().seq);
        let own = (origin == me).then_some(seq);
        if let Some(answers) = open.on_arrival.remove(&commit) {
            open.on_disk.entry(commit).or_default().extend(answers);
        } else {
            open.on_disk.entry(commit).or_default();
        }
        let change = |role: &RoleChange| MemberChange {
            user: role.user,
            role: role.role,
            home: role.home,
        };
        let roles: Vec<_> = taken.roles.iter().map(change).collect();
        let users = open.roles(&me, &roles);
        let other = |home: &&ServerId| **home != me;
        let joined: Vec<_> = taken.homes.joined.iter().filter(other).copied().collect();
        let left: Vec<_> = taken.homes.left.iter().filter(other).copied().collect();
        if !matches!(open.machine.offer(), Offer::Direct(..)) {
            open.peers.extend(&joined);
            open.peers.retain(|home| !left.contains(home));
        }
        let own_tip = own.or(open.own_tip);
        let mut tips: Vec<_> = open.machine.graph().tips(&origin).collect();
        tips.sort_unstable();
        let ended = left.iter().map(|home| (*home, own_tip)).collect();
        let record = live::to_record(id, taken, tips, ended);
        let told = live::announcement(id, &me, taken, users);
        let bundle = (own.is_some() && !open.peers.is_empty()).then(|| live::to_bundle(taken));
        let frontier = open.machine.frontier();
        let committed = Committed::Commit {
            conversation: id,
            frontier,
            own: own.map(|seq| (seq, bundle)),
            own_tip,
            joined,
            left,
        };
        let place = |index: u16| comity_protocol::session::Place {
            hlc: taken.commit.commit().hlc,
            commit,
            index,
        };
        let events = (0u16..)
            .zip(&taken.events)
            .map(|(index, e)| (e.event.id(), place(index), e.event.event().author, e.void));
        let work = Work::Commit {
            commit,
            own,
            events: events.collect(),
        };
        self.submit(id, record, told, committed, work);
    }

    fn submit(
        &mut self,
        conversation: ConversationId,
        record: comity_storage::Record,
        told: Announcement,
        committed: Committed,
        work: Work,
    ) {
        let Some(open) = self.open.get(&conversation) else {
            return;
        };
        let broken = Arc::clone(&open.broken);
        if broken.load(Ordering::Acquire) {
            // Its failure is on the way here.
            return;
        }
        *self.on_the_way.entry(conversation).or_default() += 1;
        let (shared, commands) = (Arc::clone(&self.shared), self.commands.clone());
        // Runs in the committer, in the order of records: what sessions and links are told keeps
        // that order, whichever shard it came from.
        let done = move |result: Result<comity_storage::Durable, comity_storage::SubmitError>| {
            match &result {
                Ok(durable) => {
                    shared.hub.publish(
                        Some(durable.first),
                        told.users.iter(),
                        &told.common,
                        &told.own,
                    );
                    shared.replication.committed(committed);
                }
                Err(error) => {
                    if matches!(error, comity_storage::SubmitError::Full) {
                        shared.full_at.store(now().0, Ordering::Relaxed);
                    }
                    broken.store(true, Ordering::Release);
                }
            }
            let result = result.map(|durable| durable.first);
            if let Some(commands) = commands.upgrade() {
                let done = Done {
                    conversation,
                    work,
                    result,
                    broken,
                };
                let _ = commands.send(Command::Durable(Box::new(done)));
            }
        };
        self.shared.storage.submit(vec![record], Box::new(done));
    }

    fn durable(&mut self, done: Done) {
        let id = done.conversation;
        if let Some(count) = self.on_the_way.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.on_the_way.remove(&id);
            }
        }
        // A conversation that was given up and read back knows nothing of what was before.
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        if !Arc::ptr_eq(&open.broken, &done.broken) {
            return;
        }
        if let Err(error) = &done.result {
            return self.failed(id, &submit_error(error));
        }
        match done.work {
            Work::Conversation => {
                for reply in open.creating.take().unwrap_or_default() {
                    let _ = reply.send(Ok(()));
                }
            }
            Work::Commit {
                commit,
                own,
                events,
            } => {
                open.machine.durable(&commit);
                for answer in open.on_disk.remove(&commit).unwrap_or_default() {
                    answer(Judged::of(Verdict::Stored));
                }
                self.shared
                    .taken
                    .fetch_add(events.len() as u64, Ordering::Relaxed);
                if let Some(seq) = own {
                    open.own_tip = open.own_tip.max(Some(seq));
                    let followed = events.iter().map(|(e, _, author, _)| (*e, *author));
                    open.follow(seq, followed.collect());
                    self.shared
                        .accepted
                        .fetch_add(events.len() as u64, Ordering::Relaxed);
                    for (event, place, _, void) in events {
                        let answer = match void {
                            None => Ok(Accepted { event, place }),
                            Some(code) => Err(WireError::new(
                                Code::NotAllowed,
                                format!("an act that came first took the right away ({code})"),
                            )),
                        };
                        for sender in open.senders.remove(&event).unwrap_or_default() {
                            sender.answer(answer.clone());
                        }
                    }
                }
                self.dirty.insert(id);
            }
        }
    }

    /// A submission was refused: nothing of it is on the disk, so the machine, which took it
    /// already, is given up and read again when it is needed.
    fn failed(&mut self, id: ConversationId, error: &WireError) {
        tracing::error!(%id, %error, "could not be made durable");
        let Some(mut open) = self.open.remove(&id) else {
            return;
        };
        for reply in open.creating.take().unwrap_or_default() {
            let _ = reply.send(Err(error.clone()));
        }
        for sender in std::mem::take(&mut open.senders).into_values().flatten() {
            sender.answer(Err(error.clone()));
        }
        for answer in std::mem::take(&mut open.on_disk).into_values().flatten() {
            answer(Judged::refused(error.code));
        }
        open.give_up_waiting();
    }

    fn read_own(&mut self, id: &ConversationId, from: u64, max_bytes: usize) -> Served {
        let shared = Arc::clone(&self.shared);
        let Ok(open) = self.known(id) else {
            return Vec::new();
        };
        let graph = open.machine.graph();
        let Some(tip) = graph.standing_tip(&shared.me) else {
            return Vec::new();
        };
        let (mut served, mut bytes) = (Vec::new(), 0);
        let to = open.own_tip.unwrap_or(0);
        for node in (from..=to).map_while(|seq| graph.at_seq(tip, seq)) {
            let commit = graph.node(node).id();
            let number = shared.rows.commit_record(id, &commit).ok().flatten();
            let Some(item) = number.and_then(|n| bundles::read(&shared.rows, n, true)) else {
                break;
            };
            bytes += item.0.size();
            served.push(item);
            if bytes >= max_bytes {
                break;
            }
        }
        served
    }

    fn serve(&mut self, peer: &ServerId, range: &Range, max_bytes: u64) -> (Served, Option<u64>) {
        let shared = Arc::clone(&self.shared);
        // Somebody who does not take part gets what somebody gets who asks for what is not there.
        let Ok(open) = self.known(&range.conversation) else {
            return (Vec::new(), None);
        };
        let takes_part = open.peers.contains(peer);
        let once_did = open
            .machine
            .authority()
            .members()
            .any(|m| m.home == Some(*peer));
        if !takes_part && !once_did {
            return (Vec::new(), None);
        }
        let graph = open.machine.graph();
        let (mut served, mut bytes) = (Vec::new(), 0u64);
        for node in graph.range(&range.home, &range.tip, range.from..=range.to) {
            let node = graph.node(node);
            let number = shared
                .rows
                .commit_record(&range.conversation, &node.id())
                .ok()
                .flatten();
            let item = number.and_then(|n| bundles::read(&shared.rows, n, takes_part));
            let Some(item) = item else { break };
            bytes += item.0.size() as u64;
            if bytes > max_bytes && !served.is_empty() {
                return (served, Some(node.seq()));
            }
            served.push(item);
        }
        (served, None)
    }

    fn acked(&mut self, id: &ConversationId, peer: ServerId, seq: Option<u64>) {
        let shared = Arc::clone(&self.shared);
        // A conversation that is not open has no author waiting to be told.
        let Some(open) = self.open.get_mut(id) else {
            return;
        };
        for (author, news) in open.acked(peer, seq) {
            shared
                .hub
                .publish(None, [&author], &Arc::new(vec![news]), &BTreeMap::new());
        }
    }

    fn grantee(
        &mut self,
        id: &ConversationId,
        asker: &UserId,
        user: Option<UserId>,
        home: Option<ServerId>,
    ) -> Result<Grantee, WireError> {
        let me = self.shared.me;
        let open = self.known(id)?;
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
                    .judge_new(graph, now(), &me, asker, *role, &join)
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
            cut: authority.cut_for(graph, now(), &user),
            bans: authority.standing_bans(&user),
        })
    }

    fn delivery(
        &mut self,
        id: &ConversationId,
        event: &EventId,
    ) -> Result<(u32, u32, Vec<ServerId>), WireError> {
        let me = self.shared.me;
        let open = self.known(id)?;
        let graph = open.machine.graph();
        let own = graph.find_event(event).find(|at| graph.home(at.node) == me);
        let own = own.ok_or_else(|| WireError::new(Code::NotFound, "not an event of this home"))?;
        let (replicated, waiting) = open.delivery(graph.node(own.node).seq());
        Ok((
            replicated,
            u32::try_from(open.peers.len()).unwrap_or(u32::MAX),
            waiting,
        ))
    }

    fn answer_drains(&mut self) {
        if !self.drains.is_empty() && self.on_the_way.is_empty() && self.dirty.is_empty() {
            for drain in self.drains.drain(..) {
                let _ = drain.send(());
            }
        }
    }

    /// Closes conversations that nobody used for longest.
    fn close_some(&mut self) {
        if self.open.len() <= OPEN_MAX {
            return;
        }
        let closable = self.open.iter().filter(|(_, open)| open.can_close());
        // Those in which something waits that can be fetched again go last.
        let mut closable: Vec<_> = closable
            .map(|(id, open)| (!open.machine.is_idle(), open.used, *id))
            .collect();
        closable.sort_unstable();
        for (_, _, id) in closable.into_iter().take(OPEN_MAX / 4) {
            if let Some(mut open) = self.open.remove(&id) {
                open.give_up_waiting();
            }
        }
    }
}

/// The conversation of an item that came over a link.
pub(crate) fn conversation_of(bundle: &Bundle) -> Option<ConversationId> {
    UnverifiedCommit::decode(bundle.commit.clone())
        .ok()
        .map(|c| c.commit().conversation)
}
