//! libFuzzer's entry to `machines::replication`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = comity_fuzz::machines::replication(bytes);
});
