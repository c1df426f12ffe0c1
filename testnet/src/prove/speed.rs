//! The claim `speed` (P8): a message takes little more than the disk's own syncs, and the server
//! takes many of them with little of the processor.
//!
//! Broken, every sync of the servers' logs takes 25 ms longer, as with a log that waits for more
//! before it syncs; the probe, which is not the servers', stays as it is.

use std::path::PathBuf;

use comity_sdk::Transport;

use crate::{
    bench::{Report, Setting, latency, load::Counts, throughput},
    claims::{Claim, Context, Outcome, Promise, Run},
};

/// What a server on the same machine may add to one sync, in milliseconds.
const SAME_SERVER_MS: f64 = 2.0;
/// What two servers may add to their two syncs, in milliseconds.
const TWO_SERVERS_MS: f64 = 3.0;
/// Messages delivered in a second.
const MSGS_PER_S_MIN: f64 = 6_000.0;
/// Processor time of the server for 1,000 of them, in seconds.
const CPU_S_PER_1000_MAX: f64 = 0.25;
/// Memory of the server afterwards, in MB.
const RSS_MB_MAX: f64 = 200.0;

/// The claim.
#[derive(Clone, Copy, Debug)]
pub struct Speed;

impl Claim for Speed {
    fn name(&self) -> &'static str {
        "speed"
    }

    fn says(&self) -> &'static str {
        "a message takes a sync and 2 ms on one server, two syncs and 3 ms over two; a server \
         delivers 6,000 a second with a quarter of a second of processor for 1,000"
    }

    fn promise(&self) -> Promise {
        Promise::P8
    }

    fn quick(&self) -> bool {
        false
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(run(context, broken))
    }
}

async fn run(context: &Context, broken: bool) -> anyhow::Result<Outcome> {
    let server_args: Vec<String> = if broken {
        ["--lossy", "--slow-sync-ms", "25"].map(String::from).into()
    } else {
        Vec::new()
    };
    let own = claim_directory(context, Speed.name(), broken)?;
    let (same, two, pressed) = (own.join("same"), own.join("two"), own.join("pressed"));
    let setting = |directory| Setting {
        directory,
        transport: Transport::Quic,
        server_args: &server_args,
    };
    let same = latency::run(&setting(&same), latency::SAME_SERVER).await?;
    let two = latency::run(&setting(&two), latency::TWO_SERVERS).await?;
    let pressed = throughput::run(&setting(&pressed)).await?;
    std::fs::remove_dir_all(&own)?;
    Ok(outcome(&same, &two, &pressed))
}

/// A directory of a run's own, empty.
///
/// # Errors
///
/// If what an earlier run left there cannot be removed.
pub(super) fn claim_directory(
    context: &Context,
    claim: &str,
    broken: bool,
) -> std::io::Result<PathBuf> {
    let name = format!("{claim}{}", if broken { "-broken" } else { "" });
    let directory = context.directory.join(name);
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(directory),
    }
}

fn outcome(
    same: &Report<latency::Latency>,
    two: &Report<latency::Latency>,
    pressed: &Report<throughput::Throughput>,
) -> Outcome {
    let sync = |syncs: &crate::bench::Syncs| syncs.fdatasync_serving.unwrap_or_default().p50_ms;
    let (same_sync, two_sync) = (sync(&same.syncs), sync(&two.syncs));
    let all = [
        same.figures.counts,
        two.figures.counts,
        pressed.figures.counts,
    ];
    let delivered: u64 = all.iter().map(|counts| counts.delivered).sum();
    Outcome::of(delivered)
        .figure("whole", all.iter().all(Counts::whole))
        .equals("whole", true)
        .figure("same_fdatasync_p50_ms", same_sync)
        .figure("same_p50_ms", same.figures.delivery.p50_ms)
        .max("same_p50_ms", same_sync + SAME_SERVER_MS)
        .figure("same_p99_ms", same.figures.delivery.p99_ms)
        .figure("same_ack_p50_ms", same.figures.ack.p50_ms)
        .figure("two_fdatasync_p50_ms", two_sync)
        .figure("two_p50_ms", two.figures.delivery.p50_ms)
        .max("two_p50_ms", 2.0 * two_sync + TWO_SERVERS_MS)
        .figure("two_p99_ms", two.figures.delivery.p99_ms)
        .figure("msgs_per_s", pressed.cost.msgs_per_s)
        .min("msgs_per_s", MSGS_PER_S_MIN)
        .figure("server_cpu_s_per_1000", pressed.cost.server_cpu_s_per_1000)
        .max("server_cpu_s_per_1000", CPU_S_PER_1000_MAX)
        .figure("server_rss_mb", pressed.cost.server_rss_mb)
        .max("server_rss_mb", RSS_MB_MAX)
        .figure("client_cpu_s", pressed.cost.client_cpu_s)
        // What made the figures worse and was not ours.
        .figure("same_other_cpu_s", same.cost.other_cpu_s)
        .figure("two_other_cpu_s", two.cost.other_cpu_s)
        .figure("pressed_other_cpu_s", pressed.cost.other_cpu_s)
        .figure("load_1m", same.cost.load_1m_before)
}
