#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| logguard_fuzz::bodies::record(data));
