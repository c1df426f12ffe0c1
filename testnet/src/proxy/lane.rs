//! One direction of one source: what is under way, in order, up to a limit.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{LANE_BYTES_MAX, LANE_DATAGRAMS_MAX, Shared, count};

struct Datagram {
    due: Instant,
    bytes: Vec<u8>,
}

/// The entry of a lane.
pub(super) struct Lane {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Datagram>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Lane {
    /// Takes a datagram, or drops and counts it.
    pub(super) fn push(&self, bytes: &[u8]) {
        if self.shared.cut.load(Ordering::Relaxed) {
            return count(&self.shared.dropped_cut);
        }
        if self.shared.loses() {
            return count(&self.shared.dropped_lost);
        }
        if self.queued_bytes.load(Ordering::Relaxed) + bytes.len() > LANE_BYTES_MAX {
            return count(&self.shared.dropped_overflow);
        }
        let datagram = Datagram {
            due: Instant::now() + self.shared.delay(),
            bytes: bytes.to_vec(),
        };
        self.queued_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        if self.queue.try_send(datagram).is_err() {
            self.queued_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
            count(&self.shared.dropped_overflow);
        }
    }
}

/// A lane whose end is the target, which `socket` is connected to.
pub(super) fn there(shared: Arc<Shared>, socket: Arc<UdpSocket>, tasks: &mut JoinSet<()>) -> Lane {
    open(shared, End::There(socket), tasks)
}

/// A lane whose end is the source at `to`.
pub(super) fn back(
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    tasks: &mut JoinSet<()>,
) -> Lane {
    open(shared, End::Back(socket, to), tasks)
}

enum End {
    There(Arc<UdpSocket>),
    Back(Arc<UdpSocket>, SocketAddr),
}

impl End {
    async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::There(socket) => socket.send(bytes).await,
            Self::Back(socket, to) => socket.send_to(bytes, *to).await,
        }
    }
}

fn open(shared: Arc<Shared>, end: End, tasks: &mut JoinSet<()>) -> Lane {
    let (queue, datagrams) = mpsc::channel(LANE_DATAGRAMS_MAX);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    tasks.spawn(carry(shared.clone(), end, datagrams, queued_bytes.clone()));
    Lane {
        shared,
        queue,
        queued_bytes,
    }
}

async fn carry(
    shared: Arc<Shared>,
    end: End,
    mut datagrams: mpsc::Receiver<Datagram>,
    queued_bytes: Arc<AtomicUsize>,
) {
    while let Some(Datagram { due, bytes }) = datagrams.recv().await {
        // A timer has a grain of a millisecond: without a delay there must be none.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        queued_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        if shared.cut.load(Ordering::Relaxed) {
            count(&shared.dropped_cut);
            continue;
        }
        match end.send(&bytes).await {
            Ok(_) => {
                shared
                    .bytes
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                count(match end {
                    End::There(_) => &shared.forwarded,
                    End::Back(..) => &shared.returned,
                });
            }
            Err(_) => count(&shared.refused),
        }
    }
}
