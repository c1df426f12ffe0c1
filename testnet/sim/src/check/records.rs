//! Root records: who may have made them, which of them stands, and what they say of the members.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    ids::{ConversationId, RootId, ServerId, UserId},
    limits::SUCCESSION_MS,
    root::{RawRoot, RootSigner, SignedRoot},
    signing::{self, Domain},
};

use super::{
    Violation, healed,
    history::{Held, History},
    oracle::{Oracle, Owner},
};
use crate::{server::Server, world::World};

/// Records that were held, by what they are. One may be several: a `checkpoint` changes nobody and
/// nothing, a `transfer` the owner, a `succession` him without his word, `stewards` who signs the
/// next, one signed `together` has notes of several stewards, and `twin`s follow the same.
pub(crate) type Seen = BTreeMap<&'static str, BTreeSet<RootId>>;

/// What a record follows.
struct Before<'a> {
    owner: UserId,
    home: ServerId,
    stewards: &'a [ServerId],
}

fn before<'a>(history: &'a History, r: usize, owner: &'a Owner) -> Before<'a> {
    match history.records[r].prev {
        Some(prev) => {
            let root = &history.records[prev].root;
            Before {
                owner: root.owner,
                home: root.home,
                stewards: &root.stewards,
            }
        }
        None => Before {
            owner: owner.user,
            home: owner.home,
            stewards: std::slice::from_ref(&owner.home),
        },
    }
}

/// What the records are; their signatures were checked.
pub(super) fn seen(history: &History, held: &Held<'_>, owner: Owner) -> Seen {
    let mut seen = Seen::new();
    let mut first: BTreeMap<Option<usize>, RootId> = BTreeMap::new();
    for (r, record) in history.records.iter().enumerate() {
        let (before, id) = (before(history, r, &owner), record.id);
        let signatures = &held.records[&id].signatures;
        let same_stewards = before.stewards == record.root.stewards;
        let kind = if is_succession(held.records[&id]) {
            "succession"
        } else if before.owner != record.root.owner {
            "transfer"
        } else if same_stewards {
            "checkpoint"
        } else {
            "stewards"
        };
        let notes = signatures.iter().filter(|s| is_note(&s.by));
        let together = notes.count() > 1;
        let kinds = [
            Some(kind),
            (kind == "transfer" && !same_stewards).then_some("stewards"),
            together.then_some("together"),
        ];
        for kind in kinds.into_iter().flatten() {
            seen.entry(kind).or_default().insert(id);
        }
        if let Some(other) = first.insert(record.prev, id) {
            seen.entry("twin").or_default().extend([other, id]);
        }
    }
    seen
}

const fn is_note(by: &RootSigner) -> bool {
    matches!(by, RootSigner::Steward { .. })
}

/// Nobody made it but stewards.
fn is_succession(raw: &RawRoot) -> bool {
    raw.signatures
        .iter()
        .all(|signature| is_note(&signature.by))
}

/// P3: a steward signs that somebody follows an owner only if it did not reach his server for as long
/// as that takes. What it signed once it may sign again.
pub(crate) fn signs(
    world: &mut World,
    n: usize,
    conversation: ConversationId,
    raw: &RawRoot,
) -> Result<(), Violation> {
    let id = SignedRoot::id_of(raw);
    let server = &world.servers[n];
    let known = server.rows.known.get(&conversation);
    let before = SignedRoot::decode(raw).ok().and_then(|root| root.prev);
    let before = before.and_then(|id| known?.root_of(&id, &server.disk.log));
    if !is_succession(raw) || !world.ledger.is_first_note(n, id) {
        return Ok(());
    }
    let home = before.and_then(|before| {
        let home = |server: &Server| server.id == before.home;
        world.servers.iter().position(home)
    });
    let since = home.map_or(0, |home| world.now - world.contact(n, home));
    if since >= SUCCESSION_MS {
        return Ok(());
    }
    let what = format!(
        "server {n} signs that somebody follows the owner of {conversation}, whose server it reached {} s ago",
        since / 1_000
    );
    Err(Violation::new("P3", what))
}

/// Every record is signed by who may make it and says of the members what the rules say. Where all
/// stewards are honest there is one of each number.
pub(super) fn well_made(
    world: &World,
    history: &History,
    held: &Held<'_>,
    owner: Owner,
) -> Result<(), Violation> {
    let honest = |id: &ServerId| world.honest().any(|n| world.servers[n].id == *id);
    let mut first = BTreeSet::new();
    for (r, record) in history.records.iter().enumerate() {
        let (before, raw) = (before(history, r, &owner), held.records[&record.id]);
        let there = Oracle::at_record(history, owner, r);
        let heir = (record.root.owner, record.root.home);
        let right = if is_succession(raw) {
            there.heir(before.owner) == Some(heir) && record.root.stewards == before.stewards
        } else {
            let same = heir == (before.owner, before.home);
            let checkpoint = same && record.root.stewards == before.stewards;
            owner_signed(world, &record.id, raw, before.owner, checkpoint)
        };
        if !right || !noted(world, &record.id, raw, before.stewards) {
            let id = record.id;
            let what = format!(
                "{id} is held, and those who decide about it did not make it: {heir:?} by {:?}, who follows is {:?}",
                raw.signatures.iter().map(|s| s.by).collect::<Vec<_>>(),
                there.heir(before.owner)
            );
            return Err(Violation::new("authorship", what));
        }
        if !first.insert(record.prev) && before.stewards.iter().all(honest) {
            let what = format!("honest stewards made {} beside another record", record.id);
            return Err(Violation::new("P3", what));
        }
        if record.root.digest != Some(there.digest()) {
            let what = format!("{} is held and tells other members", record.id);
            return Err(Violation::new("P3", what));
        }
    }
    Ok(())
}

fn owner_signed(
    world: &World,
    id: &RootId,
    raw: &RawRoot,
    owner: UserId,
    checkpoint: bool,
) -> bool {
    raw.signatures.iter().any(|signature| {
        let key = match signature.by {
            RootSigner::Device(key) if world.ledger.has_device(&owner, &key) => key,
            RootSigner::Home(key) if checkpoint && world.ledger.is_home_key(&owner, &key) => key,
            _ => return false,
        };
        signing::verify(&key, Domain::Root, id.as_bytes(), &signature.signature).is_ok()
    })
}

/// A majority of these stewards signed.
fn noted(world: &World, id: &RootId, raw: &RawRoot, stewards: &[ServerId]) -> bool {
    let noted = stewards.iter().filter(|steward| {
        let server = world.servers.iter().find(|s| s.id == **steward);
        raw.signatures.iter().any(|signature| {
            let by =
                matches!(signature.by, RootSigner::Steward { server, .. } if server == **steward);
            let (Some(server), Some(ballot)) = (server, raw.ballot) else {
                return false;
            };
            let key = server.key.public();
            by && ballot.check(id, &key, &signature.signature).is_ok()
        })
    });
    2 * noted.count() > stewards.len()
}

/// Of what is held the record that stands is the one that everybody goes by: P3 where both of twins
/// are held, P4 where a record is lacking.
pub(super) fn newest(
    world: &World,
    conversation: &ConversationId,
    whole: &History,
    owner: Owner,
    parts: &[usize],
    nth: u64,
) -> Result<(), Violation> {
    let oracle = Oracle::new(whole, owner);
    let right = oracle.newest_record();
    let mut before = BTreeSet::new();
    let twins = whole.records.iter().any(|r| !before.insert(r.prev));
    let mut stood = world.ledger.stood(conversation);
    // Who makes twins undoes what stood; see where it is checked that only liars do.
    if let Some(id) = stood.find(|id| !twins && !oracle.has_record(id)) {
        let what = format!("{id} of {conversation} was told to stand and does not");
        return Err(Violation::new("P3", what));
    }
    for n in parts {
        let known = &world.servers[*n].rows.known[conversation];
        let goes_by = known.root.map(|root| root.id);
        if goes_by == right {
            continue;
        }
        let name = |id: Option<RootId>| id.map_or("record 0".to_owned(), |id| id.to_string());
        let twin = |id: RootId| {
            let of = |id| whole.record_ix.get(&id).map(|r| whole.records[*r].prev);
            let twins = whole.records.iter().filter(|r| Some(r.prev) == of(id));
            twins.count() > 1
        };
        // Somewhere on the way to where it stands it took the other of two.
        let chain = goes_by.and_then(|id| whole.record_ix.get(&id).copied());
        let mut chain = std::iter::successors(chain, |r| whole.records[*r].prev);
        let lost = chain.any(|r| twin(whole.records[r].id));
        let (name, right) = (name(goes_by), name(right));
        return Err(if lost {
            let what = format!("server {n} goes by {name} of {conversation}, and {right} stands");
            Violation::new("P3", what)
        } else {
            let what = format!(
                "server {n} lacks {right} of {conversation}, {}, and goes by {name}",
                healed(nth)
            );
            Violation::new("P4", what)
        });
    }
    Ok(())
}
