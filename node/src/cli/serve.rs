//! `comity serve`.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::Config,
    server::{Addresses, Faults, Server},
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Print one JSON line when ready and one when stopped, for scripts.
    #[arg(long)]
    json: bool,
}

/// What is printed once a server serves.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// `ready`, then `stopped`.
    pub state: &'static str,
    /// The server's name.
    pub name: String,
    /// Where it is reached.
    pub addresses: Addresses,
    /// Milliseconds from the start until it served.
    pub after_ms: u64,
    /// How the store came up.
    pub opened: String,
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("COMITY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

pub(super) fn serve(dir: &Path, args: &Serve) -> anyhow::Result<ExitCode> {
    run_server(dir, args.json, Faults::default())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the server of a directory until it is told to stop by SIGINT or SIGTERM.
///
/// # Errors
///
/// If it cannot start, or could not close its store.
pub fn run_server(dir: &Path, json: bool, faults: Faults) -> anyhow::Result<()> {
    log();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = Config::load(dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut int = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let server = Server::start(dir, &config, faults).await?;
        let status = server.status();
        let ready = Ready {
            state: "ready",
            name: status.name,
            addresses: status.addresses,
            after_ms: status.uptime_ms,
            opened: status.opened,
        };
        say(json, &ready)?;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("stopping");
        server.stop().await.context("closing the store")?;
        say(
            json,
            &Ready {
                state: "stopped",
                ..ready
            },
        )
    })
}

fn say(json: bool, ready: &Ready) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(ready)?)?;
    } else if ready.state == "ready" {
        writeln!(out, "{} is ready", ready.name)?;
        for (what, address) in [
            ("https", ready.addresses.https),
            ("http ", ready.addresses.http),
            ("quic ", ready.addresses.quic),
        ] {
            if let Some(address) = address {
                writeln!(out, "  {what} {address}")?;
            }
        }
        for address in &ready.addresses.links {
            writeln!(out, "  links {address}")?;
        }
    } else {
        writeln!(
            out,
            "{} has stopped; everything accepted is on the disk",
            ready.name
        )?;
    }
    out.flush()?;
    Ok(())
}
