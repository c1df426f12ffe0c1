//! libFuzzer's entry to `decoders::root`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::root(bytes);
});
