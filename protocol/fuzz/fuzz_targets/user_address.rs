//! libFuzzer's entry to `decoders::user_address`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::user_address(bytes);
});
