//! What OneCLI's kernel programs (`onecli-ebpf`) and its daemon share: map keys, map values, names.
//!
//! Every type here crosses the kernel boundary: `repr(C)`, no padding, sizes asserted.
#![no_std]
