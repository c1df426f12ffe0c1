//! Direct conversations: two for ever, no acts but moves.

use super::{
    super::{Reason, Verdict},
    world::{How, NOW, Server, World, content, grant, home, message, user},
};
use crate::{
    event::{Act, Field},
    ids::EventId,
    role::Role,
};

struct Talk {
    world: World,
    server: Server,
}

impl Talk {
    fn new() -> Self {
        Self::between('A', 'B')
    }

    fn between(a: char, b: char) -> Self {
        let world = World::direct(user(a), user(b));
        let server = Server::new(&world);
        Self { world, server }
    }

    fn say(&mut self, of: char, author: char, act: Act) -> (EventId, Verdict) {
        self.say_at(of, author, act, NOW.0)
    }

    fn say_at(&mut self, of: char, author: char, act: Act, at_ms: u64) -> (EventId, Verdict) {
        let event = self.world.event(user(author), Role::Member, act);
        let how = How {
            prev: self.world.newest_of(home(of)),
            at_ms,
            ..How::default()
        };
        let id = event.0;
        let i = self.world.commit(home(of), &how, vec![event]);
        self.server.take(&self.world, i);
        self.server.assert_told();
        (id, self.server.verdict(i, 0))
    }
}

fn void(reason: Reason) -> Verdict {
    Verdict::Void(reason)
}

#[test]
fn both_sides_talk_from_the_home_of_their_first_commit() {
    let mut talk = Talk::new();
    assert!(talk.say('a', 'A', message()).1.stands());
    assert!(talk.say('b', 'B', message()).1.stands());
    assert_eq!(talk.say('b', 'A', message()).1, void(Reason::WrongHome));
    assert!(talk.server.authority.homes().eq([home('a'), home('b')]));
    assert_eq!(talk.server.authority.role(&user('A')), Role::Member);
}

#[test]
fn nobody_else_ever_takes_part() {
    let mut talk = Talk::new();
    assert_eq!(talk.say('c', 'C', message()).1, void(Reason::NotMember));
    let invite = Act::Grant(grant('C', 'c', Role::Guest));
    assert_eq!(talk.say('a', 'A', invite).1, void(Reason::NotInDirect));
    let policy = Act::Policy {
        field: Field::Posting,
        value: 1,
    };
    assert_eq!(talk.say('a', 'A', policy).1, void(Reason::NotInDirect));
    assert_eq!(
        talk.say('a', 'A', Act::Leave { cut: vec![] }).1,
        void(Reason::NotInDirect)
    );
    assert_eq!(talk.server.authority.members().count(), 2);
}

#[test]
fn each_edits_and_deletes_what_is_his_and_reacts_and_pins_anything() {
    let mut talk = Talk::new();
    let (target, _) = talk.say('a', 'A', message());
    let edit = || Act::Edit {
        target,
        content: content(),
    };
    assert!(talk.say('a', 'A', edit()).1.stands());
    assert_eq!(talk.say('b', 'B', edit()).1, void(Reason::NotOwn));
    assert_eq!(
        talk.say('b', 'B', Act::Delete { target }).1,
        void(Reason::NotAllowed)
    );
    assert!(talk.say('b', 'B', Act::Pin { target, on: true }).1.stands());
    let react = Act::React {
        target,
        emoji: "+".into(),
        on: true,
        version: None,
    };
    assert!(talk.say('b', 'B', react).1.stands());
    assert!(talk.say('a', 'A', Act::Delete { target }).1.stands());
    let title = Act::State {
        field: "title".into(),
        content: None,
    };
    assert_eq!(talk.say('a', 'A', title).1, void(Reason::NotInDirect));
}

#[test]
fn notes_to_oneself_also_keep_settings() {
    let mut talk = Talk::between('A', 'A');
    let mute = Act::State {
        field: "mute".into(),
        content: None,
    };
    assert!(talk.say('a', 'A', mute).1.stands());
    assert!(talk.say('a', 'A', message()).1.stands());
    assert_eq!(talk.server.authority.members().count(), 1);
}

#[test]
fn earlier_first_commit_binds_whenever_it_arrives() {
    let mut talk = Talk::new();
    let (_, late) = talk.say_at('a', 'A', message(), NOW.0);
    assert!(late.stands());
    let (_, early) = talk.say_at('x', 'A', message(), NOW.0 / 2);
    assert!(early.stands());
    assert_eq!(talk.server.verdict(0, 0), void(Reason::WrongHome));
    assert!(talk.server.authority.homes().eq([home('x')]));
}

#[test]
fn side_that_opens_with_a_move_is_bound_by_its_own_signature() {
    let mut talk = Talk::new();
    let open = Act::Move {
        home: home('a'),
        n: 0,
        cut: vec![],
    };
    assert!(talk.say('a', 'A', open.clone()).1.stands());
    assert!(talk.say('a', 'A', message()).1.stands());
    // The other side's server backdates a copy of what it got, and even of the move.
    assert_eq!(
        talk.say_at('b', 'A', message(), 1).1,
        void(Reason::WrongHome)
    );
    assert_eq!(talk.say_at('b', 'A', open, 1).1, void(Reason::WrongHome));
    assert!(talk.server.verdict(1, 0).stands());
    assert_eq!(
        talk.server.authority.member(&user('A')).unwrap().home,
        Some(home('a'))
    );
}

#[test]
fn moving_shuts_the_old_home() {
    let mut talk = Talk::new();
    talk.say('a', 'A', message());
    let cut = talk
        .server
        .authority
        .cut_for(&talk.server.graph, NOW, &user('A'));
    let act = Act::Move {
        home: home('k'),
        n: 1,
        cut,
    };
    assert!(talk.say('k', 'A', act).1.stands());
    assert!(talk.say('k', 'A', message()).1.stands());
    assert_eq!(talk.say('a', 'A', message()).1, void(Reason::WrongHome));
    assert!(talk.server.verdict(0, 0).stands());
    assert!(talk.server.authority.homes().eq([home('k')]));
}
