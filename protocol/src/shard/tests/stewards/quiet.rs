//! What is due in a conversation that nobody opened since the servers started.

use super::*;
use crate::limits::WAKE_MS;

impl Net {
    fn is_open(&self, n: u8) -> bool {
        let shard = &self.servers[usize::from(n) - 1].shard;
        shard.conversation(&net::group_id()).is_some()
    }

    /// All servers stop and start, and nobody comes.
    fn restart_unused(&mut self, which: &[u8]) {
        for n in which {
            self.stop(*n);
            self.start_unused(*n);
        }
    }
}

#[test]
fn a_checkpoint_is_made_where_nobody_comes_once_a_day_has_passed_and_not_opened_before() {
    let mut net = Net::new();
    net.say(2);
    net.quiet();
    net.restart_unused(&[1, 2, 3]);
    net.now = T0.plus_ms(CHECKPOINT_MS - 2_000);
    net.seconds(1);
    assert!(net.records.is_empty() && !net.is_open(1));
    net.now = T0.plus_ms(CHECKPOINT_MS + WAKE_MS);
    net.seconds(5);
    assert_eq!(net.records.len(), 1);
    for n in 1..=3 {
        assert_eq!(net.newest(n).0.n, 1, "at {n}");
    }
    // Nothing was done since: nothing is due, and nobody opens it.
    net.restart_unused(&[1, 2, 3]);
    net.now = net.now.plus_ms(3 * CHECKPOINT_MS);
    net.seconds(5);
    assert!((1..=3).all(|n| !net.is_open(n)));
    assert_eq!(net.records.len(), 1);
}

#[test]
fn a_lost_owner_is_followed_where_nobody_comes() {
    let mut net = Net::new();
    net.stop(1);
    net.restart_unused(&[2, 3]);
    net.now = T0.plus_ms(days(31));
    for n in [1, 2] {
        net.servers[n].disk.unreached_ms.set(SUCCESSION_MS - 1);
    }
    net.seconds(5);
    assert!(!net.is_open(2) && !net.is_open(3));
    for n in [1, 2] {
        net.servers[n].disk.unreached_ms.set(SUCCESSION_MS);
    }
    net.now = net.now.plus_ms(WAKE_MS);
    net.seconds(200);
    assert_eq!(net.records.len(), 1);
    for n in [2, 3] {
        let (newest, root) = net.newest(n);
        assert_eq!((newest.n, root.owner, root.home), (1, user(2).0, server(2)));
    }
}

#[test]
fn what_a_steward_signed_is_finished_where_nobody_comes() {
    let mut net = Net::new();
    let root = net.given_to_sign(1, &to(2));
    net.sign_root(1, &root, 2);
    net.post.retain(|(_, to, _)| *to == 3);
    net.quiet();
    net.stop(1);
    net.restart_unused(&[2, 3]);
    net.seconds(100);
    for n in [2, 3] {
        assert_eq!(net.newest(n).1.owner, user(2).0);
    }
}

#[test]
fn a_look_through_what_is_due_goes_on_where_it_stopped_and_rests_behind_the_end() {
    let mut net = Net::new();
    net.restart_unused(&[1]);
    let (now, id) = (net.now, net::group_id());
    let due = Due {
        unfinished: true,
        ..Due::default()
    };
    net.with(1, |shard, disk, _| {
        assert_eq!(shard.wants_due(now), Some(None));
        shard.give_due(now, [(id, Due::default())], Some(id), disk);
        assert_eq!(shard.wants_due(now), Some(Some(id)), "nothing was due");
        shard.give_due(now, [(id, due)], None, disk);
        assert_eq!(shard.wants_due(now.plus_ms(WAKE_MS)), None, "one waits");
        shard.wake(disk);
        assert_eq!(shard.take_counts().woken, 1);
        assert_eq!(shard.wants_due(now.plus_ms(WAKE_MS - 1)), None);
        assert_eq!(shard.wants_due(now.plus_ms(WAKE_MS)), Some(None));
        assert_eq!(shard.wants_due(Timestamp(0)), Some(None), "set back");
        // It is open, and looked at each second as it is.
        shard.give_due(now, [(id, due)], None, disk);
        shard.wake(disk);
        assert_eq!(shard.take_counts().woken, 0);
    });
}

#[test]
fn a_home_whose_last_member_is_removed_is_still_given_the_records_that_this_has_seen() {
    let mut net = Net::new();
    net.stop(3);
    net.say(2);
    net.quiet();
    net.now = T0.plus_ms(CHECKPOINT_MS);
    net.seconds(3);
    net.grant(3, Role::None);
    net.quiet();
    net.with(1, |shard, disk, _| {
        let role = shard.conversation(&net::group_id()).unwrap().authority();
        assert_eq!(role.role(&user(3).0), Role::None);
        assert_eq!(shard.serve_records(&of_peer(3), 1, disk).len(), 1);
        assert_eq!(
            shard.serve_records(&of_peer(9), 1, disk).len(),
            0,
            "a stranger"
        );
    });
}
