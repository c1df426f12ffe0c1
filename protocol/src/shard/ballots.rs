//! This home as the one who proposes the next root record: checkpoints, what the owner wants, and
//! who follows an owner that is lost. Source: `spec/04-authority.md`, section 6.

mod owners;

pub use owners::OwnerAsks;

use super::{Output, ReplyTo, Shard, Store, open::Open, records::with_keys, stewards::Asks};
use crate::{
    commit::RootRef,
    conversation::ReceivedRecord,
    encoding::strictly_increasing,
    ids::{ConversationId, Nonce, ServerId, UserId},
    limits::{AUTHORITY_TIPS_MAX, SUCCESSION_MS},
    replication::RecordsNeed,
    root::{Heard, Proposer, RawRoot, Root, SignedRoot, StewardMessage},
    session::{Code, NextRoot, WireError},
    time::Timestamp,
};

use owners::{Owners, changed, overtaken};

/// Ballots of one shard that are under way at once.
pub const BALLOTS_MAX: usize = 32;
/// Time that the owner's device has to sign, in milliseconds.
const SIGN_MS: u64 = 30_000;
/// Failed attempts after which a ballot is put off.
const ATTEMPTS_MAX: u32 = 6;
/// For how long, in milliseconds.
const PAUSE_MS: u64 = 600_000;
/// What a steward signed and nobody made is proposed again by itself after this long, in
/// milliseconds.
pub(super) const FINISH_MS: u64 = 60_000;
/// Whoever waits for a record is answered after this long, in milliseconds.
const ANSWER_MS: u64 = 15_000;

/// What the next record is proposed for.
#[derive(Debug)]
enum Wish {
    Checkpoint,
    Succession,
    /// That what was signed here is made, if it may have been.
    Finish,
    Owner(Box<Owners>),
}

/// A proposer at work.
#[derive(Debug)]
pub(super) struct Ballot {
    proposer: Proposer,
    wish: Wish,
    nonce: Nonce,
    /// What the stewards hold, while the record has to be made of it.
    seen: Option<Vec<crate::event::Tip>>,
}

impl Ballot {
    /// Who waits for it.
    pub(super) const fn reply(&mut self) -> Option<ReplyTo> {
        match &mut self.wish {
            Wish::Owner(owners) => owners.reply.take(),
            Wish::Checkpoint | Wish::Succession | Wish::Finish => None,
        }
    }

    /// The record that it wants another after.
    pub(super) const fn before(&self) -> RootRef {
        self.proposer.before()
    }
}

impl Shard {
    fn ballots(&self) -> usize {
        self.balloting.len()
    }

    fn ballot(&mut self, id: &ConversationId) -> Option<&mut Ballot> {
        self.open.get_mut(id)?.ballot.as_deref_mut()
    }

    /// Whether this home, as a steward, is to have somebody follow an owner that is lost.
    fn is_succession_due(&self, open: &Open, store: &dyn Store) -> bool {
        let home = open.machine.succession_of(&self.me);
        home.is_some_and(|home| store.unreached_ms(&home) >= SUCCESSION_MS)
    }

    fn begin(&mut self, now: Timestamp, id: ConversationId, wish: Wish) {
        let drawn = self.seed.draw();
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let Some((before, root)) = open.machine.newest_record() else {
            return;
        };
        let (nonce, random) = (drawn.nonce(), drawn.number());
        open.ballot = Some(Box::new(Ballot {
            proposer: Proposer::new(self.me, before, root.stewards, now, random),
            wish,
            nonce,
            seen: None,
        }));
        self.balloting.insert(id);
    }

    fn end_ballot(&mut self, id: &ConversationId) -> Option<Box<Ballot>> {
        self.balloting.remove(id);
        self.open.get_mut(id)?.ballot.take()
    }

    /// Ends a ballot, telling whoever waits why.
    fn abandon(&mut self, id: &ConversationId, error: WireError, out: &mut Vec<Output>) {
        let reply = self.end_ballot(id).and_then(|mut ballot| ballot.reply());
        out.extend(reply.map(|reply| Output::NextRoot(reply, Err(error))));
    }

    /// Asks whom a ballot waits for.
    fn ask_stewards(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let asked = self.ballot(&id).map(|ballot| ballot.proposer.ask(now));
        for (to, message) in asked.unwrap_or_default() {
            if to == self.me {
                let asks = Asks { by: to, of: None };
                self.asked(now, id, asks, &message, store, out);
            } else {
                out.push(Output::Say(to, id, Box::new(message)));
            }
        }
    }

    /// A steward answered.
    #[expect(
        clippy::too_many_arguments,
        reason = "what every input has, and who said what"
    )]
    pub(super) fn answered(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        from: ServerId,
        message: StewardMessage,
        need: &mut RecordsNeed,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let random = self.seed.draw().number();
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let Some(ballot) = open.ballot.as_mut() else {
            return;
        };
        if let StewardMessage::Promise(promise) = &message {
            let frontier = &promise.frontier;
            let signed = promise.signed.as_ref();
            // Nobody is bound by what cannot have been made.
            let lies = signed.is_some_and(|signed| !open.machine.is_proposal(&signed.record));
            if lies || frontier.len() > AUTHORITY_TIPS_MAX || !strictly_increasing(frontier) {
                return;
            }
            need.missing = open.machine.unheld_of(frontier);
        }
        let key_of = |server: &ServerId, epoch| store.key_of(server, epoch);
        match ballot.proposer.heard(now, random, from, message, key_of) {
            Heard::Nothing => {}
            Heard::Free(seen) => {
                ballot.seen = Some(seen);
                self.choose(now, id, store, out);
            }
            Heard::Made(raw) => self.made(now, id, raw, need, store, out),
            Heard::Lags(newest) => need.from = Some(open.lacks_from(newest)),
        }
        self.ask_stewards(now, id, store, out);
    }

    /// Makes the record, once all that the stewards hold is held here.
    fn choose(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        let Some(ballot) = open.ballot.as_mut() else {
            return;
        };
        let Some(seen) = &ballot.seen else {
            return;
        };
        if let Wish::Owner(owners) = &ballot.wish
            && let Some(raw) = &owners.signed
        {
            // Nobody had signed it: it is proposed once more if it holds what they do now.
            if open.machine.has_seen(raw, seen) {
                ballot.proposer.propose(now, raw.clone());
            } else {
                self.abandon(&id, overtaken(), out);
            }
            return;
        }
        let Ok(root) = open.machine.next_root_with(now, ballot.nonce, seen) else {
            // Asked for already: of each steward what it answered.
            return;
        };
        let raw = match (&mut ballot.wish, root) {
            (_, None) | (Wish::Finish, _) => None,
            (Wish::Checkpoint, Some(root)) => store.home_key(&root.owner).map(|key| {
                let (_, bytes) = SignedRoot::encode(&root);
                RawRoot::by_home(bytes, &key)
            }),
            (Wish::Succession, Some(root)) => open
                .machine
                .to_succession(root)
                .map(|root| RawRoot::unsigned(SignedRoot::encode(&root).1)),
            (Wish::Owner(owners), Some(root)) => {
                let root = changed(open.machine.authority(), root, &owners.change);
                let stewards = owners.change.stewards.clone();
                let stewards = stewards.unwrap_or_else(|| open.machine.usual_stewards(&root.home));
                let bytes = SignedRoot::encode(&Root { stewards, ..root }).1;
                owners.to_sign = Some(bytes.clone());
                ballot.seen = None;
                ballot.proposer.choose_for(now, SIGN_MS);
                let reply = owners.reply.take();
                let sign = |reply| Output::NextRoot(reply, Ok(NextRoot::Sign(bytes)));
                return out.extend(reply.map(sign));
            }
        };
        ballot.seen = None;
        match raw {
            Some(raw) => ballot.proposer.propose(now, raw),
            // Nobody follows, or nothing was to be finished.
            None => self.put_off(now, &id, out),
        }
    }

    /// Ends a ballot that leads nowhere now, so that others get their turn.
    fn put_off(&mut self, now: Timestamp, id: &ConversationId, out: &mut Vec<Output>) {
        if let Some(open) = self.open.get_mut(id) {
            open.not_before = now.plus_ms(PAUSE_MS);
        }
        self.abandon(id, overtaken(), out);
    }

    /// A majority signed.
    fn made(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        raw: RawRoot,
        need: &mut RecordsNeed,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        match with_keys(store, |keys| open.machine.receive_record(raw, keys)) {
            ReceivedRecord::Taken(taken) => {
                self.taken_record(id, *taken, out);
                self.records_followed(now, id, store, out);
            }
            ReceivedRecord::Known => {}
            ReceivedRecord::Waiting { commits, users, .. } => {
                // It stays with those that wait. Nobody else has it, so nobody is told before it is
                // taken here.
                need.missing.extend(commits);
                need.users.extend(users);
            }
            ReceivedRecord::Refused(_, why) => {
                out.push(Output::Refused(Some(id), why.to_owned()));
            }
        }
    }

    /// Goes on with ballots: own answers that are durable, and records that came meanwhile.
    pub(super) fn go_on(&mut self, now: Timestamp, store: &dyn Store, out: &mut Vec<Output>) {
        let me = self.me;
        while let Some((id, message)) = self.words.pop_front() {
            let mut need = RecordsNeed::default();
            self.answered(now, id, me, message, &mut need, store, out);
        }
        for id in std::mem::take(&mut self.overtaken) {
            self.follow(now, id, store, out);
        }
    }

    /// Time passed: ballots go on, and one is begun where a record is due. To be called every
    /// second.
    pub fn tend(&mut self, now: Timestamp, store: &dyn Store, out: &mut Vec<Output>) {
        if store.cannot_store().is_some() {
            return;
        }
        let ids: Vec<_> = self.balloting.iter().copied().collect();
        for id in ids {
            self.tend_ballot(now, id, store, out);
        }
        if self.ballots() >= BALLOTS_MAX {
            return;
        }
        if let Some((id, wish)) = self.due(now, store)
            && !(matches!(wish, Wish::Checkpoint) && self.checkpoint_alone(now, id, store, out))
        {
            self.begin(now, id, wish);
            self.ask_stewards(now, id, store, out);
        }
    }

    /// A conversation in which a record is due, if there is any.
    fn due(&self, now: Timestamp, store: &dyn Store) -> Option<(ConversationId, Wish)> {
        let wish = |open: &Open| {
            let busy = open.creating.is_some() || open.is_mending() || open.ballot.is_some();
            // A clock that was set back is waited for no longer than that.
            let waits = now < open.not_before && open.not_before < now.plus_ms(2 * PAUSE_MS);
            if busy || waits {
                return None;
            }
            let speaks = |owner: UserId| store.home_key(&owner).is_some();
            // Whoever makes a record of his own is bound to what has to be finished.
            if open.machine.checkpoint_due(now, self.pace)
                && open.machine.owner().is_some_and(speaks)
            {
                Some(Wish::Checkpoint)
            } else if self.is_succession_due(open, store) {
                Some(Wish::Succession)
            } else {
                open.is_unfinished().then_some(Wish::Finish)
            }
        };
        let mut open = self.open.iter();
        open.find_map(|(id, open)| Some((*id, wish(open)?)))
    }

    fn tend_ballot(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let random = self.seed.draw().number();
        let Some(ballot) = self.ballot(&id) else {
            self.balloting.remove(&id);
            return;
        };
        if let Wish::Owner(owners) = &mut ballot.wish {
            let late = now >= owners.until;
            if late && let Some(reply) = owners.reply.take() {
                let silent = ballot.proposer.silent().len();
                let text = format!("{silent} stewards do not answer; it may still be made");
                let error = WireError::new(Code::Unreachable, text);
                out.push(Output::NextRoot(reply, Err(error)));
            }
            let signed = owners.signed.is_some() && ballot.proposer.attempts() < ATTEMPTS_MAX;
            let waits_for_device = owners.to_sign.is_some() && owners.signed.is_none();
            // Whoever signed what was proposed brings it to an end, if this home does not.
            let goes_on = signed
                || owners.reply.is_some()
                || (waits_for_device && ballot.proposer.is_choosing());
            if !goes_on {
                drop(self.end_ballot(&id));
                return;
            }
        }
        let owners = matches!(ballot.wish, Wish::Owner(_));
        if !owners && ballot.proposer.attempts() >= ATTEMPTS_MAX {
            return self.put_off(now, &id, out);
        }
        if matches!(ballot.wish, Wish::Succession) {
            let open = self.open.get(&id);
            if !open.is_some_and(|open| self.is_succession_due(open, store)) {
                drop(self.end_ballot(&id));
                return;
            }
        }
        if let Some(ballot) = self.ballot(&id) {
            ballot.proposer.tick(now, random);
        }
        self.choose(now, id, store, out);
        self.ask_stewards(now, id, store, out);
    }
}
