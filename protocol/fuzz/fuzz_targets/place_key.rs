//! libFuzzer's entry to `decoders::place_key`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::place_key(bytes);
});
