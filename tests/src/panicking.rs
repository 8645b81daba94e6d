//! What a panic tells, for tests that look for values in it.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static TOLD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// All that a panic of `run` tells: the hook's words, as they would stand in the log, and what it unwinds with.
///
/// # Panics
/// `run` does not.
pub fn panic_text(run: impl FnOnce()) -> String {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = TOLD.with_borrow_mut(|told| match told {
                Some(told) => {
                    told.push_str(&info.to_string());
                    true
                }
                None => false,
            });
            if !ours {
                others(info);
            }
        }));
    });
    TOLD.set(Some(String::new()));
    let caught = panic::catch_unwind(AssertUnwindSafe(run));
    let mut text = TOLD.take().unwrap_or_default();
    let payload = caught.expect_err("it panics");
    text.push_str(payload.downcast_ref::<String>().map_or("", String::as_str));
    text.push_str(payload.downcast_ref::<&str>().copied().unwrap_or_default());
    text
}

/// All that an `unwrap` of an error tells that is this value.
pub fn unwrap_text<T: std::fmt::Debug>(value: T) -> String {
    let refused: Result<(), T> = std::hint::black_box(Err(value));
    panic_text(|| refused.unwrap())
}

#[test]
fn what_a_panic_tells_is_found() {
    let text = unwrap_text("hunter22");
    assert_eq!(text.matches("hunter22").count(), 2, "{text}");
}
