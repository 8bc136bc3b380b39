//! The tests that need no privilege, in one binary.
#[cfg(test)]
mod alerts;
#[cfg(test)]
mod aws;
#[cfg(test)]
mod beacon;
#[cfg(test)]
mod ci;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod complaints;
#[cfg(test)]
mod config;
#[cfg(test)]
mod console;
#[cfg(test)]
mod datadog;
#[cfg(test)]
mod datagrams;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod door;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod exceptions;
#[cfg(test)]
mod exporter;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod flowlog;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod grafana;
#[cfg(test)]
mod house;
#[cfg(test)]
mod forward;
#[cfg(test)]
mod init;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod proxy_explain;
#[cfg(test)]
mod proxy_header;
#[cfg(test)]
mod proxy_life;
#[cfg(test)]
mod ranges;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod report;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod scrape;
#[cfg(test)]
mod sinks;
#[cfg(test)]
mod squid;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod monitor;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod web;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod tunnel;
#[cfg(test)]
mod worlds;
