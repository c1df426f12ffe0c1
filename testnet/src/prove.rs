//! What is claimed of the network, each claim executable and each able to fail.

mod chaos;
mod core_speed;
mod erasure;
mod hostile_input;
mod ledger;
mod members;
pub mod outage;
mod power_cut;
mod replay;
pub mod speed;
mod store_recovery;
mod strangers;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use crate::{
    claims::{self, Build, Claim, Context, Options},
    cli::Place,
    machine,
};

/// All claims, quick ones first.
pub static CLAIMS: &[&dyn Claim] = &[
    &replay::Replay,
    &power_cut::PowerCut,
    &store_recovery::StoreRecovery,
    &hostile_input::HostileInput,
    &core_speed::CoreSpeed,
    &erasure::Erasure,
    &members::Members,
    &outage::Outage,
    &strangers::StrangersMeet,
    &speed::Speed,
    &chaos::Chaos,
];

/// Syncs by which the disk is known.
const PROBE_APPENDS: u32 = 200;
/// Time in which the processor is known.
const PROBE_VERIFY: Duration = Duration::from_millis(200);

/// Tries claims.
#[derive(Debug, Args)]
pub struct Prove {
    #[command(flatten)]
    options: Options,
    /// Keep the files of the claims here instead of in a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs the command.
pub(crate) async fn prove(args: Prove) -> anyhow::Result<ExitCode> {
    let place = Place::new(args.dir)?;
    std::fs::create_dir_all(&place.path)?;
    let path = place.path.clone();
    let probe = move || machine::measure(&path, PROBE_APPENDS, PROBE_VERIFY);
    let machine = tokio::task::spawn_blocking(probe).await??;
    let context = Context {
        directory: place.path.clone(),
        machine: (&machine).into(),
        build: Build::this(),
        quick: args.options.quick,
    };
    let (mut out, mut told) = (std::io::stdout(), std::io::stderr());
    let code = claims::prove(CLAIMS, &args.options, &context, &mut out, &mut told).await?;
    Ok(code.into())
}

/// A new directory for one run of a claim.
fn directory(context: &Context, claim: &str) -> anyhow::Result<PathBuf> {
    for number in 0.. {
        let path = context.directory.join(format!("{claim}-{number}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("no name is left for a directory")
}
