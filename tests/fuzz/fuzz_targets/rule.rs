//! Fuzz target: see `onecli_fuzz::rule`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_fuzz::rule(bytes));
