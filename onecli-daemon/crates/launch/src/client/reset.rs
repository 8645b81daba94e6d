//! Undoes changes that a command's output may have made to a terminal.
//!
//! Sequences of ECMA-48, DEC terminals and xterm (its Control Sequences document). A terminal ignores unknown
//! sequences. The cursor stays at its position.

/// Saves the title (XTWINOPS 22), before a command's first output.
pub(crate) const SAVE_TITLE: &[u8] = b"\x1b[22;0t";

/// Resets the modes and attributes that hide text or make a terminal send input that the user did not type.
pub(crate) const RESET: &[u8] = concat!(
    // Ends an unfinished sequence or string (CAN, ST).
    "\x18\x1b\\",
    // Synchronized output shows nothing until it ends.
    "\x1b[?2026l",
    // The main screen. The second part restores the cursor, so it is saved first (DECSC).
    "\x1b7\x1b[?1049l",
    // Soft reset (DECSTR): origin mode, scroll region, keypad and more.
    "\x1b[!p",
    // Left and right margins; the whole screen scrolls (DECSTBM). That moves the cursor.
    "\x1b[?69l\x1b7\x1b[r\x1b8",
    // Insert mode off, newline mode off, reverse screen off, automatic wrap on, cursor visible.
    "\x1b[4l\x1b[20l\x1b[?5l\x1b[?7h\x1b[?25h",
    // Cursor keys and keypad.
    "\x1b[?1l\x1b>",
    // Reports of the mouse and of the focus, bracketed paste.
    "\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l",
    "\x1b[?1004l\x1b[?2004l",
    // Keyboard protocols: xterm's modifyOtherKeys, kitty's stack.
    "\x1b[>4;0m\x1b[<99u",
    // Colours of the palette, of text, background and cursor; the palette of the Linux console.
    "\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\\x1b]R\x1b\\",
    // The saved title.
    "\x1b[23;0t",
    // Attributes; character sets G0 and G1, and G0 in use.
    "\x1b[0m\x1b(B\x1b)B\x0f",
)
.as_bytes();
