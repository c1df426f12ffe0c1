//! What is on the disk before the servers start.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use comity_node::config::{Config, FILE, Listen, Peer, Profile, ServerKeys, TlsFiles};
use comity_protocol::{card::CardFields, time::Timestamp};

use super::{Options, Ports, free_ports};
use crate::{
    ca::Authority,
    netns::{site, spaces::Spaces},
    proxy::Proxy,
};

pub(super) struct Planned {
    pub(super) region: String,
    pub(super) name: String,
    pub(super) directory: PathBuf,
    pub(super) host: IpAddr,
    pub(super) ports: Ports,
    hosting: Option<Hosting>,
}

/// What is special about a server in a namespace.
struct Hosting {
    /// Where it listens for other servers.
    listens: Ipv4Addr,
    /// Where these reach it: nowhere behind NAT.
    reached: Option<Ipv4Addr>,
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

fn quic_address(host: Ipv4Addr, port: u16) -> String {
    format!("/ip4/{host}/udp/{port}/quic-v1")
}

/// Ports of a host that a server has for itself.
const HOST_PORTS: Ports = Ports {
    https: 443,
    http: 8080,
    quic: 443,
    links: 4001,
};

/// The place of a region's server in the namespaces.
fn hosting(spaces: &Spaces, region: &str) -> anyhow::Result<(Ipv4Addr, Hosting)> {
    let number = spaces.number(region);
    let number = number.with_context(|| format!("there is no site {region}"))?;
    let nat = spaces.sites()[number].nat;
    let outside = site::outside(number);
    let hosting = Hosting {
        listens: if nat { site::behind(number) } else { outside },
        reached: (!nat).then_some(outside),
    };
    Ok((site::desk(number), hosting))
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
        let ports = free_ports()?;
        // Who is met by name is asked there by HTTPS: the port is part of it.
        let name = match options.strangers {
            Some(_) => format!("localhost:{}", ports.https),
            None => format!("{region}.localhost"),
        };
        let keys = if directory.join("operational.key").exists() {
            ServerKeys::load(&directory)?
        } else {
            let fields = CardFields {
                name: name.parse()?,
                addresses: options
                    .strangers
                    .map(|_| quic_address(Ipv4Addr::LOCALHOST, ports.links))
                    .into_iter()
                    .collect(),
                https: None,
                region: Some(region.clone()),
            };
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
            let now = Timestamp(u64::try_from(now.as_millis())?);
            ServerKeys::create(&directory, fields, now)?
        };
        let (mut host, mut place) = (Ipv4Addr::LOCALHOST, None);
        if let Some(spaces) = &options.spaces {
            let (desk, hosting) = hosting(spaces, region)?;
            (host, place) = (desk, Some(hosting));
        }
        let mut names = vec!["localhost".into(), "127.0.0.1".into()];
        if options.strangers.is_none() {
            names.push(name.clone());
        }
        if let Some(place) = &place {
            names.extend([host, place.listens].map(|address| address.to_string()));
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let issued = authority.issue(&names)?;
        issued.write(&directory.join("tls.pem"), &directory.join("tls.key"))?;
        cards.push(keys.cards.to_text()?);
        servers.push(Planned {
            region: region.clone(),
            name,
            directory,
            host: host.into(),
            ports: if place.is_some() { HOST_PORTS } else { ports },
            hosting: place,
        });
    }
    let proxies = proxies(options, &servers).await?;
    for (from, server) in servers.iter().enumerate() {
        let peers = (0..servers.len()).filter(|to| *to != from).map(|to| {
            let port = match proxies.get(&(from, to)) {
                Some(proxy) => proxy.address().port(),
                None => servers[to].ports.links,
            };
            let reached = match &servers[to].hosting {
                Some(hosting) => hosting.reached,
                None => Some(Ipv4Addr::LOCALHOST),
            };
            Peer {
                card: cards[to].clone(),
                addresses: reached
                    .map(|host| quic_address(host, port))
                    .into_iter()
                    .collect(),
            }
        });
        let mut peers: Vec<_> = peers.collect();
        let mut network = comity_node::config::Network::default();
        if let Some(strangers) = options.strangers {
            peers.clear();
            if strangers.first_has_wrong_card && from == 0 {
                peers.push(wrong_card(root, &servers[1].name)?);
            }
            network = comity_node::config::Network {
                closed: strangers.closed,
                ca: Some(ca_path(root)),
                allow: vec!["127.0.0.0/8".to_owned()],
            };
        }
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let (users, links) = match &server.hosting {
            Some(hosting) => (any as fn(u16) -> SocketAddr, hosting.listens),
            None => (loopback as fn(u16) -> SocketAddr, Ipv4Addr::LOCALHOST),
        };
        let config = Config {
            name: server.name.parse()?,
            region: Some(server.region.clone()),
            data: "data".into(),
            profile: Profile::Dev,
            listen: Listen {
                https: Some(users(server.ports.https)),
                http: Some(loopback(server.ports.http)),
                quic: Some(users(server.ports.quic)),
                links: (links, server.ports.links).into(),
            },
            tls: Some(TlsFiles {
                certificate: "tls.pem".into(),
                key: "tls.key".into(),
            }),
            peers,
            network,
        };
        fs::write(server.directory.join(FILE), config.to_toml()?)?;
    }
    Ok(Plan {
        servers,
        proxies,
        ca_pem: authority.cert_pem().to_owned(),
    })
}

/// The card of a server that does not run, with the name of one that does.
fn wrong_card(root: &Path, name: &str) -> anyhow::Result<Peer> {
    let directory = root.join("nobody");
    fs::create_dir_all(&directory)?;
    let fields = CardFields {
        name: name.parse()?,
        addresses: vec![],
        https: None,
        region: None,
    };
    let keys = ServerKeys::create(&directory, fields, Timestamp(1))?;
    Ok(Peer {
        card: keys.cards.to_text()?,
        addresses: vec![],
    })
}

async fn proxies(
    options: &Options,
    servers: &[Planned],
) -> anyhow::Result<BTreeMap<(usize, usize), Proxy>> {
    let mut proxies = BTreeMap::new();
    ensure!(
        options.spaces.is_none() || (!options.proxied && options.delays.is_empty()),
        "ways between namespaces have rules, not forwarders"
    );
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
