//! TCP connections as they are let in: counted, bounded, metered, and closed so that the last
//! words arrive.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::http::Request;
use axum_server::accept::Accept;
use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::metrics::{Counted, Metrics};
use crate::limits::{CLOSE_LINGER_BYTES, CLOSE_LINGER_MS};

/// Bytes of a connection, seen from above TLS.
#[derive(Debug)]
pub(super) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
    read_max: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            read_max: AtomicU64::new(u64::MAX),
        }
    }
}

impl Meter {
    pub(super) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Reading fails once `more` bytes were read from here on.
    pub(super) fn allow(&self, more: u64) {
        self.read_max.store(self.read() + more, Relaxed);
    }

    pub(super) fn allow_all(&self) {
        self.read_max.store(u64::MAX, Relaxed);
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.read() >= self.read_max.load(Relaxed)
    }
}

/// Lets connections in as long as there is room.
#[derive(Clone, Debug)]
pub(super) struct Door<A> {
    pub(super) inner: A,
    pub(super) room: Arc<Semaphore>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: TaskTracker,
}

impl<A, S> Accept<TcpStream, S> for Door<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
    A::Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = Held<A::Stream>;
    type Service = Metered<A::Service>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            self.metrics.turned_away.fetch_add(1, Relaxed);
            return Box::pin(async { Err(io::Error::other("too many connections")) });
        };
        let counted = Counted::connection(&self.metrics);
        let accepting = self.inner.accept(stream, service);
        let (metrics, tasks) = (Arc::clone(&self.metrics), self.tasks.clone());
        Box::pin(async move {
            let (stream, service) = accepting.await.inspect_err(|_| {
                metrics.failed_handshakes.fetch_add(1, Relaxed);
            })?;
            let meter = Arc::new(Meter::default());
            let held = Held {
                open: Some((stream, permit, counted)),
                ended: false,
                meter: Arc::clone(&meter),
                tasks,
            };
            Ok((held, Metered { service, meter }))
        })
    }
}

/// A connection that was let in. Dropped while the peer may still be sending, it is read on for a
/// moment: closing a socket over unread bytes resets it, and the reset can overtake the answer
/// that says why.
#[derive(Debug)]
pub(super) struct Held<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    open: Option<(S, OwnedSemaphorePermit, Counted)>,
    ended: bool,
    meter: Arc<Meter>,
    tasks: TaskTracker,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Held<S> {
    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(&mut open.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.meter.is_used_up() {
            return Poll::Ready(Err(io::Error::other("more than a stranger may send")));
        }
        let before = buf.filled().len();
        let result = ready!(self.stream()?.poll_read(cx, buf));
        let count = buf.filled().len() - before;
        self.meter.read.fetch_add(count as u64, Relaxed);
        self.ended |= result.is_err() || (count == 0 && buf.remaining() > 0);
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream()?.poll_write(cx, buf))?;
        self.meter.written.fetch_add(count as u64, Relaxed);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream()?.poll_write_vectored(cx, bufs))?;
        self.meter.written.fetch_add(count as u64, Relaxed);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|(stream, ..)| stream.is_write_vectored())
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Drop for Held<S> {
    fn drop(&mut self) {
        if self.ended || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if let Some((stream, permit, counted)) = self.open.take() {
            self.tasks.spawn(async move {
                let _ = timeout(Duration::from_millis(CLOSE_LINGER_MS), linger(stream)).await;
                drop((permit, counted));
            });
        }
    }
}

async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await?;
    let (mut buffer, mut left) = ([0; 1024], CLOSE_LINGER_BYTES);
    while left > 0 {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        left = left.saturating_sub(count);
    }
    Ok(())
}

/// A service whose requests carry their connection's [`Meter`].
#[derive(Clone, Debug)]
pub(super) struct Metered<S> {
    service: S,
    meter: Arc<Meter>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Metered<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(Arc::clone(&self.meter));
        self.service.call(request)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::duplex, time::sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_closed_connection_takes_what_still_comes_for_a_moment() {
        let (near, mut far) = duplex(1_024);
        let (metrics, room) = (Arc::new(Metrics::default()), Arc::new(Semaphore::new(1)));
        let permit = Arc::clone(&room).try_acquire_owned().unwrap();
        let mut held = Held {
            open: Some((near, permit, Counted::connection(&metrics))),
            ended: false,
            meter: Arc::default(),
            tasks: TaskTracker::new(),
        };
        held.write_all(b"why").await.unwrap();
        drop(held);
        far.write_all(&[0; 100_000]).await.unwrap();
        let mut why = Vec::new();
        far.read_to_end(&mut why).await.unwrap();
        assert_eq!(why, b"why");
        assert_eq!((metrics.connections(), room.available_permits()), (1, 0));
        sleep(Duration::from_millis(CLOSE_LINGER_MS + 1)).await;
        assert_eq!((metrics.connections(), room.available_permits()), (0, 1));
        far.write_all(&[0; 10_000]).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_stranger_reads_to_the_allowance_and_no_further() {
        let (near, mut far) = duplex(1_024);
        let room = Arc::new(Semaphore::new(1));
        let meter = Arc::new(Meter::default());
        meter.allow(10);
        let metrics = Arc::new(Metrics::default());
        let mut held = Held {
            open: Some((
                near,
                room.try_acquire_owned().unwrap(),
                Counted::connection(&metrics),
            )),
            ended: false,
            meter: Arc::clone(&meter),
            tasks: TaskTracker::new(),
        };
        far.write_all(&[0; 20]).await.unwrap();
        held.read_exact(&mut [0; 10]).await.unwrap();
        assert!(meter.is_used_up());
        held.read_exact(&mut [0; 1]).await.unwrap_err();
        meter.allow_all();
        held.read_exact(&mut [0; 10]).await.unwrap();
    }
}
