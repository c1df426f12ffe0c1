//! Which of several connections between two servers is the link.
//!
//! Both may dial at once, and a server that restarts comes back while its old connection still
//! looks alive. So that the two ends agree, one decides: the *leader* is the end with the smaller
//! key. The other end, the *follower*, opens its live substream on every connection and says hello
//! there first. The leader takes the connection by opening its own live substream with a hello, or
//! closes it. Nothing but the leader's hello makes a connection the link.
//!
//! A hello is the first frame on a live substream: instance (16 bytes, random for each start of a
//! server), order (8 bytes, big endian, counts the hellos of an instance), others (1 byte, other
//! connections to this peer that the sender had then). Later versions may append up to
//! [`EXTRA_MAX`] bytes.

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{key::PeerKey, reason::SetupError};

const HELLO_BYTES: usize = 25;
const EXTRA_MAX: usize = 231;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    pub(crate) instance: [u8; 16],
    pub(crate) order: u64,
    pub(crate) others: u8,
}

/// Which end decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Leader,
    Follower,
}

impl Role {
    pub(crate) fn of(own: PeerKey, peer: PeerKey) -> Self {
        if own < peer {
            Self::Leader
        } else {
            Self::Follower
        }
    }

    /// Whether a connection with the other end's hello `offered` replaces the present one, whose
    /// hello was `current`.
    pub(crate) fn prefers(self, offered: &Hello, current: &Hello) -> bool {
        // The process at the far end of the present connection is gone.
        if offered.instance != current.instance {
            return true;
        }
        match self {
            // Two dials met, unless the follower has lost what we still hold: then it said hello
            // later than on the present connection, and had no other at that time.
            Self::Leader => offered.order > current.order && offered.others == 0,
            // The leader decides; a decision that a later one overtook is void.
            Self::Follower => offered.order > current.order,
        }
    }
}

impl Hello {
    pub(crate) async fn write(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let mut frame = [0; 4 + HELLO_BYTES];
        frame[3] = 25;
        frame[4..20].copy_from_slice(&self.instance);
        frame[20..28].copy_from_slice(&self.order.to_be_bytes());
        frame[28] = self.others;
        stream.write_all(&frame).await?;
        stream.flush().await
    }

    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, SetupError> {
        let broken = |error| SetupError::lost(&error);
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.map_err(broken)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(HELLO_BYTES..=HELLO_BYTES + EXTRA_MAX).contains(&length) {
            return Err(SetupError::Unusable(format!("hello of {length} bytes")));
        }
        let mut body = [0; HELLO_BYTES + EXTRA_MAX];
        stream
            .read_exact(&mut body[..length])
            .await
            .map_err(broken)?;
        let (instance, rest) = body.split_first_chunk().expect("longer than an instance");
        let (order, rest) = rest.split_first_chunk().expect("longer than an order");
        Ok(Self {
            instance: *instance,
            order: u64::from_be_bytes(*order),
            others: rest[0],
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn hello(instance: u8, order: u64, others: u8) -> Hello {
        Hello {
            instance: [instance; 16],
            order,
            others,
        }
    }

    #[test]
    fn exactly_one_end_leads() {
        let (a, b) = (PeerKey([1; 32]), PeerKey([2; 32]));
        assert_eq!(
            (Role::of(a, b), Role::of(b, a)),
            (Role::Leader, Role::Follower)
        );
    }

    #[test]
    fn simultaneous_dials_keep_the_first_in_either_order_of_arrival() {
        let (first, second) = (hello(1, 1, 0), hello(1, 2, 1));
        assert!(!Role::Leader.prefers(&second, &first));
        assert!(!Role::Leader.prefers(&first, &second));
    }

    #[test]
    fn follower_that_lost_the_link_or_restarted_is_believed() {
        let current = hello(1, 5, 0);
        assert!(Role::Leader.prefers(&hello(1, 6, 0), &current));
        assert!(Role::Leader.prefers(&hello(2, 1, 0), &current));
        assert!(
            !Role::Leader.prefers(&hello(1, 4, 0), &current),
            "an older hello came late"
        );
    }

    #[test]
    fn follower_obeys_the_latest_decision() {
        let current = hello(1, 5, 0);
        assert!(Role::Follower.prefers(&hello(1, 6, 3), &current));
        assert!(!Role::Follower.prefers(&hello(1, 4, 0), &current));
        assert!(Role::Follower.prefers(&hello(2, 0, 0), &current));
    }

    #[test]
    fn hello_round_trips_and_ignores_what_later_versions_append() {
        let sent = hello(9, u64::MAX - 1, 3);
        let mut wire = Vec::new();
        block_on(sent.write(&mut wire)).unwrap();
        assert_eq!(block_on(Hello::read(&mut Cursor::new(&wire))), Ok(sent));
        wire[3] += 2;
        wire.extend([1, 2]);
        assert_eq!(block_on(Hello::read(&mut Cursor::new(&wire))), Ok(sent));
    }

    #[test]
    fn garbage_is_no_hello() {
        for wire in [
            &[][..],
            &[0; 29],
            &[255; 64],
            &[0, 0, 0, 25, 1],
            &[0, 0, 2, 0, 7],
        ] {
            assert!(
                block_on(Hello::read(&mut Cursor::new(wire))).is_err(),
                "{wire:?}"
            );
        }
    }
}
