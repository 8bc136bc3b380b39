//! The access log: a line per decision and per close, written by one thread behind a bounded queue, so that a full pipe stalls no tunnel.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use prometheus::IntCounter;
use serde::Serialize;

use crate::clock::Wall;

/// Lines that may wait to be written; at some 300 bytes each, little over a megabyte.
const QUEUE: usize = 4096;
/// How much is written at once.
const BATCH: usize = 64 * 1024;
/// How long the writer lets lines gather after the first: while it does, a line wakes nobody and costs no system call.
const GATHER: Duration = Duration::from_millis(20);
/// How often a full queue is tried again at the end.
const RETRY: Duration = Duration::from_millis(10);

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// `-`: standard output.
    Stdout,
    /// Standard error: for a program whose standard output is its report.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Squid's native format, with further fields behind.
    Squid,
    /// The combined format of web servers, with further fields behind.
    Combined,
    /// One JSON object a line.
    Json,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A request was decided.
    Decision,
    /// A tunnel ended.
    Close,
}

/// One line. Texts are escaped where they are written, so what a client sent may be put in as it came.
#[derive(Debug, Clone)]
pub struct Line {
    /// When.
    pub time: Wall,
    /// What happened.
    pub event: Event,
    /// The client's address, as the rules judged it.
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// Where the connection came from: the client, or the load balancer whose PROXY header named it.
    pub peer: SocketAddr,
    /// The method as sent; empty where none was read.
    pub method: String,
    /// The destination: normalised where it is one, else as sent.
    pub destination: Vec<u8>,
    /// HTTP's minor version.
    pub minor: u8,
    /// The `User-Agent` as sent.
    pub user_agent: Vec<u8>,
    /// The address that was dialled, where one answered.
    pub dialled: Option<SocketAddr>,
    /// Bytes to the destination.
    pub sent: u64,
    /// Bytes from the destination.
    pub received: u64,
    /// Since the connection was accepted.
    pub duration: Duration,
    /// The status of the response.
    pub status: u16,
    /// `allow`, `deny` or `error`.
    pub decision: &'static str,
    /// The reason of the decision; at the close, how the tunnel ended.
    pub reason: &'static str,
}

/// The way to the writer. When all are dropped the writer ends.
#[derive(Debug, Clone)]
pub struct Log {
    queue: SyncSender<Message>,
    format: LogFormat,
    lost: IntCounter,
}

enum Message {
    Line(String),
    Flushed(tokio::sync::oneshot::Sender<()>),
}

impl Log {
    /// Opens the target and starts its writer.
    ///
    /// # Errors
    /// The file that cannot be opened, and the remedy.
    pub fn open(target: &LogTarget, format: LogFormat, lost: IntCounter) -> Result<Log, String> {
        let writer: Box<dyn Write + Send> = match target {
            LogTarget::Stdout => Box::new(io::stdout()),
            LogTarget::Stderr => Box::new(io::stderr()),
            LogTarget::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Box::new(file.map_err(|e| {
                    format!(
                        "cannot open the access log {}: {e}; write a file that may be written, or - for standard output",
                        path.display()
                    )
                })?)
            }
        };
        Log::start(writer, format, lost, QUEUE)
    }

    fn start(writer: Box<dyn Write + Send>, format: LogFormat, lost: IntCounter, capacity: usize) -> Result<Log, String> {
        let (queue, lines) = sync_channel(capacity);
        let counter = lost.clone();
        let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || write_lines(writer, &lines, &counter));
        thread.map_err(|e| format!("cannot start the access log's thread: {e}; raise the limit of processes"))?;
        Ok(Log { queue, format, lost })
    }

    /// Hands a line over, or counts it as lost where the writer is that far behind. Never waits.
    pub fn write(&self, line: &Line) {
        if self.queue.try_send(Message::Line(self.format.render(line))).is_err() {
            self.lost.inc();
        }
    }

    /// Waits until all that was handed over is written, or `limit` is past.
    pub async fn flush(&self, limit: Duration) {
        let flushed = async {
            let (done, flushed) = tokio::sync::oneshot::channel();
            let mut message = Message::Flushed(done);
            while let Err(full) = self.queue.try_send(message) {
                let TrySendError::Full(again) = full else { return };
                message = again;
                tokio::time::sleep(RETRY).await;
            }
            let _ = flushed.await;
        };
        if tokio::time::timeout(limit, flushed).await.is_err() {
            tracing::warn!("the access log could not be written to its end");
        }
    }
}

fn write_lines(mut writer: Box<dyn Write + Send>, lines: &Receiver<Message>, lost: &IntCounter) {
    let mut batch = String::new();
    while let Ok(first) = lines.recv() {
        if matches!(first, Message::Line(_)) {
            std::thread::sleep(GATHER);
        }
        let mut next = Some(first);
        let mut count = 0;
        let mut waiting = Vec::new();
        while let Some(message) = next.take() {
            match message {
                Message::Line(line) => {
                    batch.push_str(&line);
                    count += 1;
                }
                Message::Flushed(done) => waiting.push(done),
            }
            if batch.len() < BATCH {
                next = lines.try_recv().ok();
            }
        }
        if let Err(error) = writer.write_all(batch.as_bytes()).and_then(|()| writer.flush()) {
            lost.inc_by(count);
            tracing::warn!(%error, lines = count, "the access log could not be written");
        }
        batch.clear();
        for done in waiting {
            let _ = done.send(());
        }
    }
}

impl LogFormat {
    /// The line, with its end.
    pub fn render(self, line: &Line) -> String {
        match self {
            LogFormat::Squid => squid(line),
            LogFormat::Combined => combined(line),
            LogFormat::Json => json(line),
        }
    }
}

/// `time elapsed client action/status bytes method URL user hierarchy/peer type`, then what Squid has no field for.
fn squid(line: &Line) -> String {
    let action = match (line.decision, line.method.as_str()) {
        ("deny", _) => "TCP_DENIED",
        (_, "CONNECT") => "TCP_TUNNEL",
        _ => "TCP_MISS",
    };
    let hierarchy = line.dialled.map_or("HIER_NONE/-".to_string(), |to| format!("HIER_DIRECT/{}", to.ip()));
    format!(
        "{}.{:03} {:>6} {} {action}/{:03} {} {} {} - {hierarchy} - {}\n",
        line.time.unix_millis().div_euclid(1000),
        line.time.unix_millis().rem_euclid(1000),
        line.duration.as_millis(),
        line.client,
        line.status,
        line.received,
        word(line.method.as_bytes()),
        word(&line.destination),
        further(line),
    )
}

/// `client - - [time] "request" status bytes "referer" "user agent"`, then what web servers have no field for.
fn combined(line: &Line) -> String {
    let time = jiff::Timestamp::from_millisecond(line.time.unix_millis()).unwrap_or_default();
    format!(
        "{} - - [{}] \"{} {} HTTP/1.{}\" {} {} \"-\" {}\n",
        line.client,
        time.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        word(line.method.as_bytes()),
        word(&line.destination),
        line.minor,
        line.status,
        line.received,
        further(line),
    )
}

fn further(line: &Line) -> String {
    format!(
        "\"{}\" port={} peer={} dialled={} sent={} received={} duration={:.3} event={} decision={} reason={}",
        if line.user_agent.is_empty() { "-".into() } else { quoted(&line.user_agent) },
        line.client_port,
        line.peer,
        line.dialled.map_or("-".into(), |to| to.to_string()),
        line.sent,
        line.received,
        line.duration.as_secs_f64(),
        match line.event {
            Event::Decision => "decision",
            Event::Close => "close",
        },
        line.decision,
        line.reason,
    )
}

fn json(line: &Line) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        time: Wall,
        event: Event,
        client: SocketAddr,
        peer: SocketAddr,
        user_agent: String,
        method: String,
        destination: String,
        dialled: Option<SocketAddr>,
        bytes_sent: u64,
        bytes_received: u64,
        duration_ms: u64,
        status: u16,
        decision: &'a str,
        reason: &'a str,
    }
    let shown = Shown {
        time: line.time,
        event: line.event,
        client: SocketAddr::new(line.client, line.client_port),
        peer: line.peer,
        user_agent: quoted(&line.user_agent),
        method: quoted(line.method.as_bytes()),
        destination: quoted(&line.destination),
        dialled: line.dialled,
        bytes_sent: line.sent,
        bytes_received: line.received,
        duration_ms: u64::try_from(line.duration.as_millis()).unwrap_or(u64::MAX),
        status: line.status,
        decision: line.decision,
        reason: line.reason,
    };
    // a struct of texts and numbers always has a JSON form
    serde_json::to_string(&shown).unwrap_or_default() + "\n"
}

/// For between quotes: printable ASCII as it is, but for quote and backslash; every other byte as `\xHH`.
fn quoted(bytes: &[u8]) -> String {
    escaped(bytes, |b| b == b' ' || b.is_ascii_graphic())
}

/// For a field that spaces end: as [`quoted`], with spaces escaped too; `-` where there is nothing.
fn word(bytes: &[u8]) -> String {
    if bytes.is_empty() { "-".into() } else { escaped(bytes, |b| b.is_ascii_graphic()) }
}

fn escaped(bytes: &[u8], plain: impl Fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if plain(byte) && byte != b'"' && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

impl FromStr for LogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("the access log is empty; write a file, or - for standard output".into()),
            "-" => Ok(LogTarget::Stdout),
            path => Ok(LogTarget::File(path.into())),
        }
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "squid" => Ok(LogFormat::Squid),
            "combined" => Ok(LogFormat::Combined),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("\"{other}\" is not a log format; write squid, combined or json")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Condvar, Mutex};

    use super::*;

    fn line() -> Line {
        Line {
            time: Wall::from_unix_millis(1_767_323_045_678).unwrap(),
            event: Event::Close,
            client: "10.0.0.5".parse().unwrap(),
            client_port: 40000,
            peer: "10.0.0.9:50000".parse().unwrap(),
            method: "CONNECT".into(),
            destination: b"example.com:443".to_vec(),
            minor: 1,
            user_agent: b"curl/8.0".to_vec(),
            dialled: Some("192.0.2.7:443".parse().unwrap()),
            sent: 10,
            received: 2000,
            duration: Duration::from_millis(1234),
            status: 200,
            decision: "allow",
            reason: "closed",
        }
    }

    const FURTHER: &str = "\"curl/8.0\" port=40000 peer=10.0.0.9:50000 dialled=192.0.2.7:443 sent=10 received=2000 duration=1.234 event=close decision=allow reason=closed";

    #[test]
    fn the_formats() {
        assert_eq!(
            LogFormat::Squid.render(&line()),
            format!("1767323045.678   1234 10.0.0.5 TCP_TUNNEL/200 2000 CONNECT example.com:443 - HIER_DIRECT/192.0.2.7 - {FURTHER}\n")
        );
        assert_eq!(
            LogFormat::Combined.render(&line()),
            format!("10.0.0.5 - - [02/Jan/2026:03:04:05 +0000] \"CONNECT example.com:443 HTTP/1.1\" 200 2000 \"-\" {FURTHER}\n")
        );
        assert_eq!(
            LogFormat::Json.render(&line()),
            "{\"time\":\"2026-01-02T03:04:05.678Z\",\"event\":\"close\",\"client\":\"10.0.0.5:40000\",\"peer\":\"10.0.0.9:50000\",\"user_agent\":\"curl/8.0\",\
             \"method\":\"CONNECT\",\"destination\":\"example.com:443\",\"dialled\":\"192.0.2.7:443\",\"bytes_sent\":10,\
             \"bytes_received\":2000,\"duration_ms\":1234,\"status\":200,\"decision\":\"allow\",\"reason\":\"closed\"}\n"
        );
    }

    #[test]
    fn a_refusal_before_a_byte_has_dashes() {
        let refused = Line {
            method: String::new(),
            destination: Vec::new(),
            user_agent: Vec::new(),
            dialled: None,
            status: 403,
            decision: "deny",
            reason: "source",
            event: Event::Decision,
            ..line()
        };
        let text = LogFormat::Squid.render(&refused);
        assert!(text.contains(" 10.0.0.5 TCP_DENIED/403 2000 - - - HIER_NONE/- - \"-\" "), "{text}");
        assert!(text.ends_with(" event=decision decision=deny reason=source\n"), "{text}");
    }

    #[test]
    fn no_byte_that_a_client_sends_can_break_a_line() {
        let every: Vec<u8> = (0..=255).collect();
        let hostile = Line { user_agent: every.clone(), destination: every, method: "A\r\nB \"\u{1b}[2J\u{9b}".into(), ..line() };
        for format in [LogFormat::Squid, LogFormat::Combined, LogFormat::Json] {
            let text = format.render(&hostile);
            let inner = text.strip_suffix('\n').unwrap();
            assert!(inner.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{text}");
        }
        let fields = |l: &Line| LogFormat::Squid.render(l).split('"').count();
        assert_eq!(fields(&hostile), fields(&line()));
        let json: serde_json::Value = serde_json::from_str(&LogFormat::Json.render(&hostile)).unwrap();
        assert_eq!(json["reason"], "closed");
        assert!(json["user_agent"].as_str().unwrap().contains("\\x0a\\x0b"));
    }

    /// A pipe that nobody reads until it is opened.
    #[derive(Clone, Default)]
    struct Stuck(Arc<Pipe>);

    #[derive(Default)]
    struct Pipe {
        state: Mutex<(bool, Vec<u8>)>,
        opened: Condvar,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.opened.wait_while(self.0.state.lock().unwrap(), |s| !s.0).unwrap();
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_full_pipe_loses_lines_and_counts_them_but_never_waits() {
        let lost = IntCounter::new("lost", "lost").unwrap();
        let pipe = Stuck::default();
        let log = Log::start(Box::new(pipe.clone()), LogFormat::Squid, lost.clone(), 8).unwrap();
        for _ in 0..1000 {
            log.write(&line());
        }
        let missing = lost.get();
        assert!(missing > 0);
        log.flush(Duration::from_millis(50)).await;
        pipe.0.state.lock().unwrap().0 = true;
        pipe.0.opened.notify_all();
        log.flush(Duration::from_secs(10)).await;
        let written = pipe.0.state.lock().unwrap().1.iter().filter(|b| **b == b'\n').count() as u64;
        assert_eq!(written + missing, 1000);
    }

    #[test]
    fn targets_and_formats_say_what_to_write() {
        assert_eq!("-".parse(), Ok(LogTarget::Stdout));
        assert_eq!("a.log".parse(), Ok(LogTarget::File("a.log".into())));
        assert!("".parse::<LogTarget>().unwrap_err().contains("or - for standard output"));
        assert_eq!("Squid".parse::<LogFormat>().unwrap_err(), "\"Squid\" is not a log format; write squid, combined or json");
        let lost = IntCounter::new("lost", "lost").unwrap();
        let error = Log::open(&LogTarget::File("/nonexistent/a.log".into()), LogFormat::Squid, lost).unwrap_err();
        assert!(error.starts_with("cannot open the access log /nonexistent/a.log: "), "{error}");
    }
}
