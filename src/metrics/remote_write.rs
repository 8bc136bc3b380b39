//! Remote-Write 1.0: samples as the protocol buffer that Prometheus takes, in a snappy block
//! (<https://prometheus.io/docs/specs/prw/remote_write_spec/>).

use std::collections::BTreeMap;

use prometheus::proto::{MetricFamily, MetricType};

/// `Content-Type` of what [`encode`] gives.
pub const CONTENT_TYPE: &str = "application/x-protobuf";
/// Its `Content-Encoding`.
pub const CONTENT_ENCODING: &str = "snappy";
/// The header that says which version it is, and its value.
pub const VERSION: (&str, &str) = ("X-Prometheus-Remote-Write-Version", "0.1.0");

/// Wire types (Protocol Buffers, Encoding): a number, eight bytes, and something with a length before it.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;

/// Every gauge and counter of the families with these labels besides, as of `at`, in milliseconds since 1970. Histograms are left out: what adds up
/// over runs says nothing of one.
///
/// # Errors
/// That there is more than one request can carry.
pub fn encode(families: &[MetricFamily], besides: &BTreeMap<String, String>, at: i64) -> Result<Vec<u8>, String> {
    let mut request = Vec::new();
    for family in families {
        for metric in family.get_metric() {
            let value = match family.get_field_type() {
                MetricType::COUNTER => metric.get_counter().get_value(),
                MetricType::GAUGE => metric.get_gauge().get_value(),
                MetricType::HISTOGRAM | MetricType::SUMMARY | MetricType::UNTYPED => continue,
            };
            let own = metric.get_label().iter().map(|pair| (pair.name(), pair.value()));
            let others = besides.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            // Sorted by name, each once, the series' own before those of others; an empty one is none (Labels).
            let mut labels: BTreeMap<&str, &str> = others.collect();
            labels.extend(own);
            labels.insert("__name__", family.name());
            labels.retain(|_, value| !value.is_empty());
            let mut series = Vec::new();
            for (name, value) in labels {
                let mut label = Vec::new();
                part(&mut label, 1, name.as_bytes());
                part(&mut label, 2, value.as_bytes());
                part(&mut series, 1, &label);
            }
            let mut sample = vec![tag(1, FIXED64)];
            sample.extend(value.to_le_bytes());
            sample.push(tag(2, VARINT));
            varint(&mut sample, at.cast_unsigned());
            part(&mut series, 2, &sample);
            part(&mut request, 1, &series);
        }
    }
    snap::raw::Encoder::new().compress_vec(&request).map_err(|e| format!("too much for one request of Remote-Write: {e}"))
}

fn tag(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

/// A field with its length before it.
fn part(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(tag(field, LENGTH));
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use prometheus::{GaugeVec, Histogram, HistogramOpts, Opts, Registry};

    use super::*;

    /// By hand, byte by byte, from the definition of `prompb.WriteRequest`.
    #[test]
    fn a_request_is_what_the_definition_says() {
        let registry = Registry::new();
        let gauge = GaugeVec::new(Opts::new("up", "Whether."), &["z", "empty"]).unwrap();
        gauge.with_label_values(&["1", ""]).set(1.0);
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(Histogram::with_opts(HistogramOpts::new("took", "Time.")).unwrap())).unwrap();
        let besides = BTreeMap::from([("job".to_string(), "ci".to_string()), ("z".to_string(), "not mine".to_string())]);
        let sent = encode(&registry.gather(), &besides, 300).unwrap();
        let request = snap::raw::Decoder::new().decompress_vec(&sent).unwrap();
        let mut expected = vec![0x0a, 55];
        expected.extend(b"\x0a\x0e\x0a\x08__name__\x12\x02up");
        expected.extend(b"\x0a\x09\x0a\x03job\x12\x02ci");
        expected.extend(b"\x0a\x06\x0a\x01z\x12\x011");
        expected.extend(b"\x12\x0c\x09\0\0\0\0\0\0\xf0\x3f\x10\xac\x02");
        expected[1] = u8::try_from(expected.len() - 2).unwrap();
        assert_eq!(request, expected);
        assert_eq!(snap::raw::Decoder::new().decompress_vec(&encode(&[], &besides, 0).unwrap()).unwrap(), [] as [u8; 0]);
    }

    #[test]
    fn numbers_of_every_length() {
        for (number, bytes) in [(0, vec![0]), (127, vec![127]), (128, vec![0x80, 1]), (16_384, vec![0x80, 0x80, 1])] {
            let mut out = Vec::new();
            varint(&mut out, number);
            assert_eq!(out, bytes, "{number}");
        }
        let mut out = Vec::new();
        varint(&mut out, u64::MAX);
        assert_eq!(out.len(), 10);
    }
}
