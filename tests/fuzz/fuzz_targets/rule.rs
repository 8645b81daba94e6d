//! Fuzz target: see `onecli_daemon::fuzz::rule`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| onecli_daemon::fuzz::rule(bytes));
