//! Comparing: fingerprints, frontiers and root records, and what follows from a difference.
//! Source: `spec/05-links.md`, section 5.

use super::{FrameChannel, Link, Output, World};
use crate::{
    commit::RootRef,
    event::Tip,
    ids::{Blob, ConversationId, ServerId},
    limits::ANTI_ENTROPY_MS,
    link::frame::{Frame, Offer, Range},
    time::Timestamp,
};

/// Fingerprints in one frame.
const FINGERPRINTS_MAX: usize = 1_024;

impl Link {
    /// Compares everything shared with the peer.
    pub(super) fn round(
        &mut self,
        now: Timestamp,
        random: u64,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        self.next_round = now.plus_ms(ANTI_ENTROPY_MS / 2 + random % ANTI_ENTROPY_MS);
        self.fetcher.give_up_old(now);
        let shared: Vec<_> = self
            .outboxes
            .iter()
            .filter(|(_, outbox)| outbox.is_open())
            .filter_map(|(c, _)| {
                let fingerprint = self.fingerprint(&world.frontier(c)?, world.root(c))?;
                Some((*c, fingerprint))
            })
            .collect();
        for fingerprints in shared.chunks(FINGERPRINTS_MAX) {
            let frame = Frame::Shared {
                fingerprints: fingerprints.to_vec(),
            };
            out.push(Output::Send(FrameChannel::Live, frame));
        }
    }

    fn fingerprint(&self, tips: &[Tip], root: Option<RootRef>) -> Option<Blob> {
        let mut hasher = blake3::Hasher::new_keyed(&self.key?);
        for tip in tips {
            hasher.update(tip.home.as_bytes());
            hasher.update(&tip.epoch.to_be_bytes());
            hasher.update(&tip.seq.to_be_bytes());
            hasher.update(tip.id.as_bytes());
        }
        if let Some(root) = root {
            hasher.update(root.id.as_bytes());
        }
        Some(Blob(hasher.finalize().as_bytes()[..16].to_vec()))
    }

    pub(super) fn shared(
        &mut self,
        fingerprints: Vec<(ConversationId, Blob)>,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        if fingerprints.len() > FINGERPRINTS_MAX {
            return out.push(Output::Close("more fingerprints than a frame may have"));
        }
        // One conversation a thousand times would be answered by a thousand whole frontiers.
        if !fingerprints.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return out.push(Output::Close("fingerprints out of order"));
        }
        for (conversation, theirs) in fingerprints {
            let ours = world.frontier(&conversation);
            let same = ours
                .as_ref()
                .and_then(|t| self.fingerprint(t, world.root(&conversation)))
                .is_some_and(|f| f == theirs);
            match self.outboxes.get_mut(&conversation) {
                Some(outbox) if same => {
                    // Equal frontiers: the peer holds the whole own chain.
                    let tips = ours.unwrap_or_default();
                    let held = own_end(&tips, &self.me).map(|tip| tip.seq);
                    if outbox.peer_holds(held) {
                        out.push(Output::Acked(conversation, outbox.progress()));
                    }
                    self.ready.insert(conversation);
                }
                Some(outbox) if outbox.until.is_none() => {
                    self.send_frontier(conversation, true, world, out);
                }
                // Unknown, or its last member left here: it may have one again by a commit that
                // did not come yet. It is asked, and told nothing.
                _ => {
                    let ask = Frame::Ask { conversation };
                    out.push(Output::Send(FrameChannel::Live, ask));
                }
            }
        }
    }

    pub(super) fn asked(
        &mut self,
        conversation: ConversationId,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        match self.outboxes.get_mut(&conversation) {
            // The peer may know an act that ended the part of this server, as this one knows one
            // that ended the peer's: then neither tells its frontier, and what ended the peer's
            // part is pushed without, from where it was last.
            Some(outbox) if outbox.until.is_some() && outbox.is_open() && !outbox.synced => {
                outbox.synced = true;
                self.ready.insert(conversation);
            }
            _ => self.send_frontier(conversation, true, world, out),
        }
    }

    pub(super) fn send_frontier(
        &mut self,
        conversation: ConversationId,
        reply: bool,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        // Only for a conversation in which the peer has a member: to everybody else it does not
        // exist, and silence tells the same as an unknown id.
        let takes_part = self
            .outboxes
            .get(&conversation)
            .is_some_and(|o| o.until.is_none());
        let (Some(tips), Some(offer), true) = (
            world.frontier(&conversation),
            world.offer(&conversation),
            takes_part && self.is_open(),
        ) else {
            return;
        };
        let frame = Frame::Frontier {
            conversation,
            tips,
            offer,
            root: world.root(&conversation),
            reply,
        };
        out.push(Output::Send(FrameChannel::Live, frame));
    }

    /// Whether the peer has a member in a conversation, as far as is known.
    pub(super) fn takes_records(&self, conversation: &ConversationId) -> bool {
        self.outboxes
            .get(conversation)
            .is_some_and(|outbox| outbox.until.is_none())
    }

    pub(super) fn want_records(
        &self,
        conversation: ConversationId,
        from: u64,
        out: &mut Vec<Output>,
    ) {
        if self.is_open() {
            let frame = Frame::WantRecords { conversation, from };
            out.push(Output::Send(FrameChannel::Bulk, frame));
        }
    }

    /// Asks for records that the peer has and this server may lack: newer ones, or a twin. An older
    /// one is asked for too: what this server goes by may follow the twin that loses.
    pub(super) fn compare_records(
        &self,
        conversation: ConversationId,
        theirs: Option<RootRef>,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        if world.frontier(&conversation).is_none() {
            return;
        }
        let ours = world.root(&conversation);
        let held = ours.map_or(0, |root| root.n);
        if let Some(theirs) = theirs.filter(|theirs| Some(*theirs) != ours) {
            self.want_records(conversation, theirs.n.min(held + 1), out);
        }
    }

    pub(super) fn frontier(
        &mut self,
        conversation: ConversationId,
        theirs: &[Tip],
        offer: Offer,
        reply: bool,
        world: &dyn World,
        out: &mut Vec<Output>,
    ) {
        let Some(ours) = world.frontier(&conversation) else {
            // Nothing is fetched before the conversation is known: it could not be taken.
            return out.push(Output::Offered(conversation, offer));
        };
        // The peer pushes its own chain itself once it knows where this server stands; if that
        // forked, the branch that stands. Where its last member is gone it is not told that: what it
        // wrote before it knew of it is asked for.
        let pushes = self
            .outboxes
            .get(&conversation)
            .is_some_and(|outbox| outbox.is_open() && outbox.until.is_none());
        let pushed = own_end(theirs, &self.peer).map(|tip| tip.id);
        let comes = |tip: &&Tip| pushes && Some(tip.id) == pushed;
        for tip in theirs.iter().filter(|tip| !comes(tip)) {
            let forked = theirs.iter().filter(|t| t.home == tip.home).count() > 1;
            if let Some(from) = first_lacking(&ours, tip, forked) {
                let (home, to) = (tip.home, tip.seq);
                self.fetcher.queue(Range {
                    conversation,
                    home,
                    tip: tip.id,
                    from,
                    to,
                });
            }
        }
        if let Some(outbox) = self.outboxes.get_mut(&conversation) {
            let own = own_end(&ours, &self.me);
            let held = theirs
                .iter()
                .filter(|t| {
                    t.home == self.me && own.is_some_and(|o| t.seq <= o.seq && t.epoch <= o.epoch)
                })
                .filter_map(|t| match own {
                    Some(own) if t.epoch == own.epoch => Some(t.seq),
                    // Of an older epoch it may be on a branch that lost against this chain: what is
                    // certain is what the peer acknowledged, which is set back at a fork.
                    _ => outbox.acked.map(|acked| acked.min(t.seq)),
                })
                .max();
            if outbox.peer_holds(held) {
                out.push(Output::Acked(conversation, outbox.progress()));
            }
            self.ready.insert(conversation);
        }
        if reply {
            self.send_frontier(conversation, false, world, out);
        }
    }
}

fn own_end<'a>(tips: &'a [Tip], me: &ServerId) -> Option<&'a Tip> {
    tips.iter()
        .filter(|tip| tip.home == *me)
        .max_by_key(|tip| (tip.epoch, tip.seq))
}

/// The first seq on the chain that ends in `theirs` which may be missing from `ours`; `None` if
/// nothing is. `forked`: the peer names two ends of this home.
fn first_lacking(ours: &[Tip], theirs: &Tip, forked: bool) -> Option<u64> {
    let mut held = ours.iter().filter(|tip| tip.home == theirs.home).peekable();
    if held.peek().is_none() {
        return Some(0);
    }
    let held: Vec<_> = held.collect();
    if held.iter().any(|tip| tip.id == theirs.id) {
        return None;
    }
    let end = held.iter().map(|tip| tip.seq).max()?;
    if theirs.seq > end {
        return Some(end + 1);
    }
    // Not beyond, and not one of the ends: an earlier commit of a chain that is held, unless the
    // peer knows a fork. A higher epoch can only be one; a second end may be one at any height,
    // and is asked for by itself: at worst it was held.
    let other = |tip: &&Tip| theirs.epoch > tip.epoch || theirs.seq == tip.seq;
    (forked || held.iter().all(other)).then_some(theirs.seq)
}
