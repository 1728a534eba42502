#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imks_fuzz::identity_answers::check(data));
