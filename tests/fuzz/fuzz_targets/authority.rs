//! Fuzz target: see `onecli_fuzz::authority`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_fuzz::authority(bytes));
