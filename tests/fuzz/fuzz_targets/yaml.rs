//! Fuzzes [`manx_fuzz::manifest::yaml`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manx_fuzz::manifest::yaml(data));
