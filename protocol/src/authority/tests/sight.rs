//! Who sees which part of the history.

use super::{
    super::{Sight, Span, Switch},
    differential::shuffled,
    examples::start,
    wander::Wander,
    world::{How, NOW, Rng, Server, World, grant, home, message, user},
};
use crate::{
    event::{Act, Field, Grant},
    history::Appearance,
    place::Place,
    role::Role,
};

struct Room {
    world: World,
    ms: u64,
}

impl Room {
    fn new() -> Self {
        Self {
            world: start(),
            ms: NOW.0,
        }
    }

    /// A commit of one act a second after the one before, by one who knows what `seen` says.
    fn does_knowing(&mut self, seen: u128, author: char, claims: Role, act: Act) -> usize {
        self.ms += 1_000;
        let event = self.world.event(user(author), claims, act);
        let of = home(author.to_ascii_lowercase());
        let how = How {
            seen,
            prev: self.world.newest_of(of),
            at_ms: self.ms,
            ..How::default()
        };
        self.world.commit(of, &how, vec![event])
    }

    fn does(&mut self, author: char, claims: Role, act: Act) -> usize {
        self.does_knowing(self.world.all(), author, claims, act)
    }

    fn says(&mut self, author: char) -> usize {
        self.does(author, Role::Member, message())
    }

    fn history(&mut self, author: char, claims: Role, joined: bool) -> usize {
        let (field, value) = (Field::History, u64::from(joined));
        self.does(author, claims, Act::Policy { field, value })
    }

    fn server(&self) -> Server {
        let mut server = Server::new(&self.world);
        for i in 0..self.world.made.len() {
            server.take(&self.world, i);
            server.assert_told();
        }
        server
    }

    /// What a user sees of these commits.
    fn seen(&self, name: char, of: &[usize]) -> Vec<bool> {
        let server = self.server();
        let (authority, graph) = (&server.authority, &server.graph);
        let spans = authority.memberships(graph, &user(name));
        let sight = Sight::new(&spans, &authority.history_switches(graph));
        let places = of.iter().map(|i| {
            let node = server.nodes[*i].unwrap();
            graph.place(Appearance { node, index: 0 })
        });
        places.map(|place| sight.sees(place)).collect()
    }
}

fn gives(name: char, role: Role) -> Act {
    Act::Grant(grant(name, name.to_ascii_lowercase(), role))
}

#[test]
fn who_comes_sees_nothing_of_before_where_history_is_joined_and_all_where_it_is_shared() {
    let mut room = Room::new();
    let shared = room.says('O');
    room.history('O', Role::Owner, true);
    let joined = room.says('O');
    let comes = room.does('O', Role::Moderator, gives('V', Role::Member));
    let after = room.says('O');
    let all = [shared, joined, comes, after];
    assert_eq!(room.seen('V', &all), [true, false, true, true]);
    // Members of before see all of it, whatever the policy.
    assert_eq!(room.seen('U', &all), [true; 4]);
    assert_eq!(room.seen('O', &all), [true; 4]);
    // What was said while it was for members only stays theirs.
    room.history('A', Role::Admin, false);
    let later = room.says('O');
    room.does('O', Role::Moderator, gives('W', Role::Member));
    assert_eq!(
        room.seen('W', &[shared, joined, after, later]),
        [true, false, false, true]
    );
}

#[test]
fn who_was_kicked_and_comes_back_sees_up_to_the_kick_and_from_the_return() {
    let mut room = Room::new();
    room.history('O', Role::Owner, true);
    let before = room.says('O');
    let cut = room.world.cut(user('U'), room.world.all());
    let kick = Act::Grant(Grant {
        cut,
        ..grant('U', 'u', Role::None)
    });
    let kick = room.does('A', Role::Admin, kick);
    let between = room.says('O');
    assert_eq!(
        room.seen('U', &[before, kick, between]),
        [true, true, false]
    );
    let back = room.does('O', Role::Moderator, gives('U', Role::Member));
    let after = room.says('O');
    let all = [before, kick, between, back, after];
    assert_eq!(room.seen('U', &all), [true, true, false, true, true]);
}

#[test]
fn a_promotion_is_one_membership_and_a_void_grant_is_none() {
    let mut room = Room::new();
    room.history('O', Role::Owner, true);
    room.does('O', Role::Owner, gives('U', Role::Moderator));
    let spans = |room: &Room, name| {
        let server = room.server();
        server.authority.memberships(&server.graph, &user(name))
    };
    assert_eq!(spans(&room, 'U').len(), 1);
    assert_eq!(spans(&room, 'O'), [Span::ALL]);
    // U may not let anybody in.
    room.does('U', Role::Member, gives('V', Role::Guest));
    let said = room.says('O');
    room.does('U', Role::Guest, gives('N', Role::Member));
    assert_eq!(room.seen('N', &[said]), [false]);
    assert_eq!(spans(&room, 'N'), []);
}

#[test]
fn a_new_owner_was_no_member_before_the_record_that_names_him() {
    let mut room = Room::new();
    room.history('O', Role::Owner, true);
    let before = room.says('O');
    let all = room.world.all();
    room.world.record(user('N'), home('n'), all, None);
    let after = room.says('O');
    assert_eq!(room.seen('N', &[before, after]), [false, true]);
    assert_eq!(room.seen('O', &[before, after]), [true, true]);
}

#[test]
fn the_policy_is_that_of_the_standing_ones_before() {
    let mut room = Room::new();
    let open = room.says('O');
    // Neither has seen the other: the owner's claim counts, whichever comes first in the order.
    let seen = room.world.all();
    let (field, value) = (Field::History, 1);
    room.does_knowing(seen, 'O', Role::Owner, Act::Policy { field, value });
    room.does_knowing(seen, 'A', Role::Admin, Act::Policy { field, value: 0 });
    let closed = room.says('O');
    room.does('O', Role::Moderator, gives('V', Role::Member));
    assert_eq!(room.seen('V', &[open, closed]), [true, false]);
    // Who had seen it opens what comes.
    room.history('B', Role::Admin, false);
    let opened = room.says('O');
    room.does('O', Role::Moderator, gives('W', Role::Member));
    assert_eq!(room.seen('W', &[open, closed, opened]), [true, false, true]);
}

#[test]
fn memberships_and_switches_are_the_same_in_every_order_of_delivery() {
    for seed in 0..40 {
        let world = Wander::run(seed);
        let mut rng = Rng(seed);
        let mut first = None;
        for _ in 0..4 {
            let mut server = Server::new(&world);
            for i in shuffled(&world, &mut rng) {
                server.take(&world, i);
            }
            server.assert_told();
            let users = "OABCMNUVWX".chars().map(user);
            let spans = users.map(|user| server.authority.memberships(&server.graph, &user));
            let seen: (Vec<_>, Vec<Switch>) = (
                spans.collect(),
                server.authority.history_switches(&server.graph),
            );
            assert_eq!(
                *first.get_or_insert_with(|| seen.clone()),
                seen,
                "seed {seed}"
            );
        }
    }
}

#[test]
fn what_is_seen_is_the_union_of_memberships_and_of_what_was_shared() {
    let place = |ms: u64, index: u16| Place {
        hlc: crate::time::Hlc::from_bits(ms << 16),
        index,
        ..Span::ALL.from
    };
    let member = [Span {
        from: place(50, 0),
        to: Some(place(60, 3)),
    }];
    let switch = |ms, joined| Switch {
        at: place(ms, 0),
        joined,
    };
    let sight = Sight::new(
        &member,
        &[switch(10, true), switch(90, false), switch(95, true)],
    );
    let seen = [9, 10, 49, 50, 60, 61, 89, 90, 94, 95];
    let seen = seen.map(|ms| sight.sees(place(ms, 1)));
    let wanted = [
        true, false, false, true, true, false, false, true, true, false,
    ];
    assert_eq!(seen, wanted);
    assert!(sight.sees(place(60, 3)) && !sight.sees(place(60, 4)));
    assert_eq!(sight.spans().len(), 3);
    assert_eq!(Sight::new(&[], &[]), Sight::everything());
}
