//! libFuzzer's entry to `decoders::pack_snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::pack_snapshot(bytes);
});
