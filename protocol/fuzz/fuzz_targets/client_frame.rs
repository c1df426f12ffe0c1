//! libFuzzer's entry to `decoders::client_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::client_frame(bytes);
});
