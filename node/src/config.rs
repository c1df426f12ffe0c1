//! The configuration file `comity.toml`: only what was chosen. Source: `spec/07-storage.md` for the
//! data directory, README for the rest.

mod keys;

pub use keys::{KeyError, ServerKeys};

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use comity_protocol::name::ServerName;
use serde::{Deserialize, Serialize};

/// Name of the file in a server's directory.
pub const FILE: &str = "comity.toml";

/// A home server's configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The server's name: final, part of every address of its users.
    pub name: ServerName,
    /// Region, for people and for placing users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where data lives; relative to the file.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    /// `org` unless said otherwise; `dev` allows plain HTTP on loopback.
    #[serde(default)]
    pub profile: Profile,
    /// Where to listen.
    #[serde(default)]
    pub listen: Listen,
    /// Certificate for HTTPS, WebSocket and QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Servers to link with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// What other servers may be met.
    #[serde(default, skip_serializing_if = "Network::is_default")]
    pub network: Network,
}

/// What other servers may be met, and where.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Link with the servers under `peers` and with no other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// A file with roots to trust besides those that browsers trust, PEM; relative to this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Ranges of addresses that are not public and that others may be reached at all the same, like
    /// `10.0.0.0/8`. Where `peers` says a server is needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

impl Network {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The ranges.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Network`] for the first that is none.
    pub fn allowed(&self) -> Result<Vec<comity_links::Network>, ConfigError> {
        let read = |text: &String| {
            text.parse().map_err(|source| ConfigError::Network {
                text: text.clone(),
                source,
            })
        };
        self.allow.iter().map(read).collect()
    }
}

/// Presets.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// An organisation's server.
    #[default]
    Org,
    /// A developer's, on loopback.
    Dev,
}

/// Addresses to listen on. Port 0 lets the system choose; `comity status` tells. Without a
/// `[listen]` table: HTTPS and QUIC on 443, links on 4001. With one, what it leaves out is off,
/// but links.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// HTTPS and WebSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<SocketAddr>,
    /// Plain HTTP and WebSocket: profile `dev` and loopback only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// Clients over QUIC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<SocketAddr>,
    /// Other servers, over QUIC.
    #[serde(default = "default_links")]
    pub links: SocketAddr,
}

fn any(port: u16) -> SocketAddr {
    ([0, 0, 0, 0], port).into()
}

fn default_links() -> SocketAddr {
    any(4001)
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            https: Some(any(443)),
            http: None,
            quic: Some(any(443)),
            links: default_links(),
        }
    }
}

/// Where the certificate is; relative to the configuration file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// A server to link with.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its card, as `comity card` prints it there.
    pub card: String,
    /// Where to reach it instead of the addresses on its card, as multiaddrs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

fn default_data() -> PathBuf {
    PathBuf::from("data")
}

/// Why a configuration cannot be used. Nothing was started or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; `comity init` makes a new server", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no configuration.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A range under `network.allow` is none.
    #[error("network.allow: {text:?} is {source}")]
    Network {
        /// As given.
        text: String,
        /// What it is not.
        source: comity_links::ParseNetworkError,
    },
    /// The file asks for something unsafe.
    #[error("{0}")]
    Unsafe(&'static str),
}

impl Config {
    /// Reads the configuration of the server in `dir` and makes its paths absolute.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(FILE);
        let text = fs::read_to_string(&path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path,
            source: Box::new(source),
        })?;
        config.check()?;
        config.data = dir.join(&config.data);
        if let Some(tls) = &mut config.tls {
            tls.certificate = dir.join(&tls.certificate);
            tls.key = dir.join(&tls.key);
        }
        if let Some(ca) = &mut config.network.ca {
            *ca = dir.join(&ca);
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let Some(http) = self.listen.http
            && (self.profile != Profile::Dev || !http.ip().is_loopback())
        {
            return Err(ConfigError::Unsafe(
                "listen.http: plain HTTP is for profile = \"dev\" on a loopback address; \
                 use listen.https with a certificate",
            ));
        }
        if (self.listen.https.is_some() || self.listen.quic.is_some()) && self.tls.is_none() {
            return Err(ConfigError::Unsafe(
                "tls: listen.https and listen.quic need [tls] certificate and key",
            ));
        }
        self.network.allowed().map(drop)
    }

    /// The file's text.
    ///
    /// # Errors
    ///
    /// If the value has no TOML form, which is a bug.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), text).unwrap();
        Config::load(dir.path())
    }

    #[test]
    fn plain_http_is_refused_outside_loopback_and_outside_dev() {
        let with = |profile: &str, http: &str| {
            read(&format!(
                "name = \"a.example\"\nprofile = \"{profile}\"\n[listen]\nhttp = \"{http}\"\nlinks = \"127.0.0.1:0\"\n"
            ))
        };
        assert!(with("dev", "127.0.0.1:0").is_ok());
        assert!(with("dev", "0.0.0.0:80").is_err());
        assert!(with("org", "127.0.0.1:80").is_err());
    }

    #[test]
    fn what_a_listen_table_leaves_out_is_off_and_what_init_writes_can_be_read() {
        let listen = Listen {
            https: None,
            http: Some(([127, 0, 0, 1], 0).into()),
            quic: None,
            links: ([127, 0, 0, 1], 0).into(),
        };
        let written = Config {
            name: "a.example".parse().unwrap(),
            region: None,
            data: default_data(),
            profile: Profile::Dev,
            listen,
            tls: None,
            peers: Vec::new(),
            network: Network::default(),
        };
        let config = read(&written.to_toml().unwrap()).unwrap();
        assert!(config.listen.https.is_none() && config.listen.quic.is_none());
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = read("name = \"a.example\"\nnmae = 1\n").unwrap_err();
        assert!(error.to_string().contains("nmae"), "{error}");
    }

    #[test]
    fn a_range_that_is_none_is_an_error_that_names_it() {
        let listen = "[listen]\nlinks = \"127.0.0.1:0\"\n";
        let with = |range: &str| {
            let text = format!("name = \"a.example\"\n{listen}[network]\nallow = [\"{range}\"]\n");
            read(&text)
        };
        assert!(with("10.0.0.0/8").is_ok());
        let error = with("10.0.0.1/8").unwrap_err();
        assert!(error.to_string().contains("10.0.0.1/8"), "{error}");
    }

    #[test]
    fn https_without_a_certificate_is_refused() {
        assert!(matches!(
            read("name = \"a.example\"\n"),
            Err(ConfigError::Unsafe(_))
        ));
    }
}
