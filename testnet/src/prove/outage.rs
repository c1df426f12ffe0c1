//! The claim `outage` (P4): what was sent to a server that was down is there soon after it is up
//! again, once and in order, with no new traffic.
//!
//! Broken, the links of the server that comes back are cut.

use comity_sdk::Transport;

use super::speed::claim_directory;
use crate::{
    bench::{
        Setting,
        outage::{self, MESSAGES},
    },
    claims::{Claim, Context, Outcome, Promise, Run},
};

/// From the restart's beginning until all messages are on the receiver's server, in seconds.
const SECONDS_MAX: f64 = 5.0;
/// What stands for never.
const NEVER_S: f64 = 1e9;

/// The claim.
#[derive(Clone, Copy, Debug)]
pub struct Outage;

impl Claim for Outage {
    fn name(&self) -> &'static str {
        "outage"
    }

    fn says(&self) -> &'static str {
        "100 messages sent while the receiver's server was down are there within 5 s of its \
         restart, once, in order, without a nudge"
    }

    fn promise(&self) -> Promise {
        Promise::P4
    }

    fn quick(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(run(context, broken))
    }
}

async fn run(context: &Context, broken: bool) -> anyhow::Result<Outcome> {
    let directory = claim_directory(context, Outage.name(), broken)?;
    let setting = Setting {
        directory: &directory,
        transport: Transport::Quic,
        server_args: &[],
    };
    let report = outage::run(&setting, broken).await?;
    std::fs::remove_dir_all(&directory)?;
    let (figures, counts) = (report.figures, report.figures.counts);
    Ok(Outcome::of(counts.sent)
        .figure("accepted", counts.accepted)
        .equals("accepted", MESSAGES)
        // At the client that was open all the time.
        .figure("delivered", counts.delivered)
        .equals("delivered", MESSAGES)
        .figure("duplicates", counts.duplicates)
        .equals("duplicates", 0_u64)
        .figure("out_of_order", counts.out_of_order)
        .equals("out_of_order", 0_u64)
        // In the history on the server that was down.
        .figure("in_history", figures.in_history)
        .equals("in_history", MESSAGES)
        .figure("wrong_in_history", figures.wrong_in_history)
        .equals("wrong_in_history", 0_u64)
        .figure(
            "seconds_after_restart",
            figures.seconds_after_restart.unwrap_or(NEVER_S),
        )
        .max("seconds_after_restart", SECONDS_MAX)
        .figure(
            "seconds_open_client",
            figures.seconds_open_client.unwrap_or(NEVER_S),
        )
        // Its pauses between attempts are drawn; after ten seconds one that breaks this limit is
        // drawn once in 30,000 runs.
        .max("seconds_open_client", SECONDS_MAX)
        .figure("ready_ms", figures.ready_ms)
        .figure("down_s", figures.down_s)
        .figure("other_cpu_s", report.cost.other_cpu_s))
}
