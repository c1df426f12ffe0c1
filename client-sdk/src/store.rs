//! The directory that a client keeps: device key, outbox, and how far events were read.
//!
//! `account.json` (the device's secret key: mode 0600), `outbox`, `state`, `lock`. Only one
//! process at a time may use it.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use comity_protocol::{
    encoding,
    ids::{Blob, ConversationId, EventId, ServerId, UserId},
    session::{Cursor, Place, Summary},
    signing::SecretKey,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, ErrorKind, Result},
    journal::{self, Journal},
    limits::{COMPACT_DEAD_BYTES, CONVERSATIONS_KNOWN_MAX, LINES_REMEMBERED, RECORD_BYTES_MAX},
};

/// Who this device is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Account {
    pub(crate) v: u32,
    pub(crate) address: String,
    seed: Blob,
    /// Set once the home server knows the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signed_in: Option<SignedIn>,
}

/// What the home server said when the device was added.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct SignedIn {
    pub(crate) user: UserId,
    pub(crate) server: ServerId,
    pub(crate) handle: String,
}

impl Account {
    /// A new device.
    pub(crate) fn new(address: &str) -> Result<Self> {
        Ok(Self {
            v: 1,
            address: address.to_owned(),
            seed: Blob(crate::random::bytes::<32>()?.to_vec()),
            signed_in: None,
        })
    }

    /// The device's key.
    pub(crate) fn key(&self) -> Result<SecretKey> {
        let seed = self.seed.0.as_slice().try_into();
        let bad = |_| Error::new(ErrorKind::Storage, "the stored device key is damaged");
        seed.map(SecretKey::from_seed).map_err(bad)
    }
}

/// The directory, locked; nothing for a client that keeps nothing.
#[derive(Debug)]
pub(crate) struct Store {
    place: Option<(PathBuf, File)>,
}

impl Store {
    pub(crate) const fn memory() -> Self {
        Self { place: None }
    }

    /// Opens or makes the directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::storage(&format!("opening the store {}", path.display()), e);
        make_private_directory(path).map_err(failed)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let text = format!("another client uses the store {}", path.display());
                return Err(Error::new(ErrorKind::Storage, text));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Self {
            place: Some((path.to_owned(), lock)),
        })
    }

    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        self.place.as_ref().map(|(path, _)| path.join(name))
    }

    /// The account, if one was saved; an error if it is another user's.
    pub(crate) fn account(&self, address: &str) -> Result<Option<Account>> {
        let Some(path) = self.file("account.json") else {
            return Ok(None);
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::storage("reading the account", error)),
        };
        let account: Account = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("{} is damaged", path.display())).because(e)
        })?;
        if account.v != 1 {
            let text = format!("{} is of version {}", path.display(), account.v);
            return Err(Error::new(ErrorKind::Storage, text));
        }
        if account.address != address {
            let text = format!("the store belongs to {}, not {address}", account.address);
            return Err(Error::new(ErrorKind::Storage, text));
        }
        Ok(Some(account))
    }

    pub(crate) fn save_account(&self, account: &Account) -> Result<()> {
        let Some(path) = self.file("account.json") else {
            return Ok(());
        };
        let failed = |e| Error::storage("writing the account", e);
        let bytes = serde_json::to_vec_pretty(account).map_err(|e| failed(e.into()))?;
        journal::write_atomically(&path, &bytes).map_err(failed)
    }

    /// Opens the notebook.
    pub(crate) fn notebook(&self) -> Result<Notebook> {
        let mut notebook = Notebook::default();
        if let Some(path) = self.file("state") {
            let opened = Journal::open(&path, |bytes| notebook.replay(&bytes));
            let journal = opened.map_err(|e| Error::storage("opening the state file", e))?;
            notebook.compacted_len = 0;
            notebook.journal = Some(journal);
            notebook.compact_if_due();
        }
        Ok(notebook)
    }
}

fn make_private_directory(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// One step of reading on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Progress {
    /// Everything up to here was handed to the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<Cursor>,
    /// Newest lines handed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reached: Vec<(ConversationId, Place)>,
    /// Lines beyond the cursor that were handed over, and in which version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) handled: Vec<(EventId, u64)>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Progress(Progress),
    Known(Box<Summary>),
    Left(ConversationId),
}

/// How far events were read and which conversations there are; in a file if there is a store.
#[derive(Debug, Default)]
pub(crate) struct Notebook {
    journal: Option<Journal>,
    compacted_len: u64,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) reached: BTreeMap<ConversationId, Place>,
    pub(crate) handled: VecDeque<(EventId, u64)>,
    pub(crate) known: BTreeMap<ConversationId, Arc<Summary>>,
}

impl Notebook {
    fn replay(&mut self, bytes: &[u8]) {
        match encoding::decode_frame::<Record>(bytes, RECORD_BYTES_MAX) {
            Ok(Record::Progress(progress)) => self.take(progress),
            Ok(Record::Known(summary)) => self.insert(*summary),
            Ok(Record::Left(conversation)) => {
                self.known.remove(&conversation);
            }
            // Its checksum holds, so a later version wrote it: what it says is only a cache.
            Err(error) => tracing::warn!(%error, "skipped a record of the state file"),
        }
    }

    fn take(&mut self, progress: Progress) {
        if let Some(cursor) = progress.cursor {
            self.cursor = Some(cursor);
        }
        for (conversation, place) in progress.reached {
            let reached = self.reached.entry(conversation).or_insert(place);
            *reached = place.max(*reached);
        }
        for line in progress.handled {
            if self.handled.len() >= LINES_REMEMBERED {
                self.handled.pop_front();
            }
            self.handled.push_back(line);
        }
    }

    fn insert(&mut self, summary: Summary) {
        let known = self.known.contains_key(&summary.conversation);
        if known || self.known.len() < CONVERSATIONS_KNOWN_MAX {
            self.known.insert(summary.conversation, Arc::new(summary));
        }
    }

    fn write(&mut self, record: &Record) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        // A full disk must not stop reading: after a restart some events come again.
        if let Err(error) = journal.append(&encoding::encode(record)) {
            tracing::warn!(%error, "the state file could not be written");
        }
        self.compact_if_due();
    }

    /// Notes that events were handed over.
    pub(crate) fn progress(&mut self, progress: Progress) {
        // Without a file nobody ever reads it.
        if self.journal.is_some() {
            self.write(&Record::Progress(progress.clone()));
            self.take(progress);
        }
    }

    /// Notes a conversation as it is now. Returns whether anything is new.
    pub(crate) fn know(&mut self, summary: Summary) -> bool {
        if self
            .known
            .get(&summary.conversation)
            .is_some_and(|k| **k == summary)
        {
            return false;
        }
        if self.journal.is_some() {
            self.write(&Record::Known(Box::new(summary.clone())));
        }
        self.insert(summary);
        true
    }

    /// Forgets a conversation.
    pub(crate) fn left(&mut self, conversation: ConversationId) {
        if self.known.remove(&conversation).is_some() {
            self.write(&Record::Left(conversation));
        }
    }

    fn compact_if_due(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        if journal.len() < 2 * self.compacted_len + COMPACT_DEAD_BYTES {
            return;
        }
        let progress = Progress {
            cursor: self.cursor.clone(),
            reached: vec![],
            handled: self.handled.iter().copied().collect(),
        };
        // A record has a limit; the places of many conversations need several.
        let reached: Vec<_> = self.reached.iter().map(|(c, p)| (*c, *p)).collect();
        let reached = reached.chunks(1_000).map(|chunk| Progress {
            reached: chunk.to_vec(),
            ..Progress::default()
        });
        let records = std::iter::once(progress)
            .chain(reached)
            .map(|p| encoding::encode(&Record::Progress(p)));
        let known = self.known.values();
        let known = known.map(|s| encoding::encode(&Record::Known(Box::new((**s).clone()))));
        if let Err(error) = journal.rewrite(records.chain(known)) {
            tracing::warn!(%error, "the state file could not be rewritten");
        }
        self.compacted_len = journal.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use comity_protocol::{ids::CommitId, time::Hlc};

    fn place(n: u64) -> Place {
        Place {
            hlc: Hlc::from_bits(n),
            commit: CommitId::from_bytes([0; 32]),
            index: 0,
        }
    }

    #[test]
    fn a_store_is_for_one_process_and_one_address() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(
            Store::open(dir.path()).unwrap_err().kind(),
            ErrorKind::Storage
        );
        let account = Account::new("alice@eu.example").unwrap();
        store.save_account(&account).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let read = store.account("alice@eu.example").unwrap().unwrap();
        assert_eq!(
            read.key().unwrap().public(),
            account.key().unwrap().public()
        );
        assert!(store.account("bob@eu.example").is_err());
    }

    #[test]
    fn progress_survives_a_restart_and_never_falls_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let conversation = ConversationId::from_bytes([1; 32]);
        let event = EventId::from_bytes([2; 32]);
        let mut notebook = store.notebook().unwrap();
        for n in [5, 3] {
            notebook.progress(Progress {
                cursor: Some(Cursor(Blob(vec![n]))),
                reached: vec![(conversation, place(n.into()))],
                handled: vec![(event, n.into())],
            });
        }
        drop(notebook);
        let notebook = store.notebook().unwrap();
        assert_eq!(notebook.cursor, Some(Cursor(Blob(vec![3]))));
        assert_eq!(notebook.reached[&conversation], place(5));
        assert_eq!(notebook.handled, [(event, 5), (event, 3)]);
    }

    #[test]
    fn the_state_file_stays_small_however_long_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut notebook = store.notebook().unwrap();
        for n in 0..60_000u64 {
            notebook.progress(Progress {
                cursor: Some(Cursor(Blob(n.to_be_bytes().repeat(8)))),
                ..Progress::default()
            });
        }
        let len = fs::metadata(store.file("state").unwrap()).unwrap().len();
        assert!(len < 3 * COMPACT_DEAD_BYTES, "{len}");
        drop(notebook);
        let cursor = store.notebook().unwrap().cursor;
        assert_eq!(
            cursor,
            Some(Cursor(Blob(59_999u64.to_be_bytes().repeat(8))))
        );
    }
}
