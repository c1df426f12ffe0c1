use super::*;
use crate::ids::{Blob, Signature};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn genesis(recovery: bool) -> Genesis {
    Genesis {
        handle: "alice".parse().unwrap(),
        home: ServerId::from_bytes([7; 32]),
        home_key: key(1).public(),
        recovery: recovery.then(|| key(2).public()),
        nonce: Nonce::from_bytes([3; 16]),
    }
}

fn log() -> IdentityLog {
    IdentityLog::genesis(genesis(true), Timestamp(1), &key(1))
}

fn add(seed: u8) -> Op {
    Op::AddDevice {
        device: key(seed).public(),
        name: format!("device {seed}"),
    }
}

fn revoke(seed: u8) -> Op {
    Op::RevokeDevice {
        device: key(seed).public(),
    }
}

fn home(log: &mut IdentityLog, op: Op) -> EntryId {
    let raw = log.next(op, Timestamp(2), Signer::Home, &key(1)).unwrap();
    log.extend(&raw).unwrap().id
}

fn on(log: &mut IdentityLog, prev: EntryId, op: Op, by: Signer) -> Extended {
    let key = if by == Signer::Home { key(1) } else { key(2) };
    let raw = log.entry_on(prev, op, Timestamp(2), by, &key).unwrap();
    log.extend(&raw).unwrap()
}

fn current(log: &IdentityLog) -> Vec<String> {
    let mut names: Vec<_> = log.devices().map(|device| device.name).collect();
    names.sort();
    names
}

/// A log with a fork: device 11 below it, 12 and 13 on one branch, 14 on the other.
fn forked() -> (IdentityLog, EntryId) {
    let mut log = log();
    let below = home(&mut log, add(11));
    home(&mut log, add(12));
    home(&mut log, add(13));
    let fork = on(&mut log, below, add(14), Signer::Home);
    assert_eq!(fork.effect, Effect::Contested);
    (log, below)
}

#[test]
fn log_read_back_from_its_entries_is_the_same() {
    let mut log = log();
    home(&mut log, add(11));
    home(&mut log, add(12));
    home(&mut log, revoke(11));
    let handle = "alice2".parse().unwrap();
    home(&mut log, Op::SetHandle { handle });
    let raw: Vec<RawEntry> = log.entries().cloned().collect();
    assert_eq!(IdentityLog::verify(&raw).unwrap(), log);
    assert_eq!(IdentityLog::from_trusted(&raw).unwrap(), log);
    assert_eq!(log.user().as_bytes(), raw[0].id().as_bytes());
    assert_eq!(log.handle().as_str(), "alice2");
    assert_eq!(current(&log), ["device 12"]);
    assert_eq!((log.len(), log.standing().len()), (5, 5));
}

#[test]
fn revoked_device_was_the_users_but_is_not_current() {
    let mut log = log();
    home(&mut log, add(11));
    let device = key(11).public();
    assert!(log.had_device(&device) && log.is_current(&device) && !log.is_revoked(&device));
    home(&mut log, revoke(11));
    assert!(log.had_device(&device) && !log.is_current(&device) && log.is_revoked(&device));
    let stranger = key(12).public();
    assert!(!log.had_device(&stranger) && !log.is_revoked(&stranger));
}

#[test]
fn device_is_added_once_and_revoked_once() {
    let mut log = log();
    home(&mut log, add(11));
    let next = |log: &IdentityLog, op| log.next(op, Timestamp(2), Signer::Home, &key(1));
    assert_eq!(next(&log, add(11)), Err(IdentityError::DeviceAgain));
    assert_eq!(next(&log, revoke(12)), Err(IdentityError::NoSuchDevice));
    home(&mut log, revoke(11));
    assert_eq!(next(&log, revoke(11)), Err(IdentityError::NoSuchDevice));
    assert_eq!(next(&log, add(11)), Err(IdentityError::DeviceAgain));
}

#[test]
fn taking_an_entry_twice_changes_nothing() {
    let mut log = log();
    home(&mut log, add(11));
    let before = log.clone();
    let raw: Vec<RawEntry> = log.entries().cloned().collect();
    for raw in &raw {
        assert_eq!(log.extend(raw).unwrap().effect, Effect::Known);
    }
    assert_eq!(log, before);
}

#[test]
fn entry_whose_prev_is_missing_may_come_again_later() {
    let mut full = log();
    home(&mut full, add(11));
    home(&mut full, add(12));
    let raw: Vec<RawEntry> = full.entries().cloned().collect();
    let mut log = log();
    let missing = raw[1].id();
    assert_eq!(
        log.extend(&raw[2]),
        Err(IdentityError::MissingPrev(missing))
    );
    assert!(!log.had_device(&key(12).public()));
    log.extend(&raw[1]).unwrap();
    log.extend(&raw[2]).unwrap();
    assert_eq!(log, full);
}

#[test]
fn fork_of_the_homes_key_leaves_the_devices_below_it_and_only_recovery_goes_on() {
    let (mut log, below) = forked();
    assert!(log.is_contested());
    assert_eq!(log.tip(), below);
    assert_eq!(current(&log), ["device 11"]);
    for seed in 11..=14 {
        assert!(log.had_device(&key(seed).public()), "{seed}");
    }
    assert!(log.is_revoked(&key(14).public()));
    let refused = log.next(add(15), Timestamp(3), Signer::Home, &key(1));
    assert_eq!(refused, Err(IdentityError::Contested));

    let raw = log
        .next(add(16), Timestamp(3), Signer::Recovery, &key(2))
        .unwrap();
    assert_eq!(log.extend(&raw).unwrap().effect, Effect::Settled);
    assert!(!log.is_contested());
    assert_eq!(current(&log), ["device 11", "device 16"]);
    home(&mut log, add(17));
    assert_eq!(current(&log), ["device 11", "device 16", "device 17"]);
}

#[test]
fn homes_entries_on_contested_branches_are_kept_and_change_no_device() {
    let (mut log, _) = forked();
    let side = *log.branches.in_order().last().unwrap();
    let extended = on(&mut log, side, add(15), Signer::Home);
    assert_eq!(extended.effect, Effect::Aside);
    assert!(log.had_device(&key(15).public()));
    assert_eq!(current(&log), ["device 11"]);
}

#[test]
fn recovery_key_on_a_branch_makes_that_branch_stand() {
    let mut log = log();
    let below = home(&mut log, add(11));
    let mine = home(&mut log, add(12));
    on(&mut log, below, add(13), Signer::Home);
    assert!(log.is_contested());
    let settled = on(&mut log, mine, add(14), Signer::Recovery);
    assert_eq!(settled.effect, Effect::Settled);
    assert_eq!(current(&log), ["device 11", "device 12", "device 14"]);
}

#[test]
fn every_order_of_arrival_gives_the_same_log() {
    let (mut log, below) = forked();
    on(&mut log, below, add(15), Signer::Recovery);
    home(&mut log, add(16));
    let raw: Vec<RawEntry> = log.entries().cloned().collect();
    let rest = &raw[1..];
    let orders: usize = (1..=rest.len()).product();
    for order in 0..orders {
        let mut other = IdentityLog::verify(&raw[..1]).unwrap();
        let mut waiting = nth_order(rest, order);
        // What comes before the entry it stands on is sent again after the others.
        while !waiting.is_empty() {
            waiting.retain(|raw| match other.extend(raw) {
                Ok(_) => false,
                Err(IdentityError::MissingPrev(_)) => true,
                Err(other) => panic!("order {order}: {other}"),
            });
        }
        assert_eq!(other, log, "order {order}");
    }
}

/// The permutation of this number, of `items.len()` factorial.
fn nth_order(items: &[RawEntry], mut number: usize) -> Vec<RawEntry> {
    let mut left = items.to_vec();
    let mut order = Vec::new();
    while !left.is_empty() {
        order.push(left.remove(number % left.len()));
        number /= left.len() + 1;
    }
    order
}

#[test]
fn wrong_keys_are_refused() {
    let log = log();
    let next = |by, seed| log.next(add(11), Timestamp(2), by, &key(seed));
    let wrong = Err(IdentityError::Signature(WrongSignature));
    assert_eq!(next(Signer::Home, 9), wrong);
    assert_eq!(
        next(Signer::Home, 2),
        wrong,
        "the recovery key under the home's name"
    );
    assert_eq!(next(Signer::Recovery, 1), wrong);
    let without = IdentityLog::genesis(genesis(false), Timestamp(1), &key(1));
    let refused = without.next(add(11), Timestamp(2), Signer::Recovery, &key(2));
    assert_eq!(refused, Err(IdentityError::NoRecoveryKey));
}

#[test]
fn any_flipped_byte_is_refused() {
    let mut log = log();
    home(&mut log, add(11));
    let raw: Vec<RawEntry> = log.entries().cloned().collect();
    for i in 0..raw[1].entry.0.len() {
        let mut bad = raw.clone();
        bad[1].entry.0[i] ^= 1;
        assert!(IdentityLog::verify(&bad).is_err(), "byte {i}");
    }
    for i in 0..Signature::LEN {
        let mut bytes = *raw[1].signature.as_bytes();
        bytes[i] ^= 1;
        let mut bad = raw.clone();
        bad[1].signature = Signature::from_bytes(bytes);
        assert!(IdentityLog::verify(&bad).is_err(), "signature byte {i}");
    }
}

#[test]
fn shapes_outside_the_rules_are_refused() {
    let id = EntryId::from_bytes([9; 32]);
    let entry = |n, prev, by, op| Entry {
        n,
        prev,
        by,
        op,
        created_at: Timestamp(1),
    };
    let read = |entry: Entry| Entry::decode(&entry.to_bytes());
    let born = || Op::Genesis(genesis(true));
    assert!(read(entry(0, None, Signer::Home, born())).is_ok());
    assert!(read(entry(1, None, Signer::Home, born())).is_err());
    assert!(read(entry(0, Some(id), Signer::Home, born())).is_err());
    assert!(read(entry(0, None, Signer::Recovery, born())).is_err());
    assert!(read(entry(1, Some(id), Signer::Home, add(1))).is_ok());
    assert!(read(entry(0, None, Signer::Home, add(1))).is_err());
    assert!(read(entry(1, None, Signer::Home, add(1))).is_err());
    let named = |name: String| Op::AddDevice {
        device: key(1).public(),
        name,
    };
    assert!(read(entry(1, Some(id), Signer::Home, named("x".repeat(128)))).is_ok());
    assert!(read(entry(1, Some(id), Signer::Home, named("x".repeat(129)))).is_err());
    assert!(read(entry(1, Some(id), Signer::Home, named("a\nb".into()))).is_err());
}

#[test]
fn log_begins_with_its_own_genesis_and_takes_no_other() {
    let mut log = log();
    home(&mut log, add(11));
    let raw: Vec<RawEntry> = log.entries().cloned().collect();
    assert_eq!(IdentityLog::verify(&[]), Err(IdentityError::NotGenesis));
    assert_eq!(
        IdentityLog::verify(&raw[1..]),
        Err(IdentityError::NotGenesis)
    );
    let other = IdentityLog::genesis(genesis(false), Timestamp(1), &key(1));
    let other = other.entries().next().unwrap();
    assert_eq!(log.extend(other), Err(IdentityError::OtherGenesis));
}

#[test]
fn entry_numbers_follow_each_other() {
    let mut log = log();
    let entry = Entry {
        n: 2,
        prev: Some(log.tip()),
        by: Signer::Home,
        op: add(11),
        created_at: Timestamp(1),
    };
    let wrong = IdentityError::WrongNumber {
        found: 2,
        expected: 1,
    };
    assert_eq!(log.extend(&entry.sign(&key(1))), Err(wrong));
}

#[test]
fn full_log_still_takes_the_recovery_key() {
    let mut log = log();
    for i in 0.. {
        let handle = format!("alice{i}").parse().unwrap();
        match log.next(
            Op::SetHandle { handle },
            Timestamp(2),
            Signer::Home,
            &key(1),
        ) {
            Ok(raw) => assert_eq!(log.extend(&raw).unwrap().effect, Effect::Advanced),
            Err(error) => {
                assert_eq!(error, IdentityError::Full);
                break;
            }
        }
    }
    assert_eq!(log.len(), IDENTITY_ENTRIES_MAX - RECOVERY_RESERVE);
    let genesis = log.standing()[0];
    let settled = on(&mut log, genesis, add(11), Signer::Recovery);
    assert_eq!(settled.effect, Effect::Settled);
    assert_eq!(current(&log), ["device 11"]);
}

#[test]
fn bytes_that_are_no_entry_never_panic() {
    let mut log = log();
    let good = log.entries().next().unwrap().clone();
    for cut in 0..good.entry.0.len() {
        let entry = Blob(good.entry.0[..cut].to_vec());
        assert!(
            log.extend(&RawEntry {
                entry,
                ..good.clone()
            })
            .is_err()
        );
    }
    let entry = Blob(vec![0xff; crate::limits::ENTRY_BYTES_MAX + 1]);
    assert!(matches!(
        log.extend(&RawEntry { entry, ..good }),
        Err(IdentityError::Decode(DecodeError::TooLarge { .. }))
    ));
}

#[test]
fn home_key_is_the_same_for_one_nonce_only() {
    let nonce = Nonce::from_bytes([1; 16]);
    let other = Nonce::from_bytes([2; 16]);
    assert_eq!(
        home_key(&key(1), &nonce).public(),
        home_key(&key(1), &nonce).public()
    );
    assert_ne!(
        home_key(&key(1), &nonce).public(),
        home_key(&key(1), &other).public()
    );
    assert_ne!(
        home_key(&key(1), &nonce).public(),
        home_key(&key(2), &nonce).public()
    );
}
