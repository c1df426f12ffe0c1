//! This home as a steward: what it promises and signs, once that is durable. Source:
//! `spec/04-authority.md`, section 6.

use std::sync::Arc;

use super::{
    Output, Shard, Store, What, ballots::FINISH_MS, open::Open, records::with_keys, work::Work,
};
use crate::{
    ids::{ConversationId, ServerId},
    limits::SUCCESSION_MS,
    replication::{RecordsNeed, RecordsOf},
    root::{Steward, StewardMessage},
    time::Timestamp,
};

/// Who asks a steward.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asks {
    pub(super) by: ServerId,
    /// Of its link, if it is a peer: its word is taken in when the answer leaves.
    pub(super) of: Option<RecordsOf>,
}

impl Open {
    /// What this home promised and signed for the next record. None while the one that it did that
    /// for is lost: it may be one that is made.
    pub(super) fn steward(&mut self) -> Option<Steward> {
        let (newest, _) = self.machine.newest_record()?;
        match &self.steward {
            Some(steward) if steward.before() == newest => Some(steward.clone()),
            Some(steward) if !self.machine.holds_record(&steward.before()) => None,
            _ => Some(Steward::after(newest)),
        }
    }

    /// Whether this home signed something that may be the next record, or what it signed is lost.
    pub(super) fn has_signed(&mut self) -> bool {
        self.steward().is_none_or(|steward| steward.has_signed())
    }

    /// Whether it is known to have signed something that is not made yet.
    pub(super) fn is_unfinished(&self) -> bool {
        let signed = self.steward.as_ref().filter(|steward| steward.has_signed());
        signed.is_some_and(|steward| self.machine.is_newest(&steward.before()))
    }
}

impl Shard {
    /// Hears what a peer says about the next record of a conversation: a question to this home as a
    /// steward, or the answer of one. Answered with [`Output::Heard`].
    pub fn steward(
        &mut self,
        now: Timestamp,
        of: RecordsOf,
        message: StewardMessage,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let id = of.conversation;
        let mut need = RecordsNeed::default();
        let known = store.cannot_store().is_none() && self.known(&id, store).is_ok();
        if known && message.is_question() {
            let asks = Asks {
                by: of.peer,
                of: Some(of),
            };
            return self.asked(now, id, asks, &message, store, out);
        }
        if known {
            self.answered(now, id, of.peer, message, &mut need, store, out);
        }
        out.push(Output::Heard(of, need));
    }

    /// This home is asked as a steward.
    pub(super) fn asked(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        asks: Asks,
        message: &StewardMessage,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let (me, mut need) = (self.me, RecordsNeed::default());
        let mut answer = None;
        if let Some(open) = self.open.get_mut(&id)
            && open.machine.may_propose(&asks.by)
            && open.machine.is_steward(&me)
            && let Some(mut steward) = open.steward()
        {
            let machine = &open.machine;
            let own = (self.epoch, &self.key);
            let answered = match message {
                StewardMessage::Prepare { before, ballot } => {
                    let frontier = || machine.frontier_for_promise(now);
                    let promise = steward.prepare(now, before, *ballot, frontier);
                    Some((before, ballot, promise.map(StewardMessage::Promise)))
                }
                StewardMessage::Propose {
                    before,
                    ballot,
                    record,
                } => {
                    let lost = |home: &ServerId| store.unreached_ms(home) >= SUCCESSION_MS;
                    let note = steward.propose(before, *ballot, record, own, |record, seen| {
                        let judged = with_keys(store, |keys| {
                            machine.judge_proposal(record, seen, keys, lost)
                        });
                        judged.map_err(|not| {
                            need.missing = not.commits;
                            need.users = not.users;
                            not.why
                        })
                    });
                    Some((before, ballot, note.map(StewardMessage::Note)))
                }
                _ => None,
            };
            // What did not change is durable, unless it is on its way there.
            let same = open.steward.as_ref() == Some(&steward) && open.stewarding == 0;
            answer = match answered {
                Some((_, _, Ok(answer))) if same => Some(answer),
                Some((_, _, Ok(answer))) => {
                    if matches!(answer, StewardMessage::Note(_)) {
                        open.not_before = now.plus_ms(FINISH_MS);
                    }
                    open.steward = Some(steward.clone());
                    open.stewarding += 1;
                    let what = What::Steward(Box::new(steward));
                    let answer = Box::new(answer);
                    let work = Work::Steward { asks, answer };
                    return self.submit(id, what, Arc::default(), None, work, out);
                }
                Some((before, ballot, Err(why))) => Some(StewardMessage::Declined {
                    before: *before,
                    ballot: *ballot,
                    why,
                }),
                None => None,
            };
        }
        if let Some(answer) = answer {
            self.say(id, asks.by, answer, out);
        }
        out.extend(asks.of.map(|of| Output::Heard(of, need)));
    }

    /// Says something about the next record to another server, or to this one.
    pub(super) fn say(
        &mut self,
        id: ConversationId,
        to: ServerId,
        message: StewardMessage,
        out: &mut Vec<Output>,
    ) {
        if to == self.me {
            self.words.push_back((id, message));
        } else {
            out.push(Output::Say(to, id, Box::new(message)));
        }
    }
}
