//! Looks for texts in files as they lie on the disk: every byte of every file, in the encodings in
//! which a text may lie there, whole or in pieces, and inside of what is compressed.
//!
//! It knows nothing of logs, indexes or records: what it finds does not depend on what they say.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Bytes of a piece that is found wherever it lies.
pub(super) const PIECE: usize = 16;
/// Bytes that are taken out of one compressed stream at most.
const INFLATED_MAX: u64 = 1 << 20;
/// Streams that are tried in one file at most; more are counted as not looked into.
const STREAMS_MAX: usize = 100_000;
/// Values of the hash that is asked first.
const FILTER: usize = 1 << 16;

const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
/// Forms of compression that this program cannot read: zstd, LZ4, xz, bzip2, snappy and documents
/// of Automerge. None is written by a server; one that is there is a failure of the check.
const UNREAD: [&[u8]; 6] = [
    &[0x28, 0xb5, 0x2f, 0xfd],
    &[0x04, 0x22, 0x4d, 0x18],
    &[0xfd, b'7', b'z', b'X', b'Z', 0x00],
    b"BZh91AY&SY",
    &[0xff, 0x06, 0x00, 0x00, b's', b'N', b'a', b'P', b'p', b'Y'],
    &[0x85, 0x6f, 0x4a, 0x83],
];

/// What to look for: pieces of texts, and whose they are.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pieces: HashMap<[u8; PIECE], u32>,
    filter: Vec<bool>,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Compressed streams that were looked into.
    pub(super) inflated: u64,
    /// Marks of compression that this program cannot look into.
    pub(super) unread: u64,
    /// Texts of which a piece was found.
    pub(super) texts: BTreeSet<u32>,
    /// Files in which that was.
    pub(super) places: BTreeSet<PathBuf>,
}

fn first(piece: &[u8]) -> usize {
    let head = u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]);
    (head.wrapping_mul(0x9e37_79b1) >> 16) as usize % FILTER
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks_exact(3) {
        let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(SIGNS[(bits >> shift) as usize & 63]));
        }
    }
    text
}

/// A text in every encoding in which it is looked for.
fn encodings(text: &str) -> Vec<Vec<u8>> {
    let utf8 = text.as_bytes().to_vec();
    let utf16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect();
    let hex = |upper: bool| {
        let digits = text.bytes().map(|byte| {
            if upper {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            }
        });
        digits.collect::<String>().into_bytes()
    };
    let mut all = vec![
        utf16(u16::to_le_bytes),
        utf16(u16::to_be_bytes),
        hex(false),
        hex(true),
    ];
    // At each of the three places at which it may begin within three bytes.
    for skip in 0..3.min(utf8.len()) {
        let standard = base64(&utf8[skip..]);
        let for_urls = standard.replace('+', "-").replace('/', "_");
        all.extend([standard.into_bytes(), for_urls.into_bytes()]);
    }
    all.push(utf8);
    all
}

impl Wanted {
    /// Adds a text of at least [`PIECE`] bytes.
    pub(super) fn add(&mut self, number: u32, text: &str) {
        assert!(text.len() >= PIECE, "a text that is too short to be found");
        self.filter.resize(FILTER, false);
        for encoded in encodings(text) {
            for piece in encoded.windows(PIECE) {
                self.filter[first(piece)] = true;
                if let Ok(piece) = piece.try_into() {
                    self.pieces.insert(piece, number);
                }
            }
        }
    }

    fn find(&self, bytes: &[u8], found: &mut BTreeSet<u32>) {
        if self.pieces.is_empty() {
            return;
        }
        for piece in bytes.windows(PIECE) {
            if self.filter[first(piece)]
                && let Some(number) = self.pieces.get(piece)
            {
                found.insert(*number);
            }
        }
    }

    /// Looks through bytes, and through what they hold compressed.
    fn search(&self, bytes: &[u8], seen: &mut Seen) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        self.find(bytes, &mut found);
        let mut streams = 0;
        for at in 0..bytes.len() {
            let rest = &bytes[at..];
            if UNREAD.iter().any(|mark| rest.starts_with(mark)) {
                seen.unread += 1;
            }
            let zlib = matches!(rest, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]);
            if !zlib && !rest.starts_with(GZIP) {
                continue;
            }
            streams += 1;
            if streams > STREAMS_MAX {
                seen.unread += 1;
                break;
            }
            let mut inflated = Vec::new();
            // What comes before an error is looked through, too: the end may be overwritten.
            let _ = if zlib {
                let stream = flate2::read::ZlibDecoder::new(rest);
                stream.take(INFLATED_MAX).read_to_end(&mut inflated)
            } else {
                let stream = flate2::read::GzDecoder::new(rest);
                stream.take(INFLATED_MAX).read_to_end(&mut inflated)
            };
            if !inflated.is_empty() {
                seen.inflated += 1;
                self.find(&inflated, &mut found);
            }
        }
        found
    }

    /// Looks through every file under a directory.
    pub(super) fn look(&self, directory: &Path, seen: &mut Seen) -> anyhow::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.look(&entry.path(), seen)?;
            } else if kind.is_file() {
                let bytes = match fs::read(entry.path()) {
                    Ok(bytes) => bytes,
                    // A running server makes and removes files.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error.into()),
                };
                seen.files += 1;
                seen.bytes += bytes.len() as u64;
                let found = self.search(&bytes, seen);
                if !found.is_empty() {
                    seen.places.insert(entry.path());
                }
                seen.texts.extend(found);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &str = "nobody may read this: grüße, 🦀 and 8Zk2vQ";

    fn wanted() -> Wanted {
        let mut wanted = Wanted::default();
        wanted.add(7, TEXT);
        wanted
    }

    fn finds(bytes: &[u8]) -> bool {
        let mut around = vec![0xaa; 1_001];
        around.extend(bytes);
        // Not zero: that would give a piece of UTF-16 its last byte back.
        around.extend([0x55; 500]);
        let mut seen = Seen::default();
        wanted().search(&around, &mut seen).contains(&7)
    }

    #[test]
    fn a_text_is_found_in_every_encoding_whole_and_in_pieces() {
        for encoded in encodings(TEXT) {
            assert!(finds(&encoded));
            let middle = encoded.len() / 2 - PIECE / 2;
            assert!(finds(&encoded[middle..middle + PIECE]));
            assert!(!finds(&encoded[middle..middle + PIECE - 1]));
        }
        assert!(!finds(b"nobody may write that, whatever it is"));
    }

    #[test]
    fn a_text_is_found_in_what_is_compressed_also_when_its_end_is_gone() {
        let long = TEXT.repeat(3) + &"x".repeat(5_000);
        let mut zlib = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::best());
        zlib.write_all(long.as_bytes()).unwrap();
        let zlib = zlib.finish().unwrap();
        assert!(!zlib.windows(PIECE).any(|w| w == &TEXT.as_bytes()[..PIECE]) || zlib.len() < 5_000);
        assert!(finds(&zlib));
        assert!(finds(&zlib[..zlib.len() - 6]));
        let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gzip.write_all(long.as_bytes()).unwrap();
        assert!(finds(&gzip.finish().unwrap()));
    }

    #[test]
    fn what_cannot_be_looked_into_is_counted() {
        for mark in UNREAD {
            let mut seen = Seen::default();
            wanted().search(&[&[1, 2, 3], mark, &[0; 9]].concat(), &mut seen);
            assert_eq!(seen.unread, 1);
        }
    }
}
