//! Fuzzes [`manx_fuzz::wire::capabilities`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manx_fuzz::wire::capabilities(data));
