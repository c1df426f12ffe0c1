//! A cable between a dialling server and a listening one that can be cut, be slow, or lose
//! packets.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{net::UdpSocket, task::JoinHandle};

pub(crate) struct Cable {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    delay: Duration,
    cut: AtomicBool,
    /// Every n-th packet is lost; none for 0.
    lose_every: AtomicUsize,
    packets: AtomicUsize,
}

impl State {
    fn passes(&self) -> bool {
        let packet = self.packets.fetch_add(1, Relaxed);
        let lose_every = self.lose_every.load(Relaxed);
        !self.cut.load(Relaxed) && (lose_every == 0 || !packet.is_multiple_of(lose_every))
    }
}

impl Cable {
    pub(crate) async fn to(listener: &str) -> Self {
        Self::slow(listener, Duration::ZERO).await
    }

    /// A cable whose packets take `delay` each way.
    pub(crate) async fn slow(listener: &str, delay: Duration) -> Self {
        let port: u16 = listener.split('/').nth(4).unwrap().parse().unwrap();
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        far.connect(("127.0.0.1", port)).await.unwrap();
        let address = near.local_addr().unwrap();
        let state = Arc::new(State {
            delay,
            ..State::default()
        });
        let task = tokio::spawn(carry(near, far, Arc::clone(&state)));
        Self {
            address,
            state,
            task,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("/ip4/127.0.0.1/udp/{}/quic-v1", self.address.port())
    }

    pub(crate) fn cut(&self) {
        self.state.cut.store(true, Relaxed);
    }

    pub(crate) fn mend(&self) {
        self.state.cut.store(false, Relaxed);
    }

    pub(crate) fn lose_every(&self, packets: usize) {
        self.state.lose_every.store(packets, Relaxed);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(near: UdpSocket, far: UdpSocket, state: Arc<State>) {
    let (near, far) = (Arc::new(near), Arc::new(far));
    let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
    let mut dialler = None;
    loop {
        // Errors are those of packets on the way: lost ones, like any other.
        tokio::select! {
            Ok((length, from)) = near.recv_from(&mut there) => {
                dialler = Some(from);
                if state.passes() {
                    let (far, packet, delay) = (Arc::clone(&far), there[..length].to_vec(), state.delay);
                    deliver(delay, async move { far.send(&packet).await }).await;
                }
            }
            Ok(length) = far.recv(&mut back) => {
                if let Some(dialler) = dialler
                    && state.passes()
                {
                    let (near, packet, delay) = (Arc::clone(&near), back[..length].to_vec(), state.delay);
                    deliver(delay, async move { near.send_to(&packet, dialler).await }).await;
                }
            }
        }
    }
}

async fn deliver(
    delay: Duration,
    send: impl Future<Output = std::io::Result<usize>> + Send + 'static,
) {
    if delay.is_zero() {
        let _ = send.await;
    } else {
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            send.await
        });
    }
}
