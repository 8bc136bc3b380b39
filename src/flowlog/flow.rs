//! VPC flow logs of AWS: a record a line, its fields separated by spaces, in the default format (version 2) or one of the user's own.

use std::net::IpAddr;

use crate::target::fold_mapped;

/// Every field that AWS documents, up to version 10, in the order of its table. Those of later versions have other names, and are passed over.
pub const FIELDS: [&str; 42] = [
    "version",
    "account-id",
    "interface-id",
    "srcaddr",
    "dstaddr",
    "srcport",
    "dstport",
    "protocol",
    "packets",
    "bytes",
    "start",
    "end",
    "action",
    "log-status",
    "vpc-id",
    "subnet-id",
    "instance-id",
    "tcp-flags",
    "type",
    "pkt-srcaddr",
    "pkt-dstaddr",
    "region",
    "az-id",
    "sublocation-type",
    "sublocation-id",
    "pkt-src-aws-service",
    "pkt-dst-aws-service",
    "flow-direction",
    "traffic-path",
    "ecs-cluster-arn",
    "ecs-cluster-name",
    "ecs-container-instance-arn",
    "ecs-container-instance-id",
    "ecs-container-id",
    "ecs-second-container-id",
    "ecs-service-name",
    "ecs-task-definition-arn",
    "ecs-task-arn",
    "ecs-task-id",
    "reject-reason",
    "resource-id",
    "encryption-status",
];
/// The fields of the default format.
const DEFAULT: usize = 14;
/// The most fields of a line: what has more is no flow log.
const MAX_FIELDS: usize = 128;

/// The columns of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    columns: Vec<Column>,
}

/// What a column is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Interface,
    Source,
    Destination,
    PacketSource,
    PacketDestination,
    SourcePort,
    DestinationPort,
    Protocol,
    Packets,
    Start,
    End,
    Action,
    Status,
    Flags,
    Direction,
    Path,
    Reason,
    Passed,
}

impl Column {
    fn of(name: &str) -> Column {
        match name {
            "interface-id" => Column::Interface,
            "srcaddr" => Column::Source,
            "dstaddr" => Column::Destination,
            "pkt-srcaddr" => Column::PacketSource,
            "pkt-dstaddr" => Column::PacketDestination,
            "srcport" => Column::SourcePort,
            "dstport" => Column::DestinationPort,
            "protocol" => Column::Protocol,
            "packets" => Column::Packets,
            "start" => Column::Start,
            "end" => Column::End,
            "action" => Column::Action,
            "log-status" => Column::Status,
            "tcp-flags" => Column::Flags,
            "flow-direction" => Column::Direction,
            "traffic-path" => Column::Path,
            "reject-reason" => Column::Reason,
            _ => Column::Passed,
        }
    }
}

impl Default for Format {
    /// Version 2.
    fn default() -> Format {
        Format { columns: FIELDS.iter().take(DEFAULT).map(|name| Column::of(name)).collect() }
    }
}

impl Format {
    /// The format of these fields, as a header has them (`version srcaddr ...`) or as they were given to AWS (`${version} ${srcaddr} ...`).
    ///
    /// # Errors
    /// What is no field, or which one lacks without which no record can be told to be about a probe.
    pub fn parse(text: &str) -> Result<Format, String> {
        let name = |word: &str| word.strip_prefix("${").and_then(|w| w.strip_suffix('}')).unwrap_or(word).to_ascii_lowercase();
        let names: Vec<String> = text.split_ascii_whitespace().map(name).collect();
        if let Some(wrong) = names.iter().find(|name| !is_name(name.as_bytes())) {
            return Err(format!(
                "\"{wrong}\" is no field of a flow log; write the fields as they were given to AWS, such as \"version srcaddr dstaddr\""
            ));
        }
        let format = Format { columns: names.iter().map(|name| Column::of(name)).collect() };
        if names.len() > MAX_FIELDS {
            return Err(format!("has {} fields; a flow log has at most {MAX_FIELDS}", names.len()));
        }
        let lacks = format.lacks();
        match lacks.is_empty() {
            true => Ok(format),
            false => Err(format!("lacks {}: without, no record can be told to be about a probe", lacks.join(", "))),
        }
    }

    /// Which fields a record needs and this format has not.
    fn lacks(&self) -> Vec<&'static str> {
        let has = |any: &[Column]| any.iter().any(|column| self.columns.contains(column));
        [
            (has(&[Column::Source, Column::PacketSource]), "srcaddr or pkt-srcaddr"),
            (has(&[Column::Destination, Column::PacketDestination]), "dstaddr or pkt-dstaddr"),
            (has(&[Column::SourcePort]), "srcport"),
            (has(&[Column::DestinationPort]), "dstport"),
            (has(&[Column::Protocol]), "protocol"),
            (has(&[Column::Start]), "start"),
            (has(&[Column::End]), "end"),
            (has(&[Column::Action]), "action"),
        ]
        .into_iter()
        .filter_map(|(there, name)| (!there).then_some(name))
        .collect()
    }

    /// The record of a line, where `wanted` says of its ports (source, destination) that it may be about a probe.
    pub fn read<'a>(&self, line: &'a [u8], wanted: impl Fn(u16, u16) -> bool) -> Line<'a> {
        let mut columns = self.columns.iter();
        let mut tokens = Tokens::default();
        for token in line.split(|b| *b == b' ').filter(|token| !token.is_empty()) {
            let Some(column) = columns.next() else { return Line::None };
            match column {
                Column::Interface => tokens.interface = token,
                Column::Source => tokens.source = token,
                Column::Destination => tokens.destination = token,
                Column::PacketSource => tokens.packet_source = token,
                Column::PacketDestination => tokens.packet_destination = token,
                Column::SourcePort => tokens.source_port = token,
                Column::DestinationPort => tokens.destination_port = token,
                Column::Protocol => tokens.protocol = token,
                Column::Packets => tokens.packets = token,
                Column::Start => tokens.start = token,
                Column::End => tokens.end = token,
                Column::Action => tokens.action = token,
                Column::Status => tokens.status = token,
                Column::Flags => tokens.flags = token,
                Column::Direction => tokens.direction = token,
                Column::Path => tokens.path = token,
                Column::Reason => tokens.reason = token,
                Column::Passed => {}
            }
        }
        if columns.next().is_some() { Line::None } else { tokens.read(wanted) }
    }
}

/// A line as a flow log's.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A record.
    Record(Box<Record<'a>>),
    /// A record that cannot be about a probe.
    Other,
    /// The interface had no traffic.
    NoData,
    /// AWS has lost records: what is not there may have been.
    Skipped,
    /// It is no record in this format.
    None,
}

/// What a record says, as far as it is asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// IANA's number.
    pub protocol: u8,
    /// Addresses that the source has: at the interface, and in the packet.
    pub source: [Option<IpAddr>; 2],
    /// Those of the destination.
    pub destination: [Option<IpAddr>; 2],
    /// The port that sent.
    pub source_port: u16,
    /// The port that was sent to.
    pub destination_port: u16,
    /// Seconds since 1970: when the first packet was seen, or up to a minute later.
    pub start: i64,
    /// When the last was, the same.
    pub end: i64,
    /// `ACCEPT` or `REJECT`.
    pub accepted: bool,
    /// The interface.
    pub interface: Option<&'a str>,
    /// Packets of this flow in the aggregation interval.
    pub packets: Option<u64>,
    /// All flags of TCP that were seen; only those of a SYN, FIN, RST or SYN-ACK are.
    pub flags: Option<u16>,
    /// `ingress` or `egress`, where the format has it.
    pub ingress: Option<bool>,
    /// By which way egress traffic left: a number of AWS.
    pub path: Option<&'a str>,
    /// Why it was rejected, where that was neither security group nor network ACL.
    pub reason: Option<&'a str>,
}

#[derive(Default)]
struct Tokens<'a> {
    interface: &'a [u8],
    source: &'a [u8],
    destination: &'a [u8],
    packet_source: &'a [u8],
    packet_destination: &'a [u8],
    source_port: &'a [u8],
    destination_port: &'a [u8],
    protocol: &'a [u8],
    packets: &'a [u8],
    start: &'a [u8],
    end: &'a [u8],
    action: &'a [u8],
    status: &'a [u8],
    flags: &'a [u8],
    direction: &'a [u8],
    path: &'a [u8],
    reason: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn read(self, wanted: impl Fn(u16, u16) -> bool) -> Line<'a> {
        match self.status {
            b"" | b"OK" => {}
            b"NODATA" => return Line::NoData,
            b"SKIPDATA" => return Line::Skipped,
            _ => return Line::None,
        }
        if self.status.is_empty() && self.action == b"-" {
            // Without log-status nothing tells the two apart.
            return Line::NoData;
        }
        let ports = (number(self.source_port), number(self.destination_port));
        let (Some(source_port), Some(destination_port)) = ports else {
            // Some protocols have none.
            return if self.source_port == b"-" && self.protocol != b"6" && self.protocol != b"17" { Line::Other } else { Line::None };
        };
        if !wanted(source_port, destination_port) {
            return Line::Other;
        }
        self.record(source_port, destination_port).map_or(Line::None, |record| Line::Record(Box::new(record)))
    }

    fn record(&self, source_port: u16, destination_port: u16) -> Option<Record<'a>> {
        let source = [address(self.source)?, address(self.packet_source)?];
        let destination = [address(self.destination)?, address(self.packet_destination)?];
        let (start, end) = (number::<i64>(self.start)?, number::<i64>(self.end)?);
        if source == [None; 2] || destination == [None; 2] || start > end {
            return None;
        }
        Some(Record {
            protocol: number(self.protocol)?,
            source,
            destination,
            source_port,
            destination_port,
            start,
            end,
            accepted: match self.action {
                b"ACCEPT" => true,
                b"REJECT" => false,
                _ => return None,
            },
            interface: word(self.interface),
            packets: number(self.packets),
            flags: number(self.flags),
            ingress: match self.direction {
                b"ingress" => Some(true),
                b"egress" => Some(false),
                _ => None,
            },
            path: word(self.path),
            reason: word(self.reason),
        })
    }
}

/// Whether a line is the header of a file in S3: names, and no value.
pub fn is_header(line: &[u8]) -> bool {
    let mut known = 0;
    for name in line.split(|b| *b == b' ').filter(|name| !name.is_empty()) {
        if !is_name(name) {
            return false;
        }
        known += usize::from(FIELDS.iter().any(|field| field.as_bytes() == name));
    }
    known >= 2
}

fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_lowercase) && name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Decimal digits alone.
fn number<T: std::str::FromStr>(token: &[u8]) -> Option<T> {
    if !token.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(token).ok()?.parse().ok()
}

/// An address; none where there is none, and no answer where what stands there is no address.
fn address(token: &[u8]) -> Option<Option<IpAddr>> {
    match token {
        b"" | b"-" => Some(None),
        token => std::str::from_utf8(token).ok()?.parse().ok().map(|ip| Some(fold_mapped(ip))),
    }
}

fn word(token: &[u8]) -> Option<&str> {
    let plain = !token.is_empty() && token != b"-" && token.len() <= 64 && token.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(token).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: u16, _: u16) -> bool {
        true
    }

    fn record<'a>(format: &str, line: &'a str) -> Box<Record<'a>> {
        match Format::parse(format).unwrap().read(line.as_bytes(), all) {
            Line::Record(record) => record,
            other => panic!("{line}: {other:?}"),
        }
    }

    const V2: &str = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status";

    #[test]
    fn the_default_format() {
        let line = "2 123456789010 eni-1235b8ca123456789 198.51.100.9 172.31.9.12 49761 3389 6 3 180 1418530010 1418530070 REJECT OK";
        let one = record(V2, line);
        assert_eq!(Format::parse(V2).unwrap(), Format::default());
        assert_eq!((one.protocol, one.source_port, one.destination_port, one.accepted), (6, 49761, 3389, false));
        assert_eq!((one.source[0], one.destination[0]), ("198.51.100.9".parse().ok(), "172.31.9.12".parse().ok()));
        assert_eq!(
            (one.start, one.end, one.packets, one.interface),
            (1_418_530_010, 1_418_530_070, Some(3), Some("eni-1235b8ca123456789"))
        );
        assert_eq!((one.flags, one.ingress, one.reason), (None, None, None));
        let v6 = "2 123456789010 eni-1 2001:db8:1::1 2001:db8:2::2 34892 22 6 54 8855 1477913708 1477913820 ACCEPT OK";
        assert!(record(V2, v6).accepted);
        let nothing = "2 123456789010 eni-1 - - - - - - - 1431280876 1431280934 - NODATA";
        assert_eq!(Format::default().read(nothing.as_bytes(), all), Line::NoData);
        let lost = nothing.replace("NODATA", "SKIPDATA");
        assert_eq!(Format::default().read(lost.as_bytes(), all), Line::Skipped);
        assert_eq!(Format::default().read(line.as_bytes(), |from, to| (from, to) != (49761, 3389)), Line::Other);
        // ICMP has ports of 0; protocols without any have a dash.
        let ping = "2 1 eni-1 198.51.100.9 172.31.9.12 0 0 1 4 336 1432917027 1432917142 ACCEPT OK";
        assert_eq!(record(V2, ping).protocol, 1);
        assert_eq!(Format::default().read(ping.replace("0 0 1 4", "- - 47 4").as_bytes(), all), Line::Other);
    }

    /// One line for every field set that AWS documents, by version; what is read of it is the same.
    #[test]
    fn every_field_set() {
        let values = [
            ("version", "10"),
            ("account-id", "123456789010"),
            ("interface-id", "eni-0a1b"),
            ("srcaddr", "198.51.100.9"),
            ("dstaddr", "10.0.1.7"),
            ("srcport", "41234"),
            ("dstport", "443"),
            ("protocol", "6"),
            ("packets", "3"),
            ("bytes", "180"),
            ("start", "1767323040"),
            ("end", "1767323095"),
            ("action", "REJECT"),
            ("log-status", "OK"),
            ("vpc-id", "vpc-0abc"),
            ("subnet-id", "subnet-0abc"),
            ("instance-id", "-"),
            ("tcp-flags", "2"),
            ("type", "IPv4"),
            ("pkt-srcaddr", "198.51.100.9"),
            ("pkt-dstaddr", "10.0.1.7"),
            ("region", "eu-central-1"),
            ("az-id", "euc1-az2"),
            ("sublocation-type", "-"),
            ("sublocation-id", "-"),
            ("pkt-src-aws-service", "AMAZON"),
            ("pkt-dst-aws-service", "-"),
            ("flow-direction", "ingress"),
            ("traffic-path", "-"),
            ("ecs-cluster-arn", "arn:aws:ecs:eu-central-1:123456789010:cluster/egress"),
            ("ecs-cluster-name", "egress"),
            ("ecs-container-instance-arn", "-"),
            ("ecs-container-instance-id", "-"),
            ("ecs-container-id", "d3f0"),
            ("ecs-second-container-id", "-"),
            ("ecs-service-name", "squid"),
            ("ecs-task-definition-arn", "arn:aws:ecs:eu-central-1:123456789010:task-definition/squid:4"),
            ("ecs-task-arn", "arn:aws:ecs:eu-central-1:123456789010:task/egress/d3f0"),
            ("ecs-task-id", "d3f0"),
            ("reject-reason", "BPA"),
            ("resource-id", "-"),
            ("encryption-status", "-"),
        ];
        assert_eq!(values.map(|(name, _)| name), FIELDS);
        // The last field of each version.
        for (version, last) in [(2, 14), (3, 21), (4, 25), (5, 29), (7, 39), (8, 40), (9, 41), (10, 42)] {
            let line: Vec<&str> = values.iter().take(last).map(|(_, value)| *value).collect();
            let names: Vec<&str> = FIELDS.iter().take(last).copied().collect();
            let (line, names) = (line.join(" "), names.join(" "));
            assert!(is_header(names.as_bytes()) && !is_header(line.as_bytes()), "{names}");
            let one = record(&names, &line);
            assert_eq!(
                (one.source_port, one.destination_port, one.accepted, one.end),
                (41234, 443, false, 1_767_323_095),
                "version {version}"
            );
            assert_eq!(one.flags, (version >= 3).then_some(2));
            assert_eq!(one.ingress, (version >= 5).then_some(true));
            assert_eq!(one.reason, (version >= 8).then_some("BPA"));
            // In any order, and as they were given to AWS.
            let turned: Vec<String> = FIELDS.iter().take(last).rev().map(|name| format!("${{{name}}}")).collect();
            let line: Vec<&str> = values.iter().take(last).rev().map(|(_, value)| *value).collect();
            assert_eq!(record(&turned.join(" "), &line.join(" ")).destination, one.destination);
            // One field less or more is another format.
            assert_eq!(Format::parse(&names).unwrap().read(line.join(" ").rsplit_once(' ').unwrap().0.as_bytes(), all), Line::None);
            assert_eq!(Format::parse(&names).unwrap().read(format!("{} x", line.join(" ")).as_bytes(), all), Line::None);
        }
        // A field of a later version is passed over.
        let line = "1767323040 1767323095 41234 443 6 REJECT what 198.51.100.9 10.0.1.7";
        assert!(!record("start end srcport dstport protocol action new-field-2 pkt-srcaddr pkt-dstaddr", line).accepted);
    }

    #[test]
    fn a_format_has_what_a_probe_is_known_by() {
        assert_eq!(
            Format::parse("version srcaddr dstaddr dstport").unwrap_err(),
            "lacks srcport, protocol, start, end, action: without, no record can be told to be about a probe"
        );
        assert!(Format::parse("").unwrap_err().starts_with("lacks srcaddr or pkt-srcaddr, "));
        assert!(Format::parse("version 2").unwrap_err().starts_with("\"2\" is no field"));
        assert!(Format::parse(&"x ".repeat(MAX_FIELDS + 1)).unwrap_err().starts_with("has 129 fields"));
    }

    #[test]
    fn what_is_no_record_is_none() {
        let good = "2 1 eni-1 198.51.100.9 10.0.1.7 41234 443 6 3 180 1418530010 1418530070 REJECT OK";
        assert!(matches!(Format::default().read(good.as_bytes(), all), Line::Record(_)));
        for (from, to) in [
            ("198.51.100.9", "198.51.100.999"),
            ("198.51.100.9", "-"),
            ("10.0.1.7", "host"),
            ("41234", "65536"),
            ("41234", "+4123"),
            (" 443", " "),
            (" 6 ", " 256 "),
            ("1418530010", "99999999999999999999"),
            // It ends before it begins.
            ("1418530010", "1418530071"),
            ("REJECT", "reject"),
            ("REJECT", "-"),
            ("OK", "ok"),
            ("OK", "OK OK"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_eq!(Format::default().read(bad.as_bytes(), all), Line::None, "{bad}");
        }
    }
}
