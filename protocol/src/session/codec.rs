//! Frames to bytes and back, the same code at both ends. Source: `spec/06-client-protocol.md`,
//! section 1.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    encoding::{self, DecodeError},
    limits::SESSION_FRAME_BYTES_MAX,
};

/// How frames are written. JSON lives at the edges, which have a JSON library.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    /// DAG-CBOR.
    Cbor,
    /// JSON.
    Json,
}

/// Bytes that are no frame.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A length beyond the limit: the stream cannot be read on.
    #[error("a frame of {len} bytes where at most {max} are allowed")]
    TooLarge {
        /// The length announced.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The frame's bytes.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A frame as it goes on a byte stream: big-endian u32 length, then DAG-CBOR.
///
/// # Errors
///
/// [`FrameError::TooLarge`].
pub fn frame_bytes<T: Serialize>(frame: &T) -> Result<Vec<u8>, FrameError> {
    let body = encoding::encode(frame);
    let max = SESSION_FRAME_BYTES_MAX;
    let len = u32::try_from(body.len()).ok().filter(|_| body.len() <= max);
    let Some(len) = len else {
        return Err(FrameError::TooLarge {
            len: body.len(),
            max,
        });
    };
    Ok([&len.to_be_bytes(), body.as_slice()].concat())
}

/// Cuts a byte stream into frames. Holds at most one frame and what was read beyond it.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start * 2 >= self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` until more bytes came.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; after `TooLarge` the stream is lost, after `Decode` the next frame can
    /// still be read.
    pub fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let rest = &self.bytes[self.start..];
        let Some((head, body)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*head) as usize;
        let max = SESSION_FRAME_BYTES_MAX;
        if len > max {
            return Err(FrameError::TooLarge { len, max });
        }
        let Some(body) = body.get(..len) else {
            return Ok(None);
        };
        let frame = encoding::decode_frame(body, max);
        self.start += 4 + len;
        Ok(Some(frame?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{ClientFrame, Request};

    #[test]
    fn frames_survive_any_cutting_of_the_stream() {
        let sent: Vec<_> = (0..5)
            .map(|id| ClientFrame {
                id,
                request: Request::Ping,
            })
            .collect();
        let stream: Vec<u8> = sent.iter().flat_map(|f| frame_bytes(f).unwrap()).collect();
        for step in 1..stream.len() {
            let (mut buffer, mut read) = (FrameBuffer::default(), vec![]);
            for chunk in stream.chunks(step) {
                buffer.push(chunk);
                while let Some(frame) = buffer.next_frame::<ClientFrame>().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, sent);
        }
    }

    #[test]
    fn an_oversize_length_is_refused_before_its_bytes_come() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&u32::MAX.to_be_bytes());
        assert!(matches!(
            buffer.next_frame::<ClientFrame>(),
            Err(FrameError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_bad_frame_leaves_the_next_one_readable() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&[0, 0, 0, 1, 0xff]);
        buffer.push(
            &frame_bytes(&ClientFrame {
                id: 1,
                request: Request::Ping,
            })
            .unwrap(),
        );
        assert!(matches!(
            buffer.next_frame::<ClientFrame>(),
            Err(FrameError::Decode(_))
        ));
        assert_eq!(buffer.next_frame::<ClientFrame>().unwrap().unwrap().id, 1);
    }
}
