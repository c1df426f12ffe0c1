//! Everything but `serve`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use comity_protocol::{card::CardFields, name::ServerName};

use crate::{
    admin::{AdminReply, AdminRequest, ask},
    config::{Config, FILE, Listen, Network, Profile, ServerKeys, TlsFiles},
    engine::now,
};

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The server's name, such as chat.example.org: the part behind @ of its users' addresses.
    name: ServerName,
    /// A developer's server: loopback only, plain HTTP allowed.
    #[arg(long)]
    dev: bool,
    /// Region, such as eu.
    #[arg(long)]
    region: Option<String>,
    /// Certificate chain, PEM.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Private key of the certificate, PEM.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Where other servers reach this one, as a multiaddr such as /dns4/NAME/udp/4001/quic-v1.
    #[arg(long = "address")]
    addresses: Vec<String>,
}

pub(super) fn init(dir: &Path, init: Init) -> anyhow::Result<ExitCode> {
    let file = dir.join(FILE);
    if file.exists() {
        bail!(
            "{} exists: there is a server in this directory already",
            file.display()
        );
    }
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let addresses = if init.addresses.is_empty() && !init.dev {
        vec![format!("/dns4/{}/udp/4001/quic-v1", init.name)]
    } else {
        init.addresses
    };
    let fields = CardFields {
        name: init.name.clone(),
        addresses,
        https: None,
        region: init.region.clone(),
    };
    let keys = ServerKeys::create(dir, fields, now())?;
    let tls = init
        .tls_certificate
        .zip(init.tls_key)
        .map(|(certificate, key)| TlsFiles { certificate, key });
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let listen = match (init.dev, tls.is_some()) {
        (true, true) => Listen {
            https: Some(loopback),
            http: Some(loopback),
            quic: Some(loopback),
            links: loopback,
        },
        (true, false) => Listen {
            https: None,
            http: Some(loopback),
            quic: None,
            links: loopback,
        },
        (false, _) => Listen::default(),
    };
    let config = Config {
        name: init.name.clone(),
        region: init.region,
        data: "data".into(),
        profile: if init.dev { Profile::Dev } else { Profile::Org },
        listen,
        tls: tls.or_else(|| {
            (!init.dev).then(|| TlsFiles {
                certificate: "tls.pem".into(),
                key: "tls.key".into(),
            })
        }),
        peers: Vec::new(),
        network: Network::default(),
    };
    fs::write(&file, config.to_toml()?).with_context(|| format!("writing {}", file.display()))?;
    println!("Made {} in {}.", init.name, dir.display());
    println!(
        "  Users are called @handle@{0}, such as alice@{0}. This name is final.",
        init.name
    );
    println!("  Server id {}", keys.server());
    println!(
        "  Move {} to a safe place: it can take back",
        dir.join("recovery.key").display()
    );
    println!("  the server when operational.key is lost or stolen.");
    if config.tls.is_some() {
        println!(
            "  Put the certificate where {} says, then: comity serve",
            file.display()
        );
    } else {
        println!("  Next: comity serve");
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Makes an account.
    Add {
        /// The handle: the part before @.
        handle: String,
        /// Read a password from standard input instead of printing a token.
        #[arg(long)]
        password_stdin: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lists the devices of an account, as JSON.
    Devices {
        /// The account's handle.
        handle: String,
    },
    /// Signs a device out for good; its sessions end at once.
    Revoke {
        /// The account's handle.
        handle: String,
        /// The device's key, as `devices` lists it.
        device: comity_protocol::ids::DeviceKey,
    },
    /// Prints a token with which a device of an account signs in.
    Token {
        /// The account's handle.
        handle: String,
        /// How often it can be used.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// For how many hours.
        #[arg(long, default_value_t = 24)]
        hours: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Invite {
    /// How many accounts can be made with it.
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// For how many hours.
    #[arg(long, default_value_t = 168)]
    hours: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn asked(config: &Config, request: &AdminRequest) -> anyhow::Result<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(ask(&config.data, request))? {
        AdminReply::Done(done) => Ok(done),
        AdminReply::Refused(error) => bail!("{} ({})", error.message, error.code),
    }
}

fn text(value: &serde_json::Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn token(
    config: &Config,
    user: Option<String>,
    uses: u32,
    hours: u64,
) -> anyhow::Result<serde_json::Value> {
    let valid_ms = hours.saturating_mul(3_600_000);
    asked(
        config,
        &AdminRequest::Token {
            user,
            uses,
            valid_ms,
        },
    )
}

pub(super) fn user(dir: &Path, user: User) -> anyhow::Result<ExitCode> {
    let config = Config::load(dir)?;
    match user {
        User::Add {
            handle,
            password_stdin,
            json,
        } => {
            let password = if password_stdin {
                let mut line = String::new();
                std::io::stdin()
                    .read_line(&mut line)
                    .context("reading the password")?;
                Some(line.trim_end_matches(['\r', '\n']).to_owned())
            } else {
                None
            };
            let with_token = password.is_none();
            let mut made = asked(&config, &AdminRequest::AddUser { handle, password })?;
            let handle = text(&made, "handle");
            let address = format!("{handle}@{}", config.name);
            if with_token {
                let issued = token(&config, Some(handle), 1, 24)?;
                made["token"] = issued["token"].clone();
            }
            if json {
                println!("{made}");
            } else if with_token {
                println!("Made {address}. Within 24 hours, once:");
                println!("  comity-chat --token {} {address}", text(&made, "token"));
            } else {
                println!("Made {address}. Sign in with the password: comity-chat {address}");
            }
        }
        User::Devices { handle } => {
            println!("{}", asked(&config, &AdminRequest::Devices { handle })?);
        }
        User::Revoke { handle, device } => {
            asked(&config, &AdminRequest::Revoke { handle, device })?;
            println!("{device} is signed out");
        }
        User::Token {
            handle,
            uses,
            hours,
            json,
        } => {
            let issued = token(&config, Some(handle.clone()), uses, hours)?;
            if json {
                println!("{issued}");
            } else {
                println!(
                    "  comity-chat --token {} {handle}@{}",
                    text(&issued, "token"),
                    config.name
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn invite(dir: &Path, invite: &Invite) -> anyhow::Result<ExitCode> {
    let config = Config::load(dir)?;
    let issued = token(&config, None, invite.uses, invite.hours)?;
    if invite.json {
        println!("{issued}");
    } else {
        println!(
            "For {} account(s) within {} hours:",
            invite.uses, invite.hours
        );
        println!(
            "  comity-chat --sign-up --token {} HANDLE@{}",
            text(&issued, "token"),
            config.name
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn card(dir: &Path) -> anyhow::Result<ExitCode> {
    println!("{}", ServerKeys::load(dir)?.cards.to_text()?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn status(dir: &Path, status: &Status) -> anyhow::Result<ExitCode> {
    let config = Config::load(dir)?;
    let found = asked(&config, &AdminRequest::Status)?;
    let no_peers = Vec::new();
    let peers = found["peers"].as_array().unwrap_or(&no_peers);
    let none = Vec::new();
    let twins = found["twins"].as_array().unwrap_or(&none);
    let forks = found["forks"].as_array().unwrap_or(&none);
    let healthy = found["storage"] == "ok"
        && twins.is_empty()
        && forks.is_empty()
        && peers
            .iter()
            .all(|peer| peer["connected"].as_bool().unwrap_or(false));
    if status.json {
        println!("{found}");
    } else {
        println!("{} ({})", text(&found, "name"), text(&found, "server"));
        println!(
            "  storage   {}: {} records, {} bytes",
            text(&found, "storage"),
            found["records"],
            found["log_bytes"]
        );
        println!("  opened    {}", text(&found, "opened"));
        println!("  sessions  {}", found["sessions"]);
        println!(
            "  accepted  {} of {} events taken since the start",
            found["accepted"], found["taken"]
        );
        for pair in twins {
            println!(
                "  TWINS     record {} of {}: a steward lied or lost its log; both signed by {}",
                pair["n"],
                text(pair, "conversation"),
                pair["signed_both"]
            );
        }
        for fork in forks {
            println!(
                "  FORK      {} forked its chain in {}: {} and {} follow one commit",
                text(fork, "home"),
                text(fork, "conversation"),
                text(fork, "stands"),
                text(fork, "loses")
            );
        }
        for peer in peers {
            let state = if peer["connected"].as_bool().unwrap_or(false) {
                "up"
            } else {
                "down"
            };
            println!(
                "  peer      {} {state}, {} commits waiting",
                text(peer, "name"),
                peer["waiting_commits"]
            );
            if let Some(error) = peer["last_error"].as_str() {
                println!("            last error: {error}");
            }
        }
    }
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(3)
    })
}
