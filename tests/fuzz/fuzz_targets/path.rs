//! Fuzz target: see `onecli_fuzz::path`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_fuzz::path(bytes));
