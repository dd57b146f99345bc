#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keyhatch_fuzz::ssh(data));
