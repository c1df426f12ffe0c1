//! The stream of a session: any bytes in any pieces, cut into frames.

use comity_protocol::{
    limits::SESSION_FRAME_BYTES_MAX,
    session::{ClientFrame, FrameBuffer, FrameError, Request, frame_bytes},
};

use super::STEPS_MAX;
use crate::mutate::steps;

/// Opcode of a step whose bytes go to the stream as they are; of the others an even one is a frame
/// with the right length before it, an odd one is such a frame in pieces.
pub const RAW: u8 = 0xff;

/// Pieces of a frame that comes in pieces.
const PIECE: usize = 5;

/// Feeds a stream of frames. As long as lengths are true every frame is read or refused by itself,
/// and a sound one behind them is read.
#[must_use]
pub fn session(bytes: &[u8]) -> bool {
    let mut buffer = FrameBuffer::default();
    let (mut framed, mut read, mut taken) = (0_usize, 0_usize, 0_usize);
    let mut lies = false;
    for (op, body) in steps(bytes).into_iter().take(STEPS_MAX) {
        let mut frame = Vec::new();
        if op == RAW {
            lies = true;
        } else {
            framed += 1;
            let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
            frame.extend_from_slice(&len.to_be_bytes());
        }
        frame.extend_from_slice(body);
        let pieces = if op.is_multiple_of(2) {
            frame.len().max(1)
        } else {
            PIECE
        };
        for piece in frame.chunks(pieces) {
            buffer.push(piece);
            loop {
                match buffer.next_frame::<ClientFrame>() {
                    Ok(None) => break,
                    Ok(Some(_)) => (read, taken) = (read + 1, taken + 1),
                    Err(FrameError::TooLarge { len, max }) => {
                        assert!(lies, "no step is that long");
                        assert!(len > max && max == SESSION_FRAME_BYTES_MAX);
                        return taken > 0;
                    }
                    Err(_) => read += 1,
                }
            }
        }
    }
    if !lies {
        assert_eq!(
            read, framed,
            "each frame is read or refused, and none twice"
        );
        let ping = ClientFrame {
            id: u64::MAX,
            request: Request::Ping,
        };
        buffer.push(&frame_bytes(&ping).expect("a ping is small"));
        let last = buffer.next_frame::<ClientFrame>();
        assert_eq!(
            last.ok().flatten(),
            Some(ping),
            "a sound frame is read after bad ones"
        );
    }
    taken > 0
}
