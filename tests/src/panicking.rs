//! The output of a panic, for tests that search it for secret values.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static PANIC_MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Returns all text from a panic of `run`: the hook's message, as in the log, and the payload.
///
/// # Panics
/// If `run` does not panic.
pub fn panic_text(run: impl FnOnce()) -> String {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = PANIC_MESSAGE.with_borrow_mut(|panic_message| match panic_message {
                Some(panic_message) => {
                    panic_message.push_str(&info.to_string());
                    true
                }
                None => false,
            });
            if !ours {
                others(info);
            }
        }));
    });
    PANIC_MESSAGE.set(Some(String::new()));
    let caught = panic::catch_unwind(AssertUnwindSafe(run));
    let mut text = PANIC_MESSAGE.take().unwrap_or_default();
    let payload = caught.expect_err("it panics");
    text.push_str(payload.downcast_ref::<String>().map_or("", String::as_str));
    text.push_str(payload.downcast_ref::<&str>().copied().unwrap_or_default());
    text
}

/// Returns all text from an `unwrap` of an error with this value.
pub fn unwrap_text<T: std::fmt::Debug>(value: T) -> String {
    let refused: Result<(), T> = std::hint::black_box(Err(value));
    panic_text(|| refused.unwrap())
}

#[test]
fn panic_text_includes_hook_and_payload() {
    let text = unwrap_text("hunter22");
    assert_eq!(text.matches("hunter22").count(), 2, "{text}");
}
