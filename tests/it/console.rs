//! The console: whoever stops reading loses lines, and holds nobody up.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A monitor, ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Targets that change their verdict all the time, more lines than a pipe (64 KiB) and the queue together take.
#[test]
fn a_reader_that_stops_reading_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("probes.toml");
    let web = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut text =
        format!("vantage = \"v\"\n[web]\nlisten = \"{web}\"\n[defaults]\ninterval = \"1s\"\ntimeout = \"500ms\"\nattempts = 1\n");
    // Refused at once, and each says so in more than a hundred bytes.
    for number in 0..1000 {
        text.push_str(&format!(
            "[[check]]\nname = \"a-long-name-for-a-check-with-the-number-{number}\"\nkind = \"tcp\"\ntarget = \"127.0.0.1:1\"\nexpect = \"open\"\n"
        ));
    }
    fs::write(&config, text).unwrap();
    let mut monitor =
        Ended(Command::new(env!("CARGO_BIN_EXE_mustnot")).args(["run", "--config"]).arg(&config).stdout(Stdio::piped()).spawn().unwrap());
    let start = Instant::now();
    let ready = || {
        let mut stream = TcpStream::connect(web).ok()?;
        std::io::Write::write_all(&mut stream, b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    };
    while ready().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "every check must run although nobody reads");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill(Pid::from_raw(monitor.0.id() as i32), Signal::SIGTERM).unwrap();
    while monitor.0.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "it does not end while nobody reads");
        std::thread::sleep(Duration::from_millis(50));
    }
}
