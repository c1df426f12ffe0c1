//! What is known of each peer, shared between the tasks that know it and the handles that ask.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use crate::{key::PeerKey, limits::REFUSED_MAX, outbox::Outboxes};

/// Which end opened the connection of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// The peer dialled.
    Inbound,
    /// We dialled.
    Outbound,
}

/// State of one configured peer. Counters cover all links since the peer was added.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub key: PeerKey,
    /// Whether the link is up.
    pub connected: bool,
    /// Milliseconds since it came up.
    pub connected_ms: Option<u64>,
    /// Who opened it.
    pub direction: Option<Direction>,
    /// Bytes received, length prefixes included.
    pub bytes_in: u64,
    /// Bytes written, length prefixes included.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames written.
    pub frames_out: u64,
    /// Why the last dial failed or the last link ended.
    pub last_error: Option<String>,
    /// Milliseconds until the next dial, if one is planned.
    pub next_dial_ms: Option<u64>,
}

/// A key that is not configured and tried to connect.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Proven by its handshake.
    pub key: PeerKey,
    /// Multiaddress of the last attempt.
    pub address: String,
    /// Attempts since it was first remembered.
    pub attempts: u64,
    /// Milliseconds since the last attempt.
    pub last_ms: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Board {
    peers: RwLock<BTreeMap<PeerKey, Arc<Entry>>>,
    refused: Mutex<VecDeque<(PeerKey, String, u64, Instant)>>,
    listen: Mutex<Vec<String>>,
}

/// One peer's part of the board.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    frames_in: AtomicU64,
    frames_out: AtomicU64,
    outboxes: RwLock<Option<Arc<Outboxes>>>,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    up: Option<(Instant, Direction)>,
    last_error: Option<String>,
    next_dial: Option<Instant>,
}

/// No code panics while it holds one of these locks half way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(crate) fn peer(&self, key: PeerKey) -> Option<Arc<Entry>> {
        self.peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned()
    }

    pub(crate) fn add(&self, key: PeerKey) -> Arc<Entry> {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(key).or_default())
    }

    pub(crate) fn remove(&self, key: PeerKey) {
        self.peers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }

    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers
            .iter()
            .map(|(key, entry)| entry.status(*key))
            .collect()
    }

    /// Returns whether to warn: once for each stranger, and no more once the list is full, or fresh
    /// keys could fill the log.
    pub(crate) fn note_refused(&self, key: PeerKey, address: String, now: Instant) -> bool {
        let mut refused = lock(&self.refused);
        let known = refused.iter().position(|(other, ..)| *other == key);
        let attempts = known
            .and_then(|at| refused.remove(at))
            .map_or(0, |(_, _, n, _)| n);
        let full = refused.len() >= REFUSED_MAX;
        if full {
            refused.pop_front();
        }
        refused.push_back((key, address, attempts + 1, now));
        known.is_none() && !full
    }

    pub(crate) fn refused(&self) -> Vec<Refused> {
        let view = |(key, address, attempts, last): &(PeerKey, String, u64, Instant)| Refused {
            key: *key,
            address: address.clone(),
            attempts: *attempts,
            last_ms: millis(last.elapsed()),
        };
        lock(&self.refused).iter().map(view).collect()
    }

    pub(crate) fn listen(&self) -> Vec<String> {
        lock(&self.listen).clone()
    }

    pub(crate) fn set_listen(&self, addresses: Vec<String>) {
        *lock(&self.listen) = addresses;
    }
}

impl Entry {
    pub(crate) fn outboxes(&self) -> Option<Arc<Outboxes>> {
        self.outboxes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn link_up(&self, outboxes: Arc<Outboxes>, direction: Direction) {
        lock(&self.notes).up = Some((Instant::now(), direction));
        *self
            .outboxes
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(outboxes);
    }

    pub(crate) fn link_down(&self) {
        lock(&self.notes).up = None;
        *self
            .outboxes
            .write()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn count_in(&self, frame_bytes: usize) {
        self.frames_in.fetch_add(1, Relaxed);
        self.bytes_in.fetch_add(frame_bytes as u64 + 4, Relaxed);
    }

    pub(crate) fn count_out(&self, frames: usize, bytes: usize) {
        self.frames_out.fetch_add(frames as u64, Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn note_error(&self, error: &str) {
        lock(&self.notes).last_error = Some(error.to_owned());
    }

    pub(crate) fn note_next_dial(&self, at: Option<Instant>) {
        lock(&self.notes).next_dial = at;
    }

    fn status(&self, key: PeerKey) -> PeerStatus {
        let notes = lock(&self.notes);
        PeerStatus {
            key,
            connected: notes.up.is_some(),
            connected_ms: notes.up.map(|(since, _)| millis(since.elapsed())),
            direction: notes.up.map(|(_, direction)| direction),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            frames_in: self.frames_in.load(Relaxed),
            frames_out: self.frames_out.load(Relaxed),
            last_error: notes.last_error.clone(),
            next_dial_ms: notes
                .next_dial
                .map(|at| millis(at.saturating_duration_since(Instant::now()))),
        }
    }
}

pub(crate) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_counted_and_the_list_is_bounded() {
        let board = Board::default();
        let now = Instant::now();
        let key = |n: usize| PeerKey([u8::try_from(n).unwrap(); 32]);
        assert!(board.note_refused(key(200), "there".to_owned(), now));
        assert!(!board.note_refused(key(200), "here".to_owned(), now));
        let refused = board.refused();
        assert_eq!(
            (refused[0].attempts, refused[0].address.as_str()),
            (2, "here")
        );
        let warned = (0..REFUSED_MAX).filter(|n| board.note_refused(key(*n), String::new(), now));
        assert_eq!(warned.count(), REFUSED_MAX - 1);
        assert_eq!(board.refused().len(), REFUSED_MAX);
        assert!(
            board
                .refused()
                .iter()
                .all(|refused| refused.key != key(200))
        );
    }
}
