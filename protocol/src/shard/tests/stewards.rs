//! Three servers whose shards make the next root record together, over a network that the test
//! delivers by hand.

mod net;
mod quiet;

use comity_fuzz::random::Random;

use super::*;
use crate::{
    conversation::RootChange,
    limits::{CHECKPOINT_MS, SUCCESSION_MS},
    root::StewardMessage,
    session::NextRoot,
};
use net::{Net, Parcel, Server, days, of_peer, to, user};

#[test]
fn three_stewards_make_the_checkpoint_that_is_due_and_it_has_seen_what_each_held() {
    let mut net = Net::new();
    net.say(3);
    net.say(2);
    // What these said is on its way still.
    net.post.clear();
    net.now = T0.plus_ms(CHECKPOINT_MS);
    net.pass(0);
    net.quiet();
    assert_eq!(net.newest(1).0.n, 0, "it lacks what the stewards answered");
    net.sync();
    net.seconds(3);
    let (newest, root) = net.newest(1);
    assert_eq!((newest.n, root.frontier.len()), (1, 3));
    assert_eq!((root.owner, root.home), (owner().0, server(1)));
    net.sync();
    net.quiet();
    assert_eq!(net.records.len(), 1);
    net.seconds(30);
    assert_eq!(net.records.len(), 1, "there were no acts since");
}

#[test]
fn a_transfer_is_signed_by_the_device_and_stands_on_all_three() {
    let mut net = Net::new();
    net.say(2);
    net.quiet();
    let root = net.given_to_sign(1, &to(2));
    net.sign_root(1, &root, 2);
    net.quiet();
    let Some(Ok(NextRoot::Stands(record))) = net.answer(2) else {
        panic!("{:?}", net.answers);
    };
    for n in 1..=3 {
        let (newest, root) = net.newest(n);
        assert_eq!(
            (newest, root.owner, root.home),
            (record, user(2).0, server(2))
        );
    }
    // Asked again, as after a lost answer: it is what he wants.
    net.next_root(1, &to(2), 3);
    assert_eq!(net.answer(3), Some(Ok(NextRoot::Stands(record))));
    net.sign_root(1, &root, 4);
    assert_eq!(net.answer(4), Some(Ok(NextRoot::Stands(record))));
    net.next_root(1, &to(3), 5);
    assert_eq!(net.answer(5), Some(Err(Code::NotOwner)));
    // To a stranger the conversation is not there.
    net.ask_as(1, UserId::from_bytes([9; 32]), 7);
    assert_eq!(net.answer(7), Some(Err(Code::NotFound)));
    net.next_root(2, &to(2), 6);
    net.quiet();
    assert!(matches!(net.answer(6), Some(Ok(NextRoot::Sign(_)))));
}

#[test]
fn one_stopped_steward_of_three_is_no_hindrance_and_two_are_until_one_is_back() {
    let mut net = Net::new();
    net.stop(3);
    let root = net.given_to_sign(1, &to(2));
    net.stop(2);
    net.sign_root(1, &root, 2);
    net.seconds(16);
    assert_eq!(net.answer(2), Some(Err(Code::Unreachable)));
    assert_eq!(net.newest(1).0.n, 0);
    net.start(2);
    net.quiet();
    // What was signed goes on by itself.
    net.seconds(70);
    let (newest, now) = net.newest(1);
    assert_eq!((newest.n, now.owner), (1, user(2).0));
    net.next_root(1, &to(2), 4);
    assert_eq!(net.answer(4), Some(Ok(NextRoot::Stands(newest))));
    net.start(3);
    net.quiet();
    assert_eq!(net.newest(3).0, newest);
    assert_eq!(net.records.len(), 1);
}

#[test]
fn without_a_majority_nothing_is_given_to_sign() {
    let mut net = Net::new();
    net.stop(2);
    net.stop(3);
    net.next_root(1, &to(2), 1);
    net.seconds(16);
    assert_eq!(net.answer(1), Some(Err(Code::Unreachable)));
    net.start(3);
    net.quiet();
    let root = net.given_to_sign(1, &to(2));
    net.sign_root(1, &root, 2);
    net.quiet();
    assert!(matches!(net.answer(2), Some(Ok(NextRoot::Stands(_)))));
}

#[test]
fn a_record_that_others_may_have_made_is_finished_before_the_owner_is_asked() {
    let mut net = Net::new();
    let root = net.given_to_sign(1, &to(2));
    net.sign_root(1, &root, 2);
    // Steward 3 signs, and its note is lost with server 1.
    net.post.retain(|(_, to, _)| *to == 3);
    net.quiet();
    net.stop(1);
    net.post.clear();
    net.start(1);
    net.quiet();
    net.next_root(1, &to(3), 3);
    net.quiet();
    // The transfer to 2 that he signed before is made, so he may not go on.
    assert_eq!(net.answer(3), Some(Err(Code::NotOwner)));
    assert_eq!(net.newest(3).1.owner, user(2).0);
    assert_eq!(net.records.len(), 1);
}

#[test]
fn what_one_of_two_running_stewards_signed_is_made_whatever_they_took_meanwhile() {
    let mut net = Net::new();
    let root = net.given_to_sign(1, &to(2));
    net.sign_root(1, &root, 2);
    // Steward 3 signs, its note is lost, and the second never comes back.
    net.post.retain(|(_, to, _)| *to == 3);
    let asked = std::mem::take(&mut net.post);
    asked.into_iter().for_each(|parcel| net.deliver(parcel));
    for n in 1..=3 {
        net.stop(n);
    }
    net.start(1);
    net.start(3);
    net.quiet();
    for _ in 0..100 {
        net.say(1);
        net.say(3);
        net.seconds(1);
    }
    for n in [1, 3] {
        assert_eq!(net.newest(n).1.owner, user(2).0);
    }
}

#[test]
fn what_a_proposer_alone_could_have_signed_binds_nobody() {
    let mut net = Net::new();
    let root = net.given_to_sign(1, &to(2));
    net.stop(2);
    net.stop(3);
    net.sign_root(1, &root, 2);
    net.seconds(16);
    assert_eq!(net.answer(2), Some(Err(Code::Unreachable)));
    net.start(3);
    net.say(3);
    net.quiet();
    let root = net.given_to_sign(1, &to(3));
    net.sign_root(1, &root, 3);
    net.quiet();
    assert!(matches!(net.answer(3), Some(Ok(NextRoot::Stands(_)))));
    assert_eq!(net.newest(3).1.owner, user(3).0);
}

#[test]
fn a_steward_that_signed_brings_it_to_an_end_while_the_proposer_is_away() {
    let mut net = Net::new();
    let root = net.given_to_sign(1, &to(2));
    net.sign_root(1, &root, 2);
    net.post.retain(|(_, to, _)| *to == 3);
    net.quiet();
    net.stop(1);
    net.seconds(100);
    for n in [2, 3] {
        assert_eq!(net.newest(n).1.owner, user(2).0);
    }
}

#[test]
fn what_was_signed_before_the_stewards_took_more_is_asked_for_again() {
    let mut net = Net::new();
    let root = net.given_to_sign(1, &to(2));
    // Another proposer outvotes the ballot; by then the stewards hold more.
    net.say(3);
    net.quiet();
    let home = net.servers[1].disk.unreached_ms.replace(SUCCESSION_MS);
    net.pass(1_000);
    assert_eq!(home, 0);
    net.quiet();
    net.servers[1].disk.unreached_ms.set(0);
    net.sign_root(1, &root, 2);
    net.seconds(20);
    let answer = net.answer(2);
    assert_eq!(answer, Some(Err(Code::Overtaken)), "{:?}", net.records);
    let root = net.given_to_sign(1, &to(2));
    net.sign_root(1, &root, 3);
    net.seconds(2);
    assert!(matches!(net.answer(3), Some(Ok(NextRoot::Stands(_)))));
}

#[test]
fn a_steward_restarted_between_promise_and_proposal_keeps_its_promise() {
    let mut net = Net::new();
    let root = net.given_to_sign(1, &to(2));
    let before = net.newest(2).0;
    net.stop(2);
    net.start(2);
    net.quiet();
    let low = crate::root::Ballot {
        round: 1,
        by: server(3),
    };
    let asks = StewardMessage::Prepare {
        before,
        ballot: low,
    };
    net.deliver((3, 2, Parcel::Steward(Box::new(asks))));
    let [(2, 3, Parcel::Steward(answer))] = &net.post[..] else {
        panic!("{:?}", net.post);
    };
    let StewardMessage::Declined { why, .. } = &**answer else {
        panic!("{answer:?}");
    };
    assert!(matches!(why, crate::root::Declined::Outvoted(_)), "{why:?}");
    net.post.clear();
    net.stop(3);
    net.sign_root(1, &root, 2);
    net.quiet();
    assert!(matches!(net.answer(2), Some(Ok(NextRoot::Stands(_)))));
}

#[test]
fn a_steward_answers_only_once_it_is_durable_and_only_who_may_propose() {
    let mut net = Net::new();
    let (now, before) = (net.now, net.newest(2).0);
    let asks = StewardMessage::Prepare {
        before,
        ballot: crate::root::Ballot::new(now, 1, server(1), None),
    };
    let mut out = Vec::new();
    let Server { shard, disk, .. } = &mut net.servers[1];
    shard.steward(now, of_peer(9), asks.clone(), disk, &mut out);
    assert!(matches!(out[..], [Output::Heard(..)]), "{out:?}");
    out.clear();
    shard.steward(now, of_peer(1), asks.clone(), disk, &mut out);
    let [Output::Store(_)] = &out[..] else {
        panic!("{out:?}");
    };
    // The same question while the promise is on its way waits as well.
    let mut again = Vec::new();
    shard.steward(now, of_peer(1), asks.clone(), disk, &mut again);
    let full = || Err(WireError::new(Code::DiskFull, "full"));
    let mut said = Vec::new();
    for submission in submissions(&mut out)
        .into_iter()
        .chain(submissions(&mut again))
    {
        shard.stored(submission.done, full(), &mut said);
    }
    assert!(
        !said.iter().any(|output| matches!(output, Output::Say(..))),
        "{said:?}"
    );
    let heard = said.iter().filter(|o| matches!(o, Output::Heard(..)));
    assert_eq!(heard.count(), 2, "{said:?}");
    shard.steward(now, of_peer(1), asks.clone(), disk, &mut out);
    for submission in submissions(&mut out) {
        shard.stored(submission.done, Ok(()), &mut out);
    }
    let [Output::Heard(..), Output::Say(to, _, promise)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(*to, server(1));
    assert!(matches!(**promise, StewardMessage::Promise(_)));
    // Durable already: the answer is given at once.
    out.clear();
    shard.steward(now, of_peer(1), asks, disk, &mut out);
    assert!(
        matches!(out[..], [Output::Say(..), Output::Heard(..)]),
        "{out:?}"
    );
}

#[test]
fn the_owner_is_followed_by_the_first_admin_after_thirty_days_and_not_before() {
    let mut net = Net::new();
    net.stop(1);
    let unreached = |net: &Net, ms: [u64; 2]| {
        for (n, ms) in [1, 2].into_iter().zip(ms) {
            net.servers[n].disk.unreached_ms.set(ms);
        }
    };
    net.now = T0.plus_ms(days(31));
    unreached(&net, [SUCCESSION_MS - 1, SUCCESSION_MS - 1]);
    net.seconds(100);
    assert!(net.records.is_empty());
    // One of them reached him since: there is no majority.
    unreached(&net, [SUCCESSION_MS, days(20)]);
    net.seconds(200);
    assert!(net.records.is_empty());
    unreached(&net, [SUCCESSION_MS, SUCCESSION_MS]);
    net.seconds(200);
    assert_eq!(net.records.len(), 1);
    for n in [2, 3] {
        let (newest, root) = net.newest(n);
        assert_eq!((newest.n, root.owner, root.home), (1, user(2).0, server(2)));
    }
    net.start(1);
    net.quiet();
    assert_eq!(net.newest(1).1.owner, user(2).0);
}

#[test]
fn stewards_are_chosen_from_those_taking_part_unless_they_are_named() {
    let mut net = Net::new();
    let only = |stewards: &[u8]| RootChange {
        owner: None,
        stewards: Some(stewards.iter().map(|n| server(*n)).collect()),
    };
    for refused in [&[1, 2][..], &[2, 1, 3], &[1, 2, 9], &[]] {
        net.next_root(1, &only(refused), 1);
        assert_eq!(net.answer(1), Some(Err(Code::NotAllowed)), "{refused:?}");
    }
    let root = net.given_to_sign(1, &only(&[1]));
    net.sign_root(1, &root, 2);
    net.quiet();
    assert!(matches!(net.answer(2), Some(Ok(NextRoot::Stands(_)))));
    assert_eq!(net.newest(3).1.stewards, [server(1)]);
    // Alone now; the usual ones are the three again.
    net.stop(2);
    net.stop(3);
    let root = net.given_to_sign(1, &RootChange::default());
    net.sign_root(1, &root, 3);
    net.quiet();
    assert!(matches!(net.answer(3), Some(Ok(NextRoot::Stands(_)))));
    assert_eq!(net.newest(1).1.stewards, [1, 2, 3].map(server));
}

#[test]
fn whatever_is_lost_repeated_or_restarted_no_server_sees_two_records_of_one_number() {
    let mut in_trouble = 0;
    for seed in 0..24u64 {
        let mut random = Random::new(seed);
        let mut net = Net::new();
        net.now = T0.plus_ms(CHECKPOINT_MS);
        let mut replies = 10;
        for _ in 0..300 {
            let n = u8::try_from(1 + random.below(3)).unwrap();
            match random.below(24) {
                0 => net.say(n),
                1 => {
                    net.next_root(n, &to(1 + n % 3), replies);
                    replies += 1;
                }
                2 => {
                    let asked = net
                        .answers
                        .iter()
                        .rev()
                        .find_map(|(_, answer)| match answer {
                            Ok(NextRoot::Sign(root)) => Some(root.clone()),
                            _ => None,
                        });
                    if let Some(root) = asked {
                        net.sign_root(n, &root, replies);
                        replies += 1;
                    }
                }
                3 => {
                    net.stop(n);
                    net.start(n);
                }
                4 => {
                    let lost = [0, SUCCESSION_MS][random.below(2)];
                    net.servers[usize::from(n) - 1].disk.unreached_ms.set(lost);
                }
                5 | 6 => net.pass(1_000),
                7 if random.below(6) == 0 => net.sync(),
                _ if net.post.is_empty() => net.pass(500),
                _ => {
                    let at = random.below(net.post.len());
                    let parcel = match random.below(8) {
                        0 => net.post[at].clone(),
                        _ => net.post.swap_remove(at),
                    };
                    // Commits are fetched again by rounds, which this test has not.
                    if matches!(parcel.2, Parcel::Bundle(_)) || random.below(6) != 0 {
                        net.deliver(parcel);
                    }
                }
            }
            for (n, before, id) in &net.records {
                let twin = |(_, other, twin): &&(u64, _, _)| other == before && twin != id;
                let twins: Vec<_> = net.records.iter().filter(twin).collect();
                assert!(twins.is_empty(), "SEED={seed} record {n}: {twins:?}");
            }
        }
        in_trouble += net.records.len();
        // Once it is quiet all agree.
        for server in &net.servers {
            server.disk.unreached_ms.set(0);
        }
        net.sync();
        net.quiet();
        // A ballot that led nowhere in all that is put off for ten minutes.
        net.seconds(700);
        net.sync();
        net.quiet();
        let newest = [1, 2, 3].map(|n| net.newest(n).0);
        assert!(newest[0].n > 0, "SEED={seed}: a checkpoint was due");
        assert_eq!(newest[0], newest[1], "SEED={seed}");
        assert_eq!(newest[0], newest[2], "SEED={seed}");
    }
    assert!(in_trouble >= 6, "{in_trouble} records in trouble");
}
