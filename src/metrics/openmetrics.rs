//! OpenMetrics 1.0 as text, from what the registry gathers: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::fmt::{self, Write as _};

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

/// What [`encode`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How every counter's sample ends; the name of its family is without.
const TOTAL: &str = "_total";

/// The families in their order, and the end that shows that nothing was cut off.
pub fn encode(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        let (name, kind) = match family.get_field_type() {
            MetricType::COUNTER => match family.name().strip_suffix(TOTAL) {
                Some(name) => (name, "counter"),
                // not a name that a counter may have there
                None => (family.name(), "unknown"),
            },
            MetricType::GAUGE => (family.name(), "gauge"),
            MetricType::HISTOGRAM => (family.name(), "histogram"),
            // nothing here has quantiles
            MetricType::SUMMARY | MetricType::UNTYPED => (family.name(), "unknown"),
        };
        let _ = write!(out, "# HELP {name} ");
        push_escaped(&mut out, family.help());
        out.push('\n');
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for metric in family.get_metric() {
            let mut sample = |suffix: &str, bound: Option<f64>, value: f64| {
                out.push_str(name);
                out.push_str(suffix);
                labels(&mut out, metric.get_label(), bound);
                let _ = writeln!(out, " {}", Number(value));
            };
            match kind {
                "counter" => sample(TOTAL, None, metric.get_counter().get_value()),
                "gauge" => sample("", None, metric.get_gauge().get_value()),
                "histogram" => {
                    let histogram = metric.get_histogram();
                    for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
                        sample("_bucket", Some(bucket.upper_bound()), bucket.cumulative_count() as f64);
                    }
                    sample("_bucket", Some(f64::INFINITY), histogram.get_sample_count() as f64);
                    sample("_count", None, histogram.get_sample_count() as f64);
                    sample("_sum", None, histogram.get_sample_sum());
                }
                _ => sample("", None, metric.get_counter().get_value()),
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

fn labels(out: &mut String, labels: &[LabelPair], bound: Option<f64>) {
    let mut before = '{';
    for pair in labels {
        out.push(before);
        out.push_str(pair.name());
        out.push_str("=\"");
        push_escaped(out, pair.value());
        out.push('"');
        before = ',';
    }
    if let Some(bound) = bound {
        let _ = write!(out, "{before}le=\"{}\"", Number(bound));
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
}

/// Nothing is made for a text on its way: a scrape has a hundred thousand of them.
fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut special = special.chars();
        match special.next() {
            Some('\n') => out.push_str("\\n"),
            Some(c) => out.extend(['\\', c]),
            None => {}
        }
        rest = special.as_str();
    }
    out.push_str(rest);
}

/// A number as the specification writes it.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            v if v.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            v => v.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn each_type_is_written_as_the_specification_has_it() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_requests_total", "Says \"no\"\nand \\ more."), &["who"]).unwrap();
        counter.with_label_values(&["a\"b\\c\nd"]).inc_by(3);
        let histogram = Histogram::with_opts(HistogramOpts::new("b_seconds", "Time.").buckets(vec![0.0005, 0.25])).unwrap();
        histogram.observe(0.1);
        histogram.observe(7.0);
        let gauge = Gauge::new("c_ratio", "Part.").unwrap();
        gauge.set(0.5);
        let bare = prometheus::IntCounter::new("d_things", "Not a name of a counter.").unwrap();
        bare.inc();
        for collector in [Box::new(counter) as Box<dyn prometheus::core::Collector>, Box::new(histogram), Box::new(gauge), Box::new(bare)] {
            registry.register(collector).unwrap();
        }
        let expected = r#"# HELP a_requests Says \"no\"\nand \\ more.
# TYPE a_requests counter
a_requests_total{who="a\"b\\c\nd"} 3
# HELP b_seconds Time.
# TYPE b_seconds histogram
b_seconds_bucket{le="0.0005"} 0
b_seconds_bucket{le="0.25"} 1
b_seconds_bucket{le="+Inf"} 2
b_seconds_count 2
b_seconds_sum 7.1
# HELP c_ratio Part.
# TYPE c_ratio gauge
c_ratio 0.5
# HELP d_things Not a name of a counter.
# TYPE d_things unknown
d_things 1
# EOF
"#;
        assert_eq!(encode(&registry.gather()), expected);
        assert_eq!(encode(&[]), "# EOF\n");
    }
}
