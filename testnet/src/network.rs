//! Servers as real processes on this machine: directories, keys, certificates, links through
//! forwarders of ours, accounts and clients.

mod member;
mod setup;
mod wait;

pub use member::{Member, keep_handles};

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use comity_node::{
    admin::{AdminReply, AdminRequest, ask},
    server::Status,
};
use comity_sdk::{Client, ClientBuilder, Transport};
use serde::Deserialize;

use crate::{
    netns::{
        rule::Rule,
        spaces::Spaces,
        wires::{self, Wires},
    },
    process::{Command, Process, Ready, Stopped, Usage},
    proxy::Proxy,
};

/// Time for a server to serve: a rebuilt index of a long run included.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for a server to stop by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How to build a network.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub directory: PathBuf,
    /// Names of the regions; each has one server.
    pub regions: Vec<String>,
    /// Links go through forwarders, which can be cut and delayed.
    pub proxied: bool,
    /// One-way delay between two regions.
    pub delays: BTreeMap<(String, String), Duration>,
    /// What every server is told besides.
    pub server_args: Vec<String>,
    /// Seed of what is random in the network.
    pub seed: u64,
    /// Namespaces with a site for each region, in which the servers are then hosts of their own.
    /// The threads that start the network and its clients must be in their users' namespace.
    pub spaces: Option<Arc<Spaces>>,
    /// With spaces: how the ways between regions are, by (from, to). They take the place of
    /// `proxied` and `delays`, which are for servers on loopback.
    pub rules: Vec<(String, String, Rule)>,
    /// The program `comity-testnet`, where this is another one.
    pub program: Option<PathBuf>,
    /// The servers are not configured with each other, and meet by name.
    pub strangers: Option<Strangers>,
}

/// How servers are that do not know each other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Strangers {
    /// They link with configured servers only, of which there are none.
    pub closed: bool,
    /// The first has the card of another server under the name of the second.
    pub first_has_wrong_card: bool,
}

impl Options {
    /// These regions, in a directory, without delays.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, regions: &[&str]) -> Self {
        Self {
            directory: directory.into(),
            regions: regions.iter().map(|&region| region.to_owned()).collect(),
            proxied: false,
            delays: BTreeMap::new(),
            server_args: Vec::new(),
            seed: 1,
            spaces: None,
            rules: Vec::new(),
            program: None,
            strangers: None,
        }
    }
}

/// Ports of a server, chosen by the system once and kept over restarts.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// TCP: HTTPS and WebSocket.
    pub https: u16,
    /// TCP: plain HTTP on loopback.
    pub http: u16,
    /// UDP: clients.
    pub quic: u16,
    /// UDP: other servers.
    pub links: u16,
}

/// One server.
#[derive(Debug)]
pub struct Node {
    /// Region and short name.
    pub region: String,
    /// The server's name, the part behind @.
    pub name: String,
    /// Its directory.
    pub directory: PathBuf,
    /// Where its users reach it.
    pub host: IpAddr,
    /// Its ports.
    pub ports: Ports,
    /// Its process.
    pub process: Process,
}

/// What a server prints when it is ready.
#[derive(Clone, Debug, Deserialize)]
pub struct ReadyLine {
    /// Milliseconds until it served.
    pub after_ms: u64,
    /// How its store came up.
    pub opened: String,
}

impl Node {
    /// Where clients reach it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("https://{}:{}", self.host, self.ports.https)
    }

    /// What it said when it became ready.
    ///
    /// # Errors
    ///
    /// If it said something else.
    pub fn ready(&self) -> anyhow::Result<ReadyLine> {
        Ok(serde_json::from_str(self.process.ready_line())?)
    }

    /// Asks its operator's socket.
    ///
    /// # Errors
    ///
    /// If it does not run, or refuses.
    pub async fn admin(&self, request: &AdminRequest) -> anyhow::Result<serde_json::Value> {
        match ask(&self.directory.join("data"), request).await? {
            AdminReply::Done(done) => Ok(done),
            AdminReply::Refused(error) => bail!("{}: {error}", self.name),
        }
    }

    /// Its status as JSON; see [`Status`].
    ///
    /// # Errors
    ///
    /// As [`Self::admin`].
    pub async fn status(&self) -> anyhow::Result<serde_json::Value> {
        self.admin(&AdminRequest::Status).await
    }
}

// The shape of a status is the node's; naming it here breaks the build when it goes.
const _: fn(&Status) -> &str = |status| &status.name;

/// A running network. Dropping it kills the servers; [`Network::stop`] lets them end.
#[derive(Debug)]
pub struct Network {
    /// The servers, in the order of the options.
    pub nodes: Vec<Node>,
    /// Forwarders by (from, to), when links go through them.
    proxies: BTreeMap<(usize, usize), Proxy>,
    /// The router between them, when they are in namespaces; ends after them.
    wires: Option<Wires>,
    directory: PathBuf,
    ca_pem: String,
}

impl Network {
    /// Makes what is missing in the directory and starts every server. Returns once all serve.
    ///
    /// # Errors
    ///
    /// What failed, with the server's name; servers started until then are killed.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let plan = setup::prepare(options).await?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("finding this program")?,
        };
        let mut wires = None;
        if let Some(spaces) = &options.spaces {
            let started = Wires::start(spaces.clone(), &program, &options.directory, options.seed);
            let started = wires.insert(started.await?);
            for (from, to, rule) in &options.rules {
                started.control().set(from, to, *rule).await?;
            }
        }
        let mut starting = Vec::new();
        for server in &plan.servers {
            let log = server.directory.join("server.log");
            let command = match &options.spaces {
                Some(spaces) => wires::inside(&spaces.name(&server.region), &program, &log),
                None => Command::new(&program, &log),
            };
            let command = server_command(command, &server.directory, &options.server_args);
            starting.push(Process::start(command));
        }
        let mut nodes = Vec::new();
        for (server, process) in plan
            .servers
            .into_iter()
            .zip(futures::future::join_all(starting).await)
        {
            let process = process.with_context(|| format!("starting {}", server.name))?;
            nodes.push(Node {
                region: server.region,
                name: server.name,
                directory: server.directory,
                host: server.host,
                ports: server.ports,
                process,
            });
        }
        let directory = options.directory.clone();
        Ok(Self {
            nodes,
            proxies: plan.proxies,
            wires,
            directory,
            ca_pem: plan.ca_pem,
        })
    }

    /// The certificate that clients of this network trust, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The file with that certificate.
    #[must_use]
    pub fn ca_path(&self) -> PathBuf {
        setup::ca_path(&self.directory)
    }

    /// Where everything is kept.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The ways between the servers, when they are hosts of their own.
    #[must_use]
    pub fn wires(&self) -> Option<&Wires> {
        self.wires.as_ref()
    }

    /// Whether the router, if there is one, still runs.
    ///
    /// # Errors
    ///
    /// If it has ended, or what the system says.
    pub fn check_wires(&mut self) -> anyhow::Result<()> {
        if let Some(wires) = &mut self.wires {
            ensure!(wires.is_running()?, "the router ended; see router.log");
        }
        Ok(())
    }

    /// Cuts or mends the links between two servers, both ways.
    pub fn cut(&self, a: usize, b: usize, cut: bool) {
        for pair in [(a, b), (b, a)] {
            if let Some(proxy) = self.proxies.get(&pair) {
                proxy.cut(cut);
            }
        }
    }

    /// Adds an account and gives its user and a token for devices.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn add_user(&self, node: usize, handle: &str) -> anyhow::Result<String> {
        let node = &self.nodes[node];
        let request = AdminRequest::AddUser {
            handle: handle.to_owned(),
            password: None,
        };
        node.admin(&request)
            .await
            .with_context(|| format!("adding {handle}"))?;
        self.token(node, handle).await
    }

    async fn token(&self, node: &Node, handle: &str) -> anyhow::Result<String> {
        let user = Some(handle.to_owned());
        let request = AdminRequest::Token {
            user,
            uses: 1_000,
            valid_ms: 30 * 86_400_000,
        };
        let issued = node.admin(&request).await?;
        issued["token"]
            .as_str()
            .map(str::to_owned)
            .context("an answer without a token")
    }

    /// A client of a server, not connected yet.
    pub fn client(
        &self,
        node: usize,
        handle: &str,
        token: &str,
        transport: Transport,
    ) -> ClientBuilder {
        let node = &self.nodes[node];
        Client::builder(format!("{handle}@{}", node.name))
            .token(token)
            .server(node.address())
            .ca(self.ca_pem.clone().into_bytes())
            .transport(transport)
    }

    /// CPU time and memory of all servers.
    ///
    /// # Errors
    ///
    /// If one does not run.
    pub fn usage(&self) -> anyhow::Result<Vec<Usage>> {
        self.nodes
            .iter()
            .map(|node| Ok(node.process.usage()?))
            .collect()
    }

    /// Lets all servers end by themselves.
    ///
    /// # Errors
    ///
    /// If one has to be killed, or says that it could not close its store.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let stops = self.nodes.iter_mut().map(|node| async {
            let stopped = node.process.stop(STOP_TIMEOUT).await?;
            match stopped {
                Stopped::Killed => bail!("{} did not stop and was killed", node.name),
                _ => Ok(()),
            }
        });
        futures::future::try_join_all(stops).await?;
        match &mut self.wires {
            Some(wires) => wires.stop().await,
            None => Ok(()),
        }
    }
}

/// What a program that is about to be started needs to become a server.
fn server_command(command: Command, directory: &Path, args: &[String]) -> Command {
    command
        .arg("server")
        .arg("--dir")
        .arg(directory.as_os_str().to_owned())
        .args(args.iter().cloned())
        .env(
            "COMITY_LOG",
            std::env::var("COMITY_LOG").unwrap_or_else(|_| "info".into()),
        )
        .ready(Ready::Json, READY_TIMEOUT)
}

/// A free port of this machine.
///
/// # Errors
///
/// What the system says.
pub fn free_ports() -> std::io::Result<Ports> {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    // All are held until all are chosen, so that no two are the same.
    let (https, http) = (
        std::net::TcpListener::bind(any)?,
        std::net::TcpListener::bind(any)?,
    );
    let (quic, links) = (
        std::net::UdpSocket::bind(any)?,
        std::net::UdpSocket::bind(any)?,
    );
    Ok(Ports {
        https: https.local_addr()?.port(),
        http: http.local_addr()?.port(),
        quic: quic.local_addr()?.port(),
        links: links.local_addr()?.port(),
    })
}
