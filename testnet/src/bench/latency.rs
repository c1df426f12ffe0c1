//! How long one message takes, at a calm rate: on one server, and between two.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use serde::Serialize;

use super::{
    Report, Setting, Watch,
    load::{self, Clients, Counts, Homes, Load, Outcome, Spread, Until},
    meter::Meter,
};

/// Bytes of a message.
const BODY_BYTES: usize = 200;
/// Messages before those that are measured, at the same rate.
const WARM_UP: u64 = 40;
/// Messages under way at once, at most; a calm rate never gets there.
const OUTSTANDING: usize = 1_024;

/// A pair and its rate.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Servers.
    pub servers: usize,
    /// Between two messages.
    pub every: Duration,
    /// Messages measured.
    pub messages: u64,
}

/// One pair on one server: 50 messages a second, 20 s.
pub const SAME_SERVER: Plan = Plan {
    servers: 1,
    every: Duration::from_millis(20),
    messages: 1_000,
};

/// A pair on two servers: 20 messages a second, 20 s.
pub const TWO_SERVERS: Plan = Plan {
    servers: 2,
    every: Duration::from_millis(50),
    messages: 400,
};

/// How long messages took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// From calling `send` until the receiver's event.
    #[serde(flatten)]
    pub delivery: Spread,
    /// From calling `send` until it was durable at the sender's home.
    pub ack: Spread,
    /// Bytes of a message's text.
    pub body_bytes: usize,
    /// What became of them.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Latency {
    fn of(outcome: Outcome) -> Self {
        Self {
            body_bytes: BODY_BYTES,
            counts: outcome.counts(),
            delivery: Spread::of(outcome.received.took),
            ack: Spread::of(outcome.acks),
        }
    }
}

/// Measures it.
///
/// # Errors
///
/// What failed. What did not arrive is no error.
pub async fn run(setting: &Setting<'_>, plan: Plan) -> anyhow::Result<Report<Latency>> {
    let mut network = setting.network(plan.servers, false).await?;
    let homes = Homes {
        from: 0,
        to: plan.servers - 1,
    };
    let clients = Clients::single(setting.transport);
    let pairs = load::pairs(&network, 1, homes, &clients).await?;
    let watch = Watch::start(network.directory()).await?;
    let delivered = Arc::new(AtomicU64::new(0));
    let load = |count| Load {
        body_bytes: BODY_BYTES,
        outstanding: OUTSTANDING,
        every: Some(plan.every),
        until: Until::Count(count),
    };
    let (_, pairs) = load::run(pairs, &load(WARM_UP), &delivered).await?;
    let start = Meter::read(&network)?;
    let (outcome, pairs) = load::run(pairs, &load(plan.messages), &delivered).await?;
    let cost = start.until(&Meter::read(&network)?, outcome.received.delivered);
    let syncs = watch.stop(&network).await?;
    drop(pairs);
    network.stop().await?;
    Ok(Report {
        figures: Latency::of(outcome),
        cost,
        syncs,
    })
}
