//! Fuzz target: see `onecli_fuzz::sniff`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_fuzz::sniff(bytes));
