//! Fuzzes [`manx_fuzz::bfd::packets`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| manx_fuzz::bfd::packets(data));
