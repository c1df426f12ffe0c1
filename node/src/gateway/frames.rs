//! Frames over any transport: what the session loop reads from and writes to, and the two ways in
//! which a frame is written. Source: `spec/06-client-protocol.md`, section 1.

use std::{future::Future, io};

use comity_protocol::{
    encoding,
    limits::SESSION_FRAME_BYTES_MAX,
    session::{ClientFrame, Codec, ServerFrame},
};
use serde::Deserialize;

use crate::limits::JSON_FRAME_BYTES_MAX;

/// Whole bytes that are no frame of this protocol. The next frame can be read.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct BadFrame {
    /// The request's id, if it could be made out.
    pub(super) id: Option<u64>,
    /// What is wrong, for the client.
    pub(super) why: String,
}

/// The stream of frames cannot be read on.
#[derive(Debug)]
pub(super) enum Broken {
    /// A frame larger than allowed was announced.
    TooLarge { max: usize },
    /// The transport's own framing is violated.
    Malformed(String),
    /// The connection is gone.
    Lost,
}

/// Frames from a client.
pub(super) trait Source: Send {
    /// The next frame, `None` once the client ended the stream in good order. Cancel-safe.
    fn next(
        &mut self,
    ) -> impl Future<Output = Result<Option<Result<ClientFrame, BadFrame>>, Broken>> + Send;
    /// Bytes heard so far, parts of frames included.
    fn heard(&self) -> u64;
    /// The client is known now: frames up to the protocol's limit are welcome.
    fn admit(&mut self);
}

/// A frame that no client could read.
#[derive(Debug)]
pub(super) struct FrameTooLarge {
    pub(super) len: usize,
}

/// Frames to a client.
pub(super) trait Sink: Send {
    /// Adds a frame to the outbound buffer; it stays out if too large.
    fn push(&mut self, frame: &ServerFrame) -> Result<(), FrameTooLarge>;
    /// Bytes in the outbound buffer; at least 1 while anything waits for the transport.
    fn waiting(&self) -> usize;
    /// Bytes taken by the transport so far.
    fn taken(&self) -> u64;
    /// Hands as much as can be to the transport; waits until it takes some. Cancel-safe.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// Says that nothing follows, after the buffer was flushed.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
}

/// Reads a client's frame.
pub(super) fn decode(codec: Codec, bytes: &[u8]) -> Result<ClientFrame, BadFrame> {
    match codec {
        Codec::Cbor => {
            encoding::decode_frame(bytes, SESSION_FRAME_BYTES_MAX).map_err(|e| BadFrame {
                id: cbor_id(bytes),
                why: e.to_string(),
            })
        }
        Codec::Json => serde_json::from_slice(bytes).map_err(|e| BadFrame {
            id: serde_json::from_slice(bytes).ok().map(|OnlyId { id }| id),
            why: format!("malformed: {e}"),
        }),
    }
}

/// Writes a frame for a client, without a length before it.
pub(super) fn encode(codec: Codec, frame: &ServerFrame) -> Result<Vec<u8>, FrameTooLarge> {
    let (bytes, max) = match codec {
        Codec::Cbor => (encoding::encode(frame), SESSION_FRAME_BYTES_MAX),
        Codec::Json => {
            let bytes = serde_json::to_vec(frame).expect("protocol types have a JSON form");
            (bytes, JSON_FRAME_BYTES_MAX)
        }
    };
    if bytes.len() > max {
        return Err(FrameTooLarge { len: bytes.len() });
    }
    Ok(bytes)
}

// Unknown fields are skipped, which serde_json does without recursion.
#[derive(Deserialize)]
struct OnlyId {
    id: u64,
}

/// The id of a frame that does not decode. In DAG-CBOR the shorter key comes first, so the id is
/// read from the front, and whatever follows, nested or cut off, is not looked at.
fn cbor_id(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(b"\xa2\x62id")?;
    let (&head, rest) = rest.split_first()?;
    let value = |len: usize| {
        let bytes = rest.get(..len)?.iter();
        Some(bytes.fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    match head {
        0..=0x17 => Some(head.into()),
        0x18 => value(1),
        0x19 => value(2),
        0x1a => value(4),
        0x1b => value(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use comity_protocol::session::{Code, Request, WireError};

    use super::*;

    const BOTH: [Codec; 2] = [Codec::Cbor, Codec::Json];

    fn frame(codec: Codec, id: u64) -> Vec<u8> {
        let frame = ClientFrame {
            id,
            request: Request::Ping,
        };
        match codec {
            Codec::Cbor => encoding::encode(&frame),
            Codec::Json => serde_json::to_vec(&frame).unwrap(),
        }
    }

    #[test]
    fn both_codecs_read_the_same_frame() {
        for codec in BOTH {
            for id in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX) + 1] {
                let bytes = frame(codec, id);
                assert_eq!(decode(codec, &bytes).unwrap().id, id);
            }
        }
    }

    #[test]
    fn the_id_is_read_from_a_frame_that_is_wrong_or_cut_off_behind_it() {
        for id in [0, 23, 24, 255, 256, 65_536, u64::MAX] {
            let mut bytes = frame(Codec::Cbor, id);
            bytes.truncate(bytes.len() - 3);
            assert_eq!(decode(Codec::Cbor, &bytes).unwrap_err().id, Some(id));
        }
        let unknown = br#"{"id": 7, "request": {"fly": {"to": [1, {"x": "moon"}]}}}"#;
        assert_eq!(decode(Codec::Json, unknown).unwrap_err().id, Some(7));
        for codec in BOTH {
            for bytes in [
                &b""[..],
                b"\xff\xfe",
                b"[]",
                b"{",
                b"\xa2\x62id\x3a",
                b"\xa0",
            ] {
                assert_eq!(decode(codec, bytes).unwrap_err().id, None);
            }
        }
    }

    #[test]
    fn other_encodings_of_a_frame_are_refused() {
        let long_id = b"\xa2\x62id\x18\x05\x67request\x64ping";
        assert_eq!(decode(Codec::Cbor, long_id).unwrap_err().id, Some(5));
        let other_order = b"\xa2\x67request\x64ping\x62id\x05";
        decode(Codec::Cbor, other_order).unwrap_err();
        let twice = br#"{"id": 1, "id": 2, "request": "ping"}"#;
        decode(Codec::Json, twice).unwrap_err();
        let behind = br#"{"id": 1, "request": "ping"} x"#;
        decode(Codec::Json, behind).unwrap_err();
    }

    #[test]
    fn a_megabyte_of_nesting_does_not_recurse() {
        let deep = SESSION_FRAME_BYTES_MAX - 64;
        let cbor = |front: &[u8], byte: u8| {
            let mut bytes = front.to_vec();
            bytes.extend(std::iter::repeat_n(byte, deep));
            bytes
        };
        // As the request, as an unknown field, as a field's value, and without any frame around.
        for front in [
            &b"\xa2\x62id\x07\x67request"[..],
            b"\xa2\x62id\x07\x67unknown",
            b"\xa2\x62id\x07\x67request\xa1\x65begin\xa1\x67version",
            b"\xa2\x62id\x07\x67request\xa1\x65begin\xa1\x61x",
            b"",
        ] {
            let bytes = cbor(front, 0x81);
            let bad = decode(Codec::Cbor, &bytes).unwrap_err();
            assert_eq!(bad.id, (!front.is_empty()).then_some(7));
        }
        for front in [
            r#"{"id": 7, "request": "#,
            r#"{"id": 7, "unknown": "#,
            r#"{"id": 7, "request": {"begin": {"x": "#,
            "",
        ] {
            decode(Codec::Json, &cbor(front.as_bytes(), b'[')).unwrap_err();
            let half = deep / 2;
            let closed = format!("{front}{}{}", "[".repeat(half), "]".repeat(half));
            decode(Codec::Json, closed.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn an_answer_beyond_a_frame_is_not_written() {
        for codec in BOTH {
            let bye = ServerFrame::Bye(WireError::new(
                Code::Internal,
                "x".repeat(JSON_FRAME_BYTES_MAX),
            ));
            assert!(encode(codec, &bye).unwrap_err().len > JSON_FRAME_BYTES_MAX);
        }
    }
}
