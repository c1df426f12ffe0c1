//! What the hostile server does with root records: twins, records that come late, and forgeries.

use comity_protocol::{
    ids::{ConversationId, Digest, Nonce, ServerId},
    link::{Frame, FrameChannel, encode_frame},
    root::{RawRoot, Root},
};

use crate::{random::Random, rows::Body, world::World};

/// A record that some get only later.
#[derive(Debug)]
pub(super) struct Late {
    /// When.
    at: u64,
    conversation: ConversationId,
    raw: RawRoot,
    to: Vec<usize>,
}

impl World {
    /// Conversations of which `me` is the only steward and some user the owner, with that user.
    fn stewarded(&mut self, me: usize) -> Vec<(ConversationId, usize)> {
        let known: Vec<_> = self.servers[me].rows.known.keys().copied().collect();
        let mut mine = Vec::new();
        for conversation in known {
            let server = &mut self.servers[me];
            let id = server.id;
            for (n, user) in self.users.iter().enumerate() {
                let root = server.newest_root(&conversation, user);
                let own = |root: &Root| root.owner == user.id && root.stewards == [id];
                if root.as_ref().is_some_and(own) {
                    mine.push((conversation, n));
                }
            }
        }
        mine
    }

    /// Two or three records on one: some of the others get this one, some that one, some both, now
    /// or much later.
    pub(super) fn twins(&mut self, me: usize, random: &mut Random) -> bool {
        let mine = self.stewarded(me);
        let Some((conversation, user)) = random.pick(&mine) else {
            return false;
        };
        let count = random.between(2, 4);
        let twins: Vec<RawRoot> = (0..count)
            .filter_map(|_| self.transfer(user, me, conversation, random))
            .collect();
        let apart = random.percent(50);
        for (nth, raw) in twins.iter().enumerate() {
            let mut to: Vec<usize> = self.honest().collect();
            if apart {
                // At once, and to nobody two.
                to.retain(|n| n % twins.len() == nth);
            } else {
                to.retain(|_| random.percent(60));
            }
            if random.percent(50) {
                to.push(me);
            }
            let at = match random.below(3) {
                _ if apart => self.now,
                0 => self.now,
                1 => self.now + random.between(1_000, 60_000),
                _ => self.now + random.between(60_000, 1_500_000),
            };
            let raw = raw.clone();
            self.hostile.late.push(Late {
                at,
                conversation,
                raw,
                to,
            });
        }
        twins.len() > 1
    }

    /// It starts again without what it promised and signed as a steward.
    pub(super) fn forget_notes(&mut self, me: usize) -> bool {
        let unsynced = self.servers[me].disk.unsynced();
        self.crash(me, unsynced, 500);
        let log = &mut self.servers[me].disk.log;
        let before = log.len();
        log.retain(|record| !matches!(record.body, Body::Steward(..)));
        log.len() < before
    }

    /// A record that nobody has for a while.
    pub(super) fn late_record(&mut self, me: usize, random: &mut Random) -> bool {
        let mine = self.stewarded(me);
        let Some((conversation, user)) = random.pick(&mine) else {
            return false;
        };
        let Some(raw) = self.transfer(user, me, conversation, random) else {
            return false;
        };
        let to = self.honest().chain([me]).collect();
        let at = self.now + random.between(60_000, 1_500_000);
        self.hostile.late.push(Late {
            at,
            conversation,
            raw,
            to,
        });
        true
    }

    pub(super) fn give_late_records(&mut self, me: usize) {
        let now = self.now;
        if self.rests() {
            // It would be on its way when everybody is looked at.
            return;
        }
        let due: Vec<Late> = self.hostile.late.extract_if(.., |l| l.at <= now).collect();
        for late in due {
            for to in late.to {
                self.give_record(me, to, late.conversation, late.raw.clone());
            }
        }
    }

    fn give_record(&mut self, me: usize, to: usize, conversation: ConversationId, raw: RawRoot) {
        if to == me {
            self.servers[me].take_record(conversation, raw);
            return self.perform(me);
        }
        let records = vec![raw];
        let frame = Frame::Records {
            conversation,
            records,
        };
        self.carry(me, to, FrameChannel::Live, encode_frame(&frame), 0);
    }

    /// A record that makes a user of its own the owner, or says what is not so: signed by him and
    /// noted by this server, whoever the owner and the stewards are.
    pub(super) fn forge_record(&mut self, me: usize, random: &mut Random) -> bool {
        let known: Vec<_> = self.servers[me].rows.known.keys().copied().collect();
        let users = (0..self.users.len()).filter(|n| self.users[*n].home == me);
        let users: Vec<usize> = users.collect();
        let (Some(conversation), Some(user)) = (random.pick(&known), random.pick(&users)) else {
            return false;
        };
        let (server, by) = (&mut self.servers[me], &self.users[user]);
        if server.newest_root(&conversation, by).is_none() {
            return false;
        }
        let now = server.wall();
        let nonce = Nonce::from_bytes(random.bytes());
        let machine = server.shard.conversation(&conversation);
        let Some(mut root) = machine.and_then(|machine| machine.next_root(now, nonce)) else {
            return false;
        };
        let home = server.id;
        match random.below(4) {
            // Takes it.
            0 => (root.owner, root.home) = (by.id, home),
            // Takes it for good.
            1 => {
                (root.owner, root.home) = (by.id, home);
                root.stewards = vec![home];
            }
            // Tells other members.
            2 => root.digest = Some(Digest::from_bytes(random.bytes())),
            // Asks strangers for the next.
            _ => root.stewards = vec![ServerId::from_bytes(random.bytes())],
        }
        let made = by.sign_root(&root);
        let Some(mut raw) = server.noted(&root, &made) else {
            return false;
        };
        if random.percent(30) {
            // Nobody asked the owner.
            raw.signatures
                .retain(|signature| !made.signatures.contains(signature));
        }
        for to in self.honest().collect::<Vec<_>>() {
            self.give_record(me, to, conversation, raw.clone());
        }
        true
    }
}
