//! The tests that need no privilege, in one binary.
#[cfg(test)]
mod beacon;
#[cfg(test)]
mod config;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod door;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod exporter;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod house;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod report;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod targets;
#[cfg(test)]
mod worlds;
