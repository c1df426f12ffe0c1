//! Carries out what the machines say, and hands to the one what the other concluded.

use std::sync::Arc;

use comity_protocol::{
    identity::IdentityLog,
    ids::{ConversationId, UserId},
    link::{Bundle, Frame, Verdict, encode_frame},
    replication::{self, Input, Judged, Ticket},
    root::{RawRoot, SignedRoot},
    session::Code,
    shard::{self, Submission},
};

use super::{Effect, Learning, Server, Task};
use crate::{
    disk::{Pending, Then, Written},
    planted::Planted,
    rows::{Body, Entry, Kept, Record, Rows},
};

impl Server {
    /// Works until nothing is left to do at once.
    pub(super) fn work(&mut self) {
        loop {
            self.perform_shard();
            let Some(task) = self.tasks.pop_front() else {
                break;
            };
            self.task(task);
        }
        self.ask_commit();
    }

    fn later(&mut self, input: Input) {
        self.tasks.push_back(Task::Links(Box::new(input)));
    }

    fn task(&mut self, task: Task) {
        match task {
            Task::Links(input) => self.perform_links(*input),
            Task::Judge(ticket, bundle) => self.judge(ticket, *bundle),
            Task::Read(read) => {
                let (shard, view, _) = self.shard();
                let mut bundles = shard.read_own(&read, &view);
                if self.is(Planted::ForgetOutbox) {
                    bundles.clear();
                }
                self.later(Input::Read(read, bundles));
            }
            Task::Serve(want) => {
                let (shard, view, _) = self.shard();
                let (mut bundles, next) = shard.serve(&want, &view);
                if self.is(Planted::ServeStrangers) && bundles.is_empty() {
                    bundles = self.whatever_of(&want.range.conversation);
                }
                self.later(Input::Served(want, bundles, next));
            }
            Task::Records(of, mut records) => {
                if self.is(Planted::NoRecords) && of.peer != self.id {
                    records.clear();
                }
                if self.is(Planted::FirstTwinStands) {
                    records.retain(|raw| !self.has_twin_of(&of.conversation, raw));
                }
                let now = self.wall();
                let (shard, view, out) = self.shard();
                shard.records(now, of, records, &view, out);
            }
            Task::Steward(of, message) => {
                let now = self.wall();
                let (shard, view, out) = self.shard();
                shard.steward(now, of, *message, &view, out);
            }
            Task::ServeRecords(of, from) => {
                let (shard, view, _) = self.shard();
                let records = shard.serve_records(&of, from, &view);
                self.later(Input::ServedRecords(of, records));
            }
            Task::Create(new) => {
                let (shard, view, out) = self.shard();
                shard.create(&new, None, &view, out);
            }
            Task::Acked(conversation, peer, seq) => {
                self.shard.acked(&conversation, peer, seq, &mut self.out);
            }
        }
    }

    fn judge(&mut self, ticket: Ticket, bundle: Bundle) {
        let now = self.wall();
        let conversation = replication::conversation_of(&bundle);
        let pushed = matches!(ticket, Ticket::Pushed { .. });
        // Of the last byte of the signature: every server drops others.
        let unlucky = bundle.commit.signature.as_bytes()[0] & 7 == self.id.as_bytes()[0] & 7;
        if self.is(Planted::DropPushed) && pushed && unlucky {
            return self.later(Input::Judged(ticket, Judged::of(Verdict::Stored)));
        }
        let bad = conversation.is_some_and(|c| self.refused_in.contains(&c));
        if self.is(Planted::StopAtBadItem) && bad {
            return self.later(Input::Judged(ticket, Judged::refused(Code::Malformed)));
        }
        let copy = self.is(Planted::HoardItems).then(|| bundle.clone());
        let (shard, view, out) = self.shard();
        shard.judge(now, bundle, ticket, &view, out);
        for output in &self.out {
            match output {
                shard::Output::Refused(..) => self.refused_in.extend(conversation),
                shard::Output::Judged(_, judged) if judged.verdict == Verdict::Waiting => {
                    if let (Some(id), Some(copy)) = (conversation, copy.clone()) {
                        self.hoard.entry(id).or_default().push(copy);
                    }
                }
                _ => {}
            }
        }
    }

    /// For a planted bug.
    fn has_twin_of(&self, conversation: &ConversationId, raw: &RawRoot) -> bool {
        let before = |raw: &RawRoot| SignedRoot::decode(raw).ok()?.prev;
        let known = self.rows.known.get(conversation);
        let mut held = known.into_iter().flat_map(|known| &known.order);
        held.any(|number| match &self.disk.log[*number].body {
            Body::Root(record) => before(&record.raw) == before(raw),
            _ => false,
        })
    }

    /// A planted bug.
    fn whatever_of(&self, conversation: &ConversationId) -> Vec<replication::ForPeers> {
        let known = self.rows.known.get(conversation);
        let commits = known.into_iter().flat_map(|known| known.commits.keys());
        let bundle = |id| self.rows.bundle(conversation, id, true, &self.disk.log);
        commits.filter_map(bundle).take(4).collect()
    }

    fn perform_links(&mut self, input: Input) {
        let now = self.monotonic();
        let mut outputs = Vec::new();
        let mut directory = Learning {
            identities: &mut self.identities,
            learnt: Vec::new(),
        };
        self.replication
            .handle(now, input, &mut directory, &mut outputs);
        let learnt = directory.learnt;
        if !learnt.is_empty() {
            for log in learnt {
                self.keep_identity(log);
            }
            let now = self.wall();
            let (shard, view, out) = self.shard();
            shard.release(now, &view, out);
        }
        for output in outputs {
            self.perform_link(output);
        }
    }

    fn perform_link(&mut self, output: replication::Output) {
        match output {
            replication::Output::Send(peer, channel, frame) => {
                let mute = match &frame {
                    Frame::Shared { .. } | Frame::Frontier { .. } => self.is(Planted::NoRounds),
                    Frame::Lookup { .. } | Frame::Identities { .. } => self.is(Planted::NoLookups),
                    _ => false,
                };
                if !mute {
                    let bytes = encode_frame(&frame);
                    self.effects.push(Effect::Send(peer, channel, bytes));
                }
            }
            replication::Output::Close(peer, _) => self.effects.push(Effect::Close(peer)),
            replication::Output::Judge { ticket, bundle, .. } => {
                self.tasks.push_back(Task::Judge(ticket, Box::new(bundle)));
            }
            replication::Output::Read(read) => self.tasks.push_back(Task::Read(read)),
            replication::Output::Serve(want) => self.tasks.push_back(Task::Serve(want)),
            replication::Output::Records(of, records) => {
                self.tasks.push_back(Task::Records(of, records));
            }
            replication::Output::Steward(of, message) => {
                self.tasks.push_back(Task::Steward(of, message));
            }
            replication::Output::Unreached(peer, ms) => {
                let record = Record::plain(Body::Unreached(peer, ms));
                let then = Then::Nothing;
                self.submit(Pending { record, then });
            }
            replication::Output::ServeRecords(of, from) => {
                self.tasks.push_back(Task::ServeRecords(of, from));
            }
            replication::Output::Create(new) => {
                self.tasks.push_back(Task::Create(Box::new(new)));
            }
            replication::Output::Acked {
                conversation,
                peer,
                seq,
            } => self.tasks.push_back(Task::Acked(conversation, peer, seq)),
            replication::Output::Positions(peer, acked) => {
                let record = Record::plain(Body::Outbox(peer, acked));
                let then = Then::Nothing;
                self.submit(Pending { record, then });
            }
            // Every server is a peer of every other one.
            replication::Output::Sought(_)
            | replication::Output::Answered(..)
            | replication::Output::Note(..) => {}
        }
    }

    fn perform_shard(&mut self) {
        while !self.out.is_empty() {
            for output in std::mem::take(&mut self.out) {
                match output {
                    shard::Output::Store(submission) => self.store(*submission),
                    shard::Output::Accepted(to, result) => {
                        self.effects.push(Effect::Accepted(to, result));
                    }
                    shard::Output::Judged(ticket, judged) => {
                        self.later(Input::Judged(ticket, judged));
                    }
                    shard::Output::RecordsTaken(of, need) => {
                        self.later(Input::RecordsTaken(of, need));
                    }
                    shard::Output::Ask(peer, range) => {
                        self.later(Input::Ask(peer, vec![range]));
                    }
                    shard::Output::Heard(of, need) => self.later(Input::Heard(of, need)),
                    shard::Output::Say(to, conversation, message) => {
                        self.later(Input::Say(to, conversation, message));
                    }
                    shard::Output::NextRoot(to, result) => {
                        self.effects.push(Effect::NextRoot(to, result));
                    }
                    shard::Output::Created(..)
                    | shard::Output::Delivery { .. }
                    | shard::Output::Refused(..)
                    | shard::Output::GivenUp(..) => {}
                }
            }
        }
    }

    fn store(&mut self, submission: Submission) {
        let Submission {
            what,
            committed,
            done,
            ..
        } = submission;
        // Nothing is stored behind what could not be: its failure is already known here.
        if let Some(error) = self.broken.get(&done.opening()) {
            let error = error.clone();
            return self.shard.stored(done, Err(error), &mut self.out);
        }
        let id = done.conversation();
        if let shard::What::Steward(steward) = &what
            && let Some(signed) = steward.signed()
        {
            self.effects.push(Effect::Signs(id, signed.record.clone()));
        }
        let record = Record::of(id, what, self.wall());
        if self.is(Planted::AckBeforeSync) {
            self.shard.stored(done.clone(), Ok(()), &mut self.out);
        }
        if self.is(Planted::TellBeforeSync) {
            let told = committed.clone().map(Input::Committed);
            told.into_iter().for_each(|input| self.later(input));
        }
        let then = Then::Shard(Box::new((committed, done)));
        self.submit(Pending { record, then });
    }

    /// The write under way ends.
    pub(crate) fn written(&mut self) {
        match self.disk.end(self.now_ms) {
            Written::Durable(group) => {
                for pending in group {
                    self.disk.log.push(pending.record);
                    let number = self.disk.log.len() - 1;
                    self.rows.apply(number, &mut self.disk.log);
                    self.effects
                        .extend(expires(&self.rows, &self.disk.log[number].body));
                    if let Then::Shard(of) = pending.then {
                        let (committed, done) = *of;
                        if let Some(committed) = committed {
                            self.later(Input::Committed(committed));
                        }
                        if !self.is(Planted::AckBeforeSync) {
                            self.shard.stored(done, Ok(()), &mut self.out);
                        }
                    }
                }
            }
            Written::Failed(group, error) => {
                for pending in group {
                    match pending.then {
                        Then::Shard(of) => {
                            let (_, done) = *of;
                            self.broken.insert(done.opening(), error.clone());
                            self.shard.stored(done, Err(error.clone()), &mut self.out);
                        }
                        Then::Identity(user) => self.forget_identity(&user),
                        Then::Nothing => {}
                    }
                }
            }
        }
        if self.disk.begin() {
            self.effects.push(Effect::Write);
        }
        self.work();
    }

    /// A log in memory could not be stored: what is stored of him is read again.
    fn forget_identity(&mut self, user: &UserId) {
        let of = |record: &Record| match &record.body {
            Body::Identity(of, log) if of == user => Some(log.clone()),
            _ => None,
        };
        let stored = self.disk.log.iter().rev().find_map(of);
        let raw = stored.and_then(|log| IdentityLog::read_travel(&log));
        match raw.and_then(|raw| IdentityLog::from_trusted(&raw).ok()) {
            Some(log) => drop(self.identities.insert(*user, Arc::new(log))),
            None => drop(self.identities.remove(user)),
        }
    }
}

/// What a record that is durable now says of contents whose days are over.
fn expires(rows: &Rows, body: &Body) -> Option<Effect> {
    let (conversation, late, events, at) = match body {
        Body::Expired(conversation, events, at) => (conversation, None, events.clone(), at),
        Body::Commit(record) => {
            // One that is shown elsewhere may be younger there.
            let dropped = |e: &&Entry| e.kept == Kept::Expired && rows.is_expired(&e.id);
            let expired = record.events.iter().filter(dropped);
            let events = expired.map(|entry| entry.id).collect();
            (&record.conversation, Some(record.id), events, &record.at)
        }
        _ => return None,
    };
    (!events.is_empty()).then_some(Effect::Expires(*conversation, late, events, *at))
}
