//! What the proxy counts. Names and labels are fixed by SPEC section 7.

use ipnet::IpNet;
use prometheus::core::Collector;
use prometheus::proto::Metric;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::proxy::budget::Totals;
use crate::proxy::reason::Reason;

/// Seconds; none is a whole number, since exporters print those in two ways.
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 3.5, 9.5];

/// The proxy's metrics; cheap to update, and live while a tunnel runs.
#[derive(Debug)]
pub struct Stats {
    /// Decisions.
    requests: IntCounterVec,
    /// Tunnels that stand.
    pub tunnels: IntGauge,
    /// Client connections that are open, whatever their stage.
    pub connections: IntGauge,
    /// 1 once it leaves.
    pub draining: IntGauge,
    /// The part of the egress budget that was sent within its time; 0 where there is none.
    pub budget_ratio: Gauge,
    bytes: IntCounterVec,
    /// How long destinations took to accept, name resolution not counted.
    pub connect_duration: Histogram,
    /// Access-log lines that were lost, since the log could not be written as fast.
    pub log_lines_lost: IntCounter,
}

/// Adds one to a gauge for as long as it lives.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    /// Adds one.
    pub fn new(gauge: &IntGauge) -> Counted {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Stats {
    /// Everything at 0; the series of `allow_from` and of CONNECT exist from the start.
    ///
    /// # Errors
    /// None that names and labels as fixed here can cause.
    pub fn new(allow_from: &[IpNet]) -> Result<Stats, prometheus::Error> {
        let stats = Stats {
            requests: IntCounterVec::new(
                Opts::new("mustnot_proxy_requests_total", "Requests to the embedded proxy, by how they were decided."),
                &["method", "decision", "reason"],
            )?,
            tunnels: IntGauge::new("mustnot_proxy_tunnels", "Tunnels that stand.")?,
            connections: IntGauge::new("mustnot_proxy_connections", "Client connections that are open.")?,
            draining: IntGauge::new("mustnot_proxy_draining", "Whether the proxy is being stopped.")?,
            budget_ratio: Gauge::new("mustnot_proxy_budget_ratio", "Bytes sent within the time of egress_budget, as a part of it.")?,
            bytes: IntCounterVec::new(
                Opts::new("mustnot_proxy_bytes_total", "Bytes relayed, sent to or received from destinations."),
                &["direction", "source"],
            )?,
            connect_duration: Histogram::with_opts(
                HistogramOpts::new("mustnot_proxy_connect_duration_seconds", "Time until a destination accepted.")
                    .buckets(BUCKETS.to_vec()),
            )?,
            log_lines_lost: IntCounter::new("mustnot_proxy_log_lines_lost_total", "Access-log lines lost to a log that was too slow.")?,
        };
        for reason in Reason::ALL {
            stats.requests.get_metric_with_label_values(&["CONNECT", reason.decision(), reason.label()])?;
        }
        stats.know(allow_from);
        Ok(stats)
    }

    /// Makes the series of each `allow_from` exist.
    pub fn know(&self, allow_from: &[IpNet]) {
        for source in allow_from {
            self.sent(*source);
            self.received(*source);
        }
    }

    /// Adds the metrics to a registry.
    ///
    /// # Errors
    /// A name that is already registered.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 8] = [
            Box::new(self.requests.clone()),
            Box::new(self.tunnels.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.draining.clone()),
            Box::new(self.budget_ratio.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.connect_duration.clone()),
            Box::new(self.log_lines_lost.clone()),
        ];
        all.into_iter().try_for_each(|metric| registry.register(metric))
    }

    /// Counts one decision.
    pub fn decided(&self, method: &str, reason: Reason) {
        self.requests.with_label_values(&[method_label(method), reason.decision(), reason.label()]).inc();
    }

    /// How often a decision was taken.
    pub fn requests(&self, method: &str, reason: Reason) -> u64 {
        self.requests.with_label_values(&[method_label(method), reason.decision(), reason.label()]).get()
    }

    /// The bytes sent to destinations for clients of one `allow_from` entry.
    pub fn sent(&self, source: IpNet) -> IntCounter {
        self.bytes.with_label_values(&["sent", &source.to_string()])
    }

    /// The bytes received from destinations for clients of one `allow_from` entry.
    pub fn received(&self, source: IpNet) -> IntCounter {
        self.bytes.with_label_values(&["received", &source.to_string()])
    }

    /// The bytes sent to destinations so far, by the `allow_from` entry.
    pub fn sent_by_source(&self) -> Totals {
        let series = self.bytes.collect();
        let series = series.iter().flat_map(|family| family.get_metric());
        let label = |metric: &Metric, name: &str| metric.get_label().iter().find(|l| l.name() == name).map(|l| l.value().to_owned());
        series
            .filter(|metric| label(metric, "direction").as_deref() == Some("sent"))
            .filter_map(|metric| Some((label(metric, "source")?, metric.get_counter().get_value() as u64)))
            .collect()
    }
}

/// The closed set of method labels: a client must not be able to make new series.
fn method_label(method: &str) -> &'static str {
    match method {
        "CONNECT" => "CONNECT",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_exist_from_the_start_and_methods_are_bounded() {
        let stats = Stats::new(&["10.0.0.0/8".parse().unwrap()]).unwrap();
        let registry = Registry::new();
        stats.register(&registry).unwrap();
        stats.decided("BREW", Reason::Method);
        stats.decided("connect", Reason::Method);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "mustnot_proxy_requests_total{decision=\"allow\",method=\"CONNECT\",reason=\"allow\"} 0",
            "mustnot_proxy_requests_total{decision=\"error\",method=\"CONNECT\",reason=\"connect\"} 0",
            "mustnot_proxy_requests_total{decision=\"deny\",method=\"other\",reason=\"method\"} 2",
            "mustnot_proxy_bytes_total{direction=\"received\",source=\"10.0.0.0/8\"} 0",
            "mustnot_proxy_tunnels 0",
            "mustnot_proxy_connections 0",
            "mustnot_proxy_draining 0",
            "mustnot_proxy_budget_ratio 0",
            "mustnot_proxy_connect_duration_seconds_count 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        stats.sent("10.0.0.0/8".parse().unwrap()).inc_by(7);
        stats.received("10.0.0.0/8".parse().unwrap()).inc_by(9);
        assert_eq!(stats.sent_by_source(), Totals::from([("10.0.0.0/8".into(), 7)]));
        assert!(BUCKETS.iter().all(|b| b.fract() != 0.0));
    }
}
