//! The quick rows of `cargo xtask attack`, against the programs that the suite tests.

use std::time::Duration;

use onecli_tests::bins;
use onecli_tests::client::Run;

#[test]
fn slow_known_attacks_fail() {
    let programs = bins::path("onecli");
    let run =
        Run::new(env!("CARGO_BIN_EXE_attack")).arg("--quick").env(bins::BIN_DIR, programs.parent().unwrap());
    let out = run.timeout(Duration::from_secs(170)).outcome().ok("attack --quick");
    assert!(out.contains(" 0 broken"), "{out}");
}
