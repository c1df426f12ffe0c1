//! One server of a test network: the real one, with faults that only a program can ask for.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use comity_node::{cli::run_server, server::Faults};
use comity_storage::Files;

/// A server and its faults.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// Its directory.
    #[arg(long)]
    dir: PathBuf,
    /// Bytes that were not synced are lost when the process is killed, as in a power cut; the
    /// machine counts as started anew each time.
    #[arg(long)]
    lossy: bool,
    /// With `--lossy`: syncs do nothing. Then acked events must be lost.
    #[arg(long, requires = "lossy")]
    no_sync: bool,
    /// With `--lossy`: every sync takes so many milliseconds longer. Then messages are slow.
    #[arg(long, requires = "lossy")]
    slow_sync_ms: Option<u64>,
    /// Erasing removes rows and leaves the bytes in the log. Then deleted texts must be found.
    #[arg(long)]
    keep_erased: bool,
}

pub(super) fn run(server: &Server) -> anyhow::Result<ExitCode> {
    let mut faults = Faults {
        keep_erased: server.keep_erased,
        ..Faults::default()
    };
    if server.lossy {
        let (files, control) = Files::lossy();
        if server.no_sync {
            control.disable_syncs(true);
        }
        if let Some(ms) = server.slow_sync_ms {
            control.slow_syncs(Duration::from_millis(ms));
        }
        faults.files = Some(files);
        let mut boot = [0; 16];
        getrandom::fill(&mut boot)?;
        faults.boot_id = Some(format!("power-cut-{:032x}", u128::from_be_bytes(boot)));
        run_server(&server.dir, true, faults)?;
        drop(control);
        return Ok(ExitCode::SUCCESS);
    }
    run_server(&server.dir, true, faults)?;
    Ok(ExitCode::SUCCESS)
}
