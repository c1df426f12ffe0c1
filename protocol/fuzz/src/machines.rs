//! Harness functions for what keeps state: the bytes stand for a sequence of inputs. Each asserts
//! that what the machine gives stays bounded, and that a sound item which comes after the hostile
//! ones, or between them, is taken as if they had never been.

pub(crate) mod batch;
mod conversation;
pub mod link;
pub(crate) mod replication;
mod session;

pub use batch::{SOUND, batch};
pub use conversation::conversation;
pub use link::link;
pub use replication::replication;
pub use session::{RAW, session};

/// Bytes of a sequence of inputs.
pub const STEPS_BYTES: usize = 64 * 1024;
/// Steps taken of one sequence; what follows is left.
pub const STEPS_MAX: usize = 64;

/// Decisions read off bytes; zeros when they are used up.
#[derive(Debug)]
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number below `end`, which is at most 256; 0 if `end` is.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }
}
