//! A log file: its name, its header, and how it comes into being.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::frame::FileMark;
use crate::files::{FileHandle, Files};

/// Frames start here; before it, two copies of the header, each in a sector of its own.
pub(crate) const FRAMES_AT: u64 = 1_024;
const COPY_AT: usize = 512;
const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"COMITYLG";
/// The only version of files and frames this build reads.
pub(crate) const VERSION: u16 = 1;

/// Which file: `file` grows for ever, `generation` counts its compactions.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct FileId {
    pub(crate) file: u32,
    pub(crate) generation: u32,
}

impl FileId {
    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:08x}-{:08x}.log", self.file, self.generation))
    }

    /// The name while it is not complete.
    pub(crate) fn unfinished_path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:08x}-{:08x}.new", self.file, self.generation))
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (file, generation) = name.strip_suffix(".log")?.split_once('-')?;
        if file.len() != 8 || generation.len() != 8 {
            return None;
        }
        Some(Self {
            file: u32::from_str_radix(file, 16).ok()?,
            generation: u32::from_str_radix(generation, 16).ok()?,
        })
    }
}

/// What a log file says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) id: FileId,
    pub(crate) mark: FileMark,
    pub(crate) incarnation: [u8; 16],
}

/// Result of reading a header.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum HeaderRead {
    /// `whole` is false if one copy is damaged.
    Known {
        header: Header,
        whole: bool,
    },
    Unknown {
        version: u16,
    },
    Damaged,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.id.file.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.id.generation.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.mark);
        bytes[32..48].copy_from_slice(&self.incarnation);
        let sum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Everything before the first frame.
    pub(crate) fn to_block(self) -> Vec<u8> {
        let mut block = vec![0; usize::try_from(FRAMES_AT).unwrap_or(1_024)];
        block[..HEADER_BYTES].copy_from_slice(&self.to_bytes());
        block[COPY_AT..COPY_AT + HEADER_BYTES].copy_from_slice(&self.to_bytes());
        block
    }

    pub(crate) fn read(file: &dyn FileHandle) -> io::Result<HeaderRead> {
        let mut block = [0; COPY_AT + HEADER_BYTES];
        let len = file.read_at(&mut block, 0)?;
        let copies = [0, COPY_AT].map(|at| {
            let copy = block[..len].get(at..)?.first_chunk::<HEADER_BYTES>()?;
            parse_copy(copy)
        });
        let whole = copies[0] == copies[1] && copies[0].is_some();
        Ok(match copies.into_iter().flatten().next() {
            None => HeaderRead::Damaged,
            Some(Ok(header)) => HeaderRead::Known { header, whole },
            Some(Err(version)) => HeaderRead::Unknown { version },
        })
    }
}

/// The checksum keeps its place in every version, so a version that is merely damaged is not
/// taken for an unknown one.
fn parse_copy(copy: &[u8; HEADER_BYTES]) -> Option<Result<Header, u16>> {
    let word = |at: usize| u32::from_be_bytes([copy[at], copy[at + 1], copy[at + 2], copy[at + 3]]);
    if copy[..8] != *MAGIC || word(60) != crc32c::crc32c(&copy[..60]) {
        return None;
    }
    let version = u16::from_be_bytes([copy[8], copy[9]]);
    if version != VERSION {
        return Some(Err(version));
    }
    let mut mark = [0; 8];
    mark.copy_from_slice(&copy[24..32]);
    let mut incarnation = [0; 16];
    incarnation.copy_from_slice(&copy[32..48]);
    let id = FileId {
        file: word(12),
        generation: word(16),
    };
    Some(Ok(Header {
        id,
        mark,
        incarnation,
    }))
}

/// Random bytes that are not zeros.
pub(crate) fn random_mark() -> io::Result<FileMark> {
    let mut mark = [0; 8];
    while mark[0] == 0 {
        getrandom::fill(&mut mark).map_err(io::Error::other)?;
    }
    Ok(mark)
}

/// An open log file.
#[derive(Clone)]
pub(crate) struct LogFile {
    pub(crate) header: Header,
    pub(crate) handle: Arc<dyn FileHandle>,
    pub(crate) len: u64,
}

impl LogFile {
    /// Makes an empty file of `len` bytes, durable with its name. After a failure nothing of it is
    /// left.
    pub(crate) fn prepare(
        files: &Files,
        dir: &Path,
        file: u32,
        incarnation: [u8; 16],
        len: u64,
    ) -> io::Result<Self> {
        let id = FileId {
            file,
            generation: 0,
        };
        let header = Header {
            id,
            mark: random_mark()?,
            incarnation,
        };
        let unfinished = id.unfinished_path(dir);
        let made = (|| {
            let handle = files.0.create(&unfinished)?;
            handle.preallocate(len)?;
            handle.write_at(&header.to_block(), 0)?;
            handle.sync()?;
            files.0.rename(&unfinished, &id.path(dir))?;
            files.0.sync_dir(dir)?;
            Ok(Self {
                header,
                handle,
                len,
            })
        })();
        if made.is_err() {
            // Best effort: a leftover is removed at the next open.
            let _ = files.0.remove(&unfinished);
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            id: FileId {
                file: 7,
                generation: 2,
            },
            mark: *b"12345678",
            incarnation: [9; 16],
        }
    }

    fn read(block: &[u8]) -> HeaderRead {
        let dir = tempfile::tempdir().unwrap();
        let file = Files::real().0.create(&dir.path().join("f")).unwrap();
        file.write_at(block, 0).unwrap();
        Header::read(&*file).unwrap()
    }

    #[test]
    fn a_header_survives_the_loss_of_one_copy() {
        let block = header().to_block();
        assert_eq!(
            read(&block),
            HeaderRead::Known {
                header: header(),
                whole: true
            }
        );
        for at in [0, 9, 63, 512, 575] {
            let mut damaged = block.clone();
            damaged[at] ^= 0x40;
            assert_eq!(
                read(&damaged),
                HeaderRead::Known {
                    header: header(),
                    whole: false
                }
            );
        }
        assert_eq!(
            read(&block[..100]),
            HeaderRead::Known {
                header: header(),
                whole: false
            }
        );
        assert_eq!(read(&block[..50]), HeaderRead::Damaged);
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut block = header().to_block();
        for copy in [0, COPY_AT] {
            block[copy + 9] = 2;
            let sum = crc32c::crc32c(&block[copy..copy + 60]);
            block[copy + 60..copy + 64].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(read(&block), HeaderRead::Unknown { version: 2 });
    }

    #[test]
    fn names_read_back() {
        let path = header().id.path(Path::new("/x"));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(FileId::parse(name), Some(header().id));
        assert_eq!(FileId::parse("1-2.log"), None);
        assert_eq!(FileId::parse("00000001-00000002.new"), None);
    }
}
