//! Fuzz target: see `onecli_daemon::fuzz::noninterference`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_daemon::fuzz::noninterference(bytes));
