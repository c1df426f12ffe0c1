//! libFuzzer's entry to `decoders::event`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::event(bytes);
});
