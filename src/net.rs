//! The way to the wire: resolving and dialling under one deadline. The only place that opens a socket for a probe.

pub mod resolve;
pub mod tls;
