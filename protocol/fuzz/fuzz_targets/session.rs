//! libFuzzer's entry to `machines::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::machines::session(bytes);
});
