//! Waiting for what servers say of themselves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

use super::Network;

impl Network {
    /// Waits until every server has a link to every other.
    ///
    /// # Errors
    ///
    /// If that takes longer than `within`.
    pub async fn linked(&self, within: Duration) -> anyhow::Result<()> {
        self.until(within, |status| {
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            peers.len() + 1 == self.nodes.len()
                && peers.iter().all(|peer| peer["connected"] == true)
        })
        .await
        .context("waiting for links")
    }

    /// Waits until every server has a link to every other and nothing is left to push or fetch
    /// anywhere, of all that was accepted before the call.
    ///
    /// # Errors
    ///
    /// If that takes longer than `within`.
    pub async fn settled(&self, within: Duration) -> anyhow::Result<()> {
        let called = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let called_ms = u64::try_from(called.as_millis())?;
        self.until(within, |status| {
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            // A state is a moment old: one from before the call says nothing.
            peers.len() + 1 == self.nodes.len()
                && peers.iter().all(|peer| {
                    peer["settled"] == true
                        && peer["as_of_ms"].as_u64().is_some_and(|at| at > called_ms)
                })
        })
        .await
        .context("waiting for the servers to be whole")
    }

    async fn until(
        &self,
        within: Duration,
        met: impl Fn(&serde_json::Value) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let mut all = true;
            for node in &self.nodes {
                all &= node.status().await.is_ok_and(|status| met(&status));
            }
            if all {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                for node in &self.nodes {
                    if let Ok(status) = node.status().await {
                        eprintln!("{}: {}", node.name, status["peers"]);
                    }
                }
                bail!("not within {within:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
