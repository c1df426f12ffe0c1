//! Frames on a byte stream: QUIC, or memory in tests.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use comity_protocol::session::{ClientFrame, FrameBuffer, ServerFrame, frame_bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Link, lost_io};
use crate::error::{Error, ErrorKind, Result};

const READ_BYTES: usize = 16 * 1024;

/// A link over any byte stream; `keep` lives as long as it does.
pub(crate) struct StreamLink<S, K = ()> {
    stream: S,
    frames: FrameBuffer,
    read: Box<[u8]>,
    out: Vec<u8>,
    written: usize,
    /// Bytes read and charged to no frame yet; the next one bears them all.
    uncounted: usize,
    _keep: K,
}

impl<S, K> StreamLink<S, K> {
    pub(crate) fn new(stream: S, keep: K) -> Self {
        Self {
            stream,
            frames: FrameBuffer::default(),
            read: vec![0; READ_BYTES].into(),
            out: Vec::new(),
            written: 0,
            uncounted: 0,
            _keep: keep,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, K: Send> Link for StreamLink<S, K> {
    fn queue(&mut self, frame: &ClientFrame) -> Result<()> {
        let bytes = frame_bytes(frame)
            .map_err(|e| Error::new(ErrorKind::TooLarge, "a request is too large").because(e))?;
        self.out.extend_from_slice(&bytes);
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, rest)).map_err(lost_io)?;
            if n == 0 {
                return Poll::Ready(Err(lost_io(std::io::ErrorKind::WriteZero.into())));
            }
            self.written += n;
        }
        self.out.clear();
        // One large burst must not hold its memory for the life of the connection.
        self.out.shrink_to(READ_BYTES);
        self.written = 0;
        Pin::new(&mut self.stream).poll_flush(cx).map_err(lost_io)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(ServerFrame, usize)>> {
        loop {
            let frame = self.frames.next_frame().map_err(|e| {
                Error::new(ErrorKind::Protocol, "the server sent a bad frame").because(e)
            })?;
            if let Some(frame) = frame {
                return Poll::Ready(Ok((frame, std::mem::take(&mut self.uncounted))));
            }
            let mut buffer = ReadBuf::new(&mut self.read);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)).map_err(lost_io)?;
            if buffer.filled().is_empty() {
                let text = "the server closed the connection";
                return Poll::Ready(Err(Error::new(ErrorKind::Offline, text)));
            }
            self.uncounted += buffer.filled().len();
            self.frames.push(buffer.filled());
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.stream).poll_shutdown(cx).map(|_| ())
    }
}

impl<S, K> fmt::Debug for StreamLink<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamLink").finish_non_exhaustive()
    }
}
