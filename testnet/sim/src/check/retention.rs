//! The policy `keep_days`: what is too old is gone everywhere, what is not is not let go, and of what
//! goes nothing but the text does.

use std::collections::BTreeSet;

use comity_protocol::{
    event::Act,
    ids::{CommitId, ConversationId, EventId},
    limits::DAY_MS,
    time::Timestamp,
};

use super::{
    Violation, collect,
    history::{At, Held, History},
    ledger::Birth,
    oracle::{Oracle, Owner},
    reading::shown,
};
use crate::{
    server::{EPOCH_MS, Server},
    world::World,
};

/// Owner of a group; none of a direct conversation, which keeps everything.
fn owner(world: &World, conversation: &ConversationId) -> Option<Owner> {
    match world.ledger.birth(conversation) {
        Some(Birth::Group(owner)) => Some(*owner),
        _ => None,
    }
}

/// Messages and edits that were said before a time: where they are shown, if they are.
fn older(history: &History, oracle: &Oracle<'_>, than: Timestamp) -> BTreeSet<EventId> {
    let shown = shown(history, oracle);
    let old = |y: &At| {
        let is_text = matches!(
            history.event(*y).act,
            Act::Message { .. } | Act::Edit { .. }
        );
        let id = history.id(*y);
        let here = shown.get(&id).is_none_or(|first| first == y);
        is_text && here && history.place(*y).hlc.timestamp() < than
    };
    let old = history.appearances().filter(old);
    old.map(|y| history.id(y)).collect()
}

/// P1: what a server lets go is too old by what it holds.
pub(crate) fn expires(
    world: &mut World,
    n: usize,
    conversation: ConversationId,
    late: Option<CommitId>,
    events: &[EventId],
    at: Timestamp,
) -> Result<(), Violation> {
    let server = &world.servers[n];
    let mut held = Held::default();
    if let Some(known) = server.rows.known.get(&conversation) {
        collect(server, known, &mut held);
    }
    let history = History::read(&held);
    // A commit is judged by what was held before it, and may change for how long contents are kept.
    held.commits.retain(|id, _| Some(*id) != late);
    let without = History::read(&held);
    let mut old = BTreeSet::new();
    if let Some(owner) = owner(world, &conversation)
        && let Some(days) = Oracle::new(&without, owner).keep_days()
    {
        old = older(&history, &Oracle::new(&history, owner), before(at, days));
    }
    if let Some(young) = events.iter().find(|event| !old.contains(event)) {
        let what = format!(
            "server {n} lets the text of {young} of {conversation} go before its days are over"
        );
        return Err(Violation::new("P1", what));
    }
    world.ledger.expired(n, events);
    Ok(())
}

const fn before(now: Timestamp, days: u64) -> Timestamp {
    Timestamp(now.0.saturating_sub(days * DAY_MS))
}

/// P6: what became too old in the night is on no disk; P1: that it was said still is.
pub(crate) fn kept(world: &World) -> Result<(), Violation> {
    let all: BTreeSet<ConversationId> = world
        .honest()
        .flat_map(|n| world.servers[n].rows.keeping.iter().copied())
        .collect();
    for conversation in all {
        kept_in(world, conversation)?;
    }
    Ok(())
}

fn kept_in(world: &World, conversation: ConversationId) -> Result<(), Violation> {
    let Some(owner) = owner(world, &conversation) else {
        return Ok(());
    };
    let known = |n: usize| world.servers[n].rows.known.get(&conversation);
    let mut held = Held::default();
    for n in world.honest() {
        if let Some(known) = known(n) {
            collect(&world.servers[n], known, &mut held);
        }
    }
    let history = History::read(&held);
    let oracle = Oracle::new(&history, owner);
    let Some(days) = oracle.keep_days() else {
        return Ok(());
    };
    let homes = oracle.homes();
    let parts = world.honest().filter(|n| {
        let takes_part = homes.contains(&world.servers[*n].id);
        takes_part && known(*n).is_some()
    });
    for n in parts {
        let server = &world.servers[n];
        let old = older(&history, &oracle, before(at_night(world, server), days));
        world.ledger.gone(server, n, &old, "whose days are over")?;
        let lost = |event: &&EventId| server.rows.raw(&server.disk.log, event).is_none();
        if let Some(event) = old.iter().find(lost) {
            let what = format!("server {n} holds nothing of {event} any more, not only no text");
            return Err(Violation::new("P1", what));
        }
    }
    Ok(())
}

/// The wall clock of a server right after the days of the night.
fn at_night(world: &World, server: &Server) -> Timestamp {
    let at = EPOCH_MS + server.leapt_ms + world.night_at;
    Timestamp(at.saturating_add_signed(server.skew_ms))
}
