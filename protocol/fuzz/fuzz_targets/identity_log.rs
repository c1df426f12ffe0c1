//! libFuzzer's entry to `decoders::identity_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::identity_log(bytes);
});
