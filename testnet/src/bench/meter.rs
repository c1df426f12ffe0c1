//! Who used the processors meanwhile: the servers, the clients in this process, everybody else.

use std::{fs, time::Instant};

use anyhow::Context as _;
use serde::Serialize;

use super::rounded;
use crate::{network::Network, process::Usage};

/// Linux counts processor time for programs in hundredths of a second, whatever its own clock.
const TICKS_PER_S: f64 = 100.0;

/// What a time of measuring cost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Length of that time, in seconds.
    pub seconds: f64,
    /// Messages delivered in it; a message to many counts once.
    pub messages: u64,
    /// These by the second.
    pub msgs_per_s: f64,
    /// Processor time of all servers, in seconds.
    pub server_cpu_s: f64,
    /// The same for 1,000 messages.
    pub server_cpu_s_per_1000: f64,
    /// Memory of the largest server afterwards, in MB (10^6 bytes).
    pub server_rss_mb: f64,
    /// Processor time of this process, which holds all clients.
    pub client_cpu_s: f64,
    /// Processor time of all other processes of the machine.
    pub other_cpu_s: f64,
    /// Time that the machine's own host gave to others, over all cores.
    pub steal_s: f64,
    /// Tasks that wanted to run in the last minute, on average, at the start.
    pub load_1m_before: f64,
    /// The same at the end, the measuring itself included.
    pub load_1m_after: f64,
    /// Processor cores that we may use.
    pub cores: usize,
}

/// Counters at one moment.
#[derive(Clone, Debug)]
pub struct Meter {
    at: Instant,
    servers: Vec<Usage>,
    own_s: f64,
    busy_s: f64,
    steal_s: f64,
    load_1m: f64,
}

impl Meter {
    /// Reads every counter.
    ///
    /// # Errors
    ///
    /// If a server does not run, or the system tells nothing.
    pub fn read(network: &Network) -> anyhow::Result<Self> {
        let text = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
        let own =
            own_ticks(&text("/proc/self/stat")?).context("unknown form of /proc/self/stat")?;
        let (busy, steal) =
            all_ticks(&text("/proc/stat")?).context("unknown form of /proc/stat")?;
        let load = text("/proc/loadavg")?;
        let load = load.split_ascii_whitespace().next();
        Ok(Self {
            at: Instant::now(),
            servers: network.usage()?,
            own_s: own as f64 / TICKS_PER_S,
            busy_s: busy as f64 / TICKS_PER_S,
            steal_s: steal as f64 / TICKS_PER_S,
            load_1m: load.and_then(|load| load.parse().ok()).unwrap_or_default(),
        })
    }

    /// What was used between this moment and a later one. The servers must be the same processes.
    #[must_use]
    pub fn until(&self, end: &Self, messages: u64) -> Cost {
        let cpu = |usages: &[Usage]| usages.iter().map(|usage| usage.cpu_s).sum::<f64>();
        let seconds = end.at.duration_since(self.at).as_secs_f64();
        let server_cpu_s = (cpu(&end.servers) - cpu(&self.servers)).max(0.0);
        let client_cpu_s = end.own_s - self.own_s;
        let rss = end.servers.iter().map(|usage| usage.rss_bytes).max();
        Cost {
            seconds: rounded(seconds),
            messages,
            msgs_per_s: rounded(messages as f64 / seconds),
            server_cpu_s: rounded(server_cpu_s),
            server_cpu_s_per_1000: rounded(server_cpu_s * 1e3 / (messages.max(1) as f64)),
            server_rss_mb: rounded(rss.unwrap_or_default() as f64 / 1e6),
            client_cpu_s: rounded(client_cpu_s),
            other_cpu_s: rounded((end.busy_s - self.busy_s - server_cpu_s - client_cpu_s).max(0.0)),
            steal_s: rounded(end.steal_s - self.steal_s),
            load_1m_before: self.load_1m,
            load_1m_after: end.load_1m,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// User and system ticks of this process: fields 14 and 15 of proc(5)'s stat.
fn own_ticks(stat: &str) -> Option<u64> {
    // The name (field 2) is in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Busy and stolen ticks of all cores: user, nice, system, irq and softirq; steal.
fn all_ticks(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let &[user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = &fields[..] else {
        return None;
    };
    Some((user + nice + system + irq + softirq, steal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_from_the_right_fields() {
        let own = "7 (a) R (b) S 1 7 7 0 -1 0 5 6 7 8 120 34 3 4 20 0 9 0 100 4096 55 18446 1 1";
        assert_eq!(own_ticks(own), Some(154));
        let all = "cpu  10 2 30 400 50 6 7 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(all_ticks(all), Some((55, 8)));
        assert_eq!(all_ticks("cpu  1 2\n"), None);
    }

    #[test]
    fn what_servers_and_clients_used_is_not_the_others() {
        let meter = |server: f64, own_s, busy_s| Meter {
            at: Instant::now(),
            servers: vec![Usage {
                cpu_s: server,
                rss_bytes: 3_000_000,
            }],
            own_s,
            busy_s,
            steal_s: 0.0,
            load_1m: 1.0,
        };
        let cost = meter(1.0, 2.0, 10.0).until(&meter(3.0, 5.0, 16.0), 4_000);
        assert_eq!(
            (cost.server_cpu_s, cost.client_cpu_s, cost.other_cpu_s),
            (2.0, 3.0, 1.0)
        );
        assert_eq!(cost.server_cpu_s_per_1000, 0.5);
        assert_eq!(cost.server_rss_mb, 3.0);
    }
}
