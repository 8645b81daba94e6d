//! Tests of the daemon's dropped privileges.

use super::*;

#[test]
fn dropping_privileges_fails_in_a_process_with_threads() {
    // The test harness runs each test in a thread beside its main one.
    assert!(matches!(keep_capabilities(&[]), Err(PrivilegeError::Threads(2..))));
    assert!(matches!(filter_serving(), Err(PrivilegeError::Threads(2..))));
    assert!(matches!(fork(c"never", |_| {}), Err(PrivilegeError::Threads(2..))));
}
