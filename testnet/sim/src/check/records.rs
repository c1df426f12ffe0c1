//! Root records: who may have made them, which of them stands, and what they say of the members.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    ids::{ConversationId, RootId, ServerId, UserId},
    root::{RawRoot, RootSigner},
    signing::{self, Domain},
};

use super::{
    Violation, healed,
    history::{Held, History},
    oracle::{Oracle, Owner},
};
use crate::world::World;

/// Records that were held, by what they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Leave the owner as he was.
    pub(crate) checkpoints: BTreeSet<RootId>,
    /// Make another the owner.
    pub(crate) transfers: BTreeSet<RootId>,
    /// Follow what another follows too.
    pub(crate) twins: BTreeSet<RootId>,
}

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

pub(super) fn seen(history: &History, owner: Owner) -> Seen {
    let mut seen = Seen::default();
    let mut first: BTreeMap<Option<usize>, RootId> = BTreeMap::new();
    for (r, record) in history.records.iter().enumerate() {
        if before(history, r, &owner).owner != record.root.owner {
            seen.transfers.insert(record.id);
        } else {
            seen.checkpoints.insert(record.id);
        }
        if let Some(other) = first.insert(record.prev, record.id) {
            seen.twins.extend([other, record.id]);
        }
    }
    seen
}

/// Every record is signed by who may make it, says of the members what the rules say, and no honest
/// steward signed two on one.
pub(super) fn well_made(
    world: &World,
    history: &History,
    held: &Held<'_>,
    owner: Owner,
) -> Result<(), Violation> {
    let mut noted = BTreeSet::new();
    for (r, record) in history.records.iter().enumerate() {
        let before = before(history, r, &owner);
        signed_by_the_right_ones(world, &record.id, held.records[&record.id], &before, {
            let root = &record.root;
            let same = (root.owner, root.home) == (before.owner, before.home);
            same && root.stewards == before.stewards
        })?;
        for signature in &held.records[&record.id].signatures {
            let RootSigner::Steward { server, .. } = signature.by else {
                continue;
            };
            let honest = world.honest().find(|n| world.servers[*n].id == server);
            if let Some(n) = honest
                && !noted.insert((record.prev, n))
            {
                let what = format!("server {n} signed two root records on one, {}", record.id);
                return Err(Violation::new("P3", what));
            }
        }
        let members = Oracle::at_record(history, owner, r).digest();
        if record.root.digest != Some(members) {
            let what = format!("{} is held and tells other members", record.id);
            return Err(Violation::new("P3", what));
        }
    }
    Ok(())
}

fn signed_by_the_right_ones(
    world: &World,
    id: &RootId,
    raw: &RawRoot,
    before: &Before<'_>,
    checkpoint: bool,
) -> Result<(), Violation> {
    let owner_signed = raw.signatures.iter().any(|signature| {
        let key = match signature.by {
            RootSigner::Device(key) if world.ledger.has_device(&before.owner, &key) => key,
            RootSigner::Home(key)
                if checkpoint && world.ledger.is_home_key(&before.owner, &key) =>
            {
                key
            }
            _ => return false,
        };
        signing::verify(&key, Domain::Root, id.as_bytes(), &signature.signature).is_ok()
    });
    let noted = before.stewards.iter().filter(|steward| {
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
    if owner_signed && 2 * noted.count() > before.stewards.len() {
        return Ok(());
    }
    let what = format!("{id} is held, and who owns the conversation did not make it");
    Err(Violation::new("authorship", what))
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
    let right = Oracle::new(whole, owner).newest_record();
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
