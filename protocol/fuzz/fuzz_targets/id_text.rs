//! libFuzzer's entry to `decoders::id_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::id_text(bytes);
});
