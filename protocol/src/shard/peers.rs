//! What peers bring and what they are given.

use super::{Output, Shard, Store, work::Waiter};
use crate::{
    conversation::{CheckedBundle, Received},
    history::NodeIx,
    ids::{ConversationId, DeviceKey, ServerId, UserId},
    link::{Bundle, Verdict},
    replication::{ForPeers, Judged, OwnRead, PeerWant, Ticket},
    session::Code,
    time::Timestamp,
};

/// Commits in one answer to a want.
const SERVED_MAX: usize = 1_024;

impl Shard {
    /// Judges an item of a peer: answered with [`Output::Judged`], and once more if it waited.
    pub fn judge(
        &mut self,
        now: Timestamp,
        bundle: Bundle,
        ticket: Ticket,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let checked = CheckedBundle::check(bundle, |origin, epoch| store.key_of(origin, epoch));
        let checked = match checked {
            Ok(checked) => checked,
            Err(error) => {
                out.push(Output::Refused(None, error.to_string()));
                let judged = Judged {
                    server: error.unknown_origin(),
                    ..Judged::refused(error.code())
                };
                return out.push(Output::Judged(ticket, judged));
            }
        };
        let (id, commit) = (checked.conversation(), checked.commit.id());
        let open = match self.known(&id, store) {
            Ok(open) => open,
            Err(error) => {
                return out.push(Output::Judged(ticket, Judged::refused(error.code)));
            }
        };
        if open.machine.graph().ix(&commit).is_none()
            && let Some(error) = store.cannot_store()
        {
            return out.push(Output::Judged(ticket, Judged::refused(error.code)));
        }
        if open.machine.graph().ix(&commit).is_some() {
            self.fill(now, &checked, ticket, store, out);
        }
        let Some(open) = self.open.get_mut(&id) else {
            return out.push(Output::Judged(ticket, Judged::refused(Code::Busy)));
        };
        let devices = |user: &UserId, device: &DeviceKey| store.had_device(user, device);
        match open.machine.receive(now, checked, &devices) {
            Received::Taken(all) => {
                let waiting = open.on_disk.entry(commit).or_default();
                waiting.push(Waiter::first(ticket));
                open.answer_given_up(out);
                for taken in all {
                    self.taken(id, taken, out);
                }
                self.records_released(now, id, store, out);
            }
            Received::Known => match open.on_disk.get_mut(&commit) {
                Some(waiting) => waiting.push(Waiter::first(ticket)),
                None => out.push(Output::Judged(ticket, Judged::of(Verdict::Stored))),
            },
            Received::Waiting {
                commits,
                record,
                users,
            } => {
                let judged = Judged {
                    verdict: Verdict::Waiting,
                    missing: commits,
                    users,
                    server: None,
                    records: record.map(|record| (id, open.lacks_from(record))),
                    again: false,
                };
                out.push(Output::Judged(ticket, judged));
                open.wait_for_arrival(commit, ticket, out);
                open.answer_given_up(out);
            }
            Received::Refused(code, why) => {
                out.push(Output::Refused(Some(id), why.to_owned()));
                out.push(Output::Judged(ticket, Judged::refused(code)));
            }
        }
    }

    /// The durable own chain from a seq on, oldest first; stops beyond this many bytes, but not
    /// before one item. Empty if it cannot be read now.
    pub fn read_own(&mut self, read: &OwnRead, store: &dyn Store) -> Vec<ForPeers> {
        let (me, id) = (self.me, &read.conversation);
        let Ok(open) = self.known(id, store) else {
            return Vec::new();
        };
        let Some(tip) = open.machine.graph().standing_tip(&me) else {
            return Vec::new();
        };
        let (mut served, mut bytes) = (Vec::new(), 0);
        for seq in read.from..=open.own_tip.unwrap_or(0) {
            let node = open.machine.graph().at_seq(tip, seq);
            let Some(item) = node.and_then(|node| open.given(&read.peer, node, store)) else {
                break;
            };
            bytes += item.0.size();
            served.push(item);
            if bytes >= read.max_bytes {
                break;
            }
        }
        served
    }

    /// A range that a peer wants, and the seq to go on with. Somebody who does not take part gets
    /// what somebody gets who asks for what is not there.
    pub fn serve(&mut self, want: &PeerWant, store: &dyn Store) -> (Vec<ForPeers>, Option<u64>) {
        let (peer, range) = (&want.peer, &want.range);
        let Ok(open) = self.known(&range.conversation, store) else {
            return (Vec::new(), None);
        };
        let takes_part = open.peers.contains(peer);
        let once_did = {
            let mut members = open.machine.authority().members();
            members.any(|m| m.home == Some(*peer))
        };
        if !takes_part && !once_did {
            return (Vec::new(), None);
        }
        let graph = open.machine.graph();
        let nodes = graph.range(&range.home, &range.tip, range.from..=range.to);
        let nodes: Vec<NodeIx> = nodes.take(SERVED_MAX + 1).collect();
        let (mut served, mut bytes) = (Vec::new(), 0u64);
        for node in nodes {
            let at = open.machine.graph().node(node);
            let (id, seq) = (at.id(), at.seq());
            let item = if takes_part {
                open.given(peer, node, store)
            } else {
                store.bundle(&range.conversation, &id, false)
            };
            let Some(item) = item else {
                break;
            };
            bytes += item.0.size() as u64;
            let full = bytes > want.max_bytes || served.len() >= SERVED_MAX;
            if full && !served.is_empty() {
                return (served, Some(seq));
            }
            served.push(item);
        }
        (served, None)
    }

    /// A peer stored the own chain up to here.
    pub fn acked(
        &mut self,
        id: &ConversationId,
        peer: ServerId,
        seq: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        // A conversation that is not open has no author waiting to be told.
        if let Some(open) = self.open.get_mut(id) {
            open.acked(peer, seq, out);
        }
    }
}
