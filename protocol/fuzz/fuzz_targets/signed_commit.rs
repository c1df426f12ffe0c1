//! libFuzzer's entry to `decoders::signed_commit`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::signed_commit(bytes);
});
