//! libFuzzer's entry to `decoders::identity_entry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::identity_entry(bytes);
});
