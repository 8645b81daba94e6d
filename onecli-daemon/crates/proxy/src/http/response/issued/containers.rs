//! The position of a scanner within the object or array of a listed member.

/// Maximum depth at which the kind of each container is stored. Deeper strings count as values.
const MAX_DEPTH: u32 = 64;

/// The objects and arrays that are open.
#[derive(Debug, Default)]
pub(super) struct Containers {
    /// One bit for each container, the innermost in the lowest bit: set for an object.
    objects: u64,
    depth: u32,
    /// Set if the next string is the name of a member.
    is_name_next: bool,
}

impl Containers {
    /// Processes a character of JSON that belongs to no value. Returns false when all containers are closed.
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

    /// Returns whether the next string is the name of a member.
    pub(super) fn is_name_next(&self) -> bool {
        self.is_name_next
    }
}
