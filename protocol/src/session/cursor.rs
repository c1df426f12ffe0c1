//! Cursors: where a session resumes. Source: `spec/06-client-protocol.md`, section 5.

use serde::{Deserialize, Serialize};

use super::Cursor;
use crate::{encoding, ids::Blob, ids::ServerId};

const MAC_BYTES: usize = 16;
const CURSOR_BYTES_MAX: usize = 256;

/// What a cursor says, before it is sealed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CursorState {
    /// The home that made it.
    pub server: ServerId,
    /// Of its store: random, new only when positions are not preserved.
    pub incarnation: [u8; 16],
    /// Everything up to here was taken in.
    pub position: u64,
}

/// What to do with a client's cursor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CursorVerdict {
    /// Go on after this position.
    Resume(u64),
    /// Of no use: the client re-reads. Never an empty answer instead.
    Reset,
}

impl CursorState {
    /// Seals the cursor with the server's key, so that no client can make one up.
    #[must_use]
    pub fn seal(&self, key: &[u8; 32]) -> Cursor {
        let mut bytes = encoding::encode(self);
        let mac = blake3::keyed_hash(key, &bytes);
        bytes.extend_from_slice(&mac.as_bytes()[..MAC_BYTES]);
        Cursor(Blob(bytes))
    }

    /// Judges a client's cursor against the store as it is now: `self.position` is the newest.
    #[must_use]
    pub fn judge(&self, key: &[u8; 32], cursor: &Cursor) -> CursorVerdict {
        let bytes = &cursor.0.0;
        let Some(split) = bytes.len().checked_sub(MAC_BYTES) else {
            return CursorVerdict::Reset;
        };
        let (body, mac) = bytes.split_at(split);
        let expected = blake3::keyed_hash(key, body);
        // Hash equality of blake3 is constant-time; a truncated one is compared as a whole.
        let mut full = *expected.as_bytes();
        full[..MAC_BYTES].copy_from_slice(mac);
        if expected != blake3::Hash::from_bytes(full) {
            return CursorVerdict::Reset;
        }
        let Ok(state) = encoding::decode::<Self>(body, CURSOR_BYTES_MAX) else {
            return CursorVerdict::Reset;
        };
        let same = state.server == self.server && state.incarnation == self.incarnation;
        if same && state.position <= self.position {
            CursorVerdict::Resume(state.position)
        } else {
            CursorVerdict::Reset
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> CursorState {
        CursorState {
            server: ServerId::from_bytes([1; 32]),
            incarnation: [2; 16],
            position,
        }
    }

    #[test]
    fn only_an_own_untouched_cursor_not_ahead_of_the_store_resumes() {
        let (key, now) = ([5; 32], at(100));
        assert_eq!(
            now.judge(&key, &at(40).seal(&key)),
            CursorVerdict::Resume(40)
        );
        assert_eq!(
            now.judge(&key, &at(100).seal(&key)),
            CursorVerdict::Resume(100)
        );
        assert_eq!(now.judge(&key, &at(101).seal(&key)), CursorVerdict::Reset);
        assert_eq!(
            now.judge(&key, &at(40).seal(&[6; 32])),
            CursorVerdict::Reset
        );
        let other = CursorState {
            incarnation: [3; 16],
            ..at(40)
        };
        assert_eq!(now.judge(&key, &other.seal(&key)), CursorVerdict::Reset);
        let sealed = at(40).seal(&key).0.0;
        for i in 0..sealed.len() {
            let mut touched = sealed.clone();
            touched[i] ^= 1;
            assert_eq!(
                now.judge(&key, &Cursor(Blob(touched))),
                CursorVerdict::Reset
            );
            let cut = Cursor(Blob(sealed[..i].to_vec()));
            assert_eq!(now.judge(&key, &cut), CursorVerdict::Reset);
        }
    }
}
