//! One test binary of many modules.

mod exporter;
mod fixture;
mod report;
