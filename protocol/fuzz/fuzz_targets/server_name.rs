//! libFuzzer's entry to `decoders::server_name`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::server_name(bytes);
});
