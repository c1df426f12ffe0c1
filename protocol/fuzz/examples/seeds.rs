//! Writes the sound inputs of one target into a directory, for libFuzzer to begin with; without
//! arguments it lists the targets.
//!
//! `cargo run -p comity-fuzz --example seeds -- TARGET DIRECTORY`

use std::{fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(directory)) = (args.next(), args.next()) else {
        for target in comity_fuzz::TARGETS {
            println!("{}", target.name);
        }
        return ExitCode::SUCCESS;
    };
    let Some(target) = comity_fuzz::find(&name) else {
        eprintln!("there is no target {name:?}");
        return ExitCode::FAILURE;
    };
    let directory = PathBuf::from(directory);
    let write = || {
        fs::create_dir_all(&directory)?;
        for (n, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("seed-{n:03}")), seed)?;
        }
        Ok::<(), std::io::Error>(())
    };
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
