//! What the owner wants of the next root record: his device signs it before it is proposed.

use super::{ANSWER_MS, BALLOTS_MAX, Output, ReplyTo, Shard, Store, Wish};
use crate::{
    authority::Authority,
    commit::RootRef,
    conversation::RootChange,
    ids::{Blob, ConversationId, UserId},
    role::Role,
    root::{Made, RawRoot, Root, SignedRoot},
    session::{Code, NextRoot, WireError},
    shard::{not_found, open::Open},
    time::Timestamp,
};

/// Who asks for the next record of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct OwnerAsks {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Says to be its owner; at home here.
    pub asker: UserId,
    /// Answered with [`Output::NextRoot`].
    pub reply: ReplyTo,
}

/// What the owner wants.
#[derive(Debug)]
pub(super) struct Owners {
    pub(super) asker: UserId,
    pub(super) change: RootChange,
    /// Who waits, and until when.
    pub(super) reply: Option<ReplyTo>,
    pub(super) until: Timestamp,
    /// What his device is to sign.
    pub(super) to_sign: Option<Blob>,
    /// What it signed.
    pub(super) signed: Option<RawRoot>,
}

pub(super) fn not_owner() -> WireError {
    WireError::new(Code::NotOwner, "only the owner decides about this")
}

pub(super) fn overtaken() -> WireError {
    let text = "the stewards hold more than what was signed: ask for the next record and sign that";
    WireError::new(Code::Overtaken, text)
}

impl Shard {
    /// The record that the owner wants, made for his device to sign: [`Output::NextRoot`] with the
    /// bytes, then [`Self::sign_root`]. Also if the newest record is what he wants already. What was
    /// asked before and is not made yet is asked no more; a record that may have been made of it is
    /// found with the stewards, and comes first.
    pub fn next_root(
        &mut self,
        now: Timestamp,
        asks: OwnerAsks,
        change: RootChange,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let OwnerAsks {
            conversation: id,
            asker,
            reply,
        } = asks;
        let answer = match self.may_ask(&id, &asker, &change, store) {
            Ok(None) => {
                let wish = Wish::Owner(Box::new(Owners {
                    asker,
                    change,
                    reply: Some(reply),
                    until: now.plus_ms(ANSWER_MS),
                    to_sign: None,
                    signed: None,
                }));
                let open = self.open.get_mut(&id);
                if let Some(mut before) = open.and_then(|open| open.ballot.take())
                    && let Some(reply) = before.reply()
                {
                    out.push(Output::NextRoot(reply, Err(overtaken())));
                }
                self.begin(now, id, wish);
                return self.ask_stewards(now, id, store, out);
            }
            Ok(Some(record)) => return self.owe(id, record, reply, out),
            Err(error) => Err(error),
        };
        out.push(Output::NextRoot(reply, answer));
    }

    /// Whether the owner may ask for this; gives the newest record if it is what he wants.
    fn may_ask(
        &mut self,
        id: &ConversationId,
        asker: &UserId,
        change: &RootChange,
        store: &dyn Store,
    ) -> Result<Option<RootRef>, WireError> {
        let (me, full) = (self.me, self.ballots() >= BALLOTS_MAX);
        let open = self.known(id, store)?;
        let machine = &open.machine;
        if machine.authority().role(asker) == Role::None {
            // To a stranger there is nothing here.
            return Err(not_found());
        }
        let Some((newest, root)) = machine.newest_record() else {
            return Err(not_owner());
        };
        if machine.has_changed(asker, change) {
            return Ok(Some(newest));
        }
        if root.owner != *asker {
            return Err(not_owner());
        }
        if !machine.may_propose(&me) {
            let text = "neither the owner's home nor a steward may be asked";
            return Err(WireError::new(Code::NotAllowed, text));
        }
        if let Some(owner) = change.owner
            && machine
                .authority()
                .member(&owner)
                .is_none_or(|m| m.home.is_none())
        {
            return Err(WireError::new(
                Code::NotMember,
                "the owner has to be a member",
            ));
        }
        let stewards = change.stewards.as_ref();
        if stewards.is_some_and(|stewards| !machine.can_be_stewards(stewards)) {
            let text = "stewards are 1, 3, 5 or 7 servers that take part, in order of their ids";
            return Err(WireError::new(Code::NotAllowed, text));
        }
        if let Some(error) = store.cannot_store() {
            return Err(error);
        }
        let running = open.ballot.as_ref();
        if full && running.is_none() {
            return Err(WireError::new(
                Code::Busy,
                "too many records are being made",
            ));
        }
        Ok(None)
    }

    /// Proposes what the owner's device signed of [`Self::next_root`]: answered with
    /// [`Output::NextRoot`], once the record is durable.
    pub fn sign_root(
        &mut self,
        now: Timestamp,
        asks: OwnerAsks,
        raw: RawRoot,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let (id, reply) = (asks.conversation, asks.reply);
        let answer = match self.known(&id, store) {
            Err(error) => Err(error),
            Ok(open) => open.take_signed(now, &asks.asker, raw, reply, store),
        };
        match answer {
            Ok(Some(made)) => self.owe(id, made, reply, out),
            Ok(None) => self.ask_stewards(now, id, store, out),
            Err(error) => out.push(Output::NextRoot(reply, Err(error))),
        }
    }

    /// Answers with a record that stands once it is durable.
    fn owe(&mut self, id: ConversationId, record: RootRef, reply: ReplyTo, out: &mut Vec<Output>) {
        match self.open.get_mut(&id) {
            Some(open) if open.recording.contains(&record) => open.owed.push((record, reply)),
            _ => out.push(Output::NextRoot(reply, Ok(NextRoot::Stands(record)))),
        }
    }

    /// A record was taken while another was being made.
    pub(super) fn follow(
        &mut self,
        now: Timestamp,
        id: ConversationId,
        store: &dyn Store,
        out: &mut Vec<Output>,
    ) {
        let Some(open) = self.open.get(&id) else {
            self.balloting.remove(&id);
            return;
        };
        let newest = open.machine.newest_record();
        let (Some(ballot), Some((newest, root))) = (&open.ballot, newest) else {
            return;
        };
        if ballot.before() == newest {
            return;
        }
        let Some(ballot) = self.end_ballot(&id) else {
            return;
        };
        let Wish::Owner(mut owners) = ballot.wish else {
            return;
        };
        let Some(reply) = owners.reply else {
            return;
        };
        let Some(open) = self.open.get(&id) else {
            return;
        };
        if open.machine.has_changed(&owners.asker, &owners.change) {
            return self.owe(id, newest, reply, out);
        }
        let error = if root.owner != owners.asker {
            not_owner()
        } else if owners.signed.is_some() {
            overtaken()
        } else {
            // Nothing was signed yet: what is signed will follow the new one.
            owners.to_sign = None;
            self.begin(now, id, Wish::Owner(owners));
            return self.ask_stewards(now, id, store, out);
        };
        out.push(Output::NextRoot(reply, Err(error)));
    }
}

impl Open {
    /// Takes what a device of the owner signed; gives the record if it is made already.
    fn take_signed(
        &mut self,
        now: Timestamp,
        asker: &UserId,
        raw: RawRoot,
        reply: ReplyTo,
        store: &dyn Store,
    ) -> Result<Option<RootRef>, WireError> {
        if self.machine.authority().role(asker) == Role::None {
            return Err(not_found());
        }
        let (newest, root) = self.machine.newest_record().ok_or_else(not_owner)?;
        if newest.id == SignedRoot::id_of(&raw) {
            return Ok(Some(newest));
        }
        if root.owner != *asker {
            return Err(not_owner());
        }
        let ballot = self.ballot.as_mut().ok_or_else(overtaken)?;
        let Wish::Owner(owners) = &mut ballot.wish else {
            return Err(overtaken());
        };
        if owners.to_sign.as_ref() != Some(&raw.root) || owners.asker != *asker {
            return Err(overtaken());
        }
        let signed = SignedRoot::proposed(raw.clone(), &newest.id, &root);
        let device = match signed.as_ref().map(SignedRoot::made) {
            Ok(Made::ByOwner(device)) => store.had_device(asker, &device),
            _ => Some(false),
        };
        if device != Some(true) {
            let text = "not signed by a device of the owner";
            return Err(WireError::new(Code::WrongSignature, text));
        }
        if owners.signed.is_none() && !ballot.proposer.is_choosing() {
            return Err(overtaken());
        }
        if owners.reply.is_some() {
            return Err(WireError::new(Code::Busy, "it is being proposed already"));
        }
        (owners.reply, owners.until) = (Some(reply), now.plus_ms(ANSWER_MS));
        if owners.signed.is_none() {
            owners.signed = Some(raw.clone());
            ballot.proposer.propose(now, raw);
        }
        Ok(None)
    }
}

/// The record with the owner that he wants, at the home that speaks for him now.
pub(super) fn changed(authority: &Authority, root: Root, change: &RootChange) -> Root {
    let owner = change.owner.unwrap_or(root.owner);
    let home = authority.member(&owner).and_then(|member| member.home);
    let home = home.unwrap_or(root.home);
    Root {
        owner,
        home,
        ..root
    }
}
