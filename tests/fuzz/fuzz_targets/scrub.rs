//! Fuzz target: see `onecli_fuzz::scrub`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_fuzz::scrub(bytes));
