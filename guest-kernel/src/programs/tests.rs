//! The programs on a machine to play on.
