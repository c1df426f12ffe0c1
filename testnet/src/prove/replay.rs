//! A log and a made talk, and every server shows exactly that.

use std::{sync::Arc, time::Duration};

use comity_sdk::Transport;

use super::directory;
use crate::{
    chaos,
    claims::{Claim, Context, Outcome, Promise, Run},
    logs::{Format, Reader, script::Script},
    network::{Network, Options},
    replay::{self, Curtain, Pace, Stage, player, read_back},
};

const LOG: &str = include_str!("../../fixtures/talk.jsonl");
const SERVERS: usize = 3;
const SEED: u64 = 3;
/// Lines of the made talk.
const LINES: usize = 400;
/// Time for everything to be everywhere.
const WHOLE: Duration = Duration::from_secs(30);
/// With its links cut, a talk goes on for so long.
const BROKEN: Duration = Duration::from_secs(3);

/// See its `says`.
pub(super) struct Replay;

impl Claim for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn says(&self) -> &'static str {
        "what users of three servers say over QUIC and WebSocket is shown by every server once, \
         unchanged and in one order"
    }

    fn promise(&self) -> Promise {
        Promise::P2
    }

    fn quick(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(run(context, broken))
    }
}

#[derive(Default)]
struct Sums {
    lines: u64,
    missing: u64,
    duplicate: u64,
    different: u64,
    out_of_order: u64,
    unequal: u64,
}

async fn run(context: &Context, broken: bool) -> anyhow::Result<Outcome> {
    let place = directory(context, "replay")?;
    let regions = crate::cli::regions(SERVERS);
    let options = Options {
        regions,
        proxied: true,
        ..Options::new(place, &[])
    };
    let mut network = Network::start(&options).await?;
    network.linked(WHOLE).await?;
    let log = Script::read(Reader::new(LOG.as_bytes(), Format::JsonLines))?;
    let made = chaos::made(SEED, SERVERS, LINES)?;
    let mut sums = Sums::default();
    for (name, script) in [("log", Arc::new(log)), ("made", Arc::new(made))] {
        for transport in [Transport::Quic, Transport::WebSocket] {
            let tag = format!("{name}-{}", replay::transport_name(transport));
            play(&network, &script, &tag, transport, broken, &mut sums).await?;
        }
    }
    network.stop().await?;
    Ok(Outcome::of(sums.lines)
        .figure("missing", sums.missing)
        .equals("missing", 0_u64)
        .figure("duplicate", sums.duplicate)
        .equals("duplicate", 0_u64)
        .figure("different", sums.different)
        .equals("different", 0_u64)
        .figure("out_of_order", sums.out_of_order)
        .equals("out_of_order", 0_u64)
        .figure("unequal_histories", sums.unequal)
        .equals("unequal_histories", 0_u64))
}

/// Plays one script. Broken: without links, so that nothing reaches the other servers.
async fn play(
    network: &Network,
    script: &Arc<Script>,
    tag: &str,
    transport: Transport,
    broken: bool,
    sums: &mut Sums,
) -> anyhow::Result<()> {
    let stage = Stage::set(network, tag, tag, transport).await?;
    let clients = replay::cast(network, &stage, script, tag, &[transport]).await?;
    let (curtain, bar) = (Curtain::default(), indicatif::ProgressBar::hidden());
    let playing = player::play(
        stage.conversation,
        script,
        &clients,
        Pace::Max,
        &curtain,
        &bar,
    );
    let played = if broken {
        cut_all(network, true);
        let falls = async {
            tokio::time::sleep(BROKEN).await;
            curtain.fall();
        };
        tokio::join!(playing, falls).0
    } else {
        playing.await
    };
    anyhow::ensure!(played.failures.is_empty(), "{}", played.failures.join("; "));
    let (said, played) = if broken {
        chaos::said(script, played)
    } else {
        network.settled(WHOLE).await?;
        (Script::clone(script), played)
    };
    let (report, out_of_order) =
        read_back::compare(network, &stage, &said, &clients, &played).await?;
    for difference in &report.differences {
        eprintln!("  {tag}: {difference}");
    }
    sums.lines += report.lines;
    sums.missing += report.missing;
    sums.duplicate += report.duplicate;
    sums.different +=
        report.unexpected + report.wrong_author + report.wrong_body + report.wrong_replies;
    sums.out_of_order += out_of_order;
    sums.unequal += u64::from(!report.equal);
    cut_all(network, false);
    network.settled(WHOLE).await?;
    replay::close(&clients).await;
    for reader in &stage.readers {
        let _ = reader.client.close().await;
    }
    Ok(())
}

fn cut_all(network: &Network, cut: bool) {
    for a in 0..network.nodes.len() {
        for b in a + 1..network.nodes.len() {
            network.cut(a, b, cut);
        }
    }
}
