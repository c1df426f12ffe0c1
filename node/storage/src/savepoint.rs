//! The savepoint file: up to which record the index is known to be durable, and for whom.

use std::{io, path::PathBuf};

use crate::config::Config;

const MAGIC: &[u8; 8] = b"COMITYSP";
const VERSION: u16 = 1;
/// Longest boot id that is stored; longer ones are cut.
const BOOT_ID_MAX: usize = 64;

/// Contents of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Savepoint {
    /// All records up to this one are in the index, durably.
    pub(crate) number: u64,
    pub(crate) incarnation: [u8; 16],
    pub(crate) boot_id: String,
    /// Whether the storage was closed and nothing came after.
    pub(crate) clean: bool,
}

/// Result of reading it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum SavepointRead {
    Known(Savepoint),
    Missing,
    Damaged,
    Unknown { version: u16 },
}

pub(crate) fn path(config: &Config) -> PathBuf {
    config.dir.join("savepoint")
}

pub(crate) fn cut_boot_id(boot_id: &str) -> &str {
    let mut end = boot_id.len().min(BOOT_ID_MAX);
    while !boot_id.is_char_boundary(end) {
        end -= 1;
    }
    &boot_id[..end]
}

impl Savepoint {
    fn to_bytes(&self) -> Vec<u8> {
        let boot_id = cut_boot_id(&self.boot_id);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.push(u8::from(self.clean));
        bytes.push(u8::try_from(boot_id.len()).unwrap_or(0));
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.incarnation);
        bytes.extend_from_slice(boot_id.as_bytes());
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Replaces the file, durably.
    pub(crate) fn write(&self, config: &Config) -> io::Result<()> {
        let path = path(config);
        let new = path.with_extension("new");
        let files = &config.files.0;
        let file = files.create(&new)?;
        file.write_at(&self.to_bytes(), 0)?;
        file.sync()?;
        files.rename(&new, &path)?;
        files.sync_dir(&config.dir)
    }
}

/// Removes the file, durably; the index is then rebuilt at the next open.
pub(crate) fn remove(config: &Config) -> io::Result<()> {
    match config.files.0.remove(&path(config)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    config.files.0.sync_dir(&config.dir)
}

pub(crate) fn read(config: &Config) -> io::Result<SavepointRead> {
    let file = match config.files.0.open(&path(config)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SavepointRead::Missing),
        file => file?,
    };
    let mut bytes = vec![0; 256];
    let len = file.read_at(&mut bytes, 0)?;
    Ok(parse(&bytes[..len]))
}

fn parse(bytes: &[u8]) -> SavepointRead {
    let Some((body, sum)) = bytes.split_last_chunk::<4>() else {
        return SavepointRead::Damaged;
    };
    if u32::from_be_bytes(*sum) != crc32c::crc32c(body) || body.len() < 36 || body[..8] != *MAGIC {
        return SavepointRead::Damaged;
    }
    let version = u16::from_be_bytes([body[8], body[9]]);
    if version != VERSION {
        return SavepointRead::Unknown { version };
    }
    let mut number = [0; 8];
    number.copy_from_slice(&body[12..20]);
    let mut incarnation = [0; 16];
    incarnation.copy_from_slice(&body[20..36]);
    SavepointRead::Known(Savepoint {
        number: u64::from_be_bytes(number),
        incarnation,
        boot_id: String::from_utf8_lossy(&body[36..]).into_owned(),
        clean: body[10] == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Savepoint {
        Savepoint {
            number: 77,
            incarnation: [3; 16],
            boot_id: "boot".to_owned(),
            clean: true,
        }
    }

    #[test]
    fn a_savepoint_reads_back_and_every_changed_byte_is_noticed() {
        let bytes = sample().to_bytes();
        assert_eq!(parse(&bytes), SavepointRead::Known(sample()));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(parse(&changed), SavepointRead::Damaged, "byte {at}");
            assert_eq!(parse(&bytes[..at]), SavepointRead::Damaged, "cut at {at}");
        }
    }

    #[test]
    fn an_endless_boot_id_is_cut_at_a_character() {
        let long = "é".repeat(100);
        assert_eq!(cut_boot_id(&long).len(), BOOT_ID_MAX);
        assert_eq!(cut_boot_id(&format!("a{long}")).len(), BOOT_ID_MAX - 1);
    }
}
