//! Frames on a substream: length (4 bytes, big endian, at most [`FRAME_MAX`]), then as many bytes.

use std::io;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::{
    limits::{COALESCE_BYTES, FRAME_MAX, READ_BUFFER_BYTES},
    outbox::{Outbox, Taken},
};

const LENGTH_BYTES: usize = 4;

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// More than the limit, or not a frame at all.
    #[error("frame of {0} bytes announced, {FRAME_MAX} are allowed")]
    TooLong(u32),
    #[error("stream ended inside a frame")]
    Cut,
    #[error("stream broke: {0}")]
    Io(#[from] io::Error),
}

/// Takes frames off a stream, one for each call: who does not call stops the peer, once its
/// window is full.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: vec![0; READ_BUFFER_BYTES],
            start: 0,
            end: 0,
        }
    }

    /// The next frame, or `None` at the end of the stream. Not cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some((header, rest)) = unread.split_first_chunk::<LENGTH_BYTES>() {
                let length = frame_length(*header)?;
                if let Some(body) = rest.get(..length) {
                    let frame = Bytes::copy_from_slice(body);
                    self.start += LENGTH_BYTES + length;
                    return Ok(Some(frame));
                }
                if LENGTH_BYTES + length > self.buffer.len() {
                    return self.long(length).await.map(Some);
                }
            }
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            match self.stream.read(&mut self.buffer[self.end..]).await? {
                0 if self.end == 0 => return Ok(None),
                0 => return Err(ReadError::Cut),
                read => self.end += read,
            }
        }
    }

    /// A frame that does not fit the buffer, whose first bytes are there.
    async fn long(&mut self, length: usize) -> Result<Bytes, ReadError> {
        let mut frame = Vec::with_capacity(length);
        frame.extend_from_slice(&self.buffer[self.start + LENGTH_BYTES..self.end]);
        (self.start, self.end) = (0, 0);
        while frame.len() < length {
            let rest = (length - frame.len()).min(self.buffer.len());
            match self.stream.read(&mut self.buffer[..rest]).await? {
                0 => return Err(ReadError::Cut),
                read => frame.extend_from_slice(&self.buffer[..read]),
            }
        }
        Ok(frame.into())
    }
}

fn frame_length(header: [u8; LENGTH_BYTES]) -> Result<usize, ReadError> {
    let announced = u32::from_be_bytes(header);
    match usize::try_from(announced) {
        Ok(length) if length <= FRAME_MAX => Ok(length),
        _ => Err(ReadError::TooLong(announced)),
    }
}

fn header(frame: &Bytes) -> [u8; LENGTH_BYTES] {
    u32::try_from(frame.len())
        .expect("the outbox takes no longer frame")
        .to_be_bytes()
}

/// Writes what comes out of `outbox` until it is closed and empty, then ends `stream`. Calls
/// `written` with frames and bytes of each write, and `writable` when a refused sender may go on.
pub(crate) async fn write_frames(
    mut stream: impl AsyncWrite + Unpin,
    outbox: &Outbox,
    written: impl Fn(usize, usize),
    writable: impl Fn(),
) -> io::Result<()> {
    let mut batch: Vec<Bytes> = Vec::new();
    let mut buffer: Vec<u8> = Vec::with_capacity(COALESCE_BYTES + LENGTH_BYTES);
    loop {
        match outbox.take(&mut batch).await {
            Taken::End => return stream.close().await,
            Taken::Frames { writable: true } => writable(),
            Taken::Frames { writable: false } => {}
        }
        let frames = batch.len();
        let mut bytes = frames * LENGTH_BYTES;
        for frame in batch.drain(..) {
            bytes += frame.len();
            buffer.extend_from_slice(&header(&frame));
            if frame.len() > COALESCE_BYTES {
                stream.write_all(&buffer).await?;
                buffer.clear();
                stream.write_all(&frame).await?;
            } else {
                buffer.extend_from_slice(&frame);
            }
        }
        stream.write_all(&buffer).await?;
        buffer.clear();
        stream.flush().await?;
        written(frames, bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    fn read(bytes: &[u8]) -> (Vec<Bytes>, Result<(), ReadError>) {
        let mut reader = FrameReader::new(Cursor::new(bytes));
        let mut frames = Vec::new();
        loop {
            match block_on(reader.next()) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    fn write(frames: &[Bytes]) -> Vec<u8> {
        let outbox = Outbox::default();
        frames
            .iter()
            .for_each(|frame| outbox.push(frame.clone()).unwrap());
        outbox.close();
        let mut wire = Vec::new();
        block_on(write_frames(&mut wire, &outbox, |_, _| {}, || {})).unwrap();
        wire
    }

    #[test]
    fn frames_of_every_size_come_back() {
        let lengths = [
            0,
            1,
            300,
            READ_BUFFER_BYTES - 5,
            READ_BUFFER_BYTES - 4,
            READ_BUFFER_BYTES - 3,
            READ_BUFFER_BYTES,
            READ_BUFFER_BYTES + 1,
            0,
            FRAME_MAX,
            7,
        ];
        let fill =
            |(n, length): (usize, &usize)| Bytes::from(vec![u8::try_from(n).unwrap(); *length]);
        let sent: Vec<Bytes> = lengths.iter().enumerate().map(fill).collect();
        let (received, result) = read(&write(&sent));
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(received, sent);
    }

    #[test]
    fn too_long_a_length_stops_the_stream_before_anything_is_read_for_it() {
        let announced = u32::try_from(FRAME_MAX).unwrap() + 1;
        let mut wire = write(&[Bytes::from_static(b"fine")]);
        wire.extend(announced.to_be_bytes());
        let (received, result) = read(&wire);
        assert_eq!(received, [Bytes::from_static(b"fine")]);
        assert!(matches!(result, Err(ReadError::TooLong(length)) if length == announced));
    }

    #[test]
    fn end_inside_a_frame_is_an_error() {
        let wire = write(&[Bytes::from(vec![1; READ_BUFFER_BYTES * 2])]);
        for cut in [1, 3, 4, 5, 100, wire.len() - 1] {
            let (received, result) = read(&wire[..cut]);
            assert!(received.is_empty());
            assert!(matches!(result, Err(ReadError::Cut)), "{cut}: {result:?}");
        }
    }
}
