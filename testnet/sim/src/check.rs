//! Whether the promises hold: written a second time and plainly, from what users sent, what they
//! were answered, and the signed commits that the servers hold.

mod history;
mod ledger;
mod oracle;
mod reading;
mod records;
mod retention;

pub(crate) use ledger::Ledger;
pub(crate) use records::signs;
pub(crate) use retention::{expires, kept};

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    ids::{CommitId, ConversationId, EventId, UserId},
    limits::WAITING_ITEMS_MAX,
    root::SignedRoot,
};

use crate::{
    disk::QUEUE_MAX,
    rows::{Body, Known, Marks},
    server::Server,
    steps::{HEALS_MS, ROUNDS_MS},
    world::World,
};
use history::{Held, History};
use ledger::Birth;
use oracle::{Member, Oracle, Owner};
use reading::Reading;
use records::Seen;

/// A broken promise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Which: P1 to P7, `authorship` or `secrecy`.
    pub promise: &'static str,
    /// What is wrong, and where.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(promise: &'static str, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { promise, what }
    }
}

/// P7: nothing that waits in a server is more than its named bound.
pub(crate) fn bounds(server: &Server) -> Result<(), Violation> {
    let waits = server.disk.waiting();
    if waits > QUEUE_MAX {
        let what = format!("{waits} records wait for the disk");
        return Err(Violation::new("P7", what));
    }
    let most = server.hoard.values().map(Vec::len).max().unwrap_or(0);
    if most > WAITING_ITEMS_MAX {
        let what = format!("{most} items of one conversation wait");
        return Err(Violation::new("P7", what));
    }
    Ok(())
}

/// Adds what a server holds of one conversation.
fn collect<'a>(server: &'a Server, known: &Known, held: &mut Held<'a>) {
    for number in &known.order {
        match &server.disk.log[*number].body {
            Body::Commit(record) => {
                let events = record.events.iter().map(|entry| &entry.raw).collect();
                held.commits.insert(record.id, (&record.commit, events));
            }
            Body::Root(record) => {
                let id = SignedRoot::id_of(&record.raw);
                held.records.insert(id, &record.raw);
            }
            _ => {}
        }
    }
}

/// Looks at everything after a rest.
pub(crate) fn everything(world: &mut World, nth: u64) -> Result<(), Violation> {
    let conversations: BTreeSet<ConversationId> = world
        .honest()
        .flat_map(|n| world.servers[n].rows.known.keys().copied())
        .collect();
    for n in world.honest() {
        world.ledger.all_there(&world.servers[n], n)?;
    }
    for conversation in conversations {
        let records = one(world, conversation, nth)?;
        world.ledger.count_records(records);
    }
    Ok(())
}

/// Looks at one conversation; gives the root records that were held of it.
fn one(world: &World, conversation: ConversationId, nth: u64) -> Result<Seen, Violation> {
    let holders: Vec<usize> = world
        .honest()
        .filter(|n| world.servers[*n].rows.known.contains_key(&conversation))
        .collect();
    let known = |n: usize| &world.servers[n].rows.known[&conversation];
    let mut union = Held::default();
    for n in &holders {
        collect(&world.servers[*n], known(*n), &mut union);
    }
    let whole = History::read(&union);
    world.ledger.authors(&whole)?;
    no_fork(world, &whole)?;
    let owner = match world.ledger.birth(&conversation) {
        Some(Birth::Group(owner)) => Some(*owner),
        _ => None,
    };
    if let Some(owner) = owner {
        records::well_made(world, &whole, &union, owner)?;
    }
    // Those that take part, by the commits of all of them.
    let members = match (owner, world.ledger.birth(&conversation)) {
        (Some(owner), _) => Oracle::new(&whole, owner).homes(),
        (None, Some(Birth::Direct(homes))) => homes.clone(),
        _ => return Ok(Seen::default()),
    };
    let parts: Vec<usize> = holders
        .iter()
        .copied()
        .filter(|n| members.contains(&world.servers[*n].id))
        .collect();
    let missing = world
        .honest()
        .find(|n| members.contains(&world.servers[*n].id) && !holders.contains(n));
    if let Some(n) = missing {
        let healed = healed(nth);
        let what =
            format!("server {n} has a member in {conversation} and does not know it {healed}");
        return Err(Violation::new("P4", what));
    }
    let seen = owner.map_or_else(Seen::default, |owner| records::seen(&whole, &union, owner));
    let Some(first) = parts.first().copied() else {
        return Ok(seen);
    };
    // Before the commits: those that have seen a record wait for it.
    if let Some(owner) = owner {
        let mut union = Held::default();
        for n in &parts {
            collect(&world.servers[*n], known(*n), &mut union);
        }
        let whole = History::read(&union);
        records::newest(world, &conversation, &whole, owner, &parts, nth)?;
    }
    let spared = Oracle::new(&whole, owner.unwrap_or(Owner::NOBODY)).made_up_for();
    same_commits(world, conversation, &parts, &spared, nth)?;
    let mut union = Held::default();
    collect(&world.servers[first], known(first), &mut union);
    let history = History::read(&union);
    if history.made.len() != union.commits.len() || history.records.len() != union.records.len() {
        let what =
            format!("server {first} holds commits of {conversation} without what they build on");
        return Err(Violation::new("P3", what));
    }
    for n in &parts {
        once(*n, &conversation, known(*n))?;
    }
    for n in &parts {
        let (a, b) = (known(first), known(*n));
        if reads(a) != reads(b) || a.members != b.members || a.state != b.state {
            let what = format!(
                "servers {first} and {n} hold the same commits of {conversation} and show {}",
                difference(a, b)
            );
            return Err(Violation::new("P3", what));
        }
    }
    if let Some(owner) = owner {
        as_the_rules_say(world, conversation, &history, owner, &parts)?;
    }
    world.ledger.once_or_void(world, &conversation, &parts)?;
    Ok(seen)
}

/// P2: no event is two lines.
fn once(n: usize, conversation: &ConversationId, known: &Known) -> Result<(), Violation> {
    let mut seen = BTreeSet::new();
    for (event, _) in known.lines.values() {
        if !seen.insert(*event) {
            let what = format!("server {n} shows {event} in {conversation} more than once");
            return Err(Violation::new("P2", what));
        }
    }
    Ok(())
}

/// P3: no honest home signs two commits on one in one epoch. In a new epoch it does, on purpose: what
/// its chain lost, or has too far ahead of a clock that was set back, it commits again.
fn no_fork(world: &World, history: &History) -> Result<(), Violation> {
    let mut chains = BTreeSet::new();
    for made in &history.made {
        let n = world
            .honest()
            .find(|n| world.servers[*n].id == made.commit.origin);
        if let Some(n) = n
            && !chains.insert((made.commit.origin, made.prev, made.commit.epoch))
        {
            let what = format!("server {n} forked its own chain; one branch is {}", made.id);
            return Err(Violation::new("P3", what));
        }
    }
    Ok(())
}

fn healed(nth: u64) -> String {
    let ms = if nth.is_multiple_of(2) {
        HEALS_MS - 1_000
    } else {
        ROUNDS_MS - 1_000
    };
    format!("{} s after contact", ms / 1_000)
}

/// P4 and P5: everybody holds what one of them holds, but for what is `spared`.
fn same_commits(
    world: &World,
    conversation: ConversationId,
    parts: &[usize],
    spared: &BTreeSet<CommitId>,
    nth: u64,
) -> Result<(), Violation> {
    let held = |n: usize| &world.servers[n].rows.known[&conversation].commits;
    for a in parts {
        for b in parts {
            let lacks = || {
                let lacks = held(*a).keys().filter(|id| !held(*b).contains_key(id));
                lacks.filter(|id| !spared.contains(id))
            };
            let Some(id) = lacks().copied().next() else {
                continue;
            };
            let bad = world.servers[*b].refused_in.contains(&conversation);
            let promise = if bad { "P5" } else { "P4" };
            let beside = if bad {
                ", where a bad item was refused before"
            } else {
                ""
            };
            let count = lacks().count();
            let what = format!(
                "server {b} lacks {count} commits of {conversation} that server {a} holds{beside}, {}; one is {id}",
                healed(nth)
            );
            return Err(Violation::new(promise, what));
        }
    }
    Ok(())
}

/// Lines in the order in which they are shown.
fn reads(known: &Known) -> Vec<(EventId, &Marks)> {
    known
        .lines
        .values()
        .map(|(id, marks)| (*id, marks))
        .collect()
}

fn difference(a: &Known, b: &Known) -> String {
    if a.members != b.members {
        return "other members".to_owned();
    }
    if a.state != b.state {
        return "another state".to_owned();
    }
    let (x, y) = (reads(a), reads(b));
    match x.iter().zip(&y).find(|(x, y)| x != y) {
        Some((x, y)) => format!("other lines, first {x:?} and {y:?}"),
        None => format!("{} and {} lines", x.len(), y.len()),
    }
}

/// P3 and P6 against the rules, recomputed.
fn as_the_rules_say(
    world: &World,
    conversation: ConversationId,
    history: &History,
    owner: Owner,
    parts: &[usize],
) -> Result<(), Violation> {
    let oracle = Oracle::new(history, owner);
    let reading = Reading::of(history, &oracle);
    let members = oracle.members();
    for n in parts {
        let known = &world.servers[*n].rows.known[&conversation];
        let shown = known.members.iter();
        let shown: BTreeMap<UserId, Member> = shown
            .map(|(user, (role, home))| {
                let (role, home) = (*role, *home);
                (*user, Member { role, home })
            })
            .collect();
        if shown != members {
            let other = members
                .keys()
                .chain(shown.keys())
                .find(|user| shown.get(*user) != members.get(*user));
            let of = |all: &BTreeMap<UserId, Member>| other.and_then(|u| all.get(u).cloned());
            let what = format!(
                "server {n} shows members of {conversation} that the rules do not give: {other:?} as {:?}, not {:?}",
                of(&shown),
                of(&members)
            );
            return Err(Violation::new("P3", what));
        }
        let right: Vec<_> = reading.lines.values().map(|(id, m)| (*id, m)).collect();
        let shown = reads(known);
        if shown != right {
            let at = shown.iter().zip(&right).position(|(a, b)| a != b);
            let of = |list: &[(EventId, &Marks)]| {
                at.and_then(|at| list.get(at).map(|l| format!("{l:?}")))
            };
            let what = format!(
                "server {n} shows {} lines of {conversation}, by the rules there are {}; first other {:?}, not {:?}",
                shown.len(),
                right.len(),
                of(&shown),
                of(&right)
            );
            return Err(Violation::new("P3", what));
        }
        world
            .ledger
            .gone(&world.servers[*n], *n, &reading.erased, "deleted")?;
    }
    Ok(())
}
