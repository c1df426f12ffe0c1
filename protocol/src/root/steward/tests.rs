use std::collections::BTreeSet;

use comity_fuzz::random::Random;

use super::*;
use crate::ids::Blob;

fn server(n: u8) -> ServerId {
    ServerId::from_bytes([n; 32])
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn keys(server: &ServerId, epoch: u64) -> Option<PublicKey> {
    (epoch == 0).then(|| key(server.as_bytes()[0]).public())
}

fn record(text: u8) -> RawRoot {
    RawRoot {
        root: Blob(vec![text]),
        ballot: None,
        signatures: Vec::new(),
    }
}

const NOW: Timestamp = Timestamp(0);

fn before(n: u64) -> RootRef {
    RootRef {
        n,
        id: RootId::from_bytes([u8::try_from(n).unwrap(); 32]),
    }
}

fn ballot(round: u64, by: u8) -> Ballot {
    Ballot {
        round,
        by: server(by),
    }
}

fn tip(n: u8) -> Tip {
    Tip {
        home: server(n),
        epoch: 0,
        seq: 0,
        id: crate::ids::CommitId::from_bytes([n; 32]),
    }
}

fn sign(steward: &mut Steward, n: u8, at: Ballot, record: &RawRoot) -> Result<Note, Declined> {
    steward.propose(&before(0), at, record, (0, &key(n)), |_, _| Ok(()))
}

#[test]
fn what_a_majority_may_have_signed_is_proposed_again_and_nothing_else() {
    let mut stewards = [1, 2, 3].map(|_| Steward::after(before(0)));
    let low = ballot(1, 8);
    for steward in &mut stewards[..2] {
        steward.prepare(NOW, &before(0), low, Vec::new).unwrap();
    }
    sign(&mut stewards[1], 2, low, &record(7)).unwrap();
    let high = ballot(2, 9);
    let mut other = Proposal::new(before(0), high, vec![server(1), server(2), server(3)]);
    let mut choice = None;
    for n in [2u8, 3] {
        let promise = stewards[usize::from(n) - 1]
            .prepare(NOW, &before(0), high, Vec::new)
            .unwrap();
        choice = choice.or(other.promised(server(n), promise));
    }
    assert_eq!(choice, Some(Choice::Bound(record(7))));
}

#[test]
fn what_a_majority_says_it_did_not_sign_binds_nobody() {
    let mut stewards = [1, 2, 3].map(|_| Steward::after(before(0)));
    let low = ballot(1, 8);
    for steward in &mut stewards {
        steward.prepare(NOW, &before(0), low, Vec::new).unwrap();
    }
    sign(&mut stewards[1], 2, low, &record(7)).unwrap();
    let high = ballot(2, 9);
    let mut other = Proposal::new(before(0), high, vec![server(1), server(2), server(3)]);
    let choices: Vec<_> = [2u8, 1, 3]
        .map(|n| {
            let steward = &mut stewards[usize::from(n) - 1];
            let promise = steward.prepare(NOW, &before(0), high, Vec::new).unwrap();
            other.promised(server(n), promise)
        })
        .to_vec();
    let bound = Some(Choice::Bound(record(7)));
    assert_eq!(choices, [None, bound, Some(Choice::Free(vec![]))]);
}

#[test]
fn two_records_that_one_steward_each_signed_bind_nobody_who_asked_all_three() {
    let mut stewards = [1, 2, 3].map(|_| Steward::after(before(0)));
    for (n, round, text) in [(1u8, 1, 7), (2, 2, 8)] {
        let at = ballot(round, n);
        let steward = &mut stewards[usize::from(n) - 1];
        steward.prepare(NOW, &before(0), at, Vec::new).unwrap();
        sign(steward, n, at, &record(text)).unwrap();
    }
    let high = ballot(3, 9);
    let mut other = Proposal::new(before(0), high, vec![server(1), server(2), server(3)]);
    let mut choices = Vec::new();
    for (n, steward) in (1u8..).zip(&mut stewards) {
        let promise = steward.prepare(NOW, &before(0), high, Vec::new).unwrap();
        choices.push(other.promised(server(n), promise));
    }
    let bound = Some(Choice::Bound(record(8)));
    assert_eq!(choices, [None, bound, Some(Choice::Free(vec![]))]);
}

#[test]
fn a_free_proposer_is_given_all_that_the_majority_holds() {
    let at = ballot(1, 1);
    let mut proposal = Proposal::new(before(0), at, vec![server(1), server(2), server(3)]);
    let promise = |tips: Vec<Tip>| {
        Steward::after(before(0))
            .prepare(NOW, &before(0), at, || tips)
            .unwrap()
    };
    assert_eq!(
        proposal.promised(server(1), promise(vec![tip(1), tip(2)])),
        None
    );
    assert_eq!(proposal.promised(server(9), promise(vec![tip(9)])), None);
    assert_eq!(proposal.promised(server(1), promise(vec![tip(8)])), None);
    let choice = proposal.promised(server(3), promise(vec![tip(2), tip(3)]));
    assert_eq!(choice, Some(Choice::Free(vec![tip(1), tip(2), tip(3)])));
}

#[test]
fn a_steward_declines_what_follows_another_record_is_outvoted_unpromised_or_invalid() {
    let mut steward = Steward::after(before(4));
    let at = ballot(3, 1);
    let elsewhere = Err(Declined::Elsewhere(before(4)));
    assert_eq!(steward.prepare(NOW, &before(3), at, Vec::new), elsewhere);
    assert_eq!(steward.prepare(NOW, &before(5), at, Vec::new), elsewhere);
    let signs = |steward: &mut Steward, at, valid: bool| {
        let judge = |_: &RawRoot, frontier: &[Tip]| {
            assert_eq!(frontier, [tip(1)]);
            valid.then_some(()).ok_or(Declined::Uncovered)
        };
        steward.propose(&before(4), at, &record(1), (0, &key(1)), judge)
    };
    assert_eq!(signs(&mut steward, at, true), Err(Declined::NotPromised));
    let holds = || vec![tip(1)];
    steward.prepare(NOW, &before(4), at, holds).unwrap();
    assert_eq!(signs(&mut steward, at, false), Err(Declined::Uncovered));
    assert!(!steward.has_signed());
    let lower = ballot(2, 9);
    let outvoted = Declined::Outvoted(at);
    assert_eq!(signs(&mut steward, lower, true), Err(outvoted));
    assert_eq!(
        steward.prepare(NOW, &before(4), lower, Vec::new),
        Err(outvoted)
    );
    let note = signs(&mut steward, at, true).unwrap();
    assert_eq!(signs(&mut steward, at, false), Ok(note), "asked again");
    let other = steward.propose(&before(4), at, &record(2), (0, &key(1)), |_, _| Ok(()));
    assert_eq!(other, Err(Declined::Invalid));
}

#[test]
fn a_ballot_is_above_what_is_known_and_none_ends_the_chain() {
    let now = Timestamp(1_000_000);
    let mine = Ballot::new(now, 7, server(1), None);
    let other = Ballot::new(now.plus_ms(1), 0, server(2), None);
    assert!(other > mine);
    assert!(Ballot::new(now, 7, server(1), Some(other)) > other);
    let mut steward = Steward::after(before(0));
    let last = ballot(u64::MAX, 9);
    assert_eq!(
        steward.prepare(now, &before(0), last, Vec::new),
        Err(Declined::TooFarAhead)
    );
    assert!(steward.prepare(now, &before(0), other, Vec::new).is_ok());
}

#[test]
fn a_note_counts_for_its_record_its_ballot_and_its_steward_only() {
    let (first, second) = (ballot(1, 1), ballot(2, 1));
    let stewards = vec![server(1), server(2), server(3)];
    let mut old = Steward::after(before(0));
    old.prepare(NOW, &before(0), first, Vec::new).unwrap();
    let early = sign(&mut old, 1, first, &record(1)).unwrap();
    old.prepare(NOW, &before(0), second, Vec::new).unwrap();
    let note = sign(&mut old, 1, second, &record(1)).unwrap();
    let mut proposal = Proposal::new(before(0), second, stewards);
    proposal.propose(record(1));
    assert_eq!(proposal.noted(server(1), early, keys), Ok(None));
    assert_eq!(proposal.noted(server(2), note, keys), Err(WrongSignature));
    assert_eq!(proposal.noted(server(9), note, keys), Ok(None));
    let relabelled = Note {
        ballot: second,
        ..early
    };
    assert_eq!(
        proposal.noted(server(1), relabelled, keys),
        Err(WrongSignature)
    );
    assert_eq!(proposal.noted(server(1), note, keys), Ok(None));
    assert_eq!(
        proposal.noted(server(1), note, keys),
        Ok(None),
        "twice is once"
    );
    let mut last = Steward::after(before(0));
    last.prepare(NOW, &before(0), second, Vec::new).unwrap();
    let note = sign(&mut last, 3, second, &record(1)).unwrap();
    let made = proposal.noted(server(3), note, keys).unwrap().unwrap();
    assert_eq!((made.ballot, made.signatures.len()), (Some(second), 2));
}

// ---- any schedule ----

#[derive(Clone, Debug)]
enum Message {
    Prepare(Ballot),
    Promise(ServerId, Promise),
    Propose(Ballot, RawRoot),
    Note(ServerId, Note),
}

/// Two or three proposers, each with a record of its own, messages late, lost, repeated and out of
/// order. Stewards that `forget` lose what they promised and signed now and then.
fn schedule(seed: u64, count: u8, forget: bool) -> (BTreeSet<Vec<u8>>, u64) {
    let mut random = Random::new(seed);
    let mut stewards: Vec<Steward> = (0..count).map(|_| Steward::after(before(0))).collect();
    let names: Vec<ServerId> = (1..=count).map(server).collect();
    let proposers = 2 + random.below(2);
    let mut running: Vec<Option<Proposal>> = vec![None; proposers];
    let (mut rounds, mut post): (u64, Vec<(usize, Message)>) = (0, Vec::new());
    let mut made = BTreeSet::new();
    for _ in 0..400 {
        if post.is_empty() || random.below(12) == 0 {
            let p = random.below(proposers);
            rounds += 1 + random.below(2) as u64;
            let by = 100 + u8::try_from(p).unwrap();
            let proposal = Proposal::new(before(0), ballot(rounds, by), names.clone());
            let ask = Message::Prepare(proposal.ballot());
            post.extend((0..stewards.len()).map(|s| (s, ask.clone())));
            running[p] = Some(proposal);
            continue;
        }
        let at = random.below(post.len());
        let (to, message) = match random.below(10) {
            // Repeated later, lost, or just delivered.
            0 => post[at].clone(),
            _ => post.swap_remove(at),
        };
        if random.below(8) == 0 {
            continue;
        }
        let proposer = |ballot: &Ballot| usize::from(ballot.by.as_bytes()[0]) - 100;
        if forget && random.below(6) == 0 {
            stewards[random.below(usize::from(count))] = Steward::after(before(0));
        }
        match message {
            Message::Prepare(ballot) => {
                if let Ok(promise) = stewards[to].prepare(NOW, &before(0), ballot, Vec::new) {
                    post.push((proposer(&ballot), Message::Promise(names[to], promise)));
                }
            }
            Message::Promise(from, promise) => {
                let Some(proposal) = running[to].as_mut() else {
                    continue;
                };
                let choice = proposal.promised(from, promise);
                let value = match choice {
                    Some(Choice::Free(_)) => record(u8::try_from(to).unwrap()),
                    Some(Choice::Bound(value)) => value,
                    None => continue,
                };
                proposal.propose(value.clone());
                let ask = Message::Propose(proposal.ballot(), value);
                post.extend((0..stewards.len()).map(|s| (s, ask.clone())));
            }
            Message::Propose(ballot, value) => {
                let name = names[to].as_bytes()[0];
                if let Ok(note) = sign(&mut stewards[to], name, ballot, &value) {
                    post.push((proposer(&ballot), Message::Note(names[to], note)));
                }
            }
            Message::Note(from, note) => {
                let Some(proposal) = running[to].as_mut() else {
                    continue;
                };
                if let Some(whole) = proposal.noted(from, note, keys).unwrap() {
                    made.insert(whole.root.0);
                }
            }
        }
    }
    (made, rounds)
}

#[test]
fn no_schedule_makes_twins_and_most_make_a_record() {
    let (mut some, mut contested) = (0, 0);
    for seed in 0..300 {
        for count in [1, 3, 5] {
            let (made, rounds) = schedule(seed, count, false);
            assert!(made.len() <= 1, "SEED={seed} {count} stewards: {made:?}");
            some += usize::from(!made.is_empty());
            contested += usize::from(rounds > 3);
        }
    }
    assert!(some > 600, "{some} of 900 made a record");
    assert!(
        contested > 600,
        "{contested} of 900 had more than three rounds"
    );
}

#[test]
fn stewards_that_forget_are_caught_making_twins() {
    assert!((0..300).any(|seed| schedule(seed, 3, true).0.len() > 1));
}
