//! The integration tests, one binary of many modules.
mod config;
