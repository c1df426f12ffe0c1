//! libFuzzer's entry to `decoders::card_chain`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::card_chain(bytes);
});
