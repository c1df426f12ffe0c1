//! The home's counters as Prometheus text. Nothing here names a user or a conversation.

use std::{fmt::Write as _, sync::atomic::Ordering};

use crate::engine::Engine;

/// Counters of storage, engine, sessions and links.
pub(crate) fn text(engine: &Engine) -> String {
    let shared = &engine.shared;
    let stats = shared.storage.stats();
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = writeln!(
            out,
            "# HELP comity_{name} {help}\n# TYPE comity_{name} {kind}"
        );
        let _ = writeln!(out, "comity_{name} {value}");
    };
    #[expect(clippy::cast_precision_loss, reason = "counters stay far below 2^52")]
    let number = |n: u64| n as f64;
    let loaded = |counter: &std::sync::atomic::AtomicU64| number(counter.load(Ordering::Relaxed));
    metric(
        "events_accepted_total",
        "counter",
        "Events of local users made durable.",
        loaded(&shared.accepted),
    );
    metric(
        "events_taken_total",
        "counter",
        "Events made durable, of all homes.",
        loaded(&shared.taken),
    );
    metric(
        "events_refused_total",
        "counter",
        "Events of local users refused by authority.",
        loaded(&shared.refused),
    );
    metric(
        "updates_published_total",
        "counter",
        "Updates handed to sessions.",
        number(shared.hub.published()),
    );
    metric(
        "sessions_open",
        "gauge",
        "Open sessions.",
        number(shared.hub.open_sessions() as u64),
    );
    metric(
        "log_records",
        "gauge",
        "Records in the log.",
        number(stats.records),
    );
    metric(
        "log_bytes",
        "gauge",
        "Bytes of the log.",
        number(stats.log_bytes),
    );
    metric(
        "index_bytes",
        "gauge",
        "Bytes of the index.",
        number(stats.index_bytes),
    );
    metric(
        "log_sync_p50_seconds",
        "gauge",
        "Median of recent log syncs.",
        number(stats.sync_p50_us) / 1e6,
    );
    metric(
        "log_sync_p99_seconds",
        "gauge",
        "99th percentile of recent log syncs.",
        number(stats.sync_p99_us) / 1e6,
    );
    metric(
        "twin_records",
        "gauge",
        "Pairs of root records on one: stewards signed both.",
        number(shared.rows.twins().map_or(0, |twins| twins.len() as u64)),
    );
    metric(
        "forked_homes",
        "gauge",
        "Homes that forked their chain, over all conversations: with proof.",
        number(shared.rows.forks().map_or(0, |forks| forks.len() as u64)),
    );
    metric(
        "conversations_woken_total",
        "counter",
        "Conversations opened because something was due in them though nobody used them.",
        loaded(&shared.woken),
    );
    let peers = shared.replication.peers();
    let _ = writeln!(
        out,
        "# HELP comity_peer_waiting_commits Own commits that a peer has not stored.\n# TYPE comity_peer_waiting_commits gauge"
    );
    for peer in &peers {
        let _ = writeln!(
            out,
            "comity_peer_waiting_commits{{peer=\"{}\"}} {}",
            peer.name, peer.waiting_commits
        );
    }
    let _ = writeln!(
        out,
        "# HELP comity_peer_connected Whether the link to a peer is open.\n# TYPE comity_peer_connected gauge"
    );
    for peer in &peers {
        let _ = writeln!(
            out,
            "comity_peer_connected{{peer=\"{}\"}} {}",
            peer.name,
            u8::from(peer.connected)
        );
    }
    out
}
