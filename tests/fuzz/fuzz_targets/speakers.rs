//! Fuzzes [`manx_fuzz::speakers::speakers`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manx_fuzz::speakers::speakers(data));
