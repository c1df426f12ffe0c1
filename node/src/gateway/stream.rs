//! Frames over a byte stream, which is what QUIC gives: a big-endian u32 length, then DAG-CBOR.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use comity_protocol::{
    limits::SESSION_FRAME_BYTES_MAX,
    session::{ClientFrame, Codec, ServerFrame},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::{self, BadFrame, Broken, FrameTooLarge, Sink, Source};
use crate::limits::{HANDSHAKE_FRAME_BYTES_MAX, SESSION_OUT_BYTES};

/// Room held while nothing is under way; every idle session has it.
const IDLE_BYTES: usize = 512;
/// Room offered to one read while a frame is incomplete.
const READ_BYTES: usize = 16 * 1024;

/// Frames from a byte stream. Holds at most one frame and what came with its end.
pub(super) struct ByteSource<R> {
    stream: R,
    bytes: BytesMut,
    max: usize,
    heard: u64,
}

impl<R: AsyncRead + Send + Unpin> ByteSource<R> {
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            bytes: BytesMut::new(),
            max: HANDSHAKE_FRAME_BYTES_MAX,
            heard: 0,
        }
    }

    pub(super) fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    fn buffered_frame(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some(head) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*head) as usize;
        if len > self.max {
            return Err(Broken::TooLarge { max: self.max });
        }
        if self.bytes.len() < 4 + len {
            return Ok(None);
        }
        self.bytes.advance(4);
        let frame = self.bytes.split_to(len).freeze();
        if self.bytes.is_empty() {
            // Gives a large frame's memory back: the next read begins with a small buffer.
            self.bytes = BytesMut::new();
        }
        Ok(Some(frame))
    }
}

impl<R: AsyncRead + Send + Unpin> Source for ByteSource<R> {
    async fn next(&mut self) -> Result<Option<Result<ClientFrame, BadFrame>>, Broken> {
        loop {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(Some(frames::decode(Codec::Cbor, &frame)));
            }
            // The buffer grows with what has come, never with what was announced.
            let room = self.bytes.len().clamp(IDLE_BYTES, READ_BYTES);
            self.bytes.reserve(room);
            match self.stream.read_buf(&mut self.bytes).await {
                Ok(0) if self.bytes.is_empty() => return Ok(None),
                Ok(0) | Err(_) => return Err(Broken::Lost),
                Ok(count) => self.heard += count as u64,
            }
        }
    }

    fn heard(&self) -> u64 {
        self.heard
    }

    fn admit(&mut self) {
        self.max = SESSION_FRAME_BYTES_MAX;
    }
}

/// Frames onto a byte stream, joined into few large writes.
pub(super) struct ByteSink<W> {
    stream: W,
    bytes: Vec<u8>,
    sent: usize,
    taken: u64,
}

impl<W: AsyncWrite + Send + Unpin> ByteSink<W> {
    pub(super) const fn new(stream: W) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
            sent: 0,
            taken: 0,
        }
    }

    pub(super) fn stream_mut(&mut self) -> &mut W {
        &mut self.stream
    }
}

impl<W: AsyncWrite + Send + Unpin> Sink for ByteSink<W> {
    fn push(&mut self, frame: &ServerFrame) -> Result<(), FrameTooLarge> {
        let body = frames::encode(Codec::Cbor, frame)?;
        let len = u32::try_from(body.len()).map_err(|_| FrameTooLarge { len: body.len() })?;
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(&body);
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn taken(&self) -> u64 {
        self.taken
    }

    async fn flush(&mut self) -> io::Result<()> {
        let rest = &self.bytes[self.sent..];
        let rest = &rest[..rest.len().min(SESSION_OUT_BYTES)];
        if rest.is_empty() {
            return Ok(());
        }
        let count = self.stream.write(rest).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent += count;
        self.taken += count as u64;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(IDLE_BYTES);
            self.sent = 0;
        } else if self.sent >= SESSION_OUT_BYTES {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    async fn finish(&mut self) {
        // A stream that is gone already needs no end.
        let _ = self.stream.shutdown().await;
    }
}
