//! Where in the object or array of a listed member a scanner is.

/// Deepest nesting of which the containers' kinds are known; strings that lie deeper are values.
const MAX_DEPTH: u32 = 64;

/// The objects and arrays that are open.
#[derive(Debug, Default)]
pub(super) struct Containers {
    /// A bit for each, the innermost lowest: is it an object?
    objects: u64,
    depth: u32,
    /// Is the next string the name of a member?
    is_name_next: bool,
}

impl Containers {
    /// Takes a character of JSON that is no part of a value. False once all are closed.
    pub(super) fn step(&mut self, byte: u8) -> bool {
        match byte {
            b'{' | b'[' => {
                self.objects = self.objects << 1 | u64::from(byte == b'{');
                self.depth += 1;
            }
            b'}' | b']' => {
                self.objects >>= 1;
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
        self.is_name_next = match byte {
            b'{' | b',' => self.objects & 1 == 1 && self.depth <= MAX_DEPTH,
            b':' | b'[' => false,
            _ => self.is_name_next,
        };
        self.depth > 0
    }

    /// Is the next string the name of a member?
    pub(super) fn is_name_next(&self) -> bool {
        self.is_name_next
    }
}
