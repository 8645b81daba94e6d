//! The cost of opening a secret. `cargo xtask bench --vault` prints it for a release build.

use std::time::{Duration, Instant};

use super::*;
use onecli_policy::Grant;
use std::sync::Arc;

/// The bound for a release build, on any machine with instructions for AES and SHA-256.
const BOUND: Duration = Duration::from_micros(5);
const ROUNDS: u32 = 20_000;

#[tokio::test]
async fn opening_a_secret_costs_less_than_five_microseconds() {
    let vault = Host::new().await.unlock().await.unwrap();
    let secret = Arc::new(sealed(&vault, 1, "sk-0123456789abcdef0123456789abcdef0123456789abcdef"));
    let grant = Grant::for_test(Arc::new(agent(1, "one")), secret);
    // The best of several rounds, to exclude other load on the machine.
    let rounds = if cfg!(debug_assertions) { ROUNDS / 100 } else { ROUNDS };
    let best = (0..10)
        .map(|_| {
            #[expect(clippy::disallowed_methods, reason = "it measures real time")]
            let started = Instant::now();
            for _ in 0..rounds {
                std::hint::black_box(vault.open(std::hint::black_box(&grant)).unwrap());
            }
            started.elapsed() / rounds
        })
        .min()
        .unwrap();
    println!("opening a secret: {best:?}");
    if !cfg!(debug_assertions) {
        assert!(best < BOUND, "{best:?}");
    }
}
