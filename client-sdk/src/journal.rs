//! A file of framed records that survives a kill at any byte.
//!
//! `magic (8 bytes) | record*`, record = `length u32 LE | CRC32C u32 LE | payload`, the checksum
//! over length and payload. A record that is cut off or damaged ends the file: what follows is
//! set aside as `NAME.damaged` and the file is cut there. A file of a newer version is refused
//! and left untouched.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::limits::RECORD_BYTES_MAX;

const MAGIC: [u8; 7] = *b"comity:";
const VERSION: u8 = 1;
const HEADER_LEN: usize = 8;
const HEADER_BYTES: u64 = HEADER_LEN as u64;

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    len: u64,
    broken: bool,
}

/// What a record adds to the file.
pub(crate) const fn framed_bytes(payload: usize) -> u64 {
    payload as u64 + 8
}

fn checksum(len: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), payload)
}

fn frame(payload: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let len = u32::try_from(payload.len()).ok();
    let Some(len) = len.filter(|_| payload.len() <= RECORD_BYTES_MAX) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "record too large",
        ));
    };
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&checksum(len, payload).to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options
}

impl Journal {
    /// Opens or makes the file and gives every whole record to `record`, in order.
    pub(crate) fn open(path: &Path, mut record: impl FnMut(Vec<u8>)) -> io::Result<Self> {
        let mut file = private().open(path)?;
        let actual = file.seek(SeekFrom::End(0))?;
        let mut journal = Self {
            file,
            path: path.to_owned(),
            len: HEADER_BYTES,
            broken: false,
        };
        if actual < HEADER_BYTES {
            // Killed while it was made: nothing can be in it.
            journal.file.set_len(0)?;
            journal.file.write_all(&header())?;
            return Ok(journal);
        }
        journal.file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(&journal.file);
        let mut head = [0; HEADER_LEN];
        reader.read_exact(&mut head)?;
        if head[..7] != MAGIC {
            let text = format!("{} is no file of this program", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if head[7] != VERSION {
            let text = format!("{} is of version {}", path.display(), head[7]);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut good = HEADER_BYTES;
        while let Some(payload) = read_record(&mut reader)? {
            good += framed_bytes(payload.len());
            record(payload);
        }
        drop(reader);
        if good < actual {
            journal.set_aside(good, actual)?;
        }
        journal.len = good;
        Ok(journal)
    }

    fn set_aside(&mut self, good: u64, actual: u64) -> io::Result<()> {
        tracing::warn!(file = %self.path.display(), bytes = actual - good, "damaged end cut off");
        self.file.seek(SeekFrom::Start(good))?;
        let mut rest = Vec::new();
        (&self.file)
            .take(RECORD_BYTES_MAX as u64)
            .read_to_end(&mut rest)?;
        fs::write(self.path.with_extension("damaged"), rest)?;
        self.file.set_len(good)
    }

    /// Length of the file in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Adds a record. After an error the file is as before.
    pub(crate) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(
                "an earlier failed write could not be undone",
            ));
        }
        let mut bytes = Vec::with_capacity(payload.len() + 8);
        frame(payload, &mut bytes)?;
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record would hide every later one.
            self.broken = self.file.set_len(self.len).is_err();
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Replaces the whole file by these records; a kill leaves the old file or the new one.
    pub(crate) fn rewrite(&mut self, records: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
        let new_path = self.path.with_extension("new");
        let _ = fs::remove_file(&new_path);
        let mut file = private().open(&new_path)?;
        let mut bytes = header().to_vec();
        let mut len = 0;
        for payload in records {
            frame(&payload, &mut bytes)?;
            if bytes.len() >= RECORD_BYTES_MAX {
                file.write_all(&bytes)?;
                len += bytes.len() as u64;
                bytes.clear();
            }
        }
        file.write_all(&bytes)?;
        len += bytes.len() as u64;
        file.sync_all()?;
        fs::rename(&new_path, &self.path)?;
        sync_directory(&self.path);
        (self.file, self.len, self.broken) = (file, len, false);
        Ok(())
    }

    /// A handle that another thread can sync.
    pub(crate) fn sync_handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

fn header() -> [u8; HEADER_LEN] {
    let mut head = [VERSION; HEADER_LEN];
    head[..7].copy_from_slice(&MAGIC);
    head
}

/// The next whole record; none at the end, or where the rest cannot be trusted.
fn read_record(reader: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 8];
    if !fill(reader, &mut head)? {
        return Ok(None);
    }
    let [a, b, c, d, e, f, g, h] = head;
    let len = u32::from_le_bytes([a, b, c, d]);
    if len as usize > RECORD_BYTES_MAX {
        return Ok(None);
    }
    let mut payload = vec![0; len as usize];
    let whole = fill(reader, &mut payload)?;
    let same = checksum(len, &payload) == u32::from_le_bytes([e, f, g, h]);
    Ok((whole && same).then_some(payload))
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a small file whole or not at all.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new_path = path.with_extension("new");
    let _ = fs::remove_file(&new_path);
    let mut file = private().open(&new_path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new_path, path)?;
    sync_directory(path);
    Ok(())
}

fn sync_directory(path: &Path) {
    // Best effort: not every file system lets a directory be opened.
    if let Some(Ok(directory)) = path.parent().map(File::open) {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Vec<Vec<u8>> {
        let mut records = vec![];
        Journal::open(path, |r| records.push(r)).unwrap();
        records
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_every_whole_record_and_takes_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let mut journal = Journal::open(&path, |_| ()).unwrap();
        let all: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; 5 * usize::from(i)]).collect();
        let mut ends = vec![journal.len()];
        for record in &all {
            journal.append(record).unwrap();
            ends.push(journal.len());
        }
        let bytes = fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut as u64).count();
            assert_eq!(read(&path), all[..whole.saturating_sub(1)], "cut at {cut}");
            let mut journal = Journal::open(&path, |_| ()).unwrap();
            journal.append(b"new").unwrap();
            assert_eq!(read(&path).last().unwrap(), b"new");
        }
    }

    #[test]
    fn a_damaged_record_ends_the_file_and_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let mut journal = Journal::open(&path, |_| ()).unwrap();
        for record in [b"one", b"two"] {
            journal.append(record).unwrap();
        }
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path), [b"one"]);
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn a_newer_version_or_a_foreign_file_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        for content in [&b"comity:\x02later"[..], b"#!/bin/sh\necho"] {
            let path = dir.path().join("outbox");
            fs::write(&path, content).unwrap();
            assert!(Journal::open(&path, |_| ()).is_err());
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_rewritten_file_holds_the_new_records_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let mut journal = Journal::open(&path, |_| ()).unwrap();
        journal.append(b"old").unwrap();
        journal.rewrite([b"a".to_vec()].into_iter()).unwrap();
        journal.append(b"b").unwrap();
        assert_eq!(journal.len(), fs::metadata(&path).unwrap().len());
        assert_eq!(read(&path), [b"a", b"b"]);
    }

    #[test]
    fn a_failed_append_leaves_no_half_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox");
        let mut journal = Journal::open(&path, |_| ()).unwrap();
        assert!(journal.append(&vec![0; RECORD_BYTES_MAX + 1]).is_err());
        journal.append(b"x").unwrap();
        assert_eq!(read(&path), [b"x"]);
    }
}
