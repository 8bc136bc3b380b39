//! The commands around the work: whether the monitor is well, completions, the manual page, and the flags that other exporters have.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use clap::CommandFactory as _;
use mustnot::cli::Cli;

use crate::proxy_life::Program;

fn mustnot(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mustnot")).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs a tool that reads standard input; None, and a word, where it is not installed.
fn pipe(test: &str, tool: &str, package: &str, arguments: &[&str], input: &[u8]) -> Option<(bool, String)> {
    let spawned = Command::new(tool)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => {
            println!("SKIPPED {test}: cannot run {tool} (Debian: {package}): {e}");
            return None;
        }
    };
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // Both ways are bounded pipes.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Some((output.status.success(), out(&output) + &err(&output)))
}

/// A configuration that names only where the monitor listens.
fn configuration(folder: &Path, listen: &str) -> String {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile_in(folder).unwrap();
    write!(file, "vantage = \"v\"\n{listen}\n").unwrap();
    file.keep().unwrap().1.display().to_string()
}

/// Answers one request with this.
fn once(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(answer.as_bytes());
    });
    at
}

#[tokio::test]
async fn a_monitor_that_runs_is_well_by_its_own_configuration_and_by_a_url() {
    let program = Program::with("run", "", "", "[web]\nlisten = \"127.0.0.1:0\"\n");
    let web = program.web.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for listen in [
        format!("[web]\nlisten = \"{web}\""),
        // Everywhere is here, too.
        format!("[web]\nlisten = \"0.0.0.0:{}\"", web.port()),
        // What somebody is about to change in the rest of the file, or has broken, is no illness.
        format!("no_such_key = 1\n[web]\nlisten = \"{web}\"\n[[check]]\nname = \"half\"\n"),
    ] {
        let file = configuration(folder.path(), &listen);
        let asked = mustnot(&["healthcheck", "--config", &file]);
        assert_eq!(
            (asked.status.code(), out(&asked)),
            (Some(0), format!("ok: http://127.0.0.1:{}/healthz\n", web.port())),
            "{}",
            err(&asked)
        );
    }
    for url in [format!("http://{web}/healthz"), format!("http://localhost:{}/-/ready", web.port())] {
        assert_eq!(mustnot(&["healthcheck", "--url", &url]).status.code(), Some(0), "{url}");
    }
    // A proxy alone has a page of its own.
    let file = program.folder.path().join("probes.toml").display().to_string();
    let health = out(&mustnot(&["healthcheck", "--config", &file]));
    assert_eq!(health, "", "port 0 says nothing of where it is");
}

#[test]
fn what_is_not_well_is_1_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let of = |listen: SocketAddr| configuration(folder.path(), &format!("[web]\nlisten = \"{listen}\""));
    let draining = once("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nleaving\n");
    let table: Vec<(Vec<String>, String)> = vec![
        (
            vec!["--config".into(), of(nobody)],
            format!("mustnot: http://{nobody}/healthz did not answer: Connection refused (os error 111); is it running"),
        ),
        (vec!["--url".into(), format!("http://{}/healthz", once(""))], "the answer ended as closed".into()),
        (vec!["--url".into(), format!("http://{}/healthz", once("SSH-2.0-x\r\n"))], "the answer ended as bad-http".into()),
        (vec!["--url".into(), format!("http://{draining}/healthz")], "answered 503, not 200".into()),
        (
            vec!["--url".into(), format!("http://{}/", mute.local_addr().unwrap()), "--timeout".into(), "200ms".into()],
            "the answer ended as mute".into(),
        ),
        (vec!["--url".into(), format!("https://{}/", once("HTTP/1.1 200 OK\r\n\r\n"))], "the TLS handshake ended as not-tls".into()),
        (vec!["--url".into(), "http://nobody.invalid/".into()], "nobody.invalid does not resolve".into()),
        (vec!["--config".into(), "no/such.toml".into()], "no/such.toml cannot be read".into()),
        (
            vec!["--config".into(), configuration(folder.path(), "[web]\nlisten = \"127.0.0.1:0\"")],
            "lets the system choose the port".into(),
        ),
    ];
    for (arguments, said) in table {
        let arguments: Vec<&str> = ["healthcheck"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let asked = mustnot(&arguments);
        assert_eq!(asked.status.code(), Some(1), "{arguments:?}: {}", out(&asked));
        assert!(err(&asked).contains(&said), "{arguments:?}: {} is not: {said}", err(&asked));
    }
    let neither = configuration(folder.path(), "");
    assert!(err(&mustnot(&["healthcheck", "--config", &neither])).contains("has neither [web] listen nor [proxy] health_listen"));
}

/// A server with a certificate that nobody has signed, and for another name: it is asked all the same, since it is this host's own.
#[test]
fn over_tls_it_asks_whom_it_finds_here() {
    let made = rcgen::generate_simple_self_signed(vec!["monitor.example.com".into()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    let asked = mustnot(&["healthcheck", "--url", &format!("https://{at}/healthz")]);
    assert_eq!(asked.status.code(), Some(0), "{}", err(&asked));
}

#[test]
fn the_version_says_what_it_was_made_from() {
    let said = out(&mustnot(&["--version"]));
    let rest = said.strip_prefix(&format!("mustnot {} (revision ", env!("CARGO_PKG_VERSION"))).unwrap_or_else(|| panic!("{said}"));
    let (revision, rust) = rest.trim_end().split_once(", Rust ").unwrap();
    assert!(!revision.is_empty() && rust.ends_with(')') && rust.starts_with("1."), "{said}");
    assert_eq!(out(&mustnot(&["-V"])), said);
    assert_eq!(out(&mustnot(&["check", "--version"])), said.replace("mustnot ", "mustnot-check "));
}

/// What a deployment hands to any exporter is understood here.
#[test]
fn the_flags_of_other_exporters_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let file = configuration(folder.path(), "[admin_page]\nlisten = \"127.0.0.1:0\"");
    for (level, format) in [("debug", "json"), ("error", "text")] {
        let level = format!("--log.level={level}");
        let format = format!("--log.format={format}");
        let config = format!("--config.file={file}");
        assert_eq!(mustnot(&["config", "check", &config, &level, &format]).status.code(), Some(0));
        assert_eq!(mustnot(&[&config, &level, &format, "config", "check"]).status.code(), Some(0));
    }
    let wrong = mustnot(&["run", "--web.listen-address=nowhere", "--config.file", &file]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(err(&wrong).contains("'nowhere' for '--listen <ADDRESS:PORT>'"), "{}", err(&wrong));
}

/// Bash itself completes by the script; what it gives for a line that ends where the cursor stands.
fn bash_completes(script: &Path, line: &str) -> Option<Vec<String>> {
    let program = format!(
        "source {}; COMP_WORDS=({line}); [[ '{line}' == *' ' ]] && COMP_WORDS+=(''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
         _mustnot mustnot \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let (good, said) = pipe("bash_completes_commands_flags_and_values", "bash", "bash", &["--norc", "-c", &program], b"")?;
    assert!(good, "{said}");
    Some(said.lines().map(str::to_string).collect())
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("mustnot.bash");
    std::fs::write(&script, mustnot(&["completions", "bash"]).stdout).unwrap();
    let Some(commands) = bash_completes(&script, "mustnot ") else { return };
    for command in Cli::command().get_subcommands() {
        assert!(commands.contains(&command.get_name().to_string()), "{}: {commands:?}", command.get_name());
    }
    assert_eq!(bash_completes(&script, "mustnot hea").unwrap(), ["healthcheck"]);
    assert_eq!(bash_completes(&script, "mustnot check --sett").unwrap(), ["--settle"]);
    assert_eq!(bash_completes(&script, "mustnot config ex").unwrap(), ["explain"]);
    assert_eq!(bash_completes(&script, "mustnot completions z").unwrap(), ["zsh"]);
    assert_eq!(bash_completes(&script, "mustnot --log-level w").unwrap(), ["warn"]);
    assert!(bash_completes(&script, "mustnot check --format ").unwrap().contains(&"markdown".to_string()));
}

#[test]
fn zsh_and_fish_take_their_scripts() {
    let test = "zsh_and_fish_take_their_scripts";
    let script = |shell: &str| mustnot(&["completions", shell]).stdout;
    // `compdef` is what a completion system brings; the function itself is defined, and its words are parsed.
    let zsh = [b"compdef() { :; }\n".as_slice(), &script("zsh"), b"\ntypeset -f _mustnot >/dev/null && print defined\n"].concat();
    if let Some((good, said)) = pipe(test, "zsh", "zsh", &["-f", "-s"], &zsh) {
        assert!(good && said == "defined\n", "{said}");
        let (good, _) = pipe(test, "zsh", "zsh", &["-f", "-n", "-s"], b"if {").unwrap();
        assert!(!good, "zsh takes everything");
    }
    let fish = [script("fish").as_slice(), b"\ncomplete -C 'mustnot hea'\ncomplete -C 'mustnot check --sett'\n"].concat();
    if let Some((good, said)) = pipe(test, "fish", "fish", &["--no-config"], &fish) {
        let words: Vec<&str> = said.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert!(good && words == ["healthcheck", "--settle"], "{said}");
    }
    for shell in ["powershell", "elvish"] {
        assert!(String::from_utf8(script(shell)).unwrap().contains("healthcheck"), "{shell}");
    }
    let unknown = mustnot(&["completions", "tcsh"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn the_manual_page_is_one_to_its_readers() {
    let test = "the_manual_page_is_one_to_its_readers";
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("share/man/man1");
    let written = mustnot(&["man", "--output", pages.to_str().unwrap()]);
    assert_eq!((written.status.code(), out(&written)), (Some(0), String::new()), "{}", err(&written));
    let mut names: Vec<String> = std::fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for page in ["mustnot.1", "mustnot-check.1", "mustnot-config-explain.1", "mustnot-healthcheck.1", "mustnot-proxy-lint.1"] {
        assert!(names.contains(&page.to_string()), "{page}: {names:?}");
    }
    let page = out(&mustnot(&["man"]));
    assert!(std::fs::read_to_string(pages.join("mustnot.1")).unwrap() == page, "{page}");
    assert!(page.contains(".SH \"EXIT STATUS\"\nExit codes: 0 holds, 1 violated"), "{page}");
    for name in &names {
        let page = pages.join(name).display().to_string();
        if let Some((good, said)) = pipe(test, "mandoc", "mandoc", &["-T", "lint", "-W", "error", &page], b"") {
            assert!(good, "{name}: {said}");
        }
        if let Some((good, said)) = pipe(test, "man", "man-db", &["--warnings", "-P", "cat", "-l", &page], b"") {
            assert!(good && !said.contains("warning"), "{name}: {said}");
            let title = name.trim_end_matches(".1").to_uppercase();
            assert!(said.starts_with(&format!("{title}(1)")) && said.contains("SYNOPSIS"), "{name}: {said}");
        }
    }
    if let Some((_, said)) = pipe(test, "man", "man-db", &["-P", "cat", "-l", &pages.join("mustnot-check.1").display().to_string()], b"") {
        assert!(said.contains("--settle") && said.contains("Try what is violated or unproven again until then"), "{said}");
    }
    if let Some((good, _)) = pipe(test, "mandoc", "mandoc", &["-T", "lint", "-W", "error"], b".TH A 1\n.SH B\n.so /etc/passwd\n") {
        assert!(!good, "mandoc takes everything");
    }
    let nowhere = mustnot(&["man", "--output", "/proc/none"]);
    assert_eq!(nowhere.status.code(), Some(5), "{}", err(&nowhere));
    assert!(err(&nowhere).contains("name a directory where this user may write"), "{}", err(&nowhere));
}

/// Every command and every flag stands in docs/commands.md, and nothing else does.
#[test]
fn every_command_is_documented() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md")).unwrap();
    let mut missing = Vec::new();
    fn look(command: &clap::Command, name: &str, page: &str, missing: &mut Vec<String>) {
        if !name.is_empty() && !page.contains(&format!("`mustnot {name}")) {
            missing.push(format!("mustnot {name}"));
        }
        for flag in command.get_arguments().filter_map(|argument| argument.get_long()).filter(|flag| !["help", "version"].contains(flag)) {
            if !page.contains(&format!("`--{flag}")) {
                missing.push(format!("mustnot {name} --{flag}"));
            }
        }
        for sub in command.get_subcommands() {
            look(sub, format!("{name} {}", sub.get_name()).trim(), page, missing);
        }
    }
    look(&Cli::command(), "", &page, &mut missing);
    assert!(missing.is_empty(), "docs/commands.md says nothing of {missing:?}");
}
