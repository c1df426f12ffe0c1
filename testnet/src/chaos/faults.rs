//! What is done to the servers and links: planned from the seed, done in rounds, always undone.

use std::{fs, io, path::Path, time::Duration};

use anyhow::Context as _;
use indicatif::ProgressBar;
use serde::Serialize;

use super::{Random, Run};
use crate::network::{Network, Node};

/// Time in which the faults of a round begin.
const BEGIN_MS: u64 = 1_500;
/// Longest cut of a link.
const CUT_MAX_MS: u64 = 20_000;
/// Longest pause of a server.
const STOP_MAX_MS: u64 = 12_000;
/// One in so many cuts and pauses is long: longer than what peers and clients take for a moment's
/// silence.
const LONG_ONE_IN: u64 = 6;
/// Longest time without faults after a round.
const CALM_MS: u64 = 1_500;
/// Time of the longest round, the starts of servers not counted.
pub(super) const ROUND_MAX: Duration = Duration::from_millis(BEGIN_MS + CUT_MAX_MS + CALM_MS);
/// Time in which a server under damage must accept a line.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Faults done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Servers killed and started again.
    pub kills: u64,
    /// Servers paused and resumed.
    pub stops: u64,
    /// Links cut and mended.
    pub cuts: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    /// kill -9; started again after the time.
    Kill(usize),
    /// SIGSTOP; SIGCONT after the time.
    Stop(usize),
    /// Nothing gets through between two servers, for the time.
    Cut(usize, usize),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Fault {
    after: Duration,
    what: What,
    time: Duration,
}

/// The faults of a round, in the order of their beginnings. The first round has all kinds, so that
/// no run is without one.
fn plan(seed: u64, round: u32, servers: usize) -> Vec<Fault> {
    let mut random = Random::new(seed, round.into());
    let mut kinds = if round == 0 {
        vec![0, 1, 2]
    } else {
        vec![u64::from(round % 3)]
    };
    for _ in 0..random.below(3) {
        kinds.push(random.below(3));
    }
    let mut fault = |kind: u64| {
        let server = random.place(servers);
        let long = random.one_in(LONG_ONE_IN);
        let after = random.time(0, BEGIN_MS);
        let (what, time) = match kind {
            0 => (What::Kill(server), random.time(50, 1_500)),
            1 if long => (What::Stop(server), random.time(5_000, STOP_MAX_MS)),
            1 => (What::Stop(server), random.time(500, 4_000)),
            _ => {
                let other = (server + 1 + random.place(servers - 1)) % servers;
                let to = if long { CUT_MAX_MS } else { 5_000 };
                (What::Cut(server, other), random.time(to / 5, to))
            }
        };
        Fault { after, what, time }
    };
    let mut faults: Vec<Fault> = kinds.into_iter().map(&mut fault).collect();
    faults.sort_by_key(|fault| fault.after);
    faults
}

/// Does all rounds of a run.
pub(super) async fn rounds(
    network: &mut Network,
    run: Run,
    bar: &ProgressBar,
) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for round in 0..run.rounds {
        if run.restore_old_store && round == run.rounds / 2 {
            restore_old_store(network, 0).await?;
        }
        let faults = plan(run.seed, round, network.nodes.len());
        tracing::info!(round, ?faults, "faults");
        bar.set_message(told(&faults));
        self::round(network, &faults).await?;
        for fault in &faults {
            match fault.what {
                What::Kill(_) => counts.kills += 1,
                What::Stop(_) => counts.stops += 1,
                What::Cut(..) => counts.cuts += 1,
            }
        }
        bar.inc(1);
        let calm = Random::new(!run.seed, round.into()).time(0, CALM_MS);
        if round + 1 < run.rounds {
            tokio::time::sleep(calm).await;
        }
    }
    Ok(counts)
}

fn told(faults: &[Fault]) -> String {
    let one = |fault: &Fault| match fault.what {
        What::Kill(server) => format!("kill {server}"),
        What::Stop(server) => format!("stop {server}"),
        What::Cut(a, b) => format!("cut {a}-{b}"),
    };
    faults.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Does the faults of a round, each at its time; faults of one server follow one another, all
/// others overlap. Everything runs and is linked again afterwards, also after an error.
async fn round(network: &mut Network, faults: &[Fault]) -> anyhow::Result<()> {
    let mut nodes = std::mem::take(&mut network.nodes);
    let links: &Network = network;
    let began = tokio::time::Instant::now();
    let on_links = async {
        let cuts = faults.iter().map(|fault| async {
            if let What::Cut(a, b) = fault.what {
                tokio::time::sleep_until(began + fault.after).await;
                links.cut(a, b, true);
                tokio::time::sleep(fault.time).await;
                // Two cuts of one link that overlap end with the first: no harm.
                links.cut(a, b, false);
            }
        });
        futures::future::join_all(cuts).await;
    };
    let on_nodes = nodes.iter_mut().enumerate().map(|(at, node)| async move {
        for fault in faults {
            match fault.what {
                What::Kill(server) if server == at => {
                    tokio::time::sleep_until(began + fault.after).await;
                    kill(node, fault.time).await?;
                }
                What::Stop(server) if server == at => {
                    tokio::time::sleep_until(began + fault.after).await;
                    node.process.pause()?;
                    tokio::time::sleep(fault.time).await;
                    node.process.resume()?;
                }
                _ => {}
            }
        }
        anyhow::Ok(())
    });
    let (on_nodes, ()) = tokio::join!(futures::future::join_all(on_nodes), on_links);
    network.nodes = nodes;
    on_nodes.into_iter().collect()
}

async fn kill(node: &mut Node, down: Duration) -> anyhow::Result<()> {
    node.process
        .kill()
        .await
        .with_context(|| format!("killing {}", node.name))?;
    tokio::time::sleep(down).await;
    start(node).await
}

async fn start(node: &mut Node) -> anyhow::Result<()> {
    node.process
        .restart()
        .await
        .with_context(|| format!("starting {} again", node.name))
}

/// Copies a server's store, lets it accept lines while no other server hears of them, and puts the
/// copy back.
async fn restore_old_store(network: &mut Network, at: usize) -> anyhow::Result<()> {
    let others: Vec<usize> = (0..network.nodes.len()).filter(|i| *i != at).collect();
    for other in &others {
        network.cut(at, *other, true);
    }
    let node = &mut network.nodes[at];
    let (data, copy) = (node.directory.join("data"), node.directory.join("old"));
    node.process.kill().await?;
    copy_directory(&data, &copy).context("copying a store")?;
    start(node).await?;
    let deadline = tokio::time::Instant::now() + ACCEPT_TIMEOUT;
    while node.status().await?["accepted"].as_u64().unwrap_or(0) < 10 {
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "{} accepts nothing",
            node.name
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.process.kill().await?;
    fs::remove_dir_all(&data)?;
    fs::rename(&copy, &data)?;
    start(node).await?;
    for other in others {
        network.cut(at, other, false);
    }
    Ok(())
}

/// Copies a directory with all in it; sockets are left out.
pub(crate) fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_plans_the_same_faults_and_every_run_has_all_kinds() {
        for seed in 0..50 {
            let faults = plan(seed, 0, 3);
            assert_eq!(faults, plan(seed, 0, 3));
            let has = |kind: fn(&What) -> bool| faults.iter().any(|fault| kind(&fault.what));
            assert!(has(|what| matches!(what, What::Kill(_))));
            assert!(has(|what| matches!(what, What::Stop(_))));
            assert!(has(|what| matches!(what, What::Cut(..))));
        }
        assert_ne!(plan(1, 0, 3), plan(2, 0, 3));
    }

    #[test]
    fn faults_are_of_servers_that_are_there_and_end_in_time() {
        for (seed, servers) in (0..500).flat_map(|seed| [(seed, 2), (seed, 3), (seed, 8)]) {
            for fault in plan(seed, 1, servers) {
                match fault.what {
                    What::Kill(server) | What::Stop(server) => assert!(server < servers),
                    What::Cut(a, b) => assert!(a < servers && b < servers && a != b),
                }
                assert!(fault.after + fault.time < ROUND_MAX);
            }
        }
    }
}
