//! What the hostile server sends beside its commits: what everybody has, what nobody asked for, what
//! is no frame or no item, what is in the name of others.

use comity_fuzz::{
    mutate::{self, Kind::Cbor as CBOR},
    seeds,
};
use comity_protocol::{
    encoding,
    event::Act,
    ids::{CommitId, ConversationId, UserId},
    limits::LINK_FRAME_BYTES_MAX,
    link::{Bundle, Frame, FrameChannel, Query, Range, encode_frame},
    role::Role,
    time::Hlc,
};

use super::{PUSHES_FROM, commits::Forged};
use crate::{people, random::Random, world::World};

/// Items that wait for ever, in one flood.
const FLOOD_ITEMS: u64 = 600;

impl World {
    pub(super) fn replay(&mut self, me: usize, random: &mut Random) -> bool {
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
    pub(super) fn flood(&mut self, me: usize, forged: &Forged, random: &mut Random) -> bool {
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

    /// To everybody something that the fuzzers make of good frames, its own and those of the vectors.
    pub(super) fn malformed_frames(&mut self, me: usize, random: &mut Random) -> bool {
        let mut sound = seeds::link_frame();
        sound.extend(self.hostile.sent.iter().cloned());
        for to in self.honest().collect::<Vec<_>>() {
            let mut fuzz = comity_fuzz::random::Random::new(random.step());
            let bytes = mutate::hostile(&mut fuzz, CBOR, &sound, LINK_FRAME_BYTES_MAX);
            let channel = if random.percent(50) {
                FrameChannel::Live
            } else {
                FrameChannel::Bulk
            };
            self.carry(me, to, channel, bytes, 0);
        }
        true
    }

    /// One that goes before what its machine sends now: so they come in every state of a link.
    pub(super) fn malformed_beside(&mut self, me: usize, to: usize, channel: FrameChannel) {
        let sound: Vec<Vec<u8>> = self.hostile.sent.iter().cloned().collect();
        self.hostile.pushes += 1;
        let mut fuzz = comity_fuzz::random::Random::new(self.hostile.pushes ^ self.now << 20);
        if fuzz.once_in(4) {
            let bytes = mutate::hostile(&mut fuzz, CBOR, &sound, LINK_FRAME_BYTES_MAX);
            self.carry(me, to, channel, bytes, 0);
        }
    }

    /// An item of which the fuzzers made something else that can still be read.
    fn fuzzed(bundle: &Bundle, random: &mut Random) -> Option<Bundle> {
        let sound = [encoding::encode(bundle)];
        let mut fuzz = comity_fuzz::random::Random::new(random.step());
        (0..32).find_map(|_| {
            let bytes = mutate::hostile(&mut fuzz, CBOR, &sound, LINK_FRAME_BYTES_MAX);
            let read = encoding::decode::<Bundle>(&bytes, LINK_FRAME_BYTES_MAX).ok()?;
            (read != *bundle).then_some(read)
        })
    }

    /// A bad item, and right behind it a good one, which must not suffer.
    pub(super) fn malformed_item(
        &mut self,
        me: usize,
        user: usize,
        forged: &Forged,
        random: &mut Random,
    ) -> bool {
        let (commit, events) = (forged.commit.clone(), forged.events.clone());
        let conversation = commit.conversation;
        let mut bundle = self.sign(me, Forged { commit, events });
        match random.below(10) {
            0 => bundle.events.clear(),
            1 => bundle.contents.clear(),
            2 => bundle.events[0].event.0[0] ^= 1,
            3 => {
                let bytes = &mut bundle.commit.commit.0;
                let at = bytes.len() - 1;
                bytes[at] ^= 1;
            }
            4..9 => bundle = Self::fuzzed(&bundle, random).unwrap_or(bundle),
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
    pub(super) fn forge_others(
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

    /// A log in which a user of somebody else has one more device, which his home did not sign, and
    /// right behind it a commit with what that device says.
    pub(super) fn forge_identity(
        &mut self,
        me: usize,
        forged: &Forged,
        random: &mut Random,
    ) -> bool {
        let conversation = forged.commit.conversation;
        let victims = (0..self.users.len()).filter(|n| self.users[*n].home_in(&conversation) != me);
        let Some(victim) = random.pick(&victims.collect::<Vec<_>>()) else {
            return false;
        };
        let content = people::text(&mut self.texts, random);
        let act = Act::Message {
            content: content.reference(),
        };
        let by = &self.users[victim];
        let (log, event) = by.with_foreign_device(conversation, act, &self.servers[me].key, random);
        let frame = encode_frame(&Frame::Identities { logs: vec![log] });
        let (commit, events) = (forged.commit.clone(), vec![(event.to_raw(), Some(content))]);
        let bundle = self.sign(me, Forged { commit, events });
        for to in self.honest().collect::<Vec<_>>() {
            self.carry(me, to, FrameChannel::Live, frame.clone(), 0);
            self.push_to(me, to, &bundle);
        }
        true
    }

    /// Asks everybody for every conversation.
    pub(super) fn snoop(&mut self, me: usize, random: &mut Random) -> bool {
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
}
