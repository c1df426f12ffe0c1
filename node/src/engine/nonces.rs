//! Nonces of events that are not durable yet: two events of one device with one nonce are a
//! conflict also while both are under way, in whichever conversations.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use comity_protocol::ids::{DeviceKey, EventId, Nonce};

type Claimed = BTreeMap<(DeviceKey, Nonce), (EventId, usize)>;

/// Claims under way. Bounded by the requests under way.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<Claimed>);

/// Held until its event is durable or refused.
#[derive(Debug)]
pub(crate) struct Claim {
    of: Arc<Nonces>,
    key: (DeviceKey, Nonce),
}

impl Nonces {
    /// Claims a nonce for an event; `None` if another event under way has it.
    pub(crate) fn claim(
        self: &Arc<Self>,
        device: DeviceKey,
        nonce: Nonce,
        event: EventId,
    ) -> Option<Claim> {
        let key = (device, nonce);
        let mut claimed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (holder, count) = claimed.entry(key).or_insert((event, 0));
        if *holder != event {
            return None;
        }
        *count += 1;
        Some(Claim {
            of: Arc::clone(self),
            key,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = claimed.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                claimed.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_belongs_to_one_event_until_its_last_claim_is_dropped() {
        let nonces = Arc::new(Nonces::default());
        let (device, nonce) = (DeviceKey::from_bytes([1; 32]), Nonce::from_bytes([2; 16]));
        let event = |n| EventId::from_bytes([n; 32]);
        let first = nonces.claim(device, nonce, event(1)).unwrap();
        let retry = nonces.claim(device, nonce, event(1)).unwrap();
        drop(first);
        assert!(nonces.claim(device, nonce, event(2)).is_none());
        drop(retry);
        assert!(nonces.claim(device, nonce, event(2)).is_some());
    }
}
