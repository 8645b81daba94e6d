//! Fuzz target: see `onecli_fuzz::pattern`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_fuzz::pattern(bytes));
