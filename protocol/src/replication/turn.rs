//! One input of the machine of all links: feeds the links concerned and does what they say.

use std::sync::Arc;

use super::{
    Committed, Directory, ForPeers, Judged, Note, Output, OwnRead, Peer, PeerWant, RecordsNeed,
    RecordsOf, Replication, Ticket, lookups::Why,
};
use crate::{
    commit::UnverifiedCommit,
    identity::IdentityLog,
    ids::{ConversationId, ServerId, UserId},
    link::{self, Answer, Bundle, Frame, FrameChannel, Identity, Query, Range, Verdict},
    session::Code,
    time::Timestamp,
};

/// Identity logs in one frame.
const LOGS_PER_FRAME: usize = 32;

/// One input being handled.
pub(super) struct Turn<'a> {
    pub(super) now: Timestamp,
    pub(super) machine: &'a mut Replication,
    pub(super) directory: &'a mut dyn Directory,
    pub(super) out: &'a mut Vec<Output>,
}

impl Turn<'_> {
    /// Feeds a link and does what it says.
    pub(super) fn link(&mut self, server: ServerId, input: link::Input) {
        let mut outputs = Vec::new();
        let Replication {
            peers, frontiers, ..
        } = &mut *self.machine;
        let Some(peer) = peers.get_mut(&server) else {
            return;
        };
        peer.link.handle(self.now, input, frontiers, &mut outputs);
        for output in outputs {
            self.perform(server, output);
        }
    }

    fn peer(&mut self, server: &ServerId) -> Option<&mut Peer> {
        self.machine.peers.get_mut(server)
    }

    pub(super) fn count_refused(&mut self, server: &ServerId) {
        if let Some(peer) = self.peer(server) {
            peer.refused_items += 1;
        }
    }

    fn perform(&mut self, server: ServerId, output: link::Output) {
        let records_of = |session, conversation| RecordsOf {
            peer: server,
            session,
            conversation,
        };
        match output {
            link::Output::Send(channel, frame) => {
                self.out.push(Output::Send(server, channel, frame));
            }
            link::Output::Introduce(channel, users) => self.introduce(server, channel, &users),
            link::Output::Read {
                session,
                conversation,
                from,
                max_bytes,
            } => self.out.push(Output::Read(OwnRead {
                peer: server,
                session,
                conversation,
                from,
                max_bytes,
            })),
            link::Output::Judge { session, n, bundle } => {
                let peer = server;
                self.judge(Ticket::Pushed { peer, session, n }, bundle);
            }
            link::Output::Take {
                session,
                id,
                bundles,
            } => self.take(server, session, id, bundles),
            link::Output::Offered(conversation, offer) => {
                self.offered(server, conversation, offer);
            }
            link::Output::Serve {
                session,
                id,
                range,
                max_bytes,
            } => self.out.push(Output::Serve(PeerWant {
                peer: server,
                session,
                id,
                range,
                max_bytes,
            })),
            link::Output::ServeRecords {
                session,
                conversation,
                from,
            } => {
                let of = records_of(session, conversation);
                self.out.push(Output::ServeRecords(of, from));
            }
            link::Output::Records {
                session,
                conversation,
                records,
            } => {
                let of = records_of(session, conversation);
                self.out.push(Output::Records(of, records));
            }
            link::Output::Steward {
                session,
                conversation,
                message,
            } => {
                let of = records_of(session, conversation);
                self.out.push(Output::Steward(of, message));
            }
            link::Output::Identities(logs) => {
                for log in &logs {
                    self.learn(server, log);
                }
            }
            link::Output::Cards(chains) => {
                for cards in &chains {
                    self.cards_came(server, cards);
                }
            }
            link::Output::Resolve { session, id, query } => {
                let answer = self.resolve(&query);
                let input = link::Input::Resolved {
                    session,
                    id,
                    answer,
                };
                self.link(server, input);
            }
            link::Output::Found(id, answer) => self.found(server, id, answer.as_ref()),
            link::Output::Acked(conversation, progress) => {
                let seq = progress.acked;
                if let (Some(seq), Some(peer)) = (seq, self.peer(&server)) {
                    peer.moved.insert(conversation, seq);
                }
                self.out.push(Output::Acked {
                    conversation,
                    peer: server,
                    seq,
                });
            }
            link::Output::Refused(conversation, seq, code) => {
                let note = Note::Refused(conversation, seq, code);
                self.out.push(Output::Note(server, note));
            }
            link::Output::Close(reason) => self.out.push(Output::Close(server, reason)),
        }
    }

    fn judge(&mut self, ticket: Ticket, bundle: Bundle) {
        match conversation_of(&bundle) {
            Some(conversation) => self.out.push(Output::Judge {
                ticket,
                conversation,
                bundle,
            }),
            None => self.judged(ticket, Judged::refused(Code::Malformed)),
        }
    }

    fn take(&mut self, server: ServerId, session: u64, id: u64, bundles: Vec<Bundle>) {
        if bundles.is_empty() {
            return self.link(server, link::Input::Taken { session, id });
        }
        if let Some(peer) = self.peer(&server) {
            peer.taking.insert(id, bundles.len());
        }
        for bundle in bundles {
            let peer = server;
            self.judge(Ticket::Fetched { peer, session, id }, bundle);
        }
    }

    pub(super) fn judged(&mut self, ticket: Ticket, judged: Judged) {
        let peer = ticket.peer();
        if judged.again && judged.verdict == Verdict::Waiting {
            // It waits on, and says for what.
            return self.needs(peer, judged.users, judged.missing);
        }
        // The first verdict counts a fetched item as taken in; a later one, of an item that
        // waited, only matters to pushes.
        if judged.again && matches!(ticket, Ticket::Fetched { .. }) {
            return;
        }
        self.needs(peer, judged.users, judged.missing);
        if let Some(server) = judged.server {
            self.ask_for_cards(peer, server);
        }
        if let Some((conversation, from)) = judged.records {
            self.link(peer, link::Input::LacksRecords(conversation, from));
        }
        if matches!(judged.verdict, Verdict::Refused(_)) {
            self.count_refused(&peer);
        }
        match ticket {
            Ticket::Pushed { peer, session, n } => {
                let verdict = judged.verdict;
                self.link(
                    peer,
                    link::Input::Judged {
                        session,
                        n,
                        verdict,
                    },
                );
            }
            Ticket::Fetched { peer, session, id } => self.took(peer, session, id),
        }
    }

    pub(super) fn records_taken(&mut self, of: RecordsOf, need: RecordsNeed) {
        self.record_needs(&of, need);
        let session = of.session;
        self.link(of.peer, link::Input::RecordsTaken { session });
    }

    pub(super) fn heard(&mut self, of: RecordsOf, need: RecordsNeed) {
        self.record_needs(&of, need);
        let session = of.session;
        self.link(of.peer, link::Input::Heard { session });
    }

    fn record_needs(&mut self, of: &RecordsOf, need: RecordsNeed) {
        let RecordsOf {
            peer, conversation, ..
        } = *of;
        self.needs(peer, need.users, need.missing);
        if let Some(from) = need.from {
            self.link(peer, link::Input::LacksRecords(conversation, from));
        }
        for _ in 0..need.refused {
            self.count_refused(&peer);
        }
    }

    fn took(&mut self, server: ServerId, session: u64, id: u64) {
        let Some(peer) = self.peer(&server) else {
            return;
        };
        let Some(left) = peer.taking.get_mut(&id) else {
            return;
        };
        *left -= 1;
        if *left == 0 {
            peer.taking.remove(&id);
            self.link(server, link::Input::Taken { session, id });
        }
    }

    /// What an item waits for is asked of the peer that gave it.
    fn needs(&mut self, server: ServerId, users: Vec<UserId>, ranges: Vec<Range>) {
        if !ranges.is_empty() {
            self.link(server, link::Input::Missing(ranges));
        }
        for user in users {
            self.ask_for(server, Why::Items(user), user);
        }
    }

    pub(super) fn ask_for(&mut self, server: ServerId, why: Why, user: UserId) {
        let query = Query::User(user);
        let lookups = &mut self.machine.lookups;
        if let Some(id) = lookups.begin(self.now, server, why, query.clone()) {
            self.link(server, link::Input::Lookup(id, query));
        }
    }

    pub(super) fn lookup(
        &mut self,
        request: u64,
        server: Option<ServerId>,
        query: &Query,
        patient: bool,
    ) {
        let wanted = |(id, peer): &(&ServerId, &Peer)| {
            (patient || peer.link.is_open()) && server.is_none_or(|server| server == **id)
        };
        let servers = self.machine.peers.iter().filter(wanted);
        let servers: Vec<_> = servers.map(|(id, _)| *id).collect();
        let lookups = &mut self.machine.lookups;
        let asked = lookups.request(self.now, request, &servers, query);
        if asked.is_empty() {
            self.out.push(Output::Answered(request, None));
        }
        for (server, id) in asked {
            self.link(server, link::Input::Lookup(id, query.clone()));
        }
    }

    pub(super) fn committed(&mut self, committed: Committed) {
        match committed {
            Committed::Known {
                conversation,
                offer,
                peers,
            } => {
                self.machine.frontiers.know(conversation, offer);
                for peer in self
                    .machine
                    .offers
                    .remove(&conversation)
                    .unwrap_or_default()
                {
                    self.link(peer, link::Input::Known(conversation));
                }
                for peer in peers {
                    self.takes_part(peer, conversation, None);
                }
            }
            Committed::Commit {
                conversation,
                frontier,
                own,
                own_tip,
                joined,
                left,
            } => {
                self.machine.frontiers.set(&conversation, frontier);
                for server in joined {
                    self.takes_part(server, conversation, own_tip);
                }
                if let Some((seq, bundle)) = own {
                    self.push(conversation, seq, bundle.as_ref());
                }
                for server in left {
                    self.link(server, link::Input::LeftAt(conversation, own_tip));
                }
            }
            Committed::Record {
                conversation,
                newest,
                raw,
                own_tip,
                joined,
                left,
            } => {
                self.machine.frontiers.set_root(conversation, newest);
                for server in joined {
                    self.takes_part(server, conversation, own_tip);
                }
                let servers: Vec<_> = self.machine.peers.keys().copied().collect();
                for server in servers {
                    self.link(server, link::Input::Recorded(conversation, raw.clone()));
                }
                for server in left {
                    self.link(server, link::Input::LeftAt(conversation, own_tip));
                }
            }
        }
    }

    fn push(&mut self, conversation: ConversationId, seq: u64, bundle: Option<&ForPeers>) {
        let servers: Vec<_> = self.machine.peers.keys().copied().collect();
        for server in servers {
            let bundle = bundle.cloned();
            let input = link::Input::Committed {
                conversation,
                seq,
                bundle,
            };
            self.link(server, input);
        }
    }

    pub(super) fn tick(&mut self, random: &[u64]) {
        for request in self.machine.lookups.give_up_old(self.now) {
            self.out.push(Output::Answered(request, None));
        }
        self.seek_again();
        let servers: Vec<_> = self.machine.peers.keys().copied().collect();
        for (nth, server) in servers.into_iter().enumerate() {
            let random = random.get(nth).or(random.last()).copied().unwrap_or(0);
            self.link(server, link::Input::Tick { random });
        }
        for (server, peer) in &mut self.machine.peers {
            let unreached = peer.unreached.look(self.now, peer.link.is_open());
            self.out
                .extend(unreached.map(|ms| Output::Unreached(*server, ms)));
            if !peer.moved.is_empty() {
                let moved = std::mem::take(&mut peer.moved).into_iter().collect();
                self.out.push(Output::Positions(*server, moved));
            }
        }
    }

    fn introduce(&mut self, server: ServerId, channel: FrameChannel, users: &[UserId]) {
        let logs: Vec<Identity> = users
            .iter()
            .filter_map(|user| self.directory.log(user))
            .map(|log| log.to_travel())
            .collect();
        for logs in logs.chunks(LOGS_PER_FRAME) {
            let logs = logs.to_vec();
            let frame = Frame::Identities { logs };
            self.out.push(Output::Send(server, channel, frame));
        }
    }

    fn resolve(&self, query: &Query) -> Option<Answer> {
        let user = match query {
            Query::User(user) => *user,
            Query::Handle(handle) => self.directory.user_of(handle)?,
            Query::Server(server) => {
                let cards = self.directory.cards(server)?;
                return Some(Answer::Cards(cards.to_travel()));
            }
        };
        let log = self.directory.log(&user)?;
        Some(Answer::Identity(log.to_travel()))
    }

    /// Verifies a log from a peer and merges it with what is held.
    fn learn(&mut self, server: ServerId, log: &Identity) {
        let held = IdentityLog::user_of_travel(log).and_then(|user| self.directory.log(&user));
        match IdentityLog::merge_travel(held.as_deref(), log) {
            Ok(Some(news)) => self.directory.learn(Arc::new(news)),
            Ok(None) => {}
            Err(error) => {
                self.count_refused(&server);
                let note = Note::Identity(error);
                self.out.push(Output::Note(server, note));
            }
        }
    }

    fn found(&mut self, server: ServerId, id: u64, answer: Option<&Answer>) {
        let identity = match answer {
            Some(Answer::Cards(cards)) => return self.found_cards(server, id, cards),
            Some(Answer::Identity(log)) => Some(log),
            None => None,
        };
        let user = identity.and_then(|log| IdentityLog::user_of_travel(log));
        let user = user.filter(|user| self.machine.lookups.is_about(id, &server, user));
        if let (Some(log), Some(_)) = (identity, user) {
            self.learn(server, log);
        }
        let log = user.and_then(|user| self.directory.log(&user));
        let answered = self.machine.lookups.answered(id, log.is_some());
        if let Some(request) = answered.request {
            self.out.push(Output::Answered(request, log.clone()));
        }
        // Without the log there is nothing to go on with: asking again at once would never end.
        if let (Some(Why::Offer(conversation, offer)), Some(_)) = (answered.why, log) {
            self.offered(server, conversation, offer);
        }
    }
}

/// The conversation of an item that came over a link.
#[must_use]
pub fn conversation_of(bundle: &Bundle) -> Option<ConversationId> {
    UnverifiedCommit::decode(bundle.commit.clone())
        .ok()
        .map(|c| c.commit().conversation)
}
