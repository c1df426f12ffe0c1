//! Numbers that nobody else can guess, from the one seed that a shard is given.

use crate::ids::Nonce;

/// Gives other bytes each time.
#[derive(Debug)]
pub(super) struct Seed {
    key: [u8; 32],
    drawn: u64,
}

/// What was drawn.
pub(super) struct Drawn([u8; 32]);

impl Seed {
    pub(super) const fn new(key: [u8; 32]) -> Self {
        Self { key, drawn: 0 }
    }

    pub(super) fn draw(&mut self) -> Drawn {
        self.drawn += 1;
        Drawn(*blake3::keyed_hash(&self.key, &self.drawn.to_be_bytes()).as_bytes())
    }
}

impl Drawn {
    pub(super) fn nonce(&self) -> Nonce {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        Nonce::from_bytes(bytes)
    }

    /// Of other bytes than the nonce.
    pub(super) fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[16..24]);
        u64::from_be_bytes(bytes)
    }
}
