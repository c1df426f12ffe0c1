//! Users who hand a conversation to another or name its stewards, and users who move.

use comity_protocol::{
    conversation::RootChange,
    ids::{Blob, ConversationId, Nonce, ServerId, UserId},
    root::{RawRoot, Root, SignedRoot},
    session::{Code, NextRoot, WireError},
    shard::{OwnerAsks, ReplyTo},
};

use super::{Event, World};
use crate::{check::Violation, random::Random, steps::ROUNDS_MS};

/// Times that an owner asks before he gives up.
const TRIES_MAX: u32 = 5;
/// Replies to owners are counted from here on, those to senders below.
const REPLIES_FROM: u64 = 1 << 48;
/// An answer that did not come by then never does: the server was stopped.
const ANSWER_MS: u64 = 20_000;

/// What an owner asks for.
#[derive(Debug)]
pub(super) struct Asking {
    user: usize,
    /// Where his session is.
    server: usize,
    conversation: ConversationId,
    change: RootChange,
    tries: u32,
    done: bool,
}

impl World {
    /// An owner wants another member to be it, other stewards, or that all is settled now.
    pub(super) fn hand_over(
        &mut self,
        user: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) {
        let server = self.users[user].home_in(&conversation);
        let Some(known) = self.servers[server].rows.known.get(&conversation) else {
            return;
        };
        let owner = self.users[user].id;
        let others = known.members.iter().filter(|(other, _)| **other != owner);
        let others: Vec<(UserId, ServerId)> = others.map(|(id, (_, home))| (*id, *home)).collect();
        let next = random.pick(&others).filter(|_| random.percent(75));
        let mut homes: Vec<ServerId> = known.members.values().map(|(_, home)| *home).collect();
        homes.sort_unstable();
        homes.dedup();
        let home = next.map_or(self.servers[server].id, |(_, home)| home);
        // Whoever lives at the server that lies mostly trusts it alone, so that it can lie about this.
        let lies = self.by_id.get(&home).copied() == self.options.hostile();
        let stewards = match random.below(100) {
            0..80 if lies => Some(vec![home]),
            0..50 => None,
            50..75 => Some(vec![home]),
            _ => {
                while homes.len() > 3 {
                    homes.remove(random.place(homes.len()));
                }
                (homes.len() == 3).then_some(homes)
            }
        };
        let change = RootChange {
            owner: next.map(|(user, _)| user),
            stewards,
        };
        if let Some((_, home)) = next {
            self.ledger.handed_to(conversation, home);
        }
        self.askings.push(Asking {
            user,
            server,
            conversation,
            change,
            tries: 0,
            done: false,
        });
        self.ask_next(self.askings.len() - 1);
    }

    /// Asks for the next record, or once more.
    pub(super) fn ask_next(&mut self, nth: usize) {
        let asking = &self.askings[nth];
        if asking.done || asking.tries >= TRIES_MAX {
            return;
        }
        if self.resting {
            return self.push(self.now + ROUNDS_MS, Event::Ask(nth));
        }
        let (n, tries) = (asking.server, asking.tries + 1);
        self.askings[nth].tries = tries;
        self.push(self.now + ANSWER_MS, Event::AskLate(nth, tries));
        if !self.servers[n].up || self.servers[n].stalled_until > self.now {
            return;
        }
        let (asks, change) = (self.asks(nth), self.askings[nth].change.clone());
        self.servers[n].now_ms = self.now;
        self.servers[n].next_root(asks, change);
        self.perform(n);
    }

    fn asks(&self, nth: usize) -> OwnerAsks {
        let asking = &self.askings[nth];
        let tries = u64::from(asking.tries);
        OwnerAsks {
            conversation: asking.conversation,
            asker: self.users[asking.user].id,
            reply: ReplyTo(REPLIES_FROM + ((nth as u64) << 8 | tries)),
        }
    }

    /// No answer came to this try, and none will.
    pub(super) fn asked_in_vain(&mut self, nth: usize, tries: u32) {
        if self.askings[nth].tries == tries {
            self.ask_next(nth);
        }
    }

    /// His client is answered.
    pub(super) fn next_root(&mut self, n: usize, to: ReplyTo, result: Result<NextRoot, WireError>) {
        let Some(of) = to.0.checked_sub(REPLIES_FROM) else {
            return;
        };
        let nth = usize::try_from(of >> 8).unwrap_or(usize::MAX);
        let Some(asking) = self.askings.get(nth) else {
            return;
        };
        if asking.done || u64::from(asking.tries) != of & 0xff {
            // He asked again meanwhile, and hears that answer.
            return;
        }
        let hostile = Some(n) == self.options.hostile();
        let wanted = asking.change.owner;
        match result {
            Ok(NextRoot::Sign(bytes)) => {
                let root = SignedRoot::decode(&RawRoot::unsigned(bytes.clone()));
                let owner = wanted.unwrap_or(self.users[asking.user].id);
                if !root.is_ok_and(|root| root.owner == owner) {
                    // Honest homes do not ask to sign something else; of a hostile one he thinks so.
                    let what = format!("server {n} had an owner sign what he did not ask for");
                    let found = Err(Violation::new("authorship", what));
                    return self.break_promise(if hostile { Ok(()) } else { found });
                }
                // Some look at it for longer than the stewards wait.
                let slow = self.random.percent(8);
                let pause = self.random.between(100, 4_000) + if slow { 30_000 } else { 0 };
                self.askings[nth].tries += 1;
                let tries = self.askings[nth].tries;
                self.push(self.now + pause, Event::Sign(nth, bytes));
                self.push(self.now + pause + ANSWER_MS, Event::AskLate(nth, tries));
            }
            Ok(NextRoot::Stands(record)) => {
                let conversation = asking.conversation;
                self.askings[nth].done = true;
                if !hostile {
                    self.ledger.stands(n, conversation, record.id);
                }
            }
            Err(error) => {
                let again = error.code.is_retryable() || error.code == Code::Overtaken;
                if again {
                    let pause = self.random.between(2_000, 12_000);
                    self.push(self.now + pause, Event::Ask(nth));
                } else {
                    self.askings[nth].done = true;
                }
            }
        }
    }

    /// His device signs.
    pub(super) fn sign_next(&mut self, nth: usize, bytes: Blob) {
        let n = self.askings[nth].server;
        if !self.servers[n].up || self.servers[n].stalled_until > self.now || self.resting {
            return;
        }
        let raw = self.users[self.askings[nth].user].sign_record(bytes);
        let asks = self.asks(nth);
        self.servers[n].now_ms = self.now;
        self.servers[n].sign_root(asks, raw);
        self.perform(n);
    }

    /// A record of the only steward's making, which nobody has: some other member is the owner, or it
    /// is a checkpoint of the owner's own. What only a server that lies does.
    pub(crate) fn transfer(
        &mut self,
        user: usize,
        steward: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) -> Option<RawRoot> {
        let owner = self.users[user].id;
        let server = &mut self.servers[steward];
        let root = server.newest_root(&conversation, &self.users[user])?;
        let known = server.rows.known.get(&conversation)?;
        let others = known.members.iter().filter(|(other, _)| **other != owner);
        let others: Vec<(UserId, ServerId)> = others.map(|(id, (_, home))| (*id, *home)).collect();
        // A steward that takes part no longer is told of nothing, and heard by nobody.
        let takes_part = known.members.values().any(|(_, home)| *home == server.id);
        if root.owner != owner || !takes_part {
            return None;
        }
        let next = random.pick(&others).filter(|_| random.percent(85));
        let (nonce, follows) = (Nonce::from_bytes(random.bytes()), random.percent(75));
        let change = |root: &mut Root| {
            if let Some((owner, home)) = next {
                (root.owner, root.home) = (owner, home);
                if follows {
                    root.stewards = vec![home];
                }
            }
        };
        let raw = server.next_record(&conversation, &self.users[user], nonce, change)?;
        if let Some((_, home)) = next {
            self.ledger.handed_to(conversation, home);
        }
        Some(raw)
    }

    /// A user moves to another server that takes part in the conversation.
    pub(super) fn move_user(
        &mut self,
        user: usize,
        conversation: ConversationId,
        random: &mut Random,
    ) {
        let from = self.users[user].home_in(&conversation);
        let others = (0..self.servers.len()).filter(|n| {
            let server = &self.servers[*n];
            *n != from && server.up && server.rows.known.contains_key(&conversation)
        });
        let Some(to) = random.pick(&others.collect::<Vec<_>>()) else {
            return;
        };
        let id = self.servers[to].id;
        let server = &mut self.servers[from];
        let made = self.users[user].move_to(conversation, server, id, random);
        if let Some(made) = made {
            self.send_made(user, to, made);
        }
    }
}
