//! The tests that need no privilege, in one binary.
#[cfg(test)]
mod beacon;
#[cfg(test)]
mod proxy;
