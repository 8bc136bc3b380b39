//! How fast logs are read: `cargo bench --bench flowlog -- [MEBIBYTES]`, 1024 unless said otherwise. Lines of each kind of log are made into a file, and read three ways:
//! by a bare loop over its lines, by ours with 30,000 attempts to find, and by `awk` counting one word. What counts is the ratio of ours to the bare loop; of gzip, to its decoder.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that is broken must stop at once")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use mustnot::clock::Wall;
use mustnot::flowlog::stream::{self, Piece};
use mustnot::flowlog::{Index, Lines, Settings, Shot};
use mustnot::observation::Transport;

/// 2026-01-02T03:04:05Z.
const T: i64 = 1_767_323_045;
const SHOTS: u16 = 30_000;

/// A generator that needs no crate (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}

fn flow(r: &mut Random, out: &mut impl Write) {
    let (a, b) = (r.next(1 << 24), r.next(1 << 16));
    let (port, start) = (1024 + r.next(64_000), T + r.next(600) as i64);
    let action = if r.next(3) == 0 { "REJECT" } else { "ACCEPT" };
    writeln!(
        out,
        "2 123456789010 eni-0a1b2c3d4e5f60718 {}.{}.{}.9 10.0.{}.{} {port} {} 6 {} {} {start} {} {action} OK",
        11 + (a >> 16) % 180,
        (a >> 8) & 255,
        a & 255,
        b >> 8,
        b & 255,
        [443, 22, 3128, 8443][r.next(4) as usize],
        1 + r.next(40),
        60 * (1 + r.next(4000)),
        start + 59
    )
    .unwrap();
}

fn squid(r: &mut Random, out: &mut impl Write) {
    writeln!(
        out,
        "{}.{:03} {:>6} 203.0.113.{} TCP_TUNNEL/200 {} CONNECT service-{}.example.com:443 - HIER_DIRECT/192.0.2.{} -",
        T + r.next(600) as i64,
        r.next(1000),
        r.next(90_000),
        r.next(255),
        r.next(1 << 20),
        r.next(5000),
        r.next(255)
    )
    .unwrap();
}

fn waf(r: &mut Random, out: &mut impl Write) {
    writeln!(
        out,
        "{{\"timestamp\":{},\"formatVersion\":1,\"webaclId\":\"arn:aws:wafv2:eu-central-1:123456789010:regional/webacl/admin/a1b2\",\"terminatingRuleId\":\"only-the-office\",\"terminatingRuleType\":\"REGULAR\",\
         \"action\":\"BLOCK\",\"httpSourceName\":\"ALB\",\"ruleGroupList\":[],\"httpRequest\":{{\"clientIp\":\"203.0.113.{}\",\"country\":\"DE\",\"headers\":[{{\"name\":\"Host\",\"value\":\"admin.example.com\"}},\
         {{\"name\":\"User-Agent\",\"value\":\"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\"}},{{\"name\":\"X-Amzn-Trace-Id\",\"value\":\"Root=1-{:08x}-{:024x}\"}}],\"uri\":\"/{}\",\"args\":\"\",\"httpMethod\":\"GET\"}}}}",
        (T + r.next(600) as i64) * 1000,
        r.next(255),
        r.next(1 << 31),
        r.next(1 << 31),
        r.next(1 << 20)
    )
    .unwrap();
}

fn index() -> Index<usize> {
    let mut index = Index::new(Settings::default());
    for n in 0..SHOTS {
        let at = Wall::from_unix_millis(T * 1000 + i64::from(n)).unwrap();
        let nonce = Some(format!("{n:032x}"));
        // From as many ports as an hour of a busy monitor uses: half of what a kernel has.
        let local = ([198, 51, 100, 9], 32_768 + n % 14_000).into();
        index.push(
            Shot { protocol: Transport::Tcp, local, remote: ([10, 0, 1, 7], 443).into(), started: at, ended: at, nonce },
            usize::from(n),
        );
    }
    index
}

fn timed(what: impl FnOnce() -> u64) -> (f64, u64) {
    let begun = Instant::now();
    let lines = what();
    (begun.elapsed().as_secs_f64(), lines)
}

fn bare(path: &Path) -> u64 {
    let mut lines = 0;
    stream::lines(&mut *stream::open(path).unwrap(), true, |_| lines += 1).unwrap();
    lines
}

fn ours(path: &Path, index: &Index<usize>) -> u64 {
    let (mut lines, mut found) = (Lines::default(), 0);
    let read = |piece: Piece<'_>| {
        if let Piece::Line(line) = piece {
            lines.read(line, index, &mut |_, _| found += 1);
        }
    };
    stream::lines(&mut *stream::open(path).unwrap(), true, read).unwrap();
    assert_eq!((lines.counts.unreadable, lines.counts.too_long), (0, 0), "{:?}", lines.counts);
    assert!(found < 10, "{found}");
    lines.counts.lines
}

fn awk(path: &Path) -> u64 {
    let script = "/REJECT|BLOCK|DENIED/ { n++ } END { print NR }";
    let output = Command::new("awk").arg(script).arg(path).env("LC_ALL", "C").stderr(Stdio::inherit()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn peak_mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

type Maker = fn(&mut Random, &mut BufWriter<File>);

fn main() {
    let mebibytes: u64 = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1024);
    let folder = tempfile::tempdir().unwrap();
    let index = index();
    println!(
        "{:<10} {:>6} {:>11} {:>9} {:>9} {:>9} {:>14} {:>8}",
        "log", "MiB", "lines", "bare s", "ours s", "awk s", "ours MiB/s", "ratio"
    );
    for (name, maker) in [("flow", flow as Maker), ("squid", squid), ("waf", waf)] {
        let path = folder.path().join(name);
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path).unwrap());
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut made = 0;
        while made < mebibytes << 20 {
            (0..10_000).for_each(|_| maker(&mut random, &mut out));
            out.flush().unwrap();
            made = out.get_ref().metadata().unwrap().len();
        }
        drop(out);
        row(name, &path, made, &index, true);
        if name == "flow" {
            let packed = folder.path().join("flow.gz");
            let mut gzip = GzEncoder::new(BufWriter::new(File::create(&packed).unwrap()), Compression::fast());
            std::io::copy(&mut File::open(&path).unwrap(), &mut gzip).unwrap();
            gzip.finish().unwrap().flush().unwrap();
            row("flow.gz", &packed, made, &index, false);
        }
        std::fs::remove_file(path).unwrap();
    }
    println!("peak memory of all: {} MiB", peak_mebibytes());
}

fn row(name: &str, path: &Path, bytes: u64, index: &Index<usize>, peer: bool) {
    // The first reading fills the page cache.
    bare(path);
    let (bare, lines) = timed(|| bare(path));
    let (ours, read) = timed(|| ours(path, index));
    assert_eq!(lines, read);
    let awk = peer.then(|| timed(|| awk(path))).map_or("-".into(), |(took, counted)| {
        assert_eq!(counted, lines);
        format!("{took:.2}")
    });
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    println!("{name:<10} {mebibytes:>6.0} {lines:>11} {bare:>9.2} {ours:>9.2} {awk:>9} {:>14.0} {:>8.2}", mebibytes / ours, ours / bare);
}
