//! A server that lies. It runs the same machines, so that others believe it, and says more than
//! they do: forks, forgeries, what was deleted, what nobody asked for.

mod commits;
mod noise;
mod records;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use comity_protocol::{
    event::Tip,
    ids::{CommitId, ConversationId},
    link::{Frame, FrameChannel, decode_frame},
    time::Hlc,
};

use records::Late;

use crate::{faults::Kind, random::Random, world::World};

/// Numbers of pushes that its machine never gives.
const PUSHES_FROM: u64 = 1 << 40;
/// Frames that it remembers.
const SENT_MAX: usize = 32;

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
    /// Frames that its machine sent lately, to make bad ones of.
    sent: VecDeque<Vec<u8>>,
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
            Kind::MalformedFrame => {
                let until = self.now + random.between(2_000, 20_000);
                self.hostile.until.insert(kind, until);
                self.malformed_frames(me, random)
            }
            Kind::ForgetNotes => self.forget_notes(me),
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
            Kind::ForgeIdentity => return self.forge_identity(me, &forged, random),
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
        if self.hostile.sent.len() == SENT_MAX {
            self.hostile.sent.pop_front();
        }
        self.hostile.sent.push_back(bytes.clone());
        if self.hostile.does(Kind::MalformedFrame, now) {
            self.malformed_beside(me, to, channel);
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
