//! Fuzz target: see `onecli_fuzz::front`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_fuzz::front(bytes));
