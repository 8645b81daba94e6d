//! Whole-program tests: the real daemon, the real CLI, real clients and a real upstream.
