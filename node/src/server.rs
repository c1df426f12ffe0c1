//! A whole home server: starts its parts in order, stops them in the other.

use std::{
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use comity_links::{Links, Reach};
use comity_protocol::{card::CardChain, ids::ServerId};
use comity_storage::{Config as StorageConfig, Files, OpenReport, Storage};
use serde::Serialize;
use tokio::task::JoinHandle as Task;

use crate::{
    admin,
    config::{Config, KeyError, ServerKeys},
    engine::{Command, Engine, Shared},
    gateway::{self, Gateways},
    home::HomeServer,
    hub::Hub,
    identities::Identities,
    outbound::Web,
    projection::HomeProjection,
    replication::{self, Driver, PeerState},
    rows::Rows,
    servers::{Configured, Servers},
    tls::Tls,
};

/// Cache of the index. The memory it takes is a multiple of it, and rows are small.
const INDEX_CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Time given to sessions and links to end.
const STOP: Duration = Duration::from_secs(10);

/// Time between looks at whether everybody has let go of the store.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// Faults for tests, given by a program and never by a file.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The layer under the log.
    pub files: Option<Files>,
    /// What stands for the machine's boot id.
    pub boot_id: Option<String>,
    /// Erased contents stay in the files; only rows go.
    pub keep_erased: bool,
    /// Conversations go by a clock that is so far ahead of the machine's, in milliseconds.
    pub clock_ahead_ms: u64,
}

/// Why a server did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Keys or card.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The roots that are trusted.
    #[error(transparent)]
    Roots(#[from] crate::outbound::RootsError),
    /// A peer's card in the configuration.
    #[error("peer {index} in comity.toml: {source}")]
    Peer {
        /// Which, from 1.
        index: usize,
        /// Why.
        source: comity_protocol::card::ParseCardsError,
    },
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The store.
    #[error("the store in {}: {source}", dir.display())]
    Storage {
        /// Where.
        dir: PathBuf,
        /// Why.
        source: comity_storage::OpenError,
    },
    /// The store opened but cannot be read.
    #[error("the store cannot be read: {0}")]
    Read(#[from] comity_storage::ReadError),
    /// The links.
    #[error("links: {0}")]
    Links(#[from] comity_links::StartError),
    /// The gateways.
    #[error("gateway: {0}")]
    Gateway(#[from] gateway::StartError),
    /// Threads, the data directory or the admin socket.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Where a server is reached.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    /// HTTPS and WebSocket.
    pub https: Option<SocketAddr>,
    /// Plain HTTP on loopback.
    pub http: Option<SocketAddr>,
    /// Clients over QUIC.
    pub quic: Option<SocketAddr>,
    /// Other servers: multiaddrs.
    pub links: Vec<String>,
}

/// A server as `comity status` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The server's name.
    pub name: String,
    /// Its id.
    pub server: ServerId,
    /// Version of the program.
    pub version: &'static str,
    /// Since when, in milliseconds.
    pub uptime_ms: u64,
    /// Where it is reached.
    pub addresses: Addresses,
    /// `ok`, `full` or why it is read-only.
    pub storage: String,
    /// Records in the log.
    pub records: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Median and 99th percentile of recent syncs, in microseconds.
    pub sync_us: [u64; 2],
    /// Open sessions.
    pub sessions: u64,
    /// Events of local users accepted since the start.
    pub accepted: u64,
    /// Events of all homes taken since the start.
    pub taken: u64,
    /// Conversations known.
    pub conversations: u64,
    /// Twin root records, each proof that a steward lied or lost its log.
    pub twins: Vec<serde_json::Value>,
    /// Homes that forked their chains, each with two commits on one as proof.
    pub forks: Vec<serde_json::Value>,
    /// Peers.
    pub peers: Vec<serde_json::Value>,
    /// How the store came up.
    pub opened: String,
}

/// A running server.
pub struct Server {
    home: HomeServer,
    gateways: Gateways,
    links: Links,
    driver: Task<()>,
    ticker: Task<()>,
    admin: Task<()>,
    threads: Vec<JoinHandle<()>>,
    view: Arc<View>,
}

/// What status is made of.
pub(crate) struct View {
    engine: Engine,
    addresses: Addresses,
    name: String,
    started: Instant,
    opened: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.view.addresses)
            .finish_non_exhaustive()
    }
}

fn io_error(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Io { what, source }
}

fn describe(report: &OpenReport) -> String {
    let mut text = format!(
        "{} records, {} replayed, {}",
        report.records,
        report.replayed,
        if report.clean {
            "clean"
        } else {
            "after an unclean end"
        }
    );
    if let Some(reason) = &report.rebuilt {
        text.push_str(&format!(", index rebuilt: {reason}"));
    }
    for damage in &report.damage {
        text.push_str(&format!(
            ", damage: {:?} at byte {} of {:?}, records {} to {}",
            damage.kind, damage.offset, damage.file, damage.first, damage.last
        ));
    }
    text
}

fn open_storage(
    config: &Config,
    me: ServerId,
    faults: Faults,
) -> Result<(Storage, OpenReport), StartError> {
    fs::create_dir_all(&config.data).map_err(io_error("making the data directory"))?;
    let boot_id = faults.boot_id.unwrap_or_else(comity_storage::boot_id);
    let mut storage = StorageConfig::new(&config.data, boot_id);
    storage.cache_bytes = INDEX_CACHE_BYTES;
    storage.overwrite_erased = !faults.keep_erased;
    if let Some(files) = faults.files {
        storage.files = files;
    }
    Storage::open(storage, HomeProjection { me }).map_err(|source| StartError::Storage {
        dir: config.data.clone(),
        source,
    })
}

impl Server {
    /// Starts a server whose keys are in `dir`. Returns once it serves.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(
        dir: &std::path::Path,
        config: &Config,
        faults: Faults,
    ) -> Result<Self, StartError> {
        let started = Instant::now();
        let keys = ServerKeys::load(dir)?;
        let me = keys.server();
        let configured = configured(config, &keys)?;
        let tls = config
            .tls
            .as_ref()
            .map(|tls| Tls::load(&tls.certificate, &tls.key))
            .transpose()?;
        let clock_ahead_ms = faults.clock_ahead_ms;
        let (storage, report) = open_storage(config, me, faults)?;
        let opened = describe(&report);
        if report.damage.is_empty() {
            tracing::info!(%opened, "store open");
        } else {
            tracing::error!(%opened, "the store is damaged; what is missing is asked of peers");
        }
        let rows = Rows(storage.reader());
        let network = (config.network.closed, config.network.allowed()?);
        let own = keys.cards.clone();
        let servers = Servers::new(own, configured, rows.servers()?, network);
        let peers = servers.configured();
        let peers = peers.iter().filter_map(|server| servers.reached(server));
        let peers: Vec<_> = peers.collect();
        let (replication, inbox) = replication::channel();
        let shared = Arc::new(Shared {
            me,
            epoch: keys.cards.current().epoch,
            key: keys.operational.clone(),
            users_key: keys.users.clone(),
            servers,
            identities: Identities::new(rows.clone()),
            rows,
            storage,
            hub: Arc::new(Hub::default()),
            replication,
            accepted: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            woken: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            nonces: Arc::default(),
            full_at: AtomicU64::new(0),
            clock_ahead_ms,
        });
        let shards = std::thread::available_parallelism().map_or(2, usize::from);
        let (engine, threads) =
            Engine::start(shards, shared).map_err(io_error("starting the engine"))?;
        let reach = Reach::public_and(config.network.allowed()?);
        let ca = config.network.ca.as_deref();
        let home = HomeServer::new(engine.clone(), &keys, Web::new(reach, ca)?)?;
        let links = comity_links::Config {
            seed: keys.operational.to_seed(),
            listen: vec![link_address(config.listen.links)],
            peers,
        };
        let (links, events) = Links::start(links).await?;
        let driver = Driver::new(links.clone(), events, inbox, engine.clone())?;
        let driver = tokio::spawn(driver.run());
        let gateway = gateway::Config {
            quic: config.listen.quic,
            https: config.listen.https,
            http: config.listen.http,
            development: config.profile == crate::config::Profile::Dev,
            tls,
            reset_secret: Some(blake3::derive_key(
                "comity quic reset v1",
                &keys.operational.to_seed(),
            )),
            ..gateway::Config::default()
        };
        let gateways = Gateways::start(&gateway, home.clone())?;
        let addresses = Addresses {
            https: gateways.https_addr,
            http: gateways.http_addr,
            quic: gateways.quic_addr,
            links: links.listen_addresses(),
        };
        let name = config.name.to_string();
        let view = Arc::new(View {
            engine: engine.clone(),
            addresses,
            name,
            started,
            opened,
        });
        let admin = admin::serve(&config.data, home.clone(), Arc::clone(&view))
            .map_err(io_error("opening the admin socket"))?;
        let ticker = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                engine.everywhere(|| Command::Tick);
            }
        });
        Ok(Self {
            home,
            gateways,
            links,
            driver,
            ticker,
            admin,
            threads,
            view,
        })
    }

    /// Where the server is reached.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.view.addresses
    }

    /// How the server is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.view.status()
    }

    /// Stops: lets nobody in, answers what is under way, makes all of it durable, says goodbye to
    /// peers and closes the store. What was accepted is neither lost nor only in memory.
    ///
    /// # Errors
    ///
    /// If the store could not be closed cleanly; the log has everything all the same.
    pub async fn stop(self) -> Result<(), comity_storage::SubmitError> {
        let Self {
            home,
            gateways,
            links,
            driver,
            ticker,
            admin,
            threads,
            view,
        } = self;
        admin.abort();
        let stopped = gateways.stop(STOP).await;
        tracing::info!(
            sessions = stopped.sessions,
            cut = stopped.cut,
            "sessions closed"
        );
        ticker.abort();
        home.engine().drain().await;
        links.shutdown(STOP).await;
        let _ = driver.await;
        let _ = (admin.await, ticker.await);
        let shared = Arc::clone(&home.engine().shared);
        drop((home, view));
        for thread in threads {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        // What the links still brought holds the store until its answer is given. Dropped last by
        // the store's own thread, it would wait for itself.
        let last = Arc::clone(&shared);
        let barrier = move || last.storage.submit_and_wait(Vec::new()).map(drop);
        let _ = tokio::task::spawn_blocking(barrier).await;
        // Tasks of connections that were closed just now may hold it for a moment more.
        let (mut shared, since) = (shared, Instant::now());
        let shared = loop {
            match Arc::try_unwrap(shared) {
                Ok(shared) => break shared,
                Err(held) if since.elapsed() < STOP => {
                    shared = held;
                    tokio::time::sleep(STOP_LOOK).await;
                }
                Err(_) => {
                    // Somebody still reads; the log is whole, only the next start replays a little.
                    tracing::warn!("the store was left open");
                    return Ok(());
                }
            }
        };
        let close = move || shared.storage.close();
        tokio::task::spawn_blocking(close).await.unwrap_or(Ok(()))
    }
}

fn link_address(address: SocketAddr) -> String {
    let family = if address.is_ipv4() { "ip4" } else { "ip6" };
    format!("/{family}/{}/udp/{}/quic-v1", address.ip(), address.port())
}

fn configured(config: &Config, keys: &ServerKeys) -> Result<Vec<Configured>, StartError> {
    let mut configured = Vec::new();
    for (index, peer) in config.peers.iter().enumerate() {
        let bad = |source| StartError::Peer {
            index: index + 1,
            source,
        };
        let cards = CardChain::from_text(peer.card.trim()).map_err(bad)?;
        if cards.server() != keys.server() {
            let addresses = peer.addresses.clone();
            configured.push(Configured { cards, addresses });
        }
    }
    Ok(configured)
}

impl View {
    pub(crate) fn status(&self) -> Status {
        let shared = &self.engine.shared;
        let stats = shared.storage.stats();
        let load = |counter: &AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let json = |peer: PeerState| serde_json::to_value(peer).unwrap_or_default();
        let storage = match shared.storage.health() {
            comity_storage::Health::Ok => "ok".to_owned(),
            other => format!("{other:?}"),
        };
        Status {
            name: self.name.clone(),
            server: shared.me,
            version: env!("CARGO_PKG_VERSION"),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            addresses: self.addresses.clone(),
            storage,
            records: stats.records,
            log_bytes: stats.log_bytes,
            sync_us: [stats.sync_p50_us, stats.sync_p99_us],
            sessions: shared.hub.open_sessions() as u64,
            accepted: load(&shared.accepted),
            taken: load(&shared.taken),
            conversations: shared
                .rows
                .conversations()
                .map_or(0, |all| all.len() as u64),
            twins: shared
                .rows
                .twins()
                .unwrap_or_default()
                .into_iter()
                .map(|(conversation, twins)| {
                    serde_json::json!({
                        "conversation": conversation,
                        "n": twins.n,
                        "stands": twins.stands,
                        "loses": twins.loses,
                        "signed_both": twins.signed_both,
                    })
                })
                .collect(),
            forks: shared
                .rows
                .forks()
                .unwrap_or_default()
                .into_iter()
                .map(|(conversation, fork)| {
                    serde_json::json!({
                        "conversation": conversation,
                        "home": fork.home,
                        "stands": fork.stands,
                        "loses": fork.loses,
                    })
                })
                .collect(),
            peers: shared.replication.peers().into_iter().map(json).collect(),
            opened: self.opened.clone(),
        }
    }
}
