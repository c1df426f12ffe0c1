//! Golden vectors in `spec/vectors/`: data that every implementation reads.
//!
//! Each file has a test that makes its text anew and compares, and a test that reads it as another
//! implementation would. `COMITY_WRITE_VECTORS=1` makes the first kind write instead of compare.

use std::{fs, path::PathBuf};

use data_encoding::HEXLOWER;
use serde::{Serialize, de::DeserializeOwned};

fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "spec", "vectors", file]
        .iter()
        .collect()
}

/// Compares `vectors` with the file, or writes them to it if `COMITY_WRITE_VECTORS` is set.
#[track_caller]
pub(crate) fn compare_or_write(file: &str, vectors: &impl Serialize) {
    let mut text = serde_json::to_string_pretty(vectors).unwrap();
    text.push('\n');
    let path = path(file);
    if std::env::var_os("COMITY_WRITE_VECTORS").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let held = fs::read_to_string(&path).unwrap();
    assert!(
        held == text,
        "{file} differs from what this program makes; if the change of the protocol is meant, \
         run again with COMITY_WRITE_VECTORS=1 and say why in the commit"
    );
}

/// The file's contents.
#[track_caller]
pub(crate) fn read<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&fs::read(path(file)).unwrap()).unwrap()
}

/// Lower-case hexadecimal, as the files hold bytes.
pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    HEXLOWER.encode(bytes.as_ref())
}

/// The bytes of lower-case hexadecimal.
#[track_caller]
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}
