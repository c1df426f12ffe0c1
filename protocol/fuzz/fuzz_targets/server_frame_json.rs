//! libFuzzer's entry to `decoders::server_frame_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::decoders::server_frame_json(bytes);
});
