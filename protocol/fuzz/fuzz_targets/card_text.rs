//! libFuzzer's entry to `decoders::card_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::card_text(bytes);
});
