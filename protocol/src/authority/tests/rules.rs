//! Single rules that the model leaves to the crate, and what the rest of a server asks.

use super::{
    super::{Awaited, Cause, Reason, Verdict},
    examples::start,
    world::{How, NOW, Server, World, content, grant, home, message, user},
};
use crate::{
    event::{Act, Event, Field, Grant, Target, Tip},
    ids::EventId,
    limits::AHEAD_PARENT_MS,
    role::Role,
    time::Timestamp,
};

struct Room {
    world: World,
    server: Server,
}

impl Room {
    fn new() -> Self {
        let world = start();
        let mut server = Server::new(&world);
        for i in 0..world.made.len() {
            server.take(&world, i);
        }
        Self { world, server }
    }

    /// Commits as the home would now, having seen everything.
    fn add(&mut self, of: char, events: Vec<(EventId, Event)>) -> usize {
        self.add_at(of, events, NOW.0)
    }

    fn add_at(&mut self, of: char, events: Vec<(EventId, Event)>, at_ms: u64) -> usize {
        let how = How {
            seen: self.world.all(),
            prev: self.world.newest_of(home(of)),
            epoch: 0,
            at_ms,
        };
        let i = self.world.commit(home(of), &how, events);
        self.server.take(&self.world, i);
        self.server.assert_told();
        i
    }

    fn by(&mut self, author: char, act: Act) -> (EventId, Event) {
        let claims = self
            .server
            .authority
            .claim_for(&self.server.graph, &user(author), &act);
        self.world.event(user(author), claims, act)
    }

    fn does(&mut self, author: char, act: Act) -> (usize, EventId) {
        let event = self.by(author, act);
        let id = event.0;
        (self.add(author.to_ascii_lowercase(), vec![event]), id)
    }

    fn verdict(&self, i: usize) -> Verdict {
        self.server.verdict(i, 0)
    }

    fn allowed(&self, author: char, act: &Act) -> Result<(), Reason> {
        let (graph, authority) = (&self.server.graph, &self.server.authority);
        let claims = authority.claim_for(graph, &user(author), act);
        let of = home(author.to_ascii_lowercase());
        authority.judge_new(graph, NOW, &of, &user(author), claims, act)
    }
}

fn removal(name: char, cut: Vec<Tip>) -> Act {
    Act::Grant(Grant {
        cut,
        ..grant(name, name.to_ascii_lowercase(), Role::None)
    })
}

#[test]
fn later_events_of_a_commit_have_seen_the_earlier_ones() {
    let mut room = Room::new();
    let door = Grant {
        target: Target::Anyone,
        ..grant('?', '?', Role::Member)
    };
    // O opens a door; V, a user of the same home, comes in and speaks: one commit.
    let opened = room.by('O', Act::Grant(door));
    let join = room.by(
        'V',
        Act::Join {
            role: Role::Member,
            home: home('o'),
        },
    );
    let said = room.by('V', message());
    let i = room.add('o', vec![opened.clone(), join.clone(), said.clone()]);
    assert!((0..3).all(|index| room.server.verdict(i, index).stands()));

    let mut room = Room::new();
    let i = room.add('o', vec![said, join, opened]);
    assert_eq!(room.server.verdict(i, 0), Verdict::Void(Reason::NotMember));
    assert_eq!(room.server.verdict(i, 1), Verdict::Void(Reason::NoDoor));
    assert!(room.server.verdict(i, 2).stands());
}

#[test]
fn claims_are_the_least_for_additions_and_all_for_removals() {
    let mut room = Room::new();
    let claims = |room: &Room, author, act: &Act| {
        let (graph, authority) = (&room.server.graph, &room.server.authority);
        authority.claim_for(graph, &user(author), act)
    };
    let invite = Act::Grant(grant('V', 'v', Role::Member));
    assert_eq!(claims(&room, 'O', &invite), Role::Moderator);
    let demote = Act::Grant(grant('M', 'm', Role::Member));
    assert_eq!(claims(&room, 'O', &demote), Role::Owner);
    assert_eq!(claims(&room, 'O', &removal('U', vec![])), Role::Owner);
    assert_eq!(claims(&room, 'U', &message()), Role::Member);
    let ban = Act::Grant(Grant {
        ban: true,
        ..grant('U', 'u', Role::None)
    });
    let (_, id) = room.does('A', ban);
    assert_eq!(room.server.authority.standing_bans(&user('U')), [id]);
    let back = Act::Grant(Grant {
        lifts: vec![id],
        ..grant('U', 'u', Role::Member)
    });
    assert_eq!(
        claims(&room, 'B', &back),
        Role::Admin,
        "as much as the ban it lifts"
    );
    let (i, _) = room.does('B', back);
    assert!(room.verdict(i).stands());
    assert_eq!(room.server.authority.role(&user('U')), Role::Member);
}

#[test]
fn ingress_is_told_why_an_event_would_be_void() {
    let mut room = Room::new();
    assert_eq!(room.allowed('U', &message()), Ok(()));
    assert_eq!(room.allowed('V', &message()), Err(Reason::NotMember));
    let title = Act::State {
        field: "title".into(),
        content: None,
    };
    assert_eq!(room.allowed('U', &title), Err(Reason::NotAllowed));
    assert_eq!(room.allowed('M', &title), Ok(()));
    let name = Act::State {
        field: "name".into(),
        content: None,
    };
    assert_eq!(room.allowed('U', &name), Ok(()));
    assert_eq!(
        room.allowed('A', &removal('B', vec![])),
        Err(Reason::Outranked)
    );
    let target = EventId::from_bytes([77; 32]);
    let edit = Act::Edit {
        target,
        content: content(),
    };
    assert_eq!(room.allowed('U', &edit), Err(Reason::UnknownTarget));
    let (graph, authority) = (&room.server.graph, &room.server.authority);
    let elsewhere =
        authority.judge_new(graph, NOW, &home('a'), &user('U'), Role::Member, &message());
    assert_eq!(elsewhere, Err(Reason::WrongHome));
    let cut = authority.cut_for(graph, NOW, &user('U'));
    room.does('A', removal('U', cut));
    assert_eq!(room.allowed('U', &message()), Err(Reason::Removed));
    let policy = Act::Policy {
        field: Field::Posting,
        value: 9,
    };
    assert_eq!(room.allowed('A', &policy), Err(Reason::InvalidPolicy));
    let policy = Act::Policy {
        field: Field::Posting,
        value: 4,
    };
    room.does('A', policy);
    let (graph, authority) = (&room.server.graph, &room.server.authority);
    assert_eq!(authority.policy(graph, Field::Posting), Some(4));
    let low = authority.judge_new(
        graph,
        NOW,
        &home('m'),
        &user('M'),
        Role::Moderator,
        &message(),
    );
    assert_eq!(low, Err(Reason::PostingRestricted));
}

#[test]
fn event_about_an_unknown_message_waits_and_is_judged_when_it_comes() {
    let mut room = Room::new();
    let (target, said) = room.by('U', message());
    let edit = room.by(
        'U',
        Act::Edit {
            target,
            content: content(),
        },
    );
    let wrong = room.by(
        'M',
        Act::Edit {
            target,
            content: content(),
        },
    );
    let i = room.add('u', vec![edit]);
    let j = room.add('m', vec![wrong]);
    assert_eq!(room.verdict(i), Verdict::Waits(Awaited::Target));
    assert_eq!(room.verdict(j), Verdict::Waits(Awaited::Target));
    room.add('u', vec![(target, said)]);
    assert!(room.verdict(i).stands());
    assert_eq!(room.verdict(j), Verdict::Void(Reason::NotOwn));
}

#[test]
fn own_deletion_counts_from_a_losing_branch_and_after_removal() {
    let mut room = Room::new();
    let (said, target) = room.does('U', message());
    let cut = vec![room.world.tip(said)];
    room.does('A', removal('U', cut));
    let (i, _) = room.does('U', Act::Delete { target });
    assert!(room.verdict(i).stands());
    let (j, _) = room.does('U', message());
    assert_eq!(room.verdict(j), Verdict::Void(Reason::Removed));
    // The home begins anew in a higher epoch, so that all it said is on a losing branch.
    let event = room.by('U', message());
    let how = How {
        seen: room.world.all(),
        prev: None,
        epoch: 9,
        at_ms: NOW.0,
    };
    let k = room.world.commit(home('u'), &how, vec![event]);
    room.server.take(&room.world, k);
    room.server.assert_told();
    assert_eq!(room.verdict(said), Verdict::Void(Reason::LostBranch));
    assert!(room.verdict(i).stands(), "what was erased stays erased");
    assert_eq!(room.server.graph.forks().count(), 1);
}

#[test]
fn cause_names_the_act_that_took_away() {
    let mut room = Room::new();
    let (_, by) = room.does('A', removal('U', vec![]));
    let (i, _) = room.does('U', message());
    let at = crate::history::Appearance {
        node: room.server.nodes[i].unwrap(),
        index: 0,
    };
    assert_eq!(
        room.server.authority.cause(&room.server.graph, at),
        Some(Cause {
            event: by,
            author: user('A')
        })
    );
}

#[test]
fn who_was_in_by_what_a_removal_took_away_is_told_the_removal() {
    let mut room = Room::new();
    // The admin's friend comes, and speaks, before anybody knows that the owner removed the admin.
    let (_, invited) = room.does('A', Act::Grant(grant('F', 'f', Role::Member)));
    let (said, _) = room.does('F', message());
    assert!(room.verdict(said).stands());
    assert_eq!(room.server.authority.role(&user('F')), Role::Member);
    let apart = How {
        seen: (1 << 4) - 1,
        prev: room.world.newest_of(home('o')),
        epoch: 0,
        at_ms: NOW.0,
    };
    let remove = room.by('O', removal('A', vec![]));
    let by = Cause {
        event: remove.0,
        author: user('O'),
    };
    let removed = room.world.commit(home('o'), &apart, vec![remove]);
    room.server.take(&room.world, removed);
    assert_eq!(room.verdict(said), Verdict::Void(Reason::GrantVoid));
    let graph = &room.server.graph;
    for event in [invited, graph.event(room_at(&room, said))] {
        let at = graph.find_event(&event).next().unwrap();
        assert_eq!(room.server.authority.cause(graph, at), Some(by));
    }
    let ended = |name| room.server.authority.ended_by(graph, &user(name));
    assert_eq!((ended('F'), ended('A')), (Some(by), Some(by)));
    assert_eq!(ended('S'), None, "nobody knows him");
}

fn room_at(room: &Room, commit: usize) -> crate::history::Appearance {
    crate::history::Appearance {
        node: room.server.nodes[commit].unwrap(),
        index: 0,
    }
}

#[test]
fn whoever_leaves_ends_his_membership_himself() {
    let mut room = Room::new();
    let (_, left) = room.does('U', Act::Leave { cut: vec![] });
    let ended = room
        .server
        .authority
        .ended_by(&room.server.graph, &user('U'));
    let by = Cause {
        event: left,
        author: user('U'),
    };
    assert_eq!(ended, Some(by));
}

#[test]
fn cut_counts_from_when_the_commit_it_names_is_held() {
    let mut room = Room::new();
    let said = room.by('U', message());
    let more = room.by('U', message());
    let how = |room: &Room| How {
        seen: (1 << 4) - 1,
        prev: room.world.newest_of(home('u')),
        epoch: 0,
        at_ms: NOW.0,
    };
    let first = room.world.commit(home('u'), &how(&room), vec![said]);
    let second = room.world.commit(home('u'), &how(&room), vec![more]);
    let cut = vec![room.world.tip(second)];
    let remove = room.by('A', removal('U', cut.clone()));
    let seen_start = How {
        seen: (1 << 4) - 1,
        prev: None,
        epoch: 0,
        at_ms: NOW.0,
    };
    let removed = room.world.commit(home('a'), &seen_start, vec![remove]);
    room.server.take(&room.world, first);
    room.server.take(&room.world, removed);
    assert_eq!(room.verdict(first), Verdict::Void(Reason::Removed));
    assert!(room.server.authority.unheld_cuts().eq(cut));
    room.server.take(&room.world, second);
    assert!(room.verdict(first).stands() && room.verdict(second).stands());
    assert_eq!(room.server.authority.unheld_cuts().count(), 0);
    room.server.assert_told();
}

#[test]
fn authority_and_cuts_name_nothing_far_ahead_of_the_clock() {
    let mut room = Room::new();
    let far = NOW.0 + AHEAD_PARENT_MS + 1;
    let event = room.by('A', Act::Grant(grant('V', 'v', Role::Member)));
    let i = room.add_at('a', vec![event], far);
    let (graph, authority) = (&room.server.graph, &room.server.authority);
    let tip = room.world.tip(i);
    let named = |now: Timestamp| {
        let change = authority.authority_change(graph, now, &home('u'));
        change.is_some_and(|change| change.tips.contains(&tip))
    };
    assert!(!named(NOW) && named(Timestamp(far)));
    let cut = |now: Timestamp| authority.cut_for(graph, now, &user('A'));
    assert_eq!(cut(NOW), []);
    assert_eq!(cut(Timestamp(far)), [tip]);
}

#[test]
fn commit_that_follows_the_advice_is_taken_and_names_each_act_once() {
    let mut room = Room::new();
    room.does('A', Act::Grant(grant('V', 'v', Role::Member)));
    let (graph, authority) = (&room.server.graph, &room.server.authority);
    let change = authority.authority_change(graph, NOW, &home('u')).unwrap();
    assert_eq!(change.tips.len(), 2, "the owner's and A's");
    assert!(
        change.root.is_some(),
        "a chain begins with the record it knows"
    );
    room.does('U', message());
    let (graph, authority) = (&room.server.graph, &room.server.authority);
    assert_eq!(authority.authority_change(graph, NOW, &home('u')), None);
}

#[test]
fn author_is_known_once_the_event_is() {
    let mut room = Room::new();
    let event = room.by('U', message());
    let id = event.0;
    let how = How {
        seen: room.world.all(),
        at_ms: NOW.0,
        ..How::default()
    };
    let i = room.world.commit(home('u'), &how, vec![event]);
    room.server.take_only(&room.world, i, |_| false);
    let author = |room: &Room| room.server.authority.author_of(&room.server.graph, &id);
    assert_eq!(author(&room), None);
    assert_eq!(room.verdict(i), Verdict::Waits(Awaited::Event));
    room.server.tell(&room.world, i, |_| true);
    assert_eq!(author(&room), Some(user('U')));
    assert!(room.verdict(i).stands());
}

#[test]
fn codes_are_unique_and_stable_in_form() {
    let mut codes: Vec<&str> = Reason::ALL.iter().map(|r| r.code()).collect();
    let form = |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert!(codes.iter().all(form));
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Reason::ALL.len());
}
