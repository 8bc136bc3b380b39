//! `mustnot`: proves that what must not be reachable is not reachable, and that the one allowed way works.
pub mod clock;
pub mod net;
pub mod observation;
pub mod proxy;
pub mod target;
