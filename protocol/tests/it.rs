//! Tests through the public interface, in one binary: each further one would link the crate again.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests are tests, though the lint does not see it"
)]

mod it {
    mod card;
    mod identity;
    mod names;
    mod vectors;
}
