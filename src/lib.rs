//! `mustnot`: proves that what must not be reachable is not reachable, and that the one allowed way works.
pub mod admin_page;
pub mod beacon;
pub mod clock;
pub mod expectation;
pub mod history;
pub mod net;
pub mod observation;
pub mod plan;
pub mod probe;
pub mod proxy;
pub mod record;
pub mod secret;
mod serve;
pub mod target;
pub mod token;
pub mod verdict;
pub mod witness;
