//! libFuzzer's entry to `decoders::link_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::link_frame(bytes);
});
