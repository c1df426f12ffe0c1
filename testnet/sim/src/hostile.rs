//! A server that lies. It runs the same machines, so that others believe it, and says more than
//! they do: forks, forgeries, what was deleted, what nobody asked for.

mod records;

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    commit::{AuthorityChange, Commit},
    event::{Act, RawEvent, SealedContent, Tip},
    ids::{Blob, CommitId, ConversationId, EventId, Nonce, UserId},
    link::{Bundle, ContentSlot, Frame, FrameChannel, Query, Range, decode_frame, encode_frame},
    role::Role,
    time::Hlc,
};

use records::Late;

use crate::{
    faults::Kind,
    people::{self, Change},
    random::Random,
    rows::Marks,
    world::World,
};

/// Numbers of pushes that its machine never gives.
const PUSHES_FROM: u64 = 1 << 40;
/// Items that wait for ever, in one flood.
const FLOOD_ITEMS: u64 = 600;

/// What it is up to.
#[derive(Debug, Default)]
pub(crate) struct Hostile {
    server: Option<usize>,
    /// What it goes on doing, until when.
    until: BTreeMap<Kind, u64>,
    forked: BTreeSet<ConversationId>,
    pushes: u64,
    /// A frame that is held back to come after the next one.
    held: Option<(usize, FrameChannel, Vec<u8>)>,
    /// Root records that it gives to nobody yet.
    late: Vec<Late>,
}

impl Hostile {
    pub(crate) fn new(server: Option<usize>) -> Self {
        Self {
            server,
            pushes: PUSHES_FROM,
            ..Self::default()
        }
    }

    /// Behaves from here on.
    pub(crate) fn stop(&mut self) {
        self.until.clear();
    }

    fn does(&self, kind: Kind, now: u64) -> bool {
        self.until.get(&kind).is_some_and(|until| *until > now)
    }
}

/// A commit by a home about which everything can be said.
struct Forged {
    commit: Commit,
    events: Vec<(RawEvent, Option<SealedContent>)>,
}

impl World {
    /// The hostile server begins something. False if it cannot now.
    pub(crate) fn misbehave(&mut self, kind: Kind, random: &mut Random) -> bool {
        let Some(me) = self.hostile.server.filter(|n| self.servers[*n].up) else {
            return false;
        };
        self.servers[me].now_ms = self.now;
        match kind {
            Kind::Withhold | Kind::DuplicateFrames | Kind::ReorderFrames => {
                let until = self.now + random.between(2_000, 40_000);
                self.hostile.until.insert(kind, until);
                true
            }
            Kind::Twins => self.twins(me, random),
            Kind::LateRecord => self.late_record(me, random),
            Kind::ForgeRecord => self.forge_record(me, random),
            Kind::MalformedFrame => self.malformed_frame(me, random),
            Kind::Snoop => self.snoop(me, random),
            Kind::Replay => self.replay(me, random),
            _ => {
                let known = &self.servers[me].rows.known;
                let mine: Vec<_> = known.keys().copied().collect();
                // Of those in which somebody of its own is a member.
                let with = mine.into_iter().filter(|id| {
                    let members = &known[id].members;
                    let own = self.users.iter().filter(|u| u.home_in(id) == me);
                    own.into_iter().any(|u| members.contains_key(&u.id))
                });
                let with: Vec<_> = with.collect();
                // Floods meet where they hurt most: always in the same place.
                let flooded = with.first().filter(|_| kind == Kind::Flood).copied();
                let Some(conversation) = flooded.or_else(|| random.pick(&with)) else {
                    return false;
                };
                self.lie(kind, me, conversation, random)
            }
        }
    }

    fn lie(
        &mut self,
        kind: Kind,
        me: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) -> bool {
        let user = {
            let members = &self.servers[me].rows.known[&conversation].members;
            let own = self.users.iter().enumerate();
            let own =
                own.filter(|(_, u)| u.home_in(&conversation) == me && members.contains_key(&u.id));
            let own: Vec<usize> = own.map(|(n, _)| n).collect();
            random.pick(&own)
        };
        let Some(user) = user else { return false };
        let Some(mut forged) = self.forge(me, user, conversation, random) else {
            return false;
        };
        let now = self.servers[me].wall();
        let mut keep = true;
        match kind {
            Kind::Fork => {
                let Some(()) = self.as_fork(me, conversation, &mut forged, random) else {
                    return false;
                };
            }
            // A commit at the end of its chain, stamped right after the one before, that has seen
            // nothing since: with an act, if its user may do one, against whatever was settled.
            Kind::Backdate => {
                if let Some(made) = self.act_of(me, user, conversation, random) {
                    forged.events = vec![made];
                }
            }
            Kind::Future => {
                let day = random.percent(50);
                let ahead = if day { 86_400_000 } else { 150_000 };
                keep = !day;
                let at = now.plus_ms(ahead);
                forged.commit.hlc = forged.commit.hlc.max(Hlc::new(at, 0));
            }
            Kind::HiddenParent => {
                let parent = CommitId::from_bytes(random.bytes());
                forged.commit.parents = vec![parent];
            }
            Kind::HiddenPast => {
                let tip = Tip {
                    home: self.servers[0].id,
                    epoch: 1,
                    seq: 1_000 + random.below(1_000),
                    id: CommitId::from_bytes(random.bytes()),
                };
                let change = forged.commit.authority.get_or_insert_default();
                change.tips = vec![tip];
                keep = false;
            }
            Kind::Flood => return self.flood(me, &forged, random),
            Kind::MalformedItem => return self.malformed_item(me, user, &forged, random),
            Kind::Forge => return self.forge_others(me, user, &forged, random),
            Kind::Usurp => {
                let Some(event) = self.others_event(me, conversation, random) else {
                    return false;
                };
                forged.events = vec![event];
            }
            Kind::Resurrect => {
                let Some(event) = self.deleted_event(me, conversation, random) else {
                    return false;
                };
                forged.events = vec![event];
            }
            _ => return false,
        }
        let bundle = self.sign(me, forged);
        if keep {
            // It believes itself, and pushes it as its own chain.
            self.servers[me].take_own(bundle.clone());
            self.perform(me);
        }
        self.push_to_all(me, &bundle, random);
        true
    }

    /// A commit on the end of its chain, with a new message of a user of its own.
    fn forge(
        &mut self,
        me: usize,
        user: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) -> Option<Forged> {
        let content = people::text(&mut self.texts, random);
        let act = Act::Message {
            content: content.reference(),
        };
        let (of, server) = (&self.users[user], &mut self.servers[me]);
        let made = people::make(of, conversation, act, Some(content), server, random)?;
        self.ledger.sent(&made);
        let machine = self.servers[me].shard.conversation(&conversation)?;
        let graph = machine.graph();
        let id = self.servers[me].id;
        let tip = graph.standing_tip(&id).map(|tip| graph.node(tip));
        let now = self.servers[me].wall();
        let after = |hlc: Hlc| Hlc::from_bits(hlc.to_bits() + 1);
        let commit = Commit {
            v: 1,
            conversation,
            origin: id,
            epoch: tip.map_or(1, |tip| tip.epoch()),
            seq: tip.map_or(0, |tip| tip.seq() + 1),
            prev: tip.map(|tip| tip.id()),
            hlc: tip.map_or(Hlc::new(now, 0), |tip| after(tip.hlc())),
            parents: vec![],
            authority: tip.is_none().then(AuthorityChange::default),
            events: vec![],
        };
        let events = vec![(made.event.to_raw(), made.content)];
        Some(Forged { commit, events })
    }

    /// Moves a commit beside the newest one or an older one, which may be settled, once in a
    /// conversation: whoever forks again and again only hurts himself.
    fn as_fork(
        &mut self,
        me: usize,
        conversation: ConversationId,
        forged: &mut Forged,
        random: &mut Random,
    ) -> Option<()> {
        let id = self.servers[me].id;
        let machine = self.servers[me].shard.conversation(&conversation)?;
        let graph = machine.graph();
        let tip = graph.standing_tip(&id)?;
        let deep = random.percent(50);
        let chain = std::iter::successors(Some(tip), |at| graph.node(*at).prev());
        let with_prev = chain.filter(|at| graph.node(*at).prev().is_some());
        let mut beside: Vec<_> = with_prev.collect();
        beside.truncate(if deep { beside.len() } else { 1 });
        let node = graph.node(random.pick(&beside)?);
        let prev = node.prev()?;
        if !self.hostile.forked.insert(conversation) {
            return None;
        }
        forged.commit.seq = node.seq();
        forged.commit.prev = Some(graph.node(prev).id());
        forged.commit.hlc = node.hlc();
        Some(())
    }

    /// An act of a user, of the kind that changes what others may do.
    fn act_of(
        &mut self,
        me: usize,
        user: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) -> Option<(RawEvent, Option<SealedContent>)> {
        let change = [Change::Give, Change::Remove, Change::Ban][random.place(3)];
        let other = random.place(self.users.len());
        let (by, of, server) = (&self.users[user], &self.users[other], &mut self.servers[me]);
        let act = people::grant(change, by, of, conversation, server, random)?;
        let made = people::make(by, conversation, act, None, server, random)?;
        self.ledger.sent(&made);
        Some((made.event.to_raw(), made.content))
    }

    fn sign(&self, me: usize, mut forged: Forged) -> Bundle {
        let id = |raw: &RawEvent| EventId::from_bytes(hash(&raw.event.0));
        let events = forged.events.iter().map(|(raw, _)| id(raw));
        forged.commit.events = events.collect();
        let held = |content: SealedContent| ContentSlot::Held(Blob(content.into_bytes()));
        let (events, contents): (Vec<_>, Vec<_>) = forged.events.into_iter().unzip();
        Bundle {
            commit: forged.commit.sign(&self.servers[me].key).to_raw(),
            events,
            contents: contents.into_iter().flatten().map(held).collect(),
        }
    }

    fn push_to(&mut self, me: usize, to: usize, bundle: &Bundle) {
        self.hostile.pushes += 1;
        let (n, bundle) = (self.hostile.pushes, bundle.clone());
        let frame = encode_frame(&Frame::Push { n, bundle });
        self.carry(me, to, FrameChannel::Live, frame, 0);
    }

    fn push_to_all(&mut self, me: usize, bundle: &Bundle, random: &mut Random) {
        let some = random.percent(50);
        for to in self.honest().collect::<Vec<_>>() {
            // Not the same to everybody.
            if !some || random.percent(60) {
                self.push_to(me, to, bundle);
            }
        }
    }

    /// Lines of one conversation whose event another home committed.
    fn others_lines(
        &self,
        me: usize,
        conversation: &ConversationId,
        wanted: impl Fn(&Marks) -> bool,
    ) -> Vec<EventId> {
        let server = &self.servers[me];
        let known = server.rows.known.get(conversation);
        let lines = known.into_iter().flat_map(|known| known.lines.values());
        let other =
            |event: &EventId| server.rows.origin(&server.disk.log, event) != Some(server.id);
        let wanted = lines.filter(|(_, marks)| wanted(marks));
        wanted.map(|(event, _)| *event).filter(other).collect()
    }

    fn others_event(
        &self,
        me: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) -> Option<(RawEvent, Option<SealedContent>)> {
        let server = &self.servers[me];
        let event = random.pick(&self.others_lines(me, &conversation, |_| true))?;
        let raw = server.rows.raw(&server.disk.log, &event)?;
        Some((raw, self.ledger.content(&event).cloned()))
    }

    /// An event that its author deleted, with its text. Of others only: of two standing places of
    /// one event on branches of its own home, the rows keep the one that came first, a limit that
    /// spec/03 names.
    fn deleted_event(
        &self,
        me: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) -> Option<(RawEvent, Option<SealedContent>)> {
        let server = &self.servers[me];
        let events = self.others_lines(me, &conversation, |marks| marks.deleted);
        let event = random.pick(&events)?;
        let content = self.ledger.content(&event)?.clone();
        let raw = server.rows.raw(&server.disk.log, &event)?;
        Some((raw, Some(content)))
    }

    fn replay(&mut self, me: usize, random: &mut Random) -> bool {
        let server = &self.servers[me];
        let known: Vec<_> = server.rows.known.keys().copied().collect();
        let Some(conversation) = random.pick(&known) else {
            return false;
        };
        let commits: Vec<_> = server.rows.known[&conversation]
            .commits
            .keys()
            .copied()
            .collect();
        let mut bundles = Vec::new();
        for _ in 0..20 {
            let id = random.pick(&commits);
            let log = &server.disk.log;
            bundles.extend(id.and_then(|id| server.rows.bundle(&conversation, &id, true, log)));
        }
        let parts: Vec<usize> = self.honest().collect();
        for (bundle, _) in &bundles {
            if let Some(to) = random.pick(&parts) {
                self.push_to(me, to, bundle);
            }
        }
        !bundles.is_empty()
    }

    /// Items that wait for ever, lookups and wants by the hundred.
    fn flood(&mut self, me: usize, forged: &Forged, random: &mut Random) -> bool {
        let honest: Vec<usize> = self.honest().collect();
        for nth in 0..FLOOD_ITEMS {
            let mut commit = forged.commit.clone();
            commit.seq += 2 + nth;
            commit.prev = Some(CommitId::from_bytes(random.bytes()));
            commit.authority = None;
            let events = forged.events.clone();
            let bundle = self.sign(me, Forged { commit, events });
            for to in &honest {
                self.push_to(me, *to, &bundle);
            }
        }
        let to = honest[random.place(honest.len())];
        for id in 0..200 {
            let query = Query::User(UserId::from_bytes(random.bytes()));
            let frame = encode_frame(&Frame::Lookup { id, query });
            self.carry(me, to, FrameChannel::Live, frame, 0);
        }
        true
    }

    fn malformed_frame(&mut self, me: usize, random: &mut Random) -> bool {
        let honest: Vec<usize> = self.honest().collect();
        let Some(to) = random.pick(&honest) else {
            return false;
        };
        let good = encode_frame(&Frame::Hello {
            version: 1,
            server: self.servers[me].id,
            nonce: Nonce::from_bytes(random.bytes()),
        });
        let bytes = match random.below(4) {
            0 => random.bytes::<64>().to_vec(),
            1 => good[..good.len() / 2].to_vec(),
            2 => {
                let mut bad = good;
                let at = random.place(bad.len());
                bad[at] ^= 1 << random.below(8);
                bad
            }
            // A well-formed one at the wrong time.
            _ => good,
        };
        self.carry(me, to, FrameChannel::Live, bytes, 0);
        true
    }

    /// A bad item, and right behind it a good one, which must not suffer.
    fn malformed_item(
        &mut self,
        me: usize,
        user: usize,
        forged: &Forged,
        random: &mut Random,
    ) -> bool {
        let (commit, events) = (forged.commit.clone(), forged.events.clone());
        let conversation = commit.conversation;
        let mut bundle = self.sign(me, Forged { commit, events });
        match random.below(5) {
            0 => bundle.events.clear(),
            1 => bundle.contents.clear(),
            2 => bundle.events[0].event.0[0] ^= 1,
            3 => {
                let bytes = &mut bundle.commit.commit.0;
                let at = bytes.len() - 1;
                bytes[at] ^= 1;
            }
            _ => {
                let mut commit = forged.commit.clone();
                commit.epoch += 1;
                commit.hlc = Hlc::from_bits(1);
                let events = forged.events.clone();
                bundle = self.sign(me, Forged { commit, events });
                bundle.commit.signature = comity_protocol::ids::Signature::from_bytes([7; 64]);
            }
        }
        for to in self.honest().collect::<Vec<_>>() {
            self.push_to(me, to, &bundle);
        }
        let content = people::text(&mut self.texts, random);
        let act = Act::Message {
            content: content.reference(),
        };
        let (of, server) = (&self.users[user], &mut self.servers[me]);
        if let Some(made) = people::make(of, conversation, act, Some(content), server, random) {
            self.send_made(user, me, made);
        }
        true
    }

    /// Events in the name of a user of somebody else, and commits in the name of his home.
    fn forge_others(
        &mut self,
        me: usize,
        user: usize,
        forged: &Forged,
        random: &mut Random,
    ) -> bool {
        let victims: Vec<usize> = (0..self.users.len())
            .filter(|n| self.users[*n].home_in(&forged.commit.conversation) != me)
            .collect();
        let Some(victim) = random.pick(&victims) else {
            return false;
        };
        let conversation = forged.commit.conversation;
        let content = people::text(&mut self.texts, random);
        let act = Act::Message {
            content: content.reference(),
        };
        let author = self.users[victim].id;
        let event = self.users[user].sign_as(author, conversation, Role::Member, act, random);
        let (mut commit, events) = (forged.commit.clone(), vec![(event.to_raw(), Some(content))]);
        if random.percent(50) {
            let home = self.users[victim].home_in(&conversation);
            commit.origin = self.servers[home].id;
        }
        let bundle = self.sign(me, Forged { commit, events });
        for to in self.honest().collect::<Vec<_>>() {
            self.push_to(me, to, &bundle);
        }
        true
    }

    /// Asks everybody for every conversation.
    fn snoop(&mut self, me: usize, random: &mut Random) -> bool {
        let all: Vec<ConversationId> = self.ledger.conversations().copied().collect();
        for to in self.honest().collect::<Vec<_>>() {
            for (id, conversation) in (0u64..).zip(&all).take(24) {
                let range = Range {
                    conversation: *conversation,
                    home: self.servers[to].id,
                    tip: CommitId::from_bytes(random.bytes()),
                    from: 0,
                    to: 100,
                };
                let conversation = *conversation;
                let (id, max_bytes) = (PUSHES_FROM + id, u64::MAX);
                let want = Frame::Want {
                    id,
                    range,
                    max_bytes,
                };
                let ask = Frame::Ask { conversation };
                self.carry(me, to, FrameChannel::Bulk, encode_frame(&want), 0);
                self.carry(me, to, FrameChannel::Live, encode_frame(&ask), 0);
            }
        }
        true
    }

    /// What its machine wants to send, as it pleases.
    pub(crate) fn hostile_send(&mut self, to: usize, channel: FrameChannel, bytes: Vec<u8>) {
        let Some(me) = self.hostile.server else {
            return;
        };
        let now = self.now;
        if self.hostile.does(Kind::Withhold, now) {
            let frame = decode_frame(&bytes);
            let kept = matches!(
                frame,
                Ok(Frame::Push { .. }
                    | Frame::Have { .. }
                    | Frame::Shared { .. }
                    | Frame::Frontier { .. }
                    | Frame::Records { .. }
                    | Frame::Found { .. })
            );
            if kept {
                return;
            }
        }
        if self.hostile.does(Kind::ReorderFrames, now) && self.hostile.held.is_none() {
            self.hostile.held = Some((to, channel, bytes));
            return;
        }
        let twice = self.hostile.does(Kind::DuplicateFrames, now);
        self.carry(me, to, channel, bytes.clone(), 0);
        if twice {
            self.carry(me, to, channel, bytes, 0);
        }
        if let Some((to, channel, bytes)) = self.hostile.held.take() {
            self.carry(me, to, channel, bytes, 0);
        }
    }

    /// Lets go of what is held back.
    pub(crate) fn hostile_turn(&mut self, n: usize) {
        if self.hostile.server == Some(n) {
            self.give_late_records(n);
        }
        if self.hostile.server == Some(n)
            && let Some((to, channel, bytes)) = self.hostile.held.take()
        {
            self.carry(n, to, channel, bytes, 0);
        }
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
