//! How many bytes messages take on the disk.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::{
    Report, Setting,
    load::{self, Clients, Homes},
    meter::Meter,
    own_syncs, probe,
};
use crate::{
    network::{Network, Node},
    process::Stopped,
};

/// Messages sent.
const MESSAGES: u64 = 20_000;
/// The figures are for so many.
const SCALED_TO: u64 = 100_000;
/// Bytes of a message.
const BODY_BYTES: usize = 200;
/// Pairs that send them.
const PAIRS: usize = 8;
/// Time for a server to stop by itself.
const STOP: Duration = Duration::from_secs(30);
/// Bytes of the blocks that files are counted in (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Bytes on the disk.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Disk {
    /// Messages sent.
    pub sent: u64,
    /// Bytes of a message's text.
    pub body_bytes: usize,
    /// Bytes of the log in use for these messages, without what is only reserved.
    pub log_bytes: u64,
    /// Bytes of the index for these messages, with the server stopped.
    pub index_bytes: u64,
    /// Bytes of the log in use for 100,000 messages.
    pub log_bytes_per_100k: u64,
    /// Bytes of the index for 100,000 messages.
    pub index_bytes_per_100k: u64,
    /// Both by message.
    pub bytes_per_message: f64,
    /// Bytes that log files had reserved on the disk before and after, the part in use included.
    pub log_allocated_bytes: [u64; 2],
    /// Bytes that the index had on the disk before and after.
    pub index_allocated_bytes: [u64; 2],
}

/// What a data directory holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    log_used: u64,
    log_allocated: u64,
    index: u64,
}

/// Measures it.
///
/// # Errors
///
/// What failed.
pub async fn run(setting: &Setting<'_>) -> anyhow::Result<Report<Disk>> {
    let idle = probe::idle(setting.directory, super::IDLE_SYNCS).await?;
    let mut network = setting.network(1, false).await?;
    let homes = Homes { from: 0, to: 0 };
    let clients = Clients::sharing(setting.transport);
    let pairs = load::pairs(&network, PAIRS, homes, &clients).await?;
    let before = held(&mut network).await?;
    network.nodes[0].process.restart().await?;
    for pair in &pairs {
        pair.from.client.wait_online().await?;
        pair.to.client.wait_online().await?;
    }
    let meter = Meter::read(&network)?;
    let (_, pairs) = load::fill(pairs, MESSAGES, BODY_BYTES).await?;
    let cost = meter.until(&Meter::read(&network)?, MESSAGES);
    let syncs = own_syncs(idle, &network).await?;
    let after = held(&mut network).await?;
    drop(pairs);
    let log_bytes = after.log_used - before.log_used;
    let index_bytes = after.index.saturating_sub(before.index);
    let scaled = |bytes: u64| bytes * SCALED_TO / MESSAGES;
    let figures = Disk {
        sent: MESSAGES,
        body_bytes: BODY_BYTES,
        log_bytes,
        index_bytes,
        log_bytes_per_100k: scaled(log_bytes),
        index_bytes_per_100k: scaled(index_bytes),
        bytes_per_message: (log_bytes + index_bytes) as f64 / MESSAGES as f64,
        log_allocated_bytes: [before.log_allocated, after.log_allocated],
        index_allocated_bytes: [before.index, after.index],
    };
    Ok(Report {
        figures,
        cost,
        syncs,
    })
}

/// Stops the server, so that all it has is on the disk, and counts.
async fn held(network: &mut Network) -> anyhow::Result<Held> {
    let log_used = log_used(&network.nodes[0]).await?;
    let stopped = network.nodes[0].process.stop(STOP).await?;
    ensure!(
        stopped != Stopped::Killed,
        "the server did not stop by itself"
    );
    let data = network.nodes[0].directory.join("data");
    let (mut log_allocated, mut index) = (0, 0);
    allocated(&data, &mut |path, bytes| {
        // `.new` is a log file in the making.
        if path
            .extension()
            .is_some_and(|kind| kind == "log" || kind == "new")
        {
            log_allocated += bytes;
        } else {
            index += bytes;
        }
    })
    .with_context(|| format!("counting {}", data.display()))?;
    Ok(Held {
        log_used,
        log_allocated,
        index,
    })
}

async fn log_used(node: &Node) -> anyhow::Result<u64> {
    let status = node.status().await?;
    status["log_bytes"]
        .as_u64()
        .context("a status without log_bytes")
}

/// Tells every file below `directory` and the bytes that it has on the disk.
fn allocated(directory: &Path, found: &mut impl FnMut(&Path, u64)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            allocated(&entry.path(), found)?;
        } else {
            found(&entry.path(), metadata.blocks() * BLOCK_BYTES);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_below_a_directory_are_counted_by_their_blocks() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), [1; 5_000]).unwrap();
        fs::File::create(dir.path().join("hole"))
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        let mut all = Vec::new();
        allocated(dir.path(), &mut |path, bytes| {
            all.push((path.to_owned(), bytes))
        })
        .unwrap();
        all.sort();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0], (dir.path().join("hole"), 0));
        assert!(all[1].1 >= 5_000);
    }
}
