//! Tests through the public interface, in one binary: each further one would link the crate again.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests are tests, though the lint does not see it"
)]

mod it {
    mod card;
    mod commit;
    mod event;
    mod identity;
    mod link;
    mod names;
    mod preference;
    mod session;
    mod spec;
    mod vectors;
}
