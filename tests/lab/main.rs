//! The laboratory: the real binary inside network namespaces, against real firewalls, a real Squid and a real name server.
//!
//! `world` makes the reference deployment small and turns it, `service` starts what answers in it, `run` runs the binary there and
//! reads its report, the `scenarios_*` modules say what must come out. `scenarios_world` needs no binary: it proves that each turn
//! does on the wire what its name says, so that a red scenario elsewhere is the product's fault and not the laboratory's.
//!
//! The `zoo` is real proxies of many makes, open and closed, each with its known truth.
//!
//! Needs root, nftables, iproute2 and the servers that `tests/run.sh` names; fails loudly without them unless `MUSTNOT_SKIP_LAB=1`.
//! Most of the time is spent waiting for silence, so more threads than cores pay: `RUST_TEST_THREADS=6 cargo test --test lab`.
//! `MUSTNOT_LAB_KEEP=1` keeps configurations, reports and logs of every test below the temporary directory.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a laboratory that is broken must stop at once and say where"
)]

mod certificates;
mod run;
mod scenarios_alerts;
mod scenarios_balancer;
mod scenarios_between;
mod scenarios_blocked;
mod scenarios_catalogue;
mod scenarios_deploy;
mod scenarios_drill;
mod scenarios_dns;
mod scenarios_edges;
mod scenarios_flowlog;
mod scenarios_http;
mod scenarios_icmp;
mod scenarios_linger;
mod scenarios_local;
mod scenarios_mtls;
mod scenarios_names;
mod scenarios_peer;
mod scenarios_promql;
mod scenarios_ports;
mod scenarios_proxy;
mod scenarios_sase;
mod scenarios_squid;
mod scenarios_time;
mod scenarios_udp;
mod scenarios_variants;
mod scenarios_world;
mod scenarios_zoo;
mod service;
mod world;
mod zoo;
