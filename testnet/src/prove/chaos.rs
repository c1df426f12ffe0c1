//! Faults at random, and nothing is lost, doubled or different.

use super::directory;
use crate::{
    chaos::{self, Counts, Run, WHOLE_MAX},
    claims::{Claim, Context, Outcome, Promise, Run as ClaimRun},
};

const SERVERS: usize = 3;
const SEED: u64 = 7;
const ROUNDS: u32 = 20;
/// The damage is done half way, and shows at the end however long the rest is.
const ROUNDS_BROKEN: u32 = 4;

/// See its `says`.
pub(super) struct Chaos;

impl Claim for Chaos {
    fn name(&self) -> &'static str {
        "chaos"
    }

    fn says(&self) -> &'static str {
        "while servers are killed, paused and cut off, every accepted message ends up once on every \
         server, in one order, and the servers are whole within 30 s"
    }

    fn promise(&self) -> Promise {
        Promise::P3
    }

    fn quick(&self) -> bool {
        false
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> ClaimRun<'a> {
        Box::pin(async move {
            let place = directory(context, self.name())?;
            let rounds = if broken { ROUNDS_BROKEN } else { ROUNDS };
            let script = chaos::script(SEED, SERVERS, rounds)?;
            let mut network = chaos::start(&place, SERVERS, SEED).await?;
            let run = Run {
                rounds,
                seed: SEED,
                restore_old_store: broken,
                quiet: true,
            };
            let summary = run.on(&mut network, script).await?;
            network.stop().await?;
            for told in summary.failures.iter().chain(&summary.report.differences) {
                eprintln!("  {told}");
            }
            let Counts { kills, stops, cuts } = summary.counts;
            Ok(Outcome::of(summary.acked)
                .figure("rounds", u64::from(rounds))
                .figure("seed", SEED)
                .figure("acked_lost", summary.acked_lost)
                .equals("acked_lost", 0_u64)
                .figure("duplicate", summary.duplicate)
                .equals("duplicate", 0_u64)
                .figure("out_of_order", summary.out_of_order)
                .equals("out_of_order", 0_u64)
                .figure("failures", summary.failures.len() as u64)
                .equals("failures", 0_u64)
                .figure("equal", summary.equal)
                .equals("equal", true)
                .figure("whole", summary.whole)
                .equals("whole", true)
                .figure("whole_after_s", summary.whole_after_s)
                .max("whole_after_s", WHOLE_MAX.as_secs_f64())
                .figure("kills", kills)
                .min("kills", 1.0)
                .figure("stops", stops)
                .min("stops", 1.0)
                .figure("cuts", cuts)
                .min("cuts", 1.0))
        })
    }
}
