//! `mustnot`: proves that what must not be reachable is not reachable, and that the one allowed way works.
pub mod clock;
pub mod expectation;
pub mod history;
pub mod metrics;
pub mod net;
pub mod observation;
pub mod plan;
pub mod probe;
pub mod proxy;
pub mod record;
pub mod report;
pub mod secret;
pub mod target;
pub mod token;
pub mod verdict;
pub mod web;
pub mod witness;
