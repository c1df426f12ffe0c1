//! What is on the disk before the servers start.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use comity_node::config::{Config, FILE, Listen, Peer, Profile, ServerKeys, TlsFiles};
use comity_protocol::{card::CardFields, time::Timestamp};

use super::{Options, Ports, free_ports};
use crate::{ca::Authority, proxy::Proxy};

pub(super) struct Planned {
    pub(super) region: String,
    pub(super) name: String,
    pub(super) directory: PathBuf,
    pub(super) ports: Ports,
}

pub(super) struct Plan {
    pub(super) servers: Vec<Planned>,
    pub(super) proxies: BTreeMap<(usize, usize), Proxy>,
    pub(super) ca_pem: String,
}

pub(super) fn ca_path(directory: &Path) -> PathBuf {
    directory.join("ca").join("ca.pem")
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn quic_address(port: u16) -> String {
    format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
}

/// Makes keys and certificates that are missing, chooses ports, and writes every configuration.
pub(super) async fn prepare(options: &Options) -> anyhow::Result<Plan> {
    let root = &options.directory;
    fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
    let authority = Authority::open(&root.join("ca"))?;
    fs::write(ca_path(root), authority.cert_pem())?;
    let (mut servers, mut cards) = (Vec::new(), Vec::new());
    for region in &options.regions {
        let directory = root.join(region);
        fs::create_dir_all(&directory)?;
        let name = format!("{region}.localhost");
        let keys = if directory.join("operational.key").exists() {
            ServerKeys::load(&directory)?
        } else {
            let fields = CardFields {
                name: name.parse()?,
                addresses: vec![],
                https: None,
                region: Some(region.clone()),
            };
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            let now = Timestamp(u64::try_from(now.as_millis())?);
            ServerKeys::create(&directory, fields, now)?
        };
        let issued = authority.issue(&[&name, "localhost", "127.0.0.1"])?;
        issued.write(&directory.join("tls.pem"), &directory.join("tls.key"))?;
        cards.push(keys.cards.to_text()?);
        servers.push(Planned {
            region: region.clone(),
            name,
            directory,
            ports: free_ports()?,
        });
    }
    let proxies = proxies(options, &servers).await?;
    for (from, server) in servers.iter().enumerate() {
        let peers = (0..servers.len()).filter(|to| *to != from).map(|to| {
            let port = match proxies.get(&(from, to)) {
                Some(proxy) => proxy.address().port(),
                None => servers[to].ports.links,
            };
            Peer {
                card: cards[to].clone(),
                addresses: vec![quic_address(port)],
            }
        });
        let config = Config {
            name: server.name.parse()?,
            region: Some(server.region.clone()),
            data: "data".into(),
            profile: Profile::Dev,
            listen: Listen {
                https: Some(loopback(server.ports.https)),
                http: Some(loopback(server.ports.http)),
                quic: Some(loopback(server.ports.quic)),
                links: loopback(server.ports.links),
            },
            tls: Some(TlsFiles {
                certificate: "tls.pem".into(),
                key: "tls.key".into(),
            }),
            peers: peers.collect(),
        };
        fs::write(server.directory.join(FILE), config.to_toml()?)?;
    }
    Ok(Plan {
        servers,
        proxies,
        ca_pem: authority.cert_pem().to_owned(),
    })
}

async fn proxies(
    options: &Options,
    servers: &[Planned],
) -> anyhow::Result<BTreeMap<(usize, usize), Proxy>> {
    let mut proxies = BTreeMap::new();
    if !options.proxied && options.delays.is_empty() {
        return Ok(proxies);
    }
    for (from, a) in servers.iter().enumerate() {
        for (to, b) in servers.iter().enumerate().filter(|(to, _)| *to != from) {
            let seed = options.seed ^ ((from as u64) << 32 | to as u64) | 1;
            let proxy = Proxy::start(loopback(b.ports.links), seed).await?;
            let pair = |x: &Planned, y: &Planned| (x.region.clone(), y.region.clone());
            let delay = options
                .delays
                .get(&pair(a, b))
                .or_else(|| options.delays.get(&pair(b, a)));
            if let Some(delay) = delay {
                proxy.delay(*delay);
            }
            proxies.insert((from, to), proxy);
        }
    }
    Ok(proxies)
}
