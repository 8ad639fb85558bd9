//! Fuzzes [`manx_fuzz::manifest::manifest`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manx_fuzz::manifest::manifest(data));
