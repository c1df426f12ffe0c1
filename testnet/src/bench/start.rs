//! How long a server takes until it serves: a new one, and one with a history.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{
    Report, Setting,
    load::{self, Clients, Homes},
    meter::Meter,
    ms, own_syncs, probe,
};
use crate::network::Network;

/// Starts of each kind.
const RUNS: usize = 3;
/// Messages in the store of the server that is started again.
const MESSAGES: u64 = 20_000;
/// Bytes of a message.
const BODY_BYTES: usize = 200;
/// Pairs that send them.
const PAIRS: usize = 8;
/// Time for a server to stop by itself.
const STOP: Duration = Duration::from_secs(30);

/// Milliseconds until a server served, one value each run.
#[derive(Clone, Debug, Serialize)]
pub struct ColdStart {
    /// A new server: from nothing, its keys, certificate and configuration included.
    pub new_ms: Vec<f64>,
    /// Of that, from the start of the process, as the server says.
    pub new_process_ms: Vec<u64>,
    /// Messages in the store that the others start with.
    pub stored: u64,
    /// After it was stopped: from starting the process.
    pub stopped_ms: Vec<f64>,
    /// After it was killed, the first time right after the last message: from starting the process.
    pub killed_ms: Vec<f64>,
    /// What the server said about its store each time.
    pub killed_opened: Vec<String>,
}

/// Measures it.
///
/// # Errors
///
/// What failed.
pub async fn run(setting: &Setting<'_>) -> anyhow::Result<Report<ColdStart>> {
    let idle = probe::idle(setting.directory, super::IDLE_SYNCS).await?;
    let (mut new_ms, mut new_process_ms) = (Vec::new(), Vec::new());
    let mut last = None;
    for run in 0..RUNS {
        let directory = setting.directory.join(format!("new-{run}"));
        let setting = Setting {
            directory: &directory,
            ..setting.clone()
        };
        let start = Instant::now();
        let network = setting.network(1, false).await?;
        new_ms.push(ms(start.elapsed()));
        new_process_ms.push(network.nodes[0].ready()?.after_ms);
        if let Some(mut before) = last.replace(network) {
            Network::stop(&mut before).await?;
        }
    }
    let Some(mut network) = last else {
        anyhow::bail!("no run");
    };
    let homes = Homes { from: 0, to: 0 };
    let clients = Clients::sharing(setting.transport);
    let pairs = load::pairs(&network, PAIRS, homes, &clients).await?;
    let meter = Meter::read(&network)?;
    let (_, pairs) = load::fill(pairs, MESSAGES, BODY_BYTES).await?;
    let cost = meter.until(&Meter::read(&network)?, MESSAGES);
    let syncs = own_syncs(idle, &network).await?;
    for pair in pairs {
        // Clients that connect again meanwhile are not part of the start.
        let _ = pair.from.client.close().await;
        let _ = pair.to.client.close().await;
    }
    let (mut killed_ms, mut killed_opened) = (Vec::new(), Vec::new());
    let mut stopped_ms = Vec::new();
    for _ in 0..RUNS {
        let process = &mut network.nodes[0].process;
        process.kill().await?;
        killed_ms.push(restart(process).await?);
        killed_opened.push(network.nodes[0].ready()?.opened);
    }
    for _ in 0..RUNS {
        let process = &mut network.nodes[0].process;
        process.stop(STOP).await?;
        stopped_ms.push(restart(process).await?);
    }
    network.stop().await?;
    Ok(Report {
        figures: ColdStart {
            new_ms,
            new_process_ms,
            stored: MESSAGES,
            stopped_ms,
            killed_ms,
            killed_opened,
        },
        cost,
        syncs,
    })
}

async fn restart(process: &mut crate::process::Process) -> anyhow::Result<f64> {
    let start = Instant::now();
    process.restart().await?;
    Ok(ms(start.elapsed()))
}
