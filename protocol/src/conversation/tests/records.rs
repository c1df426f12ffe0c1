//! Root records in a conversation of three homes: what they settle, wait for and erase.

use super::world::*;
use crate::{
    conversation::{
        CheckpointPace, Conversation, Received, ReceivedRecord, RecordKeys, TakenRecord,
    },
    event::Act,
    ids::{PublicKey, UserId},
    limits::{CHECKPOINT_ACTS, CHECKPOINT_MS},
    link::Offer,
    root::{Genesis, RawRoot, SignedRoot},
    signing::SecretKey,
    time::Timestamp,
};

/// The key by which home 0 speaks for the owner.
fn speaks_for_owner() -> SecretKey {
    SecretKey::from_seed([0xe0; 32])
}

fn home_keys(_: &UserId, key: &PublicKey) -> Option<bool> {
    Some(*key == speaks_for_owner().public())
}

impl World {
    pub(super) fn checkpoint(&mut self, home: usize) -> Option<TakenRecord> {
        let (now, nonce) = (self.time(), self.nonce());
        let key = server_key(home);
        let home = &mut self.homes[home];
        let taken = home
            .machine
            .make_checkpoint(now, nonce, &speaks_for_owner(), (1, &key))?;
        home.note_record(&taken);
        Some(taken)
    }

    pub(super) fn give_record(&mut self, to: usize, raw: &RawRoot) -> ReceivedRecord {
        let devices = self.devices();
        let keys = RecordKeys {
            server: &key_of,
            device: &devices,
            home: &home_keys,
        };
        let home = &mut self.homes[to];
        let received = home.machine.receive_record(raw.clone(), &keys);
        if let ReceivedRecord::Taken(taken) = &received {
            home.note_record(taken);
        }
        received
    }

    fn release_records(&mut self, at: usize) -> usize {
        let devices = self.devices();
        let keys = RecordKeys {
            server: &key_of,
            device: &devices,
            home: &home_keys,
        };
        let home = &mut self.homes[at];
        let all = home.machine.release_records(&keys);
        all.iter().for_each(|taken| home.note_record(taken));
        all.len()
    }
}

#[test]
fn a_moderators_deletion_erases_once_a_checkpoint_settles_it_and_not_before() {
    let mut world = World::group();
    let id = world.said(MEMBER, "rude");
    let edit = world.edit(MEMBER, id, "ruder").unwrap();
    world.commit(1);
    world.gossip_all();
    world.act(OWNER, Act::Delete { target: id }).unwrap();
    world.commit(0);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.states[&id].deleted_by.is_some());
        assert!(home.erased.is_empty(), "it may have to be shown again");
    }
    let record = world.checkpoint(0).unwrap();
    for home in [1, 2] {
        assert!(matches!(
            world.give_record(home, &record.raw),
            ReceivedRecord::Taken(_)
        ));
    }
    for home in &world.homes {
        assert_eq!(home.erased, [id, edit].into_iter().collect());
    }
    // An edit that comes later is as dead.
    let late = world.edit(MEMBER, id, "rudest").unwrap();
    world.commit(1);
    world.gossip_all();
    for home in &world.homes {
        assert!(home.erased.contains(&late), "home {}", home.n);
    }
}

#[test]
fn a_record_waits_for_its_commits_and_a_commit_for_its_record() {
    let mut world = World::group();
    world.said(MEMBER, "one");
    world.gossip(1, 0);
    let record = world.checkpoint(0).unwrap();
    // Home 2 has not the commit of home 1 that the record has seen.
    let waits = world.give_record(2, &record.raw);
    assert!(
        matches!(&waits, ReceivedRecord::Waiting { commits, .. } if commits.len() == 1),
        "{waits:?}"
    );
    // What names the record waits for it.
    let named = world.said(OWNER, "two");
    let bundle = world.homes[0].bundles.last().unwrap().clone();
    let received = world.give(2, &bundle);
    let Received::Waiting { record: lacks, .. } = received else {
        panic!("{received:?}");
    };
    assert_eq!(lacks, Some(record.record));
    assert!(world.homes[2].machine.has_waiting_records());
    world.gossip(1, 2);
    assert_eq!(world.release_records(2), 1);
    let (devices, now) = (world.devices(), world.time());
    assert_eq!(world.homes[2].release(now, &devices), 1);
    assert!(world.homes[2].shown.contains(&named));
    world.give_record(1, &record.raw);
    world.gossip_all();
    let digest = world.homes[0].digest();
    assert_eq!(world.homes[1].digest(), digest);
    assert_eq!(world.homes[2].digest(), digest);
}

#[test]
fn a_record_may_come_before_the_one_before_it() {
    let mut world = World::group();
    let first = world.checkpoint(0).unwrap();
    world.said(OWNER, "between");
    world.gossip_all();
    let second = world.checkpoint(0).unwrap();
    assert_eq!((first.record.n, second.record.n), (1, 2));
    let waits = world.give_record(1, &second.raw);
    assert!(
        matches!(&waits, ReceivedRecord::Waiting { record: Some(id), .. } if *id == first.record.id),
        "{waits:?}"
    );
    assert!(matches!(
        world.give_record(1, &first.raw),
        ReceivedRecord::Taken(_)
    ));
    world.gossip(0, 1);
    assert_eq!(world.release_records(1), 1);
    let newest = world.homes[1].machine.newest_record().unwrap().0;
    assert_eq!(newest, second.record);
    assert!(matches!(
        world.give_record(1, &second.raw),
        ReceivedRecord::Known
    ));
    let all: Vec<_> = world.homes[1].machine.records_from(1).cloned().collect();
    assert_eq!(all, [first.raw, second.raw]);
}

#[test]
fn a_record_by_others_than_the_owners_home_is_refused_or_waits() {
    let mut world = World::group();
    assert!(world.checkpoint(1).is_none(), "not this home's to make");
    let now = world.time();
    let nonce = world.nonce();
    let other = SecretKey::from_seed([0xe1; 32]);
    let key = server_key(0);
    let forged = world.homes[0]
        .machine
        .make_checkpoint(now, nonce, &other, (1, &key))
        .unwrap();
    // The key may be in an entry of the owner's log that is not held yet.
    let waits = world.give_record(1, &forged.raw);
    assert!(
        matches!(&waits, ReceivedRecord::Waiting { users, .. } if users.len() == 1),
        "{waits:?}"
    );
    let mut world = World::group();
    let mut stolen = world.checkpoint(0).unwrap().raw;
    stolen.signatures.pop();
    assert!(matches!(
        world.give_record(1, &stolen),
        ReceivedRecord::Refused(..)
    ));
}

#[test]
fn a_checkpoint_is_due_after_many_acts_or_a_day_with_some_and_only_at_the_owners_home() {
    let mut world = World::group();
    let due = |world: &World, home: usize, ms: u64| {
        let at = Timestamp(world.now + ms);
        world.homes[home]
            .machine
            .checkpoint_due(at, CheckpointPace::DAILY)
    };
    assert!(!due(&world, 0, 0));
    assert!(due(&world, 0, CHECKPOINT_MS) && !due(&world, 1, CHECKPOINT_MS));
    world.checkpoint(0).unwrap();
    assert!(!due(&world, 0, CHECKPOINT_MS), "no acts since");
    for n in 0..CHECKPOINT_ACTS {
        let act = world.grant(0, MEMBER, crate::role::Role::Member);
        world.act(OWNER, act).unwrap();
        if n % 200 == 199 {
            world.commit(0);
        }
    }
    assert!(due(&world, 0, 0));
}

#[test]
fn acts_that_no_record_can_settle_yet_make_none_due() {
    let mut world = World::group();
    world.checkpoint(0).unwrap();
    // One of the other home's clocks is ahead, too far to be named by anybody.
    world.now += 2 * crate::limits::AHEAD_PARENT_MS;
    let act = world.grant(1, OTHER, crate::role::Role::Guest);
    world.act(ADMIN, act).unwrap();
    let home = world.users[ADMIN].home;
    world.commit(home);
    world.now -= 2 * crate::limits::AHEAD_PARENT_MS;
    world.gossip_all();
    let pace = CheckpointPace { acts: 1, ms: 0 };
    let due = |world: &World, later: u64| {
        let at = Timestamp(world.now + later);
        world.homes[0].machine.checkpoint_due(at, pace)
    };
    assert!(world.homes[0].machine.authority().unsettled_acts() > 0);
    assert!(!due(&world, 0), "a record now would settle nothing");
    assert!(due(&world, 2 * crate::limits::AHEAD_PARENT_MS));
}

#[test]
fn the_home_that_an_owner_moved_away_from_makes_no_checkpoint() {
    let mut world = World::group();
    let day = Timestamp(world.now + CHECKPOINT_MS);
    let due = |world: &World| {
        let machine = &world.homes[0].machine;
        machine.checkpoint_due(day, CheckpointPace::DAILY)
    };
    assert!(due(&world));
    world.move_to(OWNER, 2);
    world.commit(2);
    world.gossip_all();
    assert!(!due(&world), "nobody would hear of it");
}

#[test]
fn an_owner_alone_with_two_other_homes_is_to_name_stewards_unless_he_ever_decided_himself() {
    let mut world = World::group();
    let wanted = |world: &World, home: usize| world.homes[home].machine.owner_to_name_stewards();
    let owner = world.users[OWNER].id;
    let Offer::Group(raw) = world.homes[0].machine.offer().clone() else {
        panic!("a group");
    };
    let genesis = Genesis::verify(raw).unwrap();
    let empty = Conversation::group(&genesis, server(0), 1);
    assert_eq!(
        empty.owner_to_name_stewards(),
        None,
        "nobody else takes part"
    );
    assert_eq!(wanted(&world, 0), Some(owner));
    assert_eq!(wanted(&world, 1), None, "it does not speak for him");
    world.checkpoint(0).unwrap();
    assert_eq!(wanted(&world, 0), Some(owner), "his home decided nothing");
    // He has a record made that names the one steward again.
    let (now, nonce) = (world.time(), world.nonce());
    let machine = &world.homes[0].machine;
    let root = machine.next_root(now, nonce).unwrap();
    let (newest, _) = machine.newest_record().unwrap();
    let signed = RawRoot::by_device(SignedRoot::encode(&root).1, &world.users[OWNER].key);
    let whole = machine.sign_alone(now, newest, &signed, (1, &server_key(0)));
    let taken = world.give_record(0, &whole.unwrap());
    assert!(matches!(taken, ReceivedRecord::Taken(_)), "{taken:?}");
    assert_eq!(wanted(&world, 0), None);
    let act = world.grant(0, MEMBER, crate::role::Role::Member);
    world.act(OWNER, act).unwrap();
    world.commit(0);
    world.checkpoint(0).unwrap();
    assert_eq!(
        wanted(&world, 0),
        None,
        "a checkpoint since changes nothing"
    );
}

#[test]
fn what_is_settled_is_not_committed_again_however_far_ahead_its_clock_was() {
    let mut world = World::group();
    let ahead_ms = 2 * crate::limits::AHEAD_PARENT_MS;
    world.now += ahead_ms;
    world.said(OWNER, "ahead and settled");
    world.checkpoint(0).unwrap();
    world.said(OWNER, "ahead and not settled");
    world.now -= ahead_ms;
    // What followed the settled one would be as far ahead again, without end.
    assert!(!world.homes[0].machine.is_ahead(world.time()));
    assert!(world.commit_lost(0).is_none());
    assert!(world.say(OWNER, "goes on").is_ok() && world.commit(0).is_some());
}

#[test]
fn what_was_stored_with_its_records_reads_back_the_same() {
    let mut world = World::group();
    let id = world.said(MEMBER, "rude");
    world.gossip_all();
    world.act(OWNER, Act::Delete { target: id }).unwrap();
    world.commit(0);
    let before = world.homes[0].records.len();
    let record = world.checkpoint(0).unwrap();
    world.said(OWNER, "after");
    let home = &world.homes[0];
    let Offer::Group(raw) = home.machine.offer().clone() else {
        panic!("a group");
    };
    let genesis = Genesis::verify(raw).unwrap();
    let mut again = Conversation::group(&genesis, server(0), 1);
    for (at, (commit, events)) in home.records.iter().enumerate() {
        if at == before {
            again.restore_record(record.raw.clone()).unwrap();
        }
        again.restore(commit, events).unwrap();
    }
    assert_eq!(again.frontier(), home.machine.frontier());
    assert_eq!(again.newest_record(), home.machine.newest_record());
    let members = |machine: &Conversation| machine.authority().members().collect::<Vec<_>>();
    assert_eq!(members(&again), members(&home.machine));
    // A late edit is erased there too: what the record settled is known again.
    world.homes[0].machine = again;
    let late = world.edit(MEMBER, id, "rudest").unwrap();
    world.commit(1);
    let bundle = world.homes[1].bundles.last().unwrap().clone();
    world.give(0, &bundle);
    assert!(world.homes[0].erased.contains(&late));
}

#[test]
fn two_records_on_one_are_proof_against_the_steward_that_signed_both() {
    let mut world = World::group();
    let home = &world.homes[0];
    let Offer::Group(raw) = home.machine.offer().clone() else {
        panic!("a group");
    };
    let mut twice = Conversation::group(&Genesis::verify(raw).unwrap(), server(0), 1);
    for (commit, events) in &home.records {
        twice.restore(commit, events).unwrap();
    }
    let first = world.checkpoint(0).unwrap();
    assert_eq!(world.homes[0].machine.twins_of(&first.record), None);
    let (now, nonce, key) = (world.time(), world.nonce(), server_key(0));
    let second = twice.make_checkpoint(now, nonce, &speaks_for_owner(), (1, &key));
    let second = second.unwrap();
    assert_ne!(first.record, second.record);
    for raw in [&first.raw, &second.raw] {
        let received = world.give_record(1, raw);
        assert!(matches!(received, ReceivedRecord::Taken(_)), "{received:?}");
    }
    let machine = &world.homes[1].machine;
    let proof = machine.twins_of(&second.record).unwrap();
    assert_eq!(machine.twins_of(&first.record), Some(proof.clone()));
    assert_eq!(proof.signed_both, [server(0)]);
    let stands = first.record.id.min(second.record.id);
    assert_eq!((proof.twins.n, proof.twins.stands), (1, stands));
}

#[test]
fn a_member_who_left_and_came_back_over_checkpoints_speaks_on() {
    let mut world = World::group();
    for round in 0..3 {
        world.said(MEMBER, &format!("answer {round}"));
        world.gossip_all();
        let removal = world.grant(0, MEMBER, crate::role::Role::None);
        world.act(OWNER, removal).unwrap();
        world.commit(0);
        let record = world.checkpoint(0).unwrap();
        world.said(OWNER, "without");
        let grant = world.grant(0, MEMBER, crate::role::Role::Member);
        world.act(OWNER, grant).unwrap();
        world.commit(0);
        let second = world.checkpoint(0).unwrap();
        for home in [1, 2] {
            world.gossip(0, home);
            for raw in [&record.raw, &second.raw] {
                world.give_record(home, raw);
            }
            world.release_records(home);
            let (devices, now) = (world.devices(), world.time());
            while world.homes[home].release(now, &devices) + world.release_records(home) > 0 {}
        }
        world.gossip_all();
    }
    world.said(MEMBER, "last");
    world.gossip_all();
    let digest = world.homes[0].digest();
    assert_eq!(world.homes[0].shown.len(), world.homes[1].shown.len());
    assert_eq!(world.homes[1].digest(), digest);
}
