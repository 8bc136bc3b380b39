//! The practice page of the quick start: an admin page that answers allowed sources and refuses all others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::serve::{self, Opening, Request, Response};

const PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>mustnot practice page</title>\n\
    <h1>Admin</h1>\n<p>You see this page because your address is on its allow list. Nobody else must.</p>\n</html>\n";

/// A practice page that listens, and does not answer before [`AdminPage::run`].
pub struct AdminPage {
    listener: TcpListener,
    address: SocketAddr,
    allow_from: Arc<[IpNet]>,
}

impl AdminPage {
    /// Listens on the address; port 0 takes a free one. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be had; the text names it and says what to do.
    pub fn bind(listen: SocketAddr, allow_from: Vec<IpNet>) -> Result<AdminPage, String> {
        let cannot = || format!("cannot listen on {listen}; choose another address");
        let listener = serve::listen(&[listen])?.pop().ok_or_else(cannot)?;
        let address = listener.local_addr().map_err(|_| cannot())?;
        Ok(AdminPage { listener, address, allow_from: allow_from.into() })
    }

    /// The address it listens on, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` says true or its sender is gone; then open connections have `grace` to end.
    pub async fn run(self, stop: watch::Receiver<bool>, grace: Duration) {
        let AdminPage { listener, allow_from, .. } = self;
        serve::serve(vec![listener], stop, grace, |stream, peer, _| receive(stream, peer.ip(), Arc::clone(&allow_from))).await;
    }
}

async fn receive(mut stream: TcpStream, source: IpAddr, allow_from: Arc<[IpNet]>) {
    let answer = match serve::read_opening(&mut stream, serve::REQUEST_LIMIT, |_| false).await {
        Opening::Request(request) => respond(&request, source, &allow_from).bytes(request.head_alone()),
        Opening::Word(_) | Opening::Nothing => Vec::new(),
    };
    serve::answer_and_close(stream, &answer).await;
}

/// 1. the source, of the connection and never of a header; 2. the path.
fn respond(request: &Request, source: IpAddr, allow_from: &[IpNet]) -> Response {
    if !allow_from.iter().any(|net| net.contains(&source)) {
        return Response::text("403 Forbidden", "your address is not on the allow list\n".into());
    }
    if !request.reads() || request.path() != "/" {
        return Response::text("404 Not Found", "there is only /\n".into());
    }
    Response { status: "200 OK", content_type: "text/html; charset=utf-8", body: PAGE.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_decides_before_the_path() {
        let allow: Vec<IpNet> = vec!["127.0.0.0/28".parse().unwrap(), "2001:db8::/64".parse().unwrap()];
        let cases = [
            ("GET", "/", "127.0.0.15", "200 OK"),
            ("HEAD", "/?x", "2001:db8::1", "200 OK"),
            ("GET", "/", "127.0.0.16", "403 Forbidden"),
            ("GET", "/", "2001:db8:0:1::", "403 Forbidden"),
            ("GET", "/x", "127.0.0.16", "403 Forbidden"),
            ("GET", "/x", "127.0.0.1", "404 Not Found"),
            ("POST", "/", "127.0.0.1", "404 Not Found"),
        ];
        for (method, target, source, status) in cases {
            let request = Request { method: method.into(), target: target.into() };
            assert_eq!(respond(&request, source.parse().unwrap(), &allow).status, status, "{method} {target} from {source}");
        }
        let request = Request { method: "GET".into(), target: "/".into() };
        assert_eq!(respond(&request, [127, 0, 0, 1].into(), &[]).status, "403 Forbidden", "nobody, by default");
    }
}
