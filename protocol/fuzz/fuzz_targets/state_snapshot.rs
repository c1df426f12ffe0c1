//! libFuzzer's entry to `decoders::state_snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::state_snapshot(bytes);
});
