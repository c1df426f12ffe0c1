//! Network namespaces of one network: made with names of this run, and removed with the value.
//!
//! Everything is done by `ip` (iproute2) and `nft` (nftables), which need no unsafe code and say in
//! words what they refuse. A run that was killed leaves its namespaces; the next one removes those
//! whose process is gone, and touches no other.

mod firewall;
mod stale;

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::site::{self, SITES_MAX, Site};

pub use stale::remove_stale;

/// How names of namespaces begin; the process's number and the network's follow.
const PREFIX: &str = "comity-";
/// Where iproute2 keeps names.
const NAMES: &str = "/run/netns";

/// Networks that this process has made.
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// Why namespaces are not as asked. What was made until then is removed again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Too many.
    #[error("at most {SITES_MAX} sites")]
    TooMany,
    /// A name that is none: letters and digits name sites.
    #[error("{0:?} names no site: letters and digits do")]
    Name(String),
    /// A program cannot be started.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// A program refused.
    #[error("`{command}` failed: {said}")]
    Refused {
        /// What was asked.
        command: String,
        /// What it said.
        said: String,
    },
    /// This thread cannot enter a namespace.
    #[error("cannot enter the namespace {name}")]
    Enter {
        /// Which.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

/// The namespaces of a network. Dropping it removes their names; they end with the last process
/// in them.
#[derive(Debug)]
pub struct Spaces {
    prefix: String,
    sites: Vec<Site>,
    /// Names that exist.
    made: Vec<String>,
}

impl Spaces {
    /// Makes a namespace for each site, one for its users and one for the router, with the cables
    /// between users and servers and what is behind gates. Removes those of dead runs first. What
    /// leaves a site gets nowhere until [`Self::plug`].
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing is left behind.
    pub fn create(sites: &[Site]) -> Result<Self, Error> {
        if sites.len() > SITES_MAX {
            return Err(Error::TooMany);
        }
        for site in sites {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let reserved = ["people", "router"].contains(&site.name.as_str());
            if site.name.is_empty() || reserved || !site.name.chars().all(good) {
                return Err(Error::Name(site.name.clone()));
            }
        }
        remove_stale();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let mut spaces = Self {
            prefix: format!("{PREFIX}{}-{number}-", std::process::id()),
            sites: sites.to_vec(),
            made: Vec::new(),
        };
        for name in ["people", "router"] {
            let name = spaces.name(name);
            spaces.add(&name)?;
        }
        for (number, site) in sites.iter().enumerate() {
            let name = spaces.name(&site.name);
            spaces.add(&name)?;
            spaces.desk(number, site)?;
            if site.has_gate() {
                let name = spaces.gate_name(site);
                spaces.add(&name)?;
                spaces.gate(number, site)?;
            }
        }
        Ok(spaces)
    }

    /// The sites, in the order of their numbers.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The number of the site with this name.
    #[must_use]
    pub fn number(&self, site: &str) -> Option<usize> {
        self.sites.iter().position(|known| known.name == site)
    }

    /// The namespace's name of a site, of its `people`, or of the `router`.
    #[must_use]
    pub fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }

    /// Name of the router's device for a site.
    #[must_use]
    pub fn device(site: usize) -> String {
        format!("wan{site}")
    }

    /// Brings this thread into the users' namespace, and all threads and processes that it starts
    /// from now on. Start a runtime afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Enter`]; the thread stays where it is.
    pub fn enter_people(&self) -> Result<(), Error> {
        self.enter("people")
    }

    /// As [`Self::enter_people`], into the namespace of a site.
    ///
    /// # Errors
    ///
    /// As [`Self::enter_people`].
    pub fn enter(&self, what: &str) -> Result<(), Error> {
        let name = self.name(what);
        let enter = || -> io::Result<()> {
            let space = File::open(Path::new(NAMES).join(&name))?;
            #[expect(unsafe_code, reason = "the standard library knows no namespaces")]
            // SAFETY: setns reads nothing but its two numbers, and the descriptor is open.
            let result = unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) };
            if result == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        enter().map_err(|source| Error::Enter { name, source })
    }

    /// Moves the router's devices, which it has made in its own namespace, to the sites, and gives
    /// those their addresses and ways.
    ///
    /// # Errors
    ///
    /// [`Error`]; some sites may be plugged in by then.
    pub fn plug(&self) -> Result<(), Error> {
        let router = self.name("router");
        for (number, site) in self.sites.iter().enumerate() {
            let device = &Self::device(number);
            let space = if site.has_gate() {
                self.gate_name(site)
            } else {
                self.name(&site.name)
            };
            ip(&format!("-n {router} link set dev {device} netns {space}"))?;
            let address = if site.has_gate() && !site.nat {
                site::firewall(number)
            } else {
                site::outside(number)
            };
            ip(&format!("-n {space} addr add {address}/32 dev {device}"))?;
            if !site.has_gate() {
                let address = site::outside6(number);
                ip(&format!(
                    "-n {space} addr add {address}/128 dev {device} nodad"
                ))?;
            }
            ip(&format!("-n {space} link set dev {device} up"))?;
            ip(&format!("-n {space} route add default dev {device}"))?;
            if !site.has_gate() {
                ip(&format!("-n {space} -6 route add default dev {device}"))?;
            }
        }
        Ok(())
    }

    /// A cable between a server and its users, which no rule slows.
    fn desk(&self, number: usize, site: &Site) -> Result<(), Error> {
        let (people, space) = (self.name("people"), self.name(&site.name));
        let end = format!("desk{number}");
        ip(&format!(
            "link add {end} netns {people} type veth peer name desk netns {space}"
        ))?;
        let (here, there) = (site::people(number), site::desk(number));
        ip(&format!("-n {people} addr add {here}/24 dev {end}"))?;
        ip(&format!("-n {space} addr add {there}/24 dev desk"))?;
        ip(&format!("-n {people} link set dev {end} up"))?;
        ip(&format!("-n {space} link set dev desk up"))
    }

    /// A host between the server and the others, and the cable to it.
    fn gate(&self, number: usize, site: &Site) -> Result<(), Error> {
        let (space, gate) = (self.name(&site.name), self.gate_name(site));
        ip(&format!(
            "link add lan netns {space} type veth peer name lan netns {gate}"
        ))?;
        let (inner, outer) = (site::behind(number), site::gate(number));
        ip(&format!("-n {space} addr add {inner}/24 dev lan"))?;
        ip(&format!("-n {gate} addr add {outer}/24 dev lan"))?;
        let mut source = inner;
        if !site.nat {
            // The server has the address by which others reach it, and its gate passes it on.
            source = site::outside(number);
            ip(&format!("-n {space} addr add {source}/32 dev lan"))?;
        }
        ip(&format!("-n {space} link set dev lan up"))?;
        ip(&format!("-n {gate} link set dev lan up"))?;
        if !site.nat {
            ip(&format!("-n {gate} route add {source}/32 dev lan"))?;
        }
        ip(&format!(
            "-n {space} route add default via {outer} dev lan src {source}"
        ))?;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run("ip", &["netns", "exec", &gate, "sh", "-c", forward], None)?;
        let rules = firewall::rules(site, &Self::device(number));
        run(
            "ip",
            &["netns", "exec", &gate, "nft", "-f", "-"],
            Some(&rules),
        )
    }

    fn gate_name(&self, site: &Site) -> String {
        self.name(&format!("{}-gate", site.name))
    }

    fn add(&mut self, name: &str) -> Result<(), Error> {
        ip(&format!("netns add {name}"))?;
        self.made.push(name.to_owned());
        ip(&format!("-n {name} link set dev lo up"))
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for name in &self.made {
            // There is nobody to tell: what stays is removed by the next run.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Runs `ip` with these words.
pub(super) fn ip(words: &str) -> Result<(), Error> {
    let words: Vec<_> = words.split_ascii_whitespace().collect();
    run("ip", &words, None)
}

/// Runs a program to its end, with this on its input.
pub(super) fn run(program: &str, args: &[&str], input: Option<&str>) -> Result<(), Error> {
    let start = |source| Error::Start {
        program: program.to_owned(),
        source,
    };
    let (read, mut write) = io::pipe().map_err(start)?;
    let child = Command::new(program)
        .args(args)
        .stdin(read)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    // Less than a pipe holds, so this does not wait for the program to read; one that has ended
    // already says below why.
    let _ = io::Write::write_all(&mut write, input.unwrap_or_default().as_bytes());
    drop(write);
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let command = format!("{program} {}", args.join(" "));
    Err(Error::Refused { command, said })
}
