//! Squid's configuration, read as Squid reads it, and what it leaves open. Pure: text in, findings out; it runs nothing and asks nobody.
//!
//! [`read`] (lines) -> [`acl`] and [`rules`] over [`span`]s (who gets where) -> [`config`] -> [`lint`], which tries requests on the rules
//! and looks at the settings; what it finds is a [`finding`]. What cannot be judged is said, and never passes for closed.

pub mod acl;
pub mod config;
pub mod finding;
pub mod lint;
pub mod reach;
pub mod read;
pub mod rules;
pub mod settings;
pub mod span;
