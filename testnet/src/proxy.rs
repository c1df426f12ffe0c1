//! A UDP forwarder between two servers: a cable that can be cut, stretched and made to lose.
//!
//! One [`Proxy`] stands for one directed pair: A dials B's link through it, and B's answers come
//! back the same way. Each source gets a socket of its own towards the target, so that the target
//! sees distinct peers, as it would through a NAT.

mod lane;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use lane::Lane;

/// Sources served at once; the one idle longest makes room for a new one.
pub const SOURCES_MAX: usize = 64;
/// Datagrams under way in one direction of one source.
pub const LANE_DATAGRAMS_MAX: usize = 4_096;
/// Bytes under way in one direction of one source.
pub const LANE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Silence after which a source's socket is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(120);
/// Bytes of the largest UDP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What became of the datagrams so far, both directions together unless named otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct Counters {
    /// Sent on to the target.
    pub forwarded: u64,
    /// Sent back to a source.
    pub returned: u64,
    /// Dropped because the cable was cut.
    pub cut: u64,
    /// Dropped by the loss rate.
    pub lost: u64,
    /// Dropped because too much was under way.
    pub overflowed: u64,
    /// Not taken by the system: the other side is not there.
    pub refused: u64,
    /// Bytes sent on and back.
    pub bytes: u64,
}

/// State that the proxy's tasks share with its owner.
#[derive(Debug, Default)]
struct Shared {
    cut: AtomicBool,
    delay_us: AtomicU64,
    /// Chance of a loss in 2^32nds; 64 bits, so that "always" has a value.
    loss: AtomicU64,
    random: AtomicU64,
    forwarded: AtomicU64,
    returned: AtomicU64,
    dropped_cut: AtomicU64,
    dropped_lost: AtomicU64,
    dropped_overflow: AtomicU64,
    refused: AtomicU64,
    bytes: AtomicU64,
}

impl Shared {
    /// Whether the next datagram is to be lost. The sequence follows from the seed alone.
    fn loses(&self) -> bool {
        let loss = self.loss.load(Ordering::Relaxed);
        if loss == 0 {
            return false;
        }
        // SplitMix64: a counter, mixed.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .random
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) < loss
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(self.delay_us.load(Ordering::Relaxed))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A running forwarder. Its tasks and sockets end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    sources: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts forwarding from a free loopback port to `target`; `seed` decides what is lost.
    ///
    /// # Errors
    ///
    /// What the system says to the listening socket; nothing is left behind.
    pub async fn start(target: SocketAddr, seed: u64) -> io::Result<Self> {
        Self::start_with_idle(target, seed, IDLE_MAX).await
    }

    /// As [`Proxy::start`], with another silence after which a source is forgotten.
    ///
    /// # Errors
    ///
    /// As [`Proxy::start`].
    pub async fn start_with_idle(
        target: SocketAddr,
        seed: u64,
        idle_max: Duration,
    ) -> io::Result<Self> {
        let listener = UdpSocket::bind(any_loopback(target)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            random: AtomicU64::new(seed),
            ..Shared::default()
        });
        let (target, targets) = watch::channel(target);
        let (report, sources) = watch::channel(0);
        let forwarder = Forwarder {
            listener: Arc::new(listener),
            shared: shared.clone(),
            target: targets,
            sources: BTreeMap::new(),
            report,
            idle_max,
        };
        Ok(Self {
            shared,
            address,
            target,
            sources,
            task: tokio::spawn(forwarder.run()),
        })
    }

    /// Where to send instead of to the target.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends to another target from now on: a server that came back on another port. Sources get
    /// new sockets; what is under way to the old target is dropped.
    pub fn retarget(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Cuts the cable (everything is dropped, also what is under way) or mends it.
    pub fn cut(&self, cut: bool) {
        self.shared.cut.store(cut, Ordering::Relaxed);
    }

    /// Holds every datagram for `delay`, each way; the order is kept.
    pub fn delay(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay_us.store(delay_us, Ordering::Relaxed);
    }

    /// Loses this share of the datagrams, 0 to 1, each way.
    pub fn loss(&self, share: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=2^32 before"
        )]
        let loss = (share.clamp(0.0, 1.0) * 4_294_967_296.0) as u64;
        self.shared.loss.store(loss, Ordering::Relaxed);
    }

    /// What became of the datagrams so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            forwarded: read(&self.shared.forwarded),
            returned: read(&self.shared.returned),
            cut: read(&self.shared.dropped_cut),
            lost: read(&self.shared.dropped_lost),
            overflowed: read(&self.shared.dropped_overflow),
            refused: read(&self.shared.refused),
            bytes: read(&self.shared.bytes),
        }
    }

    /// How many sources have a socket, now and whenever that changes.
    #[must_use]
    pub fn sources(&self) -> watch::Receiver<usize> {
        self.sources.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A source: its socket towards the target, and a lane each way. Dropping it ends its tasks.
struct Source {
    there: Lane,
    heard: Arc<AtomicU64>,
    /// Held for its drop, which ends them.
    _tasks: JoinSet<()>,
}

struct Forwarder {
    listener: Arc<UdpSocket>,
    shared: Arc<Shared>,
    target: watch::Receiver<SocketAddr>,
    sources: BTreeMap<SocketAddr, Source>,
    report: watch::Sender<usize>,
    idle_max: Duration,
}

impl Forwarder {
    async fn run(mut self) {
        let started = Instant::now();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut sweep = tokio::time::interval(self.idle_max / 4);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = self.listener.recv_from(&mut buffer) => match received {
                    Ok((len, source)) => self.forward(source, &buffer[..len], started).await,
                    // What the system reports here is the fate of an answer to a source that is
                    // gone; the socket itself stays good.
                    Err(_) => count(&self.shared.refused),
                },
                _ = sweep.tick() => self.forget_idle(started),
                changed = self.target.changed() => match changed {
                    Ok(()) => self.sources.clear(),
                    Err(_) => return,
                },
            }
            self.report_sources();
        }
    }

    async fn forward(&mut self, from: SocketAddr, datagram: &[u8], started: Instant) {
        if !self.sources.contains_key(&from) {
            if self.sources.len() >= SOURCES_MAX {
                self.forget_longest_idle();
            }
            match self.open(from, started).await {
                Ok(source) => drop(self.sources.insert(from, source)),
                Err(_) => return count(&self.shared.refused),
            }
        }
        if let Some(source) = self.sources.get(&from) {
            source.heard.store(since_ms(started), Ordering::Relaxed);
            source.there.push(datagram);
        }
    }

    async fn open(&self, from: SocketAddr, started: Instant) -> io::Result<Source> {
        let target = *self.target.borrow();
        let upstream = UdpSocket::bind(any_loopback(target)).await?;
        upstream.connect(target).await?;
        let upstream = Arc::new(upstream);
        let heard = Arc::new(AtomicU64::new(since_ms(started)));
        let mut tasks = JoinSet::new();
        let there = lane::there(self.shared.clone(), upstream.clone(), &mut tasks);
        let back = lane::back(self.shared.clone(), self.listener.clone(), from, &mut tasks);
        let (shared, heard_back) = (self.shared.clone(), heard.clone());
        tasks.spawn(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                match upstream.recv(&mut buffer).await {
                    Ok(len) => {
                        heard_back.store(since_ms(started), Ordering::Relaxed);
                        back.push(&buffer[..len]);
                    }
                    // The target's port is closed: it may be back at any time.
                    Err(_) => {
                        count(&shared.refused);
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        Ok(Source {
            there,
            heard,
            _tasks: tasks,
        })
    }

    fn forget_idle(&mut self, started: Instant) {
        let idle_ms = u64::try_from(self.idle_max.as_millis()).unwrap_or(u64::MAX);
        let now = since_ms(started);
        self.sources
            .retain(|_, source| now.saturating_sub(source.heard.load(Ordering::Relaxed)) < idle_ms);
    }

    fn forget_longest_idle(&mut self) {
        let heard = |(_, source): &(&SocketAddr, &Source)| source.heard.load(Ordering::Relaxed);
        if let Some(address) = self.sources.iter().min_by_key(heard).map(|(a, _)| *a) {
            self.sources.remove(&address);
        }
    }

    fn report_sources(&self) {
        let now = self.sources.len();
        self.report
            .send_if_modified(|before| std::mem::replace(before, now) != now);
    }
}

/// A free port of the loopback address of `target`'s family.
fn any_loopback(target: SocketAddr) -> SocketAddr {
    if target.is_ipv4() {
        (Ipv4Addr::LOCALHOST, 0).into()
    } else {
        (Ipv6Addr::LOCALHOST, 0).into()
    }
}

fn since_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
