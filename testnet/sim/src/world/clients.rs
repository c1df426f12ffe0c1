//! Clients: they sign once, send until they are answered, and send again when the answer is lost.

use std::sync::Arc;

use comity_protocol::{
    conversation::RoleChange,
    event::Act,
    ids::{ConversationId, UserId},
    replication::NewConversation,
    role::Role,
    session::{Accepted, WireError},
    shard::ReplyTo,
};

use super::{Event, World};
use crate::{
    people::{self, Made, Wish},
    random::Random,
};

/// Times that an event is sent before its user gives up.
const TRIES_MAX: u32 = 200;

/// An event on its way to its home.
pub(super) struct Sending {
    user: usize,
    server: usize,
    made: Made,
    tries: u32,
    done: bool,
}

impl World {
    pub(super) fn make_group(&mut self, random: &mut Random) {
        let user = random.place(self.users.len());
        let home = self.users[user].home;
        if !self.servers[home].up {
            return;
        }
        let server = self.servers[home].id;
        let genesis = self.users[user].group(server, random);
        self.ledger.group(&genesis);
        self.servers[home].now_ms = self.now;
        let new = NewConversation::Group(Box::new(genesis));
        self.servers[home].create(&new, ReplyTo(0));
        self.perform(home);
    }

    /// A user opens his client and does something.
    pub(super) fn act(&mut self, random: &mut Random) {
        let user = random.place(self.users.len());
        let homes = self.users[user].homes();
        // Mostly the one where his identity is.
        let nth = if random.percent(60) {
            0
        } else {
            random.place(homes.len())
        };
        let home = homes[nth];
        if !self.servers[home].up || self.resting {
            return;
        }
        self.servers[home].now_ms = self.now;
        let server = &mut self.servers[home];
        let wish = people::wish(user, home, &self.users, server, &mut self.texts, random);
        match wish {
            None => {}
            Some(Wish::Move(conversation)) => self.move_user(user, conversation, random),
            Some(Wish::HandOver(conversation)) => self.hand_over(user, conversation, random),
            Some(Wish::Send(made)) => self.send_made(user, home, *made),
            Some(Wish::AddDevice) => {
                let log = self.users[user].add_device(random);
                self.ledger.devices_of(&log);
                for home in homes {
                    if self.servers[home].up {
                        self.servers[home].now_ms = self.now;
                        self.servers[home].keep_identity(Arc::clone(&log));
                        self.perform(home);
                    }
                }
            }
            Some(Wish::Direct(other)) => {
                let home = self.users[user].home;
                if self.servers[home].up {
                    self.servers[home].now_ms = self.now;
                    self.open_direct(home, user, other);
                    self.perform(home);
                }
            }
        }
        self.perform(home);
    }

    fn open_direct(&mut self, home: usize, user: usize, other: UserId) {
        let me = &self.users[user];
        let Some(log) = self.users.iter().find(|u| u.id == other) else {
            return;
        };
        // A home that does not know him asks the other's; here it is told at once.
        let log = Arc::clone(&log.log);
        let role = Role::Member;
        let member = |user, home| RoleChange { user, role, home };
        let members = [
            member(me.id, self.servers[home].id),
            member(other, log.home()),
        ];
        self.ledger.direct(&members);
        if self.servers[home].identity(&other).is_none() {
            self.servers[home].keep_identity(log);
        }
        let new = NewConversation::Direct(members);
        self.servers[home].create(&new, ReplyTo(0));
    }

    pub(crate) fn send_made(&mut self, user: usize, server: usize, made: Made) {
        self.ledger.sent(&made);
        self.sendings.push(Sending {
            user,
            server,
            made,
            tries: 0,
            done: false,
        });
        let way = self.random.between(2, 40);
        self.push(self.now + way, Event::Submit(self.sendings.len() - 1));
    }

    pub(super) fn submit(&mut self, nth: usize) {
        let sending = &mut self.sendings[nth];
        if sending.done || sending.tries >= TRIES_MAX {
            return;
        }
        sending.tries += 1;
        let tries = sending.tries;
        let (n, made) = (sending.server, sending.made.clone());
        // Until an answer comes it is sent again.
        let pause = 2_000 + u64::from(tries.min(8)) * 500;
        self.push(self.now + pause, Event::Submit(nth));
        if !self.servers[n].up || self.servers[n].stalled_until > self.now {
            return;
        }
        let reply = ReplyTo((nth as u64 + 1) << 16 | u64::from(tries));
        self.replies.insert(reply, nth);
        self.servers[n].now_ms = self.now;
        self.servers[n].send(made.event, made.content, reply);
        self.perform(n);
    }

    pub(super) fn answered(&mut self, n: usize, to: ReplyTo, result: &Result<Accepted, WireError>) {
        let Some(nth) = self.replies.remove(&to) else {
            return;
        };
        let user = self.sendings[nth].user;
        let event = self.sendings[nth].made.event.clone();
        match result {
            Ok(accepted) => {
                let hostile = Some(n) == self.options.hostile();
                self.ledger.accepted(n, hostile, &event, accepted);
                let event = event.event();
                if matches!(event.act, Act::Move { .. }) {
                    self.users[user].moved_to(event.conversation, n);
                }
            }
            Err(error) if error.code.is_retryable() => return,
            Err(error) => self.ledger.refused(&event, error),
        }
        if self.answers_lost_until[user] > self.now {
            // The home said it; the client did not hear it and asks again.
            return;
        }
        self.sendings[nth].done = true;
    }

    /// Sends again what a user sent lately, whatever became of it.
    pub(super) fn send_again(&mut self, user: usize) {
        let of = |(nth, sending): (usize, &Sending)| (sending.user == user).then_some(nth);
        let all = self.sendings.iter().enumerate().rev().filter_map(of);
        for nth in all.take(4).collect::<Vec<_>>() {
            self.sendings[nth].done = false;
            self.push(self.now + 10, Event::Submit(nth));
        }
    }

    pub(super) fn some_conversation_of(
        &self,
        user: usize,
        random: &mut Random,
    ) -> Option<ConversationId> {
        let user = &self.users[user];
        let with = user.homes().into_iter().flat_map(|home| {
            let known = self.servers[home].rows.known.iter();
            known.filter(move |(id, known)| {
                known.members.contains_key(&user.id) && user.home_in(id) == home
            })
        });
        random.pick(&with.map(|(id, _)| *id).collect::<Vec<_>>())
    }
}
