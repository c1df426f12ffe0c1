//! Stateless resets (RFC 9000, section 10.3): how a server that lost its state in a crash ends the
//! connections of before. A client that hears nothing would take it for a bad network and wait.

use std::{sync::Arc, time::Duration};

use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig,
    crypto::{CryptoError, HmacKey},
};

/// Time between two resets. Each is shorter than the packet that asked for it, so it amplifies
/// nothing; the pause only bounds the work that forged packets make.
const RESET_EVERY: Duration = Duration::from_millis(1);
/// Bytes of a connection's id.
const ID_BYTES: usize = 8;

/// An endpoint whose resets are those of every endpoint with this secret.
pub(super) fn endpoint_config(secret: [u8; 32]) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey(secret)));
    // The default generator knows only ids of its own process, and drops all others in silence.
    config.cid_generator(|| Box::new(RandomIds));
    config.min_reset_interval(RESET_EVERY);
    config
}

struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature: [u8; blake3::OUT_LEN] = signature.try_into().map_err(|_| CryptoError)?;
        // Compared in constant time.
        if blake3::keyed_hash(&self.0, data) == blake3::Hash::from_bytes(signature) {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        // Without randomness nothing here works: TLS fails before a connection needs an id.
        let _ = getrandom::fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_gives_the_same_tokens_in_another_process() {
        let sign = |secret: u8, data: &[u8]| {
            let mut token = [0; 32];
            ResetKey([secret; 32]).sign(data, &mut token);
            token
        };
        assert_eq!(sign(1, b"id"), sign(1, b"id"));
        assert_ne!(sign(1, b"id"), sign(2, b"id"));
        assert!(ResetKey([1; 32]).verify(b"id", &sign(1, b"id")).is_ok());
        for wrong in [&sign(2, b"id")[..], &sign(1, b"id")[..16], b""] {
            assert!(ResetKey([1; 32]).verify(b"id", wrong).is_err());
        }
    }
}
