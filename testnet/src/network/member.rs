//! A user of the network with an open client.

use anyhow::Context as _;
use comity_sdk::{Client, Transport};

use super::Network;

/// A connected user.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which server is home.
    pub node: usize,
    /// The full address.
    pub address: String,
    /// The token that enrols devices.
    pub token: String,
    /// The client.
    pub client: Client,
}

impl Network {
    /// Makes an account and connects a client without a store.
    ///
    /// # Errors
    ///
    /// What the server or the SDK says.
    pub async fn join(
        &self,
        node: usize,
        handle: &str,
        transport: Transport,
    ) -> anyhow::Result<Member> {
        let token = self.add_user(node, handle).await?;
        let client = self.client(node, handle, &token, transport).connect().await;
        let client = client.with_context(|| format!("connecting {handle}"))?;
        let address = format!("{handle}@{}", self.nodes[node].name);
        Ok(Member {
            node,
            address,
            token,
            client,
        })
    }
}

/// A handle made of a name of a log: letters and digits, unique by its number.
#[must_use]
pub fn keep_handles(name: &str, number: usize) -> String {
    let kept: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(20)
        .collect::<String>()
        .to_lowercase();
    format!("u{number}-{}", if kept.is_empty() { "x" } else { &kept })
}
