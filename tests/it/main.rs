//! Tests over real sockets, one module a part.
mod proxy;
