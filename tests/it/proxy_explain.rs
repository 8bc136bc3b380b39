//! `mustnot proxy explain`: what it says is what the running proxy does.

use std::process::Command;

use mustnot::target::PortSet;

use super::proxy::{World, server};

#[tokio::test]
async fn what_is_explained_is_what_is_done() {
    let (_listener, at) = server().await;
    let port = at.port();
    let world = World::start(|s| {
        s.connect_ports = PortSet::parse([port.to_string().as_str(), "443"]).unwrap();
        s.http_ports = PortSet::parse(["81"]).unwrap();
        s.deny_to = vec![".denied.example".parse().unwrap(), "127.0.0.7".parse().unwrap()];
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "vantage = \"here\"\n[web]\nlisten = \"127.0.0.9:443\"\n[proxy]\nlisten = \"{}\"\nhealth_listen = \"127.0.0.8:443\"\nallow_from = \"127.0.0.1\"\nallow_private = \"127.0.0.0/8\"\n\
         connect_ports = [{port}, 443]\nhttp_ports = [81]\ndeny_to = [\".denied.example\", \"127.0.0.7\"]\n",
        world.at
    );
    std::fs::write(folder.path().join("probes.toml"), text).unwrap();
    let explain = |from: &str, to: &str| {
        let arguments = ["proxy", "explain", "--from", from, "--to", to];
        let output = Command::new(env!("CARGO_BIN_EXE_mustnot")).args(arguments).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (to, code, reason, because) in [
        (at.to_string(), 0, "allow", "no rule refuses it"),
        ("127.0.0.1".into(), 1, "parse", "\"127.0.0.1\" names no port; write host:port"),
        ("127.0.0.1:22".into(), 1, "port", "port 22 is not listed"),
        ("a.denied.example:443".into(), 1, "name", "deny_to has .denied.example"),
        ("127.0.0.7:443".into(), 1, "address", "127.0.0.7 is refused: deny_to has 127.0.0.7/32"),
        (
            "169.254.170.2:443".into(),
            1,
            "address",
            "169.254.170.2 is link-local and metadata (169.254.0.0/16, RFC 3927), and allow_private",
        ),
        ("[64:ff9b::a9fe:a9fe]:443".into(), 1, "address", "64:ff9b::a9fe:a9fe hides an address that is link-local and metadata"),
        ("[::ffff:10.0.0.1]:443".into(), 1, "address", "10.0.0.1 is private (10.0.0.0/8, RFC 1918)"),
        ("http://127.0.0.1:82/".into(), 1, "port", "port 82 is not listed"),
        ("http://10.0.0.1:81/".into(), 1, "address", "10.0.0.1 is private"),
        ("https://127.0.0.1:81/".into(), 1, "method", "only CONNECT is served"),
    ] {
        let (told, out, _) = explain("127.0.0.1", &to);
        assert_eq!(told, Some(code), "{to}: {out}");
        assert!(out.contains(&format!("\nreason     {reason} (")) && out.contains(because), "{to}: {out}");
        let done = match to.contains("://") {
            true => world.ask(format!("GET {to} HTTP/1.1\r\nHost: x\r\n\r\n")).await,
            false if code == 0 => {
                drop(world.tunnel(at).await);
                continue;
            }
            false => world.connect(&to).await,
        };
        assert!(done.contains(&format!("X-Mustnot-Reason: {reason}\r\n")), "{to}: {done}");
    }
    let (code, out, _) = explain("10.9.9.9", &at.to_string());
    assert!(code == Some(1) && out.contains("reason     source (403)"), "{out}");
    // its own listener, on a port that is listed
    let own = format!("127.0.0.1:{}", world.at.port());
    let (code, out, _) = explain("127.0.0.1", &own);
    assert!(code == Some(1) && out.contains("reason     port"), "{out}");
    // where it tells its health and shows its status, though allow_private has them
    for own in ["127.0.0.8:443", "127.0.0.9:443"] {
        let (code, out, _) = explain("127.0.0.1", own);
        assert!(code == Some(1) && out.contains(&format!("because    {own} is where this very process listens")), "{out}");
    }
    let (code, _, err) = explain("127.0.0.1", "a b:443");
    assert!(code == Some(2) && err.contains("white space"), "{err}");
}
