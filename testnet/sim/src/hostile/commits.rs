//! Commits as the hostile server makes them: on its chain or beside it, of any time, on any past, with
//! anybody's events.

use std::iter::successors;

use comity_protocol::{
    commit::{AuthorityChange, Commit},
    event::{Act, RawEvent, SealedContent},
    ids::{Blob, ConversationId, EventId},
    link::{Bundle, ContentSlot, Frame, FrameChannel, encode_frame},
    time::Hlc,
};

use crate::{
    people::{self, Change},
    random::Random,
    rows::Marks,
    world::World,
};

/// A commit by a home about which everything can be said.
pub(super) struct Forged {
    pub(super) commit: Commit,
    pub(super) events: Vec<(RawEvent, Option<SealedContent>)>,
}

impl World {
    /// A commit on the end of its chain, with a new message of a user of its own.
    pub(super) fn forge(
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
    pub(super) fn as_fork(
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
        let chain = successors(Some(tip), |at| graph.node(*at).prev());
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
    pub(super) fn act_of(
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

    pub(super) fn sign(&self, me: usize, mut forged: Forged) -> Bundle {
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

    pub(super) fn push_to(&mut self, me: usize, to: usize, bundle: &Bundle) {
        self.hostile.pushes += 1;
        let (n, bundle) = (self.hostile.pushes, bundle.clone());
        let frame = encode_frame(&Frame::Push { n, bundle });
        self.carry(me, to, FrameChannel::Live, frame, 0);
    }

    pub(super) fn push_to_all(&mut self, me: usize, bundle: &Bundle, random: &mut Random) {
        let some = random.percent(50);
        for to in self.honest().collect::<Vec<_>>() {
            // Not the same to everybody.
            if !some || random.percent(60) {
                self.push_to(me, to, bundle);
            }
        }
    }

    /// Lines of one conversation whose event another home committed.
    pub(super) fn others_lines(
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

    pub(super) fn others_event(
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
    pub(super) fn deleted_event(
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
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}
