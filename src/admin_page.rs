//! The practice page of the quick start: an admin page that answers allowed sources and refuses all others, and a door
//! behind it that opens for them by a knock.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::serve::{self, Opening, Request, Response};

mod door;

use door::{Door, Visit};

const PAGE: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>mustnot practice page</title>\n\
    <h1>Admin</h1>\n<p>You see this page because your address is on its allow list. Nobody else must.</p>\n</html>\n";

/// A practice page that listens, and does not answer before [`AdminPage::run`].
pub struct AdminPage {
    listener: TcpListener,
    address: SocketAddr,
    house: House,
}

/// What every connection needs to know.
struct House {
    allow_from: Vec<IpNet>,
    door: Option<Door>,
}

/// What a request comes to.
enum Decision {
    Answer(Response),
    /// Open the door for this source.
    Open(Ipv4Addr),
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
        Ok(AdminPage { listener, address, house: House { allow_from, door: None } })
    }

    /// The page with a door: `GET /door` from an allowed source opens that port for one connection of this source, within
    /// half a second. At all other times, and for everybody else, the port is closed.
    #[must_use]
    pub fn with_door(mut self, door: SocketAddrV4) -> AdminPage {
        self.house.door = Some(Door::new(door));
        self
    }

    /// The address it listens on, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` says true or its sender is gone; then open connections have `grace` to end.
    pub async fn run(self, stop: watch::Receiver<bool>, grace: Duration) {
        let AdminPage { listener, house, .. } = self;
        let house = Arc::new(house);
        serve::serve(vec![listener], stop, grace, |stream, peer, _| receive(stream, peer.ip(), Arc::clone(&house))).await;
    }
}

async fn receive(mut stream: TcpStream, source: IpAddr, house: Arc<House>) {
    let (answer, visit) = match serve::read_opening(&mut stream, serve::REQUEST_LIMIT, |_| false).await {
        Opening::Request(request) => {
            let (response, visit) = house.respond(&request, source).await;
            (response.bytes(request.head_alone()), visit)
        }
        Opening::Word(_) | Opening::Nothing => (Vec::new(), None),
    };
    let answered = serve::answer_and_close(stream, &answer);
    match visit {
        // The visitor comes while the first connection still closes.
        Some(visit) => drop(join(answered, visit.receive()).await),
        None => answered.await,
    }
}

impl House {
    async fn respond(&self, request: &Request, source: IpAddr) -> (Response, Option<Visit>) {
        match (decide(request, source, &self.allow_from, self.door.is_some()), &self.door) {
            (Decision::Answer(response), _) => (response, None),
            (Decision::Open(visitor), Some(door)) => match door.open(visitor).await {
                Ok(visit) => (Response::see_other(format!("http://{}/", door.address())), Some(visit)),
                Err(why) => (Response::text("503 Service Unavailable", format!("{why}\n")), None),
            },
            (Decision::Open(_), None) => (nothing_there(), None),
        }
    }
}

/// 1. the source, of the connection and never of a header; 2. the path; 3. for the door, that the filter can name the source.
fn decide(request: &Request, source: IpAddr, allow_from: &[IpNet], has_door: bool) -> Decision {
    if !allow_from.iter().any(|net| net.contains(&source)) {
        return Decision::Answer(Response::text("403 Forbidden", "your address is not on the allow list\n".into()));
    }
    let page = || Response::page("200 OK", PAGE.into());
    match (request.path(), source) {
        ("/", _) if request.reads() => Decision::Answer(page()),
        ("/door", IpAddr::V4(visitor)) if has_door && request.method == "GET" => Decision::Open(visitor),
        ("/door", IpAddr::V6(_)) if has_door => {
            Decision::Answer(Response::text("400 Bad Request", "the door is for IPv4; knock from an IPv4 address\n".into()))
        }
        _ => Decision::Answer(nothing_there()),
    }
}

fn nothing_there() -> Response {
    Response::text("404 Not Found", "there is only /\n".into())
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
            ("GET", "/door", "127.0.0.16", "403 Forbidden"),
            ("GET", "/door", "127.0.0.1", "open for 127.0.0.1"),
            ("GET", "/door?again", "127.0.0.2", "open for 127.0.0.2"),
            ("HEAD", "/door", "127.0.0.1", "404 Not Found"),
            ("GET", "/door", "2001:db8::1", "400 Bad Request"),
        ];
        let status = |request: &Request, source: &str, allow: &[IpNet], door| match decide(request, source.parse().unwrap(), allow, door) {
            Decision::Answer(response) => response.status.to_string(),
            Decision::Open(visitor) => format!("open for {visitor}"),
        };
        for (method, target, source, expected) in cases {
            let request = Request { method: method.into(), target: target.into() };
            assert_eq!(status(&request, source, &allow, true), expected, "{method} {target} from {source}");
        }
        let request = |target: &str| Request { method: "GET".into(), target: target.into() };
        assert_eq!(status(&request("/"), "127.0.0.1", &[], true), "403 Forbidden", "nobody, by default");
        assert_eq!(status(&request("/door"), "127.0.0.1", &[], true), "403 Forbidden", "nobody, by default");
        assert_eq!(status(&request("/door"), "127.0.0.1", &allow, false), "404 Not Found", "there is no door");
    }
}
