//! How many messages one server takes and delivers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::sync::watch;

use super::{
    Report, Setting, Watch,
    load::{self, Clients, Counts, Homes, Load, Spread, Until},
    meter::Meter,
};

/// Pairs, each with a conversation of its own.
const PAIRS: usize = 20;
/// Messages of a pair under way at once.
const OUTSTANDING: usize = 16;
/// Bytes of a message.
const BODY_BYTES: usize = 200;
/// Time that does not count.
const WARM_UP: Duration = Duration::from_secs(2);
/// Time that counts.
const MEASURED: Duration = Duration::from_secs(15);

/// What came of the pressing; counts are of the whole run, warm-up and end included.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Throughput {
    /// From calling `send` until the receiver's event, with all slots in use.
    #[serde(flatten)]
    pub delivery: Spread,
    /// From calling `send` until it was durable.
    pub ack: Spread,
    /// Pairs.
    pub pairs: usize,
    /// Messages of a pair under way at once.
    pub outstanding: usize,
    /// Bytes of a message's text.
    pub body_bytes: usize,
    /// What became of them.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Measures it.
///
/// # Errors
///
/// What failed. What did not arrive is no error.
pub async fn run(setting: &Setting<'_>) -> anyhow::Result<Report<Throughput>> {
    let mut network = setting.network(1, false).await?;
    let homes = Homes { from: 0, to: 0 };
    let clients = Clients::sharing(setting.transport);
    let pairs = load::pairs(&network, PAIRS, homes, &clients).await?;
    let watch = Watch::start(network.directory()).await?;
    let delivered = Arc::new(AtomicU64::new(0));
    let (stop, told) = watch::channel(false);
    let load = Load {
        body_bytes: BODY_BYTES,
        outstanding: OUTSTANDING,
        every: None,
        until: Until::Told(told),
    };
    let window = async {
        tokio::time::sleep(WARM_UP).await;
        let (start, before) = (Meter::read(&network)?, delivered.load(Ordering::Relaxed));
        tokio::time::sleep(MEASURED).await;
        let (end, after) = (Meter::read(&network)?, delivered.load(Ordering::Relaxed));
        stop.send_replace(true);
        anyhow::Ok(start.until(&end, after - before))
    };
    let ((outcome, pairs), cost) = tokio::try_join!(load::run(pairs, &load, &delivered), window)?;
    let syncs = watch.stop(&network).await?;
    drop(pairs);
    network.stop().await?;
    let figures = Throughput {
        pairs: PAIRS,
        outstanding: OUTSTANDING,
        body_bytes: BODY_BYTES,
        counts: outcome.counts(),
        delivery: Spread::of(outcome.received.took),
        ack: Spread::of(outcome.acks),
    };
    Ok(Report {
        figures,
        cost,
        syncs,
    })
}
