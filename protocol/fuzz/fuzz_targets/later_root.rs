//! libFuzzer's entry to `decoders::later_root`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::later_root(bytes);
});
