//! A door: a closed port that a knock opens for one visit of one source, and for nobody else.
//!
//! A socket cannot refuse a handshake by its source, so the port is closed for everybody until an allowed source knocks.
//! While it is open, a filter on the listener drops the packets of all others: a stranger who tries in that very moment
//! gets no answer, tries again a second later, and is refused then.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::serve::{self, Response};

/// How long the door waits for its visitor, who is on the way already.
const OPEN_FOR: Duration = Duration::from_millis(500);
/// How long the door stays closed after it waited in vain: longer than the second after which a dropped SYN is sent again
/// (RFC 6298 section 2), so that no stranger is met by silence twice in a row.
const REST: Duration = Duration::from_millis(1200);
/// How long a knock waits for its turn; less than a client's usual patience.
const TURN_LIMIT: Duration = Duration::from_secs(4);
/// How long the visitor may take over the request.
const REQUEST_LIMIT: Duration = Duration::from_secs(1);
/// One handshake at a time (listen(2)).
const BACKLOG: i32 = 1;
/// Where an IPv4 header has its source address (RFC 791 section 3.1).
const SOURCE_OFFSET: i32 = 12;

/// A port that is closed, save for one visit at a time.
pub(super) struct Door {
    address: SocketAddrV4,
    /// Whoever holds it may open the door, and not before that moment.
    turn: Arc<Mutex<Instant>>,
}

/// The door stands open for one visitor.
pub(super) struct Visit {
    listener: TcpListener,
    visitor: Ipv4Addr,
    until: Instant,
    turn: OwnedMutexGuard<Instant>,
}

impl Door {
    /// A closed door.
    pub(super) fn new(address: SocketAddrV4) -> Door {
        Door { address, turn: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Opens it for one connection of that source, as soon as nobody else's visit is under way.
    ///
    /// # Errors
    /// Why it stays closed.
    pub(super) async fn open(&self, visitor: Ipv4Addr) -> Result<Visit, String> {
        let turn = timeout(TURN_LIMIT, async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            sleep_until(*turn).await;
            turn
        });
        let turn = turn.await.map_err(|_| format!("the door {} is busy; knock again", self.address))?;
        let listener = listen(self.address, visitor).map_err(|e| {
            tracing::warn!(door = %self.address, error = %e, "the door cannot be opened");
            format!("the door {} cannot be opened: {e}", self.address)
        })?;
        Ok(Visit { listener, visitor, until: Instant::now() + OPEN_FOR, turn })
    }
}

impl Visit {
    /// Receives the visitor, or waits in vain; either way the door is closed before anything else happens.
    pub(super) async fn receive(self) {
        let Visit { listener, visitor, until, mut turn } = self;
        let came = timeout_at(until, listener.accept()).await;
        drop(listener);
        if came.is_err() {
            *turn = Instant::now() + REST;
        }
        drop(turn);
        if let Ok(Ok((stream, peer))) = came
            && peer.ip() == visitor
        {
            greet(stream).await;
        }
    }
}

async fn greet(mut stream: TcpStream) {
    serve::read_opening(&mut stream, REQUEST_LIMIT, |_| false).await;
    let page = Response::text("200 OK", "the door was open for you, once, and is closed again\n".into());
    serve::answer_and_close(stream, &page.bytes(false)).await;
}

/// A listener that hears one source alone. The filter comes before listen(2): there is no moment without it.
fn listen(address: SocketAddrV4, visitor: Ipv4Addr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&only_from(visitor))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Classic BPF (SO_ATTACH_FILTER, socket(7)): the whole packet if its IPv4 source is this one, else nothing.
fn only_from(source: Ipv4Addr) -> [SockFilter; 4] {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // The packet as a TCP socket's filter sees it begins at the TCP header; SKF_NET_OFF (linux/filter.h) counts from the IP header.
    let source_address = (libc::SKF_NET_OFF + SOURCE_OFFSET).cast_unsigned();
    [
        SockFilter::new(LOAD_WORD, 0, 0, source_address),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(source)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
