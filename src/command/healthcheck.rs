//! `mustnot healthcheck`: asks the monitor of this host whether it is well, for a container's `HEALTHCHECK`. It needs no shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::console;
use crate::cli::{EXIT_HOLDS, EXIT_UNWELL, Healthcheck};
use crate::config;
use crate::net::http::{Head, exchange};
use crate::net::tls::Client;
use crate::observation::{Evidence, Outcome};
use crate::target::{Host, Scheme, Url};

/// Asks once; 0 where it is well, and 1 for everything else, since Docker knows no other number.
pub async fn healthcheck(file: &Path, args: &Healthcheck) -> u8 {
    let url = match args.url.clone().map_or_else(|| own(file), Ok) {
        Ok(url) => url,
        Err(why) => return unwell(&why),
    };
    match ask(&url, Instant::now() + args.timeout).await {
        Ok(200) => {
            console::say(&format!("ok: {url}"));
            EXIT_HOLDS
        }
        Ok(status) => unwell(&format!("{url} answered {status}, not 200; its log says why, or --url names another listener's page")),
        Err(why) => unwell(&format!("{url} did not answer: {why}")),
    }
}

fn unwell(why: &str) -> u8 {
    eprintln!("mustnot: {why}");
    EXIT_UNWELL
}

/// Where the monitor of this configuration shows its health. Only `[web]`, or else the proxy's `health_listen`, is looked at: a file that
/// somebody is about to change must not get a monitor restarted that runs well by what it read before.
fn own(file: &Path) -> Result<Url, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| format!("{shown} cannot be read ({e}); name the configuration with --config, or the page with --url"))?;
    let (written, _) = config::read(&text, file.parent().unwrap_or(Path::new("")), &|name| std::env::var(name).ok());
    let web = written.web.and_then(|web| Some((web.listen?.value, if web.cert_file.is_some() { Scheme::Https } else { Scheme::Http })));
    let proxy = written.proxy.and_then(|proxy| Some((proxy.health_listen.first().copied()?, Scheme::Http)));
    let (listen, scheme) = web
        .or(proxy)
        .ok_or_else(|| format!("{shown} has neither [web] listen nor [proxy] health_listen; write one, or name the page with --url"))?;
    if listen.port() == 0 {
        return Err(format!("{shown} lets the system choose the port of {listen}; write one, or name the page with --url"));
    }
    page(listen, scheme)
}

fn page(listen: SocketAddr, scheme: Scheme) -> Result<Url, String> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("{scheme}://{}/healthz", SocketAddr::new(ip, listen.port())).parse()
}

/// The status of the answer. The certificate is not looked at: it carries the name by which others come, and this asks its own host.
async fn ask(url: &Url, deadline: Instant) -> Result<u16, String> {
    let late = |_| "not within the time-out; it hangs, or --timeout is too short".to_string();
    let stream = timeout_at(deadline, connect(url)).await.map_err(late)??;
    match url.scheme {
        Scheme::Http => get(url, stream, deadline).await,
        Scheme::Https => {
            let client = Client::anybody(&["http/1.1"]).map_err(|(_, why)| why)?;
            let mut evidence = Evidence::default();
            let shaken = client.shake(stream, &url.authority.host, deadline, &mut evidence).await;
            let shaken = shaken.map_err(|outcome| told("the TLS handshake", outcome, &evidence))?;
            get(url, shaken.stream, deadline).await
        }
    }
}

async fn connect(url: &Url) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = match &url.authority.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, url.authority.port)],
        Host::Name(name) => {
            let found = lookup_host((name.as_str(), url.authority.port)).await;
            found.map_err(|e| format!("{name} does not resolve: {e}"))?.collect()
        }
    };
    TcpStream::connect(addresses.as_slice()).await.map_err(|e| format!("{e}; is it running, and does it listen there?"))
}

async fn get<S: AsyncRead + AsyncWrite + Unpin>(url: &Url, mut stream: S, deadline: Instant) -> Result<u16, String> {
    let request =
        format!("GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: mustnot-healthcheck\r\nConnection: close\r\n\r\n", url.path, url.host_header());
    let mut evidence = Evidence::default();
    let answered = exchange(&mut stream, request.as_bytes(), deadline, &mut evidence).await;
    answered.map(|Head { status, .. }| status).map_err(|outcome| told("the answer", outcome, &evidence))
}

fn told(what: &str, outcome: Outcome, evidence: &Evidence) -> String {
    let more = evidence.tls_alert.as_ref().map(|alert| format!("alert {alert}")).or_else(|| evidence.detail.clone());
    format!("{what} ended as {outcome}{}", more.map_or(String::new(), |more| format!(" ({more})")))
}
