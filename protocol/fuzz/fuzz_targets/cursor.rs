//! libFuzzer's entry to `decoders::cursor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::cursor(bytes);
});
