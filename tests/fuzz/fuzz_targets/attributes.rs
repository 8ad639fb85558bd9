//! Fuzzes [`manx_fuzz::wire::attributes`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manx_fuzz::wire::attributes(data));
