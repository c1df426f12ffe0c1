//! Golden vectors in `spec/vectors/`: data that every implementation reads.
//!
//! Each file has a test that makes its text anew and compares, and a test that reads it as another
//! implementation would. `COMITY_WRITE_VECTORS=1` makes the first kind write instead of compare.

use std::{fs, path::PathBuf};

use comity_protocol::encoding;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

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

/// A frame in both of its forms.
#[derive(Deserialize, Serialize)]
pub(crate) struct Frame<T> {
    pub(crate) about: String,
    pub(crate) cbor: String,
    pub(crate) json: T,
}

/// The vector of a frame.
pub(crate) fn frame_vector<T: Serialize>(about: String, json: T) -> Frame<T> {
    Frame {
        about,
        cbor: hex(encoding::encode(&json)),
        json,
    }
}

impl<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug> Frame<T> {
    /// Both forms are one frame, and it is written as it stands there.
    #[track_caller]
    pub(crate) fn check(&self) {
        let bytes = unhex(&self.cbor);
        let read: T = encoding::decode_frame(&bytes, bytes.len()).unwrap();
        assert_eq!(read, self.json, "{}", self.about);
        assert_eq!(encoding::encode(&self.json), bytes, "{}", self.about);
        let text = serde_json::to_string(&self.json).unwrap();
        assert_eq!(serde_json::from_str::<T>(&text).unwrap(), read);
    }
}

/// The name of a value's form: the one key of its JSON, or the text that stands for it.
#[track_caller]
pub(crate) fn tag(value: &impl Serialize) -> String {
    match serde_json::to_value(value).unwrap() {
        serde_json::Value::String(name) => name,
        serde_json::Value::Object(fields) => fields.into_iter().next().unwrap().0,
        other => panic!("no form has the JSON {other}"),
    }
}
