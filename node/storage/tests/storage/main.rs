//! The storage as its owner sees it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::cast_possible_truncation, reason = "bytes out of a generator")]

mod basics;
mod compaction;
mod damage;
mod faults;
mod index_loss;
mod power;
mod support;
