//! The server's keys and card, in files of its directory.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use comity_protocol::{
    card::{CardChain, CardFields, ParseCardsError},
    ids::{PublicKey, ServerId},
    signing::SecretKey,
    time::Timestamp,
};

const OPERATIONAL: &str = "operational.key";
const RECOVERY: &str = "recovery.key";
const USERS: &str = "users.key";
const CARD: &str = "card.txt";

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no key.
    #[error("{}: not a key file (64 hexadecimal characters)", .0.display())]
    NoKey(PathBuf),
    /// The card file.
    #[error("card.txt: {0}")]
    Card(#[from] ParseCardsError),
    /// The card is not of this key.
    #[error("card.txt names another operational key than operational.key holds")]
    OtherKey,
    /// The card cannot be made.
    #[error(transparent)]
    Fields(#[from] comity_protocol::card::CardError),
}

/// What a server is: its keys and its chain of cards.
#[derive(Clone, Debug)]
pub struct ServerKeys {
    /// Signs commits and links.
    pub operational: SecretKey,
    /// The keys that the home holds for its users derive from this one. It never changes.
    pub users: SecretKey,
    /// The chain of cards.
    pub cards: CardChain,
}

fn random_key() -> Result<SecretKey, io::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(SecretKey::from_seed(seed))
}

fn write_new(path: &Path, text: &str) -> Result<(), KeyError> {
    let file = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    let mut options = fs::OpenOptions::new();
    // Never over an existing key, and readable by nobody else from its first byte on.
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(file)?;
    out.write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .map_err(file)
}

fn read_key(path: &Path) -> Result<SecretKey, KeyError> {
    let text = fs::read_to_string(path).map_err(|source| KeyError::File {
        path: path.to_owned(),
        source,
    })?;
    // A key's seed has the length and text form of a public key.
    let seed: PublicKey = text
        .trim()
        .parse()
        .map_err(|_| KeyError::NoKey(path.to_owned()))?;
    Ok(SecretKey::from_seed(*seed.as_bytes()))
}

fn key_text(key: &SecretKey) -> String {
    format!("{}\n", PublicKey::from_bytes(key.to_seed()))
}

impl ServerKeys {
    /// Makes a server: new keys and card 0 in `dir`, which holds none yet. The recovery key's
    /// file is to be moved offline.
    ///
    /// # Errors
    ///
    /// [`KeyError`]; files written until then stay.
    pub fn create(dir: &Path, fields: CardFields, now: Timestamp) -> Result<Self, KeyError> {
        let random = |name: &str| {
            random_key().map_err(|source| KeyError::File {
                path: dir.join(name),
                source,
            })
        };
        let (operational, recovery) = (random(OPERATIONAL)?, random(RECOVERY)?);
        let users = random(USERS)?;
        let cards = CardChain::genesis(fields, &operational, recovery.public(), 1, now)?;
        write_new(&dir.join(RECOVERY), &key_text(&recovery))?;
        write_new(&dir.join(USERS), &key_text(&users))?;
        write_new(&dir.join(OPERATIONAL), &key_text(&operational))?;
        write_new(&dir.join(CARD), &format!("{}\n", cards.to_text()?))?;
        Ok(Self {
            operational,
            users,
            cards,
        })
    }

    /// Reads what [`Self::create`] wrote. The recovery key is not needed.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        let operational = read_key(&dir.join(OPERATIONAL))?;
        let users = read_key(&dir.join(USERS))?;
        let path = dir.join(CARD);
        let text = fs::read_to_string(&path).map_err(|source| KeyError::File { path, source })?;
        let cards = CardChain::from_text(text.trim())?;
        if cards.current().key != operational.public() {
            return Err(KeyError::OtherKey);
        }
        Ok(Self {
            operational,
            users,
            cards,
        })
    }

    /// The server's id.
    #[must_use]
    pub fn server(&self) -> ServerId {
        self.cards.server()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_survive_their_files_and_are_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let fields = CardFields {
            name: "a.example".parse().unwrap(),
            addresses: vec![],
            https: None,
            region: None,
        };
        let made = ServerKeys::create(dir.path(), fields.clone(), Timestamp(1)).unwrap();
        fs::remove_file(dir.path().join(RECOVERY)).unwrap();
        let read = ServerKeys::load(dir.path()).unwrap();
        assert_eq!(read.server(), made.server());
        assert_eq!(read.operational.public(), made.operational.public());
        for name in [OPERATIONAL, USERS] {
            let mode = fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(
            ServerKeys::create(dir.path(), fields, Timestamp(1)).is_err(),
            "never over a key"
        );
    }
}
