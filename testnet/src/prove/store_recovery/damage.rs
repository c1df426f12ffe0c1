//! What happens to files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::chaos::Random;

/// Damages of the log in a run, for each seed.
pub(super) const LOG_DAMAGE: u64 = 2;
/// Bytes that are overwritten at once: a sector.
const SECTOR: usize = 512;

/// What is done to the index.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Damage {
    /// Sectors are overwritten.
    Garbled,
    /// Files end early.
    Truncated,
    /// The directory is gone.
    Deleted,
}

impl Damage {
    pub(super) const OF_INDEX: [Self; 3] = [Self::Garbled, Self::Truncated, Self::Deleted];
}

/// Damages the index.
pub(super) fn index(data: &Path, damage: Damage, random: &mut Random) -> anyhow::Result<()> {
    let index = data.join("index");
    let files = files(&index).with_context(|| format!("reading {}", index.display()))?;
    anyhow::ensure!(!files.is_empty(), "{} is empty", index.display());
    match damage {
        Damage::Deleted => fs::remove_dir_all(&index)?,
        Damage::Truncated => {
            for path in files {
                let file = fs::File::options().write(true).open(&path)?;
                file.set_len(random.below(file.metadata()?.len()))?;
            }
        }
        Damage::Garbled => {
            for path in files {
                let mut bytes = fs::read(&path)?;
                if bytes.is_empty() {
                    continue;
                }
                // One in sixteen sectors, and one at least.
                for _ in 0..=bytes.len() / SECTOR / 16 {
                    let at = random.place(bytes.len());
                    let end = bytes.len().min(at + SECTOR);
                    for byte in &mut bytes[at..end] {
                        *byte = !*byte ^ random.below(255).to_le_bytes()[0];
                    }
                }
                fs::write(&path, bytes)?;
            }
        }
    }
    Ok(())
}

/// Deletes the log.
pub(super) fn delete_log(data: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(data.join("log")).context("deleting the log")
}

/// Garbles the record that holds a text, from the text backwards so that no content alone is hit.
/// Gives where.
pub(super) fn log(data: &Path, text: &str) -> anyhow::Result<usize> {
    /// Far enough to be in the body, which lies before the contents.
    const BACK: usize = 200;
    for path in files(&data.join("log"))? {
        let mut bytes = fs::read(&path)?;
        let found = bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes());
        if let Some(at) = found {
            let from = at.saturating_sub(BACK);
            for byte in &mut bytes[from..from + 16] {
                *byte = !*byte;
            }
            fs::write(&path, bytes)?;
            return Ok(from);
        }
    }
    anyhow::bail!("the log does not hold {text:?}")
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(files(&entry.path())?);
        } else {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}
