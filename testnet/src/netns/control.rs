//! What is said to a running router: one JSON object a line each way over a Unix socket.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{router::Counters, rule::Rule};

/// Bytes of a request or an answer: the counters of the largest router are within it.
pub const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Time in which a router answers.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a router is asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Makes a rule that of one direction, for what is sent from now on.
    Set {
        /// The sending host.
        from: String,
        /// The receiving host.
        to: String,
        /// The rule.
        rule: Rule,
    },
    /// Which rule one direction has.
    Rule {
        /// The sending host.
        from: String,
        /// The receiving host.
        to: String,
    },
    /// What became of all packets.
    Counters,
}

/// What it answers.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The rule that holds now.
    Rule(Rule),
    /// The figures.
    Counters(Traffic),
    /// Why nothing was done.
    Refused(String),
}

/// What became of all packets that a router has seen.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Traffic {
    /// From this host to that.
    pub pairs: BTreeMap<String, BTreeMap<String, Counters>>,
    /// Packets for nobody here, or from an address that is not their sender's.
    pub unroutable: u64,
}

impl Traffic {
    /// The figures of one direction; zeros if there is none.
    #[must_use]
    pub fn of(&self, from: &str, to: &str) -> Counters {
        let pair = self.pairs.get(from).and_then(|to_all| to_all.get(to));
        pair.copied().unwrap_or_default()
    }
}

/// A way to tell a router something.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    /// Of the router with this socket.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Of the network in a directory.
    #[must_use]
    pub fn of(network: &Path) -> Self {
        Self::new(network.join("router.sock"))
    }

    /// Where the socket is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes a rule that of one direction. When this returns, it is.
    ///
    /// # Errors
    ///
    /// What the router says, and then the rule before stays; or that none answers.
    pub async fn set(&self, from: &str, to: &str, rule: Rule) -> anyhow::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.ask(&Request::Set { from, to, rule }).await.map(drop)
    }

    /// The rule of one direction.
    ///
    /// # Errors
    ///
    /// As [`Self::set`].
    pub async fn rule(&self, from: &str, to: &str) -> anyhow::Result<Rule> {
        let (from, to) = (from.to_owned(), to.to_owned());
        match self.ask(&Request::Rule { from, to }).await? {
            Reply::Rule(rule) => Ok(rule),
            other => bail!("the router answered {other:?}"),
        }
    }

    /// Cuts or mends one direction, and leaves the rest of its rule.
    ///
    /// # Errors
    ///
    /// As [`Self::set`].
    pub async fn cut(&self, from: &str, to: &str, cut: bool) -> anyhow::Result<()> {
        let rule = self.rule(from, to).await?;
        self.set(from, to, Rule { cut, ..rule }).await
    }

    /// What became of all packets so far.
    ///
    /// # Errors
    ///
    /// As [`Self::set`].
    pub async fn traffic(&self) -> anyhow::Result<Traffic> {
        match self.ask(&Request::Counters).await? {
            Reply::Counters(traffic) => Ok(traffic),
            other => bail!("the router answered {other:?}"),
        }
    }

    async fn ask(&self, request: &Request) -> anyhow::Result<Reply> {
        let socket = self.socket.display();
        let asked = timeout(PATIENCE, self.try_ask(request)).await;
        let reply = asked
            .with_context(|| format!("the router at {socket} does not answer"))?
            .with_context(|| {
                format!("no router answers at {socket}: is `up --netns` running there?")
            })?;
        match reply {
            Reply::Refused(why) => bail!("the router refused: {why}"),
            reply => Ok(reply),
        }
    }

    async fn try_ask(&self, request: &Request) -> anyhow::Result<Reply> {
        let (read, mut write) = UnixStream::connect(&self.socket).await?.into_split();
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        write.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        let mut reader = BufReader::new(read.take(LINE_BYTES_MAX));
        reader.read_line(&mut line).await?;
        Ok(serde_json::from_str(&line)?)
    }
}
