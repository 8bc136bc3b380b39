//! The tests that need no privilege, in one binary.
mod beacon;
