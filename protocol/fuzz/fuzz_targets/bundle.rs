//! libFuzzer's entry to `decoders::bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::bundle(bytes);
});
