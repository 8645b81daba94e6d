//! Fuzz target: see `onecli_daemon::fuzz::path`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_daemon::fuzz::path(bytes));
