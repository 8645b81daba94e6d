//! Fuzz target: see `onecli_fuzz::noninterference`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_fuzz::noninterference(bytes));
