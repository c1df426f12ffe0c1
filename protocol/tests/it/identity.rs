//! `identity.json`: logs with what they say, and entries that are refused.

use comity_protocol::{
    identity::{Genesis, IdentityError, IdentityLog, Op, RawEntry, Signer},
    ids::{Blob, DeviceKey, EntryId, Nonce, PublicKey, ServerId, UserId},
    name::Handle,
    signing::SecretKey,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::vectors::{self, hex, unhex};

const FILE: &str = "identity.json";
const HOME: u8 = 1;
const RECOVERY: u8 = 2;

#[derive(Deserialize, Serialize)]
struct File {
    /// 32-byte seeds: every key here is made of one byte repeated.
    keys: Vec<Key>,
    logs: Vec<Log>,
    refused: Vec<Refused>,
}

#[derive(Deserialize, Serialize)]
struct Key {
    seed: String,
    public: PublicKey,
}

#[derive(Deserialize, Serialize)]
struct Item {
    id: EntryId,
    bytes: String,
    signature: String,
}

#[derive(Deserialize, Serialize)]
struct Log {
    about: String,
    entries: Vec<Item>,
    says: Says,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Says {
    user: UserId,
    handle: Handle,
    home: ServerId,
    tip: EntryId,
    contested: bool,
    devices: Vec<DeviceKey>,
    /// Once the user's, by any entry, and no longer.
    revoked: Vec<DeviceKey>,
}

#[derive(Deserialize, Serialize)]
struct Refused {
    about: String,
    /// Taken by the log of these entries, in order, before.
    after: Vec<Item>,
    entry: Item,
    why: String,
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn device(seed: u8) -> DeviceKey {
    key(seed).public()
}

fn item(raw: &RawEntry) -> Item {
    Item {
        id: raw.id(),
        bytes: hex(&raw.entry),
        signature: hex(raw.signature.as_bytes()),
    }
}

fn raw(item: &Item) -> RawEntry {
    let raw = RawEntry {
        entry: Blob(unhex(&item.bytes)),
        signature: item.signature.parse().unwrap(),
    };
    assert_eq!(raw.id(), item.id);
    raw
}

fn says(log: &IdentityLog) -> Says {
    let seeds = 11..=19;
    let revoked = seeds.map(device).filter(|device| log.is_revoked(device));
    Says {
        user: log.user(),
        handle: log.handle().clone(),
        home: log.home(),
        tip: log.tip(),
        contested: log.is_contested(),
        devices: log.devices().map(|device| device.key).collect(),
        revoked: revoked.collect(),
    }
}

fn begin(recovery: bool) -> IdentityLog {
    let genesis = Genesis {
        handle: "alice".parse().unwrap(),
        home: ServerId::from_bytes([7; 32]),
        home_key: key(HOME).public(),
        recovery: recovery.then(|| key(RECOVERY).public()),
        nonce: Nonce::from_bytes([3; 16]),
    };
    IdentityLog::genesis(genesis, Timestamp(1_700_000_000_000), &key(HOME))
}

fn add(seed: u8) -> Op {
    Op::AddDevice {
        device: device(seed),
        name: format!("phone {seed}"),
    }
}

fn on(log: &mut IdentityLog, prev: EntryId, op: Op, by: Signer) -> EntryId {
    let key = match by {
        Signer::Home => key(HOME),
        Signer::Recovery => key(RECOVERY),
    };
    let raw = log
        .entry_on(prev, op, Timestamp(1_700_000_001_000), by, &key)
        .unwrap();
    log.extend(&raw).unwrap().id
}

fn home(log: &mut IdentityLog, op: Op) -> EntryId {
    on(log, log.tip(), op, Signer::Home)
}

fn vector(about: &str, log: &IdentityLog) -> Log {
    Log {
        about: about.to_owned(),
        entries: log.entries().map(item).collect(),
        says: says(log),
    }
}

fn logs() -> Vec<Log> {
    let mut logs = vec![vector("a genesis without recovery key", &begin(false))];
    let mut log = begin(true);
    home(&mut log, add(11));
    home(&mut log, add(12));
    home(&mut log, Op::RevokeDevice { device: device(11) });
    let handle = "jos\u{e9}".parse().unwrap();
    home(&mut log, Op::SetHandle { handle });
    logs.push(vector("two devices, one revoked, and a new handle", &log));

    let mut log = begin(true);
    let below = home(&mut log, add(11));
    let branch = home(&mut log, add(12));
    on(&mut log, below, add(13), Signer::Home);
    logs.push(vector("contested: two entries of the home on one", &log));
    on(&mut log, branch, add(14), Signer::Recovery);
    logs.push(vector("settled by the recovery key above the fork", &log));
    on(&mut log, below, add(15), Signer::Recovery);
    home(&mut log, add(16));
    logs.push(vector("settled again, by its earlier entry", &log));
    logs
}

fn refused() -> Vec<Refused> {
    let mut log = begin(false);
    home(&mut log, add(11));
    home(&mut log, add(12));
    let raws: Vec<RawEntry> = log.entries().cloned().collect();
    let case = |about: &str, after: &[RawEntry], entry: RawEntry| {
        let mut log = IdentityLog::verify(after).unwrap();
        Refused {
            about: about.to_owned(),
            after: after.iter().map(item).collect(),
            why: why(&log.extend(&entry).unwrap_err()).to_owned(),
            entry: item(&entry),
        }
    };
    let mut unsigned = raws[1].clone();
    unsigned.signature = raws[0].signature;
    let mut long = raws[1].clone();
    // The same entry with `v` in two bytes: DAG-CBOR has one encoding only.
    let at = long.entry.0.iter().position(|b| *b == b'v').unwrap();
    assert_eq!(long.entry.0[at - 1..=at + 1], [0x61, b'v', 1]);
    long.entry.0.splice(at + 1..=at + 1, [0x18, 1]);
    vec![
        case("the signature of another entry", &raws[..1], unsigned),
        case("not the canonical encoding", &raws[..1], long),
        case(
            "before the entry that it names",
            &raws[..1],
            raws[2].clone(),
        ),
        case(
            "a second genesis",
            &raws[..1],
            begin(true).entries().next().unwrap().clone(),
        ),
    ]
}

fn why(error: &IdentityError) -> &'static str {
    match error {
        IdentityError::Decode(_) => "malformed",
        IdentityError::Signature(_) => "signature",
        IdentityError::MissingPrev(_) => "missing_prev",
        IdentityError::OtherGenesis => "other_genesis",
        _ => "other",
    }
}

#[test]
fn identity_json_is_what_this_program_makes() {
    let seeds = [HOME, RECOVERY].into_iter().chain(11..=16);
    let keys = seeds.map(|seed| Key {
        seed: hex([seed; 32]),
        public: key(seed).public(),
    });
    let file = File {
        keys: keys.collect(),
        logs: logs(),
        refused: refused(),
    };
    vectors::compare_or_write(FILE, &file);
}

#[test]
fn identity_json_is_read_as_it_says() {
    let file: File = vectors::read(FILE);
    assert!(!file.keys.is_empty() && !file.logs.is_empty() && !file.refused.is_empty());
    for Key { seed, public } in &file.keys {
        let seed = unhex(seed).try_into().unwrap();
        assert_eq!(SecretKey::from_seed(seed).public(), *public);
    }
    for vector in &file.logs {
        let entries: Vec<RawEntry> = vector.entries.iter().map(raw).collect();
        let log = IdentityLog::verify(&entries).unwrap();
        assert_eq!(says(&log), vector.says, "{}", vector.about);
        assert!(log.entries().eq(&entries), "{}", vector.about);
    }
    for case in &file.refused {
        let after: Vec<RawEntry> = case.after.iter().map(raw).collect();
        let mut log = IdentityLog::verify(&after).unwrap();
        let error = log.extend(&raw(&case.entry)).unwrap_err();
        assert_eq!(why(&error), case.why, "{}: {error}", case.about);
    }
}
