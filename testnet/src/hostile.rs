//! One target under hostile inputs, in a process of its own: what the claim `hostile-input` starts.

use std::{process::ExitCode, sync::OnceLock};

use anyhow::Context as _;
use clap::Args;
use comity_fuzz::{
    Target, allocation, find,
    run::{self, Report},
};

/// Bytes that a planted fault asks for.
const PLANTED_BYTES: usize = 64 * 1024 * 1024;

/// Which target, and how.
#[derive(Debug, Args)]
pub(crate) struct Hostile {
    /// The target's name.
    #[arg(long)]
    target: String,
    /// The same seed makes the same inputs.
    #[arg(long)]
    seed: u64,
    /// Inputs; machines get fewer.
    #[arg(long)]
    inputs: u64,
    /// Plants two faults in the target: some inputs make it panic, and a claimed length of four
    /// bytes or more is believed.
    #[arg(long)]
    planted: bool,
}

/// What is printed: one line of JSON.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
pub(crate) struct Line {
    /// Memory was counted.
    pub(crate) counting: bool,
    /// What became of the inputs.
    pub(crate) report: Report,
}

/// Runs the command.
pub(crate) fn run(args: &Hostile) -> anyhow::Result<ExitCode> {
    let target = find(&args.target).with_context(|| format!("no target {:?}", args.target))?;
    let target = if args.planted {
        planted(target)
    } else {
        *target
    };
    let inputs = run::inputs_of(&target, args.inputs);
    let line = Line {
        counting: allocation::is_counting(),
        report: run::run(&target, args.seed, inputs),
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(ExitCode::SUCCESS)
}

/// The target with faults in front of it.
fn planted(target: &Target) -> Target {
    static WHOLE: OnceLock<fn(&[u8]) -> bool> = OnceLock::new();
    let _ = WHOLE.set(target.take);
    Target {
        take: |bytes| {
            let holds = |pattern: &[u8]| bytes.windows(pattern.len()).any(|at| at == pattern);
            assert!(bytes.len() % 251 != 7, "a planted panic");
            if holds(&[0x9b, 0xff]) || bytes.len() % 241 == 5 {
                drop(std::hint::black_box(vec![0_u8; PLANTED_BYTES]));
            }
            WHOLE.get().is_some_and(|take| take(bytes))
        },
        ..*target
    }
}
