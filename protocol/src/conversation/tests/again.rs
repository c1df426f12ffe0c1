//! Homes whose own chain lost events commit them again.

use std::collections::BTreeSet;

use super::world::*;
use crate::{
    conversation::Conversation,
    event::Act,
    ids::EventId,
    limits::{AGAIN_WAIT_MS, AHEAD_HOLD_MS, AHEAD_PARENT_MS},
    link::Offer,
    root::Genesis,
};

/// The home as it is after it read its first `records` records back.
fn read_back(home: &Home, records: usize) -> Home {
    let Offer::Group(raw) = home.machine.offer().clone() else {
        panic!("a group");
    };
    let genesis = Genesis::verify(raw).unwrap();
    let mut back = Home::new(home.n, Conversation::group(&genesis, server(home.n), 1));
    for (at, (commit, events)) in home.records[..records].iter().enumerate() {
        back.machine.restore(commit, events).unwrap();
        back.records.push((commit.clone(), events.clone()));
        back.bundles.push(home.bundles[at].clone());
    }
    // What its rows hold: shown lines are a function of the log, too.
    back.shown_again(home, records);
    back
}

impl World {
    /// Every home shows each of these lines once.
    fn assert_shown(&self, lines: &[EventId]) {
        for home in &self.homes {
            for line in lines {
                assert!(home.shown.contains(line), "home {} lacks a line", home.n);
                let graph = home.machine.graph();
                let standing = graph
                    .find_event(line)
                    .filter(|at| home.machine.authority().verdict(*at).stands());
                assert_eq!(standing.count(), 1, "shown once at home {}", home.n);
            }
        }
    }

    /// And all homes agree.
    fn assert_equal(&self, lines: &[EventId]) {
        self.assert_shown(lines);
        for home in &self.homes {
            assert_eq!(home.digest(), self.homes[0].digest(), "home {}", home.n);
        }
    }
}

/// Home 1 goes on from an old backup, and learns of what it had done since.
fn forked_by_a_backup(lost: usize, text: &str) -> (World, Vec<EventId>) {
    let mut world = World::group();
    let mut lines = vec![world.said(MEMBER, "in the backup")];
    world.gossip_all();
    let backup = world.homes[1].records.len();
    for n in 0..lost {
        lines.push(world.said(MEMBER, &format!("after the backup {n}")));
    }
    world.gossip_all();
    world.homes[1] = read_back(&world.homes[1], backup);
    lines.push(world.said(MEMBER, text));
    world.gossip(1, 0);
    world.gossip(0, 1);
    (world, lines)
}

#[test]
fn a_home_restored_from_a_backup_commits_again_what_loses_against_its_other_branch() {
    let mut stood = BTreeSet::new();
    for n in 0..8 {
        let (mut world, lines) = forked_by_a_backup(3, &format!("after the restore {n}"));
        let branch = world.homes[1].machine.graph().forks().next().unwrap();
        let old = world.newest(0).is_some() && {
            let graph = world.homes[1].machine.graph();
            let stands = graph.ix(&branch.stands).unwrap();
            graph.node(stands).events()[0] == lines[1]
        };
        stood.insert(old);
        assert!(world.commit_lost(1).is_none(), "more may be on its way");
        world.say(MEMBER, "meanwhile").unwrap();
        assert!(world.commit(1).is_none(), "nothing is said before it");
        world.now += AGAIN_WAIT_MS;
        let taken = world.commit_all_lost(1);
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].events.len(), if old { 1 } else { 3 });
        assert!(taken[0].events.iter().all(|e| e.void.is_none()));
        assert_eq!(taken[0].commit.commit().epoch, 2, "a new epoch");
        assert!(world.commit(1).is_some(), "then it goes on");
        world.gossip_all();
        world.gossip_all();
        world.assert_equal(&lines);
    }
    assert_eq!(stood.len(), 2, "either branch stood once");
}

#[test]
fn what_was_lost_is_found_again_after_a_crash_and_committed_once() {
    let (mut world, lines) = forked_by_a_backup(3, "after the restore");
    let records = world.homes[1].records.len();
    world.homes[1] = read_back(&world.homes[1], records);
    // Read back it need not wait: whoever had more has pushed it before.
    let taken = world.commit_all_lost(1);
    assert_eq!(taken.len(), 1);
    let records = world.homes[1].records.len();
    world.homes[1] = read_back(&world.homes[1], records);
    assert!(world.commit_lost(1).is_none(), "nothing is lost any more");
    world.gossip_all();
    world.gossip_all();
    world.assert_equal(&lines);
}

#[test]
fn lost_events_fill_as_many_commits_as_they_need() {
    let mut world = World::group();
    let backup = world.homes[1].records.len();
    let mut lines = vec![];
    for n in 0..300 {
        lines.push(world.say(MEMBER, &format!("{n}")).unwrap());
    }
    while world.commit(1).is_some() {}
    world.gossip(1, 0);
    // The backup's branch has a higher epoch, so that it stands.
    let mut home = read_back(&world.homes[1], backup);
    let Offer::Group(raw) = home.machine.offer().clone() else {
        panic!("a group");
    };
    let genesis = Genesis::verify(raw).unwrap();
    home.machine = Conversation::group(&genesis, server(1), 7);
    for (commit, events) in &home.records {
        home.machine.restore(commit, events).unwrap();
    }
    world.homes[1] = home;
    lines.push(world.said(MEMBER, "after the restore"));
    world.gossip(0, 1);
    world.now += AGAIN_WAIT_MS;
    let taken = world.commit_all_lost(1);
    let counts: Vec<_> = taken.iter().map(|t| t.events.len()).collect();
    assert_eq!(counts, [256, 44]);
    assert!(taken.iter().all(|t| t.commit.commit().epoch > 7));
    world.gossip_all();
    world.gossip_all();
    world.assert_equal(&lines);
}

#[test]
fn edits_reactions_and_deletions_that_were_lost_read_as_before() {
    let mut world = World::group();
    let edited = world.said(MEMBER, "typo");
    let erased = world.said(MEMBER, "secret");
    world.gossip_all();
    let backup = world.homes[1].records.len();
    let edit = world.edit(MEMBER, edited, "type").unwrap();
    world
        .act(
            MEMBER,
            Act::React {
                target: edited,
                emoji: "+1".into(),
                on: true,
                version: Some(edit),
            },
        )
        .unwrap();
    world.act(MEMBER, Act::Delete { target: erased }).unwrap();
    world.commit(1);
    world.gossip_all();
    let expected = world.homes[0].states.clone();
    let genesis = match world.homes[1].machine.offer().clone() {
        Offer::Group(raw) => Genesis::verify(raw).unwrap(),
        Offer::Direct(..) => panic!("a group"),
    };
    let mut home = read_back(&world.homes[1], backup);
    home.machine = Conversation::group(&genesis, server(1), 2);
    for (commit, events) in &home.records {
        home.machine.restore(commit, events).unwrap();
    }
    world.homes[1] = home;
    world.said(MEMBER, "after the restore");
    world.gossip(0, 1);
    world.gossip(1, 0);
    assert!(
        world.homes[0].states[&edited].edit.is_none(),
        "lost with its branch"
    );
    assert!(
        world.homes[0].states[&erased].deleted_by.is_some(),
        "an author's deletion counts from losing branches, too"
    );
    world.now += AGAIN_WAIT_MS;
    assert_eq!(world.commit_all_lost(1).len(), 1);
    world.gossip_all();
    world.gossip_all();
    for home in &world.homes {
        assert_eq!(home.states[&edited], expected[&edited], "home {}", home.n);
        assert_eq!(home.states[&erased], expected[&erased], "home {}", home.n);
        assert!(home.erased.contains(&erased));
    }
}

/// The home of a member says something with its clock this far ahead, then the clock is put right.
fn said_ahead(ahead_ms: u64, count: usize) -> (World, Vec<EventId>) {
    let mut world = World::group();
    let mut lines = vec![world.said(MEMBER, "on time")];
    world.gossip_all();
    world.now += ahead_ms;
    for n in 0..count {
        lines.push(world.said(MEMBER, &format!("ahead {n}")));
    }
    world.now -= ahead_ms;
    (world, lines)
}

#[test]
fn what_was_said_by_a_clock_far_ahead_is_committed_again_once_the_clock_is_right() {
    let (mut world, lines) = said_ahead(2 * AHEAD_HOLD_MS, 3);
    world.gossip_all();
    assert!(!world.homes[0].shown.contains(&lines[1]), "it is held");
    assert!(world.homes[1].machine.is_ahead(world.time()));
    let again = world.commit_all_lost(1);
    assert_eq!(again.len(), 1);
    let commit = again[0].commit.commit();
    assert_eq!((commit.epoch, again[0].events.len()), (2, 3));
    assert!(commit.hlc.timestamp() <= world.time().plus_ms(AHEAD_PARENT_MS));
    assert!(!world.homes[1].machine.is_ahead(world.time()));
    world.gossip_all();
    world.assert_shown(&lines);
    // Those that hold what was ahead find the same when they take it.
    world.now += 2 * AHEAD_HOLD_MS;
    world.gossip_all();
    world.assert_equal(&lines);
    assert!(world.commit_lost(1).is_none(), "once");
}

#[test]
fn what_is_ahead_fills_as_many_commits_as_it_needs_and_a_little_ahead_is_left() {
    let (mut world, lines) = said_ahead(AHEAD_PARENT_MS / 2, 1);
    assert!(!world.homes[1].machine.is_ahead(world.time()));
    assert!(world.commit_lost(1).is_none());
    world.gossip_all();
    world.assert_equal(&lines);
    let (mut world, lines) = said_ahead(2 * AHEAD_PARENT_MS, 300);
    world.gossip_all();
    let again = world.commit_all_lost(1);
    let counts: Vec<usize> = again.iter().map(|taken| taken.events.len()).collect();
    assert_eq!(counts, [256, 44]);
    world.gossip_all();
    world.assert_equal(&lines);
}
