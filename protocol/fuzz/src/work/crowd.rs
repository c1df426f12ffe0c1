//! A group of any number of members, for what must not cost more the more they are.

use comity_protocol::{
    conversation::Conversation,
    event::{Act, Field, Grant, Target},
    ids::Nonce,
    role::Role,
    root::RawRoot,
};

use super::{HOMES, NOW};
use crate::world::{Chronicle, Said, World};

/// Events of one commit: what comes in while the disk syncs.
const TOGETHER: usize = 16;
/// Doors opened, and policies set, over the whole history of a crowd of any size.
const EPISODES: usize = 8;

/// An act, or a message, beyond a crowd's history.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum One {
    /// An admin lets a user in.
    Grant,
    /// A user comes through the door.
    Join,
    /// An admin removes a member.
    Removal,
    /// An admin makes a member a moderator.
    Promotion,
    /// The owner makes an admin a member who let in as many as all other admins.
    Demotion,
    /// The owner makes him an admin again.
    Return,
    /// An admin sets a policy.
    Policy,
    /// The owner closes the door, through which most came.
    Closing,
    /// The owner opens one.
    Opening,
    /// A member says something.
    Message,
}

impl One {
    /// Every kind. In this order, any number of times, all of them stand.
    pub const ALL: [Self; 10] = [
        Self::Grant,
        Self::Join,
        Self::Removal,
        Self::Promotion,
        Self::Demotion,
        Self::Return,
        Self::Policy,
        Self::Closing,
        Self::Opening,
        Self::Message,
    ];

    /// A name for figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Join => "join",
            Self::Removal => "removal",
            Self::Promotion => "promotion",
            Self::Demotion => "demotion",
            Self::Return => "return",
            Self::Policy => "policy",
            Self::Closing => "closing",
            Self::Opening => "opening",
            Self::Message => "message",
        }
    }
}

/// A crowd and who is in it.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// What happened.
    pub history: Chronicle,
    members: usize,
    /// Of each home: what its next commit will hold.
    pending: Vec<Vec<Said>>,
    /// How often each kind of [`One`] was made.
    made: [usize; One::ALL.len()],
}

/// A group that so many joined, at [`HOMES`] homes: a third by grants of the admins, the others
/// through a door. Of a hundred members one is removed, of two hundred one becomes a moderator, and
/// of twenty one says something. The number of doors and policies is the same at every size.
#[must_use]
pub fn crowd(members: usize) -> Crowd {
    let mut crowd = Crowd {
        history: Chronicle::new(World::new(HOMES, HOMES + members)),
        members,
        pending: vec![Vec::new(); HOMES],
        made: [0; One::ALL.len()],
    };
    for admin in 1..HOMES {
        let grant = crowd.history.grant(admin, Role::Admin, vec![]);
        crowd.say(0, 0, Role::Owner, grant);
    }
    let episode = members.div_ceil(EPISODES).max(1);
    for m in 0..members {
        if m % episode == 0 {
            crowd.flush();
            if m > 0 {
                crowd.door(Role::None);
            }
            crowd.door(Role::Member);
            crowd.policy((m / episode) as u64);
        }
        crowd.come(HOMES + m, m % 3 != 0);
        // Whoever came a while ago is known everywhere.
        let Some(earlier) = m.checked_sub(2 * TOGETHER * HOMES) else {
            continue;
        };
        match earlier % 200 {
            0 | 20 | 40 | 60 | 80 | 100 | 120 | 140 | 160 | 180 => crowd.speak(HOMES + earlier),
            50 | 150 => crowd.change(HOMES + earlier, Role::None),
            7 => crowd.change(HOMES + earlier, Role::Moderator),
            _ => {}
        }
    }
    crowd.flush();
    crowd
}

impl Crowd {
    /// Adds a commit with one event more; gives its place in the history.
    pub fn one_more(&mut self, one: One) -> usize {
        let kind = One::ALL.iter().position(|kind| *kind == one).unwrap_or(0);
        let n = self.made[kind];
        self.made[kind] += 1;
        // One of each two hundred, so that nobody who speaks was removed.
        let of = (self.members - self.members % 200).max(1);
        let member = |offset: usize| HOMES + (200 * n + offset) % of;
        match one {
            One::Grant | One::Join => {
                let user = self.history.world.add_user();
                self.come(user, one == One::Join);
            }
            One::Removal => self.change(member(13), Role::None),
            One::Promotion => self.change(member(31), Role::Moderator),
            One::Demotion => {
                let cut = self.history.end(1).into_iter().collect();
                let grant = self.history.grant(1, Role::Member, cut);
                self.say(0, 0, Role::Owner, grant);
            }
            One::Return => {
                let grant = self.history.grant(1, Role::Admin, vec![]);
                self.say(0, 0, Role::Owner, grant);
            }
            One::Policy => self.policy(n as u64),
            One::Closing => self.door(Role::None),
            One::Opening => self.door(Role::Member),
            One::Message => self.speak(member(77)),
        }
        self.flush();
        self.history.len() - 1
    }

    fn say(&mut self, home: usize, user: usize, claims: Role, act: Act) {
        let said = self.history.world.act(user, claims, act);
        self.put(home, said);
    }

    fn put(&mut self, home: usize, said: Said) {
        self.pending[home].push(said);
        if self.pending[home].len() >= TOGETHER {
            let events = std::mem::take(&mut self.pending[home]);
            self.history.append(home, events);
        }
    }

    /// Commits what is said and not committed yet.
    fn flush(&mut self) {
        for home in 0..HOMES {
            let events = std::mem::take(&mut self.pending[home]);
            if !events.is_empty() {
                self.history.append(home, events);
            }
        }
    }

    fn admin_claim(home: usize) -> Role {
        if home == 0 { Role::Owner } else { Role::Admin }
    }

    fn come(&mut self, user: usize, by_door: bool) {
        let home = self.history.world.users[user].home;
        if by_door {
            let join = Act::Join {
                role: Role::Member,
                home: self.history.world.homes[home].id,
            };
            self.say(home, user, Role::Member, join);
        } else {
            // Half of them by one admin, the others by all.
            let by = if user.is_multiple_of(2) {
                1
            } else {
                user % HOMES
            };
            let grant = self.history.grant(user, Role::Member, vec![]);
            self.say(by, by, Role::Moderator, grant);
        }
    }

    /// An admin of another home changes a member's role.
    fn change(&mut self, user: usize, role: Role) {
        let home = self.history.world.users[user].home;
        let by = [2, 3, 0, 2][home];
        let cut = self.history.end_known(by, home);
        let cut = cut.filter(|_| role == Role::None).into_iter().collect();
        let grant = self.history.grant(user, role, cut);
        self.say(by, by, Self::admin_claim(by), grant);
    }

    fn speak(&mut self, user: usize) {
        let home = self.history.world.users[user].home;
        let said = self
            .history
            .world
            .message(user, "a line as people write them");
        self.put(home, said);
    }

    fn door(&mut self, role: Role) {
        let door = Act::Grant(Grant {
            target: Target::Anyone,
            role,
            cut: vec![],
            ban: false,
            lifts: vec![],
        });
        self.say(0, 0, Role::Owner, door);
        self.flush();
    }

    fn policy(&mut self, value: u64) {
        let act = Act::Policy {
            field: Field::Rate,
            value,
        };
        self.say(2, 2, Role::Admin, act);
        self.flush();
    }
}

/// The owner's home makes a checkpoint of everything; gives it as it is stored.
///
/// # Panics
///
/// If it is not home 0's machine.
pub fn checkpoint(machine: &mut Conversation, world: &World) -> RawRoot {
    let key = &world.homes[0].key;
    let number = machine.newest_record().map_or(0, |(newest, _)| newest.n);
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    let taken = machine.make_checkpoint(NOW, Nonce::from_bytes(nonce), key, (1, key));
    let taken = taken.expect("the only steward makes it");
    assert!(taken.stands, "nobody else made one");
    assert_eq!(machine.authority().unsettled_acts(), 0, "it settles all");
    taken.raw
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work;

    #[test]
    fn all_of_a_crowd_stands_and_most_of_it_are_members() {
        let mut crowd = crowd(1_000);
        let first = crowd.history.len();
        for one in One::ALL {
            for _ in 0..4 {
                crowd.one_more(one);
            }
        }
        let log = work::verified(&crowd.history);
        let (mut graph, mut authority) = work::resolve(&crowd.history.world, &[]);
        for (at, one) in log.iter().enumerate() {
            let stood = work::resolve_one(&mut graph, &mut authority, one);
            assert_eq!(stood, one.1.len(), "commit {at} of {first}");
        }
        let members = authority.members().count();
        // Four granted, four joined, four removed beyond the one of a hundred.
        assert!((990..=HOMES + 1_000).contains(&members), "{members}");
    }
}
