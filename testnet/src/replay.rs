//! Plays a chat log on a network, many users at once, and compares what every server then shows.

pub(crate) mod player;
pub(crate) mod read_back;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use comity_sdk::{Client, ConversationId, Transport};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    compare::Report,
    logs::{self, script::Script},
    network::{Member, Network, keep_handles},
};

pub use player::{Curtain, Pace, Played};

/// Time for everything sent to be everywhere.
const WHOLE: Duration = Duration::from_secs(60);

/// The last line of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Log files.
    pub files: Vec<PathBuf>,
    /// Transport of the clients.
    pub transport: String,
    /// Lines of the log that are part of the history.
    pub lines: u64,
    /// Lines that were sent.
    pub sent: u64,
    /// Joins, parts and changes of name that were acts.
    pub acts: u64,
    /// Users.
    pub users: u64,
    /// Answers left out because the log lacks what they answer.
    pub replies_left_out: u64,
    /// Lines of a user in another order than the log's.
    pub out_of_order: u64,
    /// Seconds from the first to the last line accepted.
    pub seconds: f64,
    /// The comparison.
    #[serde(flatten)]
    pub report: Report,
}

/// A conversation whose readers, one on each server, are members from the start.
#[derive(Debug)]
pub struct Stage {
    /// The conversation.
    pub conversation: ConversationId,
    /// One on each server; the first owns the conversation.
    pub readers: Vec<Member>,
}

impl Stage {
    /// Makes the readers and their conversation, with an open door.
    ///
    /// # Errors
    ///
    /// What a server or the SDK says.
    pub async fn set(
        network: &Network,
        title: &str,
        tag: &str,
        transport: Transport,
    ) -> anyhow::Result<Self> {
        let mut readers = Vec::new();
        for node in 0..network.nodes.len() {
            readers.push(
                network
                    .join(node, &format!("reader-{tag}-{node}"), transport)
                    .await?,
            );
        }
        let others: Vec<&str> = readers[1..].iter().map(|m| m.address.as_str()).collect();
        let group = readers[0].client.create_group(title, others).await?;
        group
            .open_door(comity_sdk::Role::Member)
            .await?
            .accepted()
            .await?;
        let stage = Self {
            conversation: group.id(),
            readers,
        };
        stage.known(network).await?;
        Ok(stage)
    }

    /// Waits until every reader's server knows the conversation.
    async fn known(&self, network: &Network) -> anyhow::Result<()> {
        for reader in &self.readers {
            let known = async {
                loop {
                    let all = reader.client.conversations().await?;
                    if all.iter().any(|c| c.id() == self.conversation) {
                        return anyhow::Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let name = &network.nodes[reader.node].name;
            tokio::time::timeout(Duration::from_secs(30), known)
                .await
                .with_context(|| format!("{name} does not learn of the conversation"))??;
        }
        Ok(())
    }
}

/// Plays files one after the other, each in a conversation of its own.
///
/// # Errors
///
/// What failed; differences are no error but in the summary.
pub async fn replay(
    network: &Network,
    files: &[PathBuf],
    transport: Transport,
    pace: Pace,
    quiet: bool,
) -> anyhow::Result<Vec<Summary>> {
    let mut summaries = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let script = Arc::new(read(file)?);
        let tag = format!("{number}-{}", transport_name(transport));
        summaries.push(play_file(network, file, &script, &tag, transport, pace, quiet).await?);
    }
    Ok(summaries)
}

/// Reads one log.
///
/// # Errors
///
/// Where and why it cannot be read.
pub fn read(file: &Path) -> anyhow::Result<Script> {
    let reader = logs::open(file).with_context(|| format!("opening {}", file.display()))?;
    Script::read(reader).with_context(|| format!("reading {}", file.display()))
}

pub(crate) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Quic => "quic",
        Transport::WebSocket => "websocket",
        _ => "auto",
    }
}

async fn play_file(
    network: &Network,
    file: &Path,
    script: &Arc<Script>,
    tag: &str,
    transport: Transport,
    pace: Pace,
    quiet: bool,
) -> anyhow::Result<Summary> {
    let title = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let stage = Stage::set(network, &title, tag, transport).await?;
    let bar = bar(script.steps.len() as u64, &title, quiet);
    let clients = cast(network, &stage, script, tag, &[transport]).await?;
    let curtain = Curtain::default();
    let played = player::play(stage.conversation, script, &clients, pace, &curtain, &bar).await;
    bar.finish_and_clear();
    if !played.failures.is_empty() {
        bail!("{}", played.failures.join("; "));
    }
    network.settled(WHOLE).await?;
    let (report, out_of_order) =
        read_back::compare(network, &stage, script, &clients, &played).await?;
    close(&clients).await;
    close(
        &stage
            .readers
            .iter()
            .map(|r| r.client.clone())
            .collect::<Vec<_>>(),
    )
    .await;
    Ok(Summary {
        files: vec![file.to_owned()],
        transport: transport_name(transport).to_owned(),
        lines: report.lines,
        sent: report.sent,
        acts: played.acts,
        users: script.users.len() as u64,
        replies_left_out: script.replies_left_out,
        out_of_order,
        seconds: played.seconds,
        report,
    })
}

pub(crate) fn bar(steps: u64, title: &str, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:24} {bar:30} {pos}/{len} {per_sec} {eta}");
    let bar = ProgressBar::new(steps).with_message(title.to_owned());
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

pub(crate) async fn close(clients: &[Client]) {
    for client in clients {
        let _ = client.close().await;
    }
}

/// Makes the users of a script, spread over the servers, and lets in who is there from the start.
/// The users of a server use the transports in turn.
pub(crate) async fn cast(
    network: &Network,
    stage: &Stage,
    script: &Script,
    tag: &str,
    transports: &[Transport],
) -> anyhow::Result<Vec<Client>> {
    let servers = network.nodes.len();
    let owner = stage.readers[0].client.conversation(stage.conversation);
    let mut members = Vec::new();
    for chunk in script.users.chunks(16) {
        let joins = chunk.iter().map(|user| {
            let number = user.key.0 as usize;
            let handle = format!("{}-{tag}", keep_handles(&user.first_name, number));
            let transport = transports[number / servers % transports.len()];
            async move { network.join(number % servers, &handle, transport).await }
        });
        members.extend(futures::future::try_join_all(joins).await?);
    }
    let mut invitations = Vec::new();
    for (user, member) in script.users.iter().zip(&members) {
        if user.from_start {
            invitations.push(
                owner
                    .invite(member.client.user(), comity_sdk::Role::Member)
                    .await?,
            );
        }
    }
    for invitation in invitations {
        invitation.accepted().await?;
        // The user's home must know that he is a member before it takes his first line.
        if servers > 1 {
            invitation.replicated(comity_sdk::Replicas::All).await?;
        }
    }
    Ok(members.into_iter().map(|member| member.client).collect())
}
