//! Signatures that this process has verified already.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use comity_protocol::ids::{EventId, Signature};

use crate::limits::{VERIFIED_ONE_CLIENT, VERIFIED_SHARED};

/// Event signatures known to be good, so that a line that comes again, or to several clients of one
/// process, costs its verification once. An id is the hash of the event's bytes, which name the
/// device: the same id and signature always verify alike.
///
/// A program with many clients, such as a bridge, makes one and gives it to each of them by
/// [`ClientBuilder::verified`](crate::ClientBuilder::verified). Whose device it is, each client
/// checks for itself.
#[derive(Clone)]
pub struct Verified(Arc<Mutex<Inner>>);

struct Inner {
    signatures: HashMap<EventId, Signature>,
    order: VecDeque<EventId>,
    max: usize,
}

impl Default for Verified {
    fn default() -> Self {
        Self::with_room_for(VERIFIED_SHARED)
    }
}

impl Verified {
    pub(crate) fn of_one_client() -> Self {
        Self::with_room_for(VERIFIED_ONE_CLIENT)
    }

    fn with_room_for(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            signatures: HashMap::new(),
            order: VecDeque::new(),
            max,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, event: &EventId, signature: &Signature) -> bool {
        self.lock().signatures.get(event) == Some(signature)
    }

    /// Notes a signature that was verified, or made, by this process.
    pub(crate) fn note(&self, event: EventId, signature: Signature) {
        let mut inner = self.lock();
        if inner.signatures.insert(event, signature).is_some() {
            return;
        }
        inner.order.push_back(event);
        if inner.order.len() > inner.max
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.signatures.remove(&oldest);
        }
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_signature_is_known_and_the_oldest_makes_room() {
        let verified = Verified::with_room_for(2);
        let id = |n| EventId::from_bytes([n; 32]);
        let signature = |n| Signature::from_bytes([n; 64]);
        for n in 1..=3 {
            verified.note(id(n), signature(n));
        }
        assert!(!verified.has(&id(1), &signature(1)));
        assert!(verified.has(&id(2), &signature(2)) && verified.has(&id(3), &signature(3)));
        assert!(!verified.has(&id(3), &signature(2)));
    }
}
