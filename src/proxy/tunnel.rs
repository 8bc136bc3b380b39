//! A tunnel: bytes both ways, each half closed by itself, one idle clock for both, and always an end.
//!
//! Bytes are copied through one buffer a worker, so an idle tunnel has none. A direction that has moved much, and moves much at a time, goes
//! through a pipe ([`pipes`](crate::proxy::pipes)); whether there is an end, an error or urgent data is still asked by recv(2) alone.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use prometheus::IntCounter;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::net::sys;
use crate::proxy::pipes::{self, Pipe, Pipes};
use crate::proxy::wheel::{Limits, Place, Wheel};

/// How much is copied in one step.
const STEP: usize = 64 * 1024;
/// How much a direction moves before it lets others have the worker.
const TURN: u64 = 1024 * 1024;
/// How much a direction must have moved before it is spliced: below, setting up pipes is not worth it.
const MUCH: u64 = 256 * 1024;
/// How much must be there at a time: below, a copy costs less than the two calls of a splice.
const AT_A_TIME: usize = 16 * 1024;

thread_local! {
    /// A step borrows it between two awaits.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; STEP]);
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides had finished.
    Closed,
    /// A side failed.
    Reset,
    /// Nothing was moved for too long.
    Idle,
    /// Nothing was moved for too long after one side had ended.
    HalfOpen,
    /// It lasted too long.
    Lifetime,
    /// The proxy stops.
    Shutdown,
}

/// What all tunnels share.
#[derive(Debug)]
pub struct Tunnels {
    wheel: Wheel,
    pipes: Pipes,
}

impl Tunnels {
    /// No tunnels yet. How often their clock ticks follows from the limits that most of them will have.
    pub fn new(limits: Limits) -> Tunnels {
        Tunnels { wheel: Wheel::new(limits), pipes: Pipes::default() }
    }

    /// A place on their clock, for what lasts no longer than `limits` say.
    pub(super) fn place(&self, limits: Limits) -> Place<'_> {
        self.wheel.place(limits)
    }

    /// Keeps their clock until nobody else has them, or `cut` is true or its sender gone: then all end.
    pub fn keep(self: &Arc<Self>, mut cut: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(self.wheel.tick());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let tunnels = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                let stop = tokio::select! {
                    _ = ticks.tick() => false,
                    _ = cut.wait_for(|cut| *cut) => true,
                };
                let Some(tunnels) = tunnels.upgrade() else { return };
                if stop {
                    return tunnels.wheel.stop();
                }
                tunnels.wheel.turn();
                tunnels.pipes.shrink();
            }
        });
    }
}

/// The bytes of one direction, counted as they are moved.
#[derive(Debug)]
pub struct Meter {
    moved: AtomicU64,
    counter: IntCounter,
}

impl Meter {
    /// A meter at 0 that also adds to `counter`.
    pub fn new(counter: IntCounter) -> Meter {
        Meter { moved: AtomicU64::new(0), counter }
    }

    /// The bytes so far.
    pub fn total(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Counts bytes.
    pub(super) fn add(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        self.counter.inc_by(bytes as u64);
    }
}

/// Relays until both sides have ended, one of them fails, a limit is reached or the proxy stops. `early` goes to `server` first.
///
/// What ends in failure or by force is reset on both legs, so that neither side takes it for the end of the data.
pub async fn relay(
    tunnels: &Tunnels,
    limits: Limits,
    client: &TcpStream,
    server: &TcpStream,
    early: Vec<u8>,
    (sent, received): (&Meter, &Meter),
) -> End {
    let place = tunnels.place(limits);
    let way = |from, to, meter, held| Way {
        from,
        to,
        meter,
        place: &place,
        pipes: &tunnels.pipes,
        held,
        bulk: false,
        hushed: false,
        ended: false,
    };
    let mut up = way(client, server, sent, Held::bytes(early));
    let mut down = way(server, client, received, Held::Nothing);
    let end = poll_fn(|context| {
        if let Poll::Ready(end) = place.poll_over(context) {
            return Poll::Ready(end);
        }
        // both are polled, always: a direction that is not would not be woken
        match (up.poll(context), down.poll(context)) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(End::Reset),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Closed),
            (Poll::Pending, _) | (_, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    match end {
        End::Reset | End::Lifetime | End::Shutdown => {
            reset(client);
            reset(server);
        }
        End::Closed | End::Idle | End::HalfOpen => {}
    }
    end
}

/// Makes the connection's close a reset.
pub fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// One direction.
struct Way<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    meter: &'a Meter,
    place: &'a Place<'a>,
    pipes: &'a Pipes,
    held: Held<'a>,
    /// Whether much is moved at a time.
    bulk: bool,
    /// Whether `from` is to tell of nothing but much, see [`Way::hush`].
    hushed: bool,
    ended: bool,
}

/// What was read and could not be written yet.
enum Held<'a> {
    Nothing,
    Bytes(Box<[u8]>, usize),
    /// And whether more followed it.
    Piped(Pipe<'a>, bool),
}

impl Held<'_> {
    fn bytes(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() { Held::Nothing } else { Held::Bytes(bytes.into(), 0) }
    }
}

impl Way<'_> {
    /// Moves what can be moved now. Done once `from` has ended and `to` was told.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let begun = self.meter.total();
        let moved = self.poll_moving(context, begun);
        // what a look at an empty socket moved says nothing
        if self.meter.total() > begun {
            self.bulk = self.meter.total() - begun >= AT_A_TIME as u64;
        }
        moved
    }

    fn poll_moving(&mut self, context: &mut Context<'_>, begun: u64) -> Poll<io::Result<()>> {
        let mut much_is_there = self.bulk;
        while !self.ended {
            if self.meter.total() - begun >= TURN {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !matches!(self.held, Held::Nothing) {
                let Poll::Ready(ready) = self.to.poll_write_ready(context) else {
                    self.hush(matches!(self.held, Held::Piped(..)))?;
                    return Poll::Pending;
                };
                ready?;
                self.let_go()?;
                continue;
            }
            self.hush(false)?;
            ready!(self.from.poll_read_ready(context))?;
            let spliced = if much_is_there && self.meter.total() >= MUCH { self.splice()? } else { 0 };
            // after a little only the rest is there, which is not worth a splice
            much_is_there = if spliced > 0 { spliced } else { self.copy()? } >= AT_A_TIME;
        }
        Poll::Ready(Ok(()))
    }

    /// While `to` takes nothing, nobody asks what more `from` has, and to be told of each segment of a bulk costs more than to move it.
    /// Half its buffer is told of, and so are its end, a failure, and a window that has closed (tcp_data_ready() in net/ipv4/tcp_input.c).
    /// Once it shall tell of all again it tells of what is there.
    fn hush(&mut self, hushed: bool) -> io::Result<()> {
        if self.hushed != hushed {
            let least = if hushed { SockRef::from(self.from).recv_buffer_size()? / 2 } else { 1 };
            sys::tell_from(self.from.as_fd(), least)?;
            self.hushed = hushed;
        }
        Ok(())
    }

    /// Reads what is there, writes what is taken, and says how much was there.
    fn copy(&mut self) -> io::Result<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            // less than asked for does not mean that no more is there: a read stops at urgent data, and no event tells of what is behind it
            let count = match self.from.try_io(Interest::READABLE, || (&*SockRef::from(self.from)).read(scratch)) {
                Ok(count) => count,
                Err(error) => return unless_blocked(Err(error)).map(|()| 0),
            };
            if count == 0 {
                self.end()?;
            } else {
                let bytes = scratch.get(..count).unwrap_or_default();
                let written = self.write(bytes)?;
                self.held = Held::bytes(bytes.get(written..).unwrap_or_default().to_vec());
            }
            Ok(count)
        })
    }

    /// Has the kernel move what is there, and says how much that was. Where it is nothing, [`Way::copy`] sees why.
    fn splice(&mut self) -> io::Result<usize> {
        let Some(mut pipe) = self.pipes.take() else { return Ok(0) };
        match pipe.fill(self.from) {
            Ok(0) => Ok(0),
            Ok(count) => {
                self.held = Held::Piped(pipe, self.more()?);
                self.let_go()?;
                Ok(count)
            }
            Err(why) if pipes::is_refusal(&why) => {
                self.pipes.refuse(&why);
                Ok(0)
            }
            // it must not be asked again by a read: the kernel tells of a reset once
            Err(why) => Err(why),
        }
    }

    /// Whether more bytes are there. Mostly there are none, and to see that takes less than a splice and a read that find nothing.
    fn more(&self) -> io::Result<bool> {
        let mut first = [MaybeUninit::uninit()];
        match self.from.try_io(Interest::READABLE, || SockRef::from(self.from).peek(&mut first)) {
            Ok(count) => Ok(count > 0),
            Err(error) => unless_blocked(Err(error)).map(|()| false),
        }
    }

    /// Writes of what is held as much as is taken.
    fn let_go(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => Ok(()),
            Held::Bytes(bytes, begin) => {
                let end = begin + self.write(bytes.get(begin..).unwrap_or_default())?;
                if end < bytes.len() {
                    self.held = Held::Bytes(bytes, end);
                }
                Ok(())
            }
            Held::Piped(mut pipe, more) => {
                while pipe.held() > 0 {
                    match self.to.try_io(Interest::WRITABLE, || pipe.pour(self.to, more)) {
                        Ok(count) => self.moved(count),
                        Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                            self.held = Held::Piped(pipe, more);
                            return Ok(());
                        }
                        Err(why) if pipes::is_refusal(&why) => {
                            self.pipes.refuse(&why);
                            self.held = Held::bytes(pipe.empty()?);
                            return Ok(());
                        }
                        Err(why) => return Err(why),
                    }
                }
                Ok(())
            }
        }
    }

    /// Writes what is taken of `bytes`, and says how much that was.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut count = 0;
        let written = self.to.try_io(Interest::WRITABLE, || {
            count = SockRef::from(self.to).send(bytes)?;
            // less than was given: the socket is full, and the call that would say so is saved (epoll(7), question 9)
            if count < bytes.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        unless_blocked(written)?;
        if count > 0 {
            self.moved(count);
        }
        Ok(count)
    }

    fn moved(&self, count: usize) {
        self.meter.add(count);
        self.place.beat();
    }

    /// `from` has ended.
    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        if self.place.half_closed() {
            // both have: the close that follows says it
            return Ok(());
        }
        match SockRef::from(self.to).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// No error, where only more could not be had.
fn unless_blocked(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) })
}

impl End {
    /// The token in the log.
    pub fn label(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Reset => "reset",
            End::Idle => "idle",
            End::HalfOpen => "half-open",
            End::Lifetime => "lifetime",
            End::Shutdown => "shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    /// Enough to be spliced, and more than all buffers between two sockets hold.
    const BULK: usize = 24 * 1024 * 1024;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (one.unwrap(), other.unwrap().0)
    }

    const LONG: Duration = Duration::from_secs(600);
    const LIMITS: Limits = Limits { idle: LONG, half_open: LONG, lifetime: LONG };

    fn tunnels() -> Arc<Tunnels> {
        Arc::new(Tunnels::new(LIMITS))
    }

    /// A tunnel between the two that are given back, and its end.
    async fn stand(tunnels: &Arc<Tunnels>) -> (TcpStream, TcpStream, tokio::task::JoinHandle<End>) {
        stand_between(tunnels, pair().await, pair().await)
    }

    fn stand_between(
        tunnels: &Arc<Tunnels>,
        (client, near): (TcpStream, TcpStream),
        (far, server): (TcpStream, TcpStream),
    ) -> (TcpStream, TcpStream, tokio::task::JoinHandle<End>) {
        let tunnels = tunnels.clone();
        let running = tokio::spawn(async move {
            let meter = || Meter::new(IntCounter::new("bytes", "bytes").unwrap());
            relay(&tunnels, LIMITS, &near, &far, Vec::new(), (&meter(), &meter())).await
        });
        (client, server, running)
    }

    /// Sends so much from one to the other, and sees that it comes as it was.
    async fn pass(from: &mut TcpStream, to: &mut TcpStream) {
        pass_some(from, to, BULK).await;
    }

    async fn pass_some(from: &mut TcpStream, to: &mut TcpStream, size: usize) {
        let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let mut got = vec![0; size];
        let both = async { tokio::try_join!(from.write_all(&bytes), to.read_exact(&mut got)) };
        tokio::time::timeout(PATIENCE, both).await.expect("all arrives").unwrap();
        assert!(got == bytes, "what arrived is what was sent");
    }

    #[tokio::test]
    async fn bulk_is_spliced_and_the_pipe_is_free_again_though_the_tunnel_stands() {
        let tunnels = tunnels();
        let (mut client, mut server, running) = stand(&tunnels).await;
        client.write_all(b"little").await.unwrap();
        server.read_exact(&mut [0; 6]).await.unwrap();
        assert_eq!(tunnels.pipes.count(), (0, 0), "little is copied");
        pass(&mut client, &mut server).await;
        pass(&mut server, &mut client).await;
        let (used, spare) = tunnels.pipes.count();
        assert!(used == 0 && spare > 0, "{used} {spare}");
        drop((client, server));
        assert_eq!(running.await.unwrap(), End::Closed);
    }

    #[tokio::test]
    async fn without_a_pipe_and_without_splicing_bulk_passes_all_the_same() {
        let tunnels = tunnels();
        let hoard: Vec<_> = std::iter::from_fn(|| tunnels.pipes.take()).collect();
        let (mut client, mut server, _running) = stand(&tunnels).await;
        pass(&mut client, &mut server).await;
        drop(hoard);
        tunnels.pipes.refuse(&io::Error::from_raw_os_error(libc::ENOSYS));
        pass(&mut server, &mut client).await;
    }

    #[tokio::test]
    async fn what_is_held_is_written_on_from_where_it_stood() {
        for spliced in [false, true] {
            let tunnels = tunnels();
            let hoard: Vec<_> = std::iter::from_fn(|| if spliced { None } else { tunnels.pipes.take() }).collect();
            let (clients, servers) = (pair().await, pair().await);
            // what is read at once is written in many parts
            SockRef::from(&servers.0).set_send_buffer_size(16 * 1024).unwrap();
            let (mut client, mut server, _running) = stand_between(&tunnels, clients, servers);
            pass_some(&mut client, &mut server, 2 * 1024 * 1024).await;
            drop(hoard);
        }
    }

    #[tokio::test]
    async fn what_is_held_for_a_reader_that_pauses_stays_in_one_pipe_and_goes_with_a_reset() {
        let tunnels = tunnels();
        let (mut client, mut server, running) = stand(&tunnels).await;
        pass(&mut server, &mut client).await;
        let flood = tokio::spawn(async move { server.write_all(&vec![7; BULK]).await });
        let stuck = async {
            while tunnels.pipes.count().0 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, stuck).await.expect("a pipe holds what the client does not take");
        reset(&client);
        drop(client);
        assert_eq!(tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap(), End::Reset);
        assert_eq!(tunnels.pipes.count(), (0, 0));
        assert_eq!(flood.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn little_that_comes_while_the_reader_pauses_and_after_it_is_not_forgotten() {
        let tunnels = tunnels();
        let (mut client, mut server, _running) = stand(&tunnels).await;
        pass(&mut server, &mut client).await;
        /// One segment of loopback, and enough to be spliced.
        const STEP: usize = 32 * 1024;
        let mut size = 0;
        let stuck = async {
            while tunnels.pipes.count().0 == 0 {
                server.write_all(&[7; STEP]).await.unwrap();
                size += STEP;
                // the tunnel takes each before the next, so that nothing is left to read when it is stuck
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, stuck).await.expect("a pipe holds what the client does not take");
        server.write_all(b"last").await.unwrap();
        let mut got = vec![0; size + 4];
        tokio::time::timeout(PATIENCE, client.read_exact(&mut got)).await.expect("all arrives").unwrap();
        assert!(got.ends_with(b"\x07last"));
        pass_some(&mut server, &mut client, 4).await;
    }

    #[tokio::test]
    async fn a_reset_in_the_midst_of_splicing_is_no_end_of_the_data() {
        let tunnels = tunnels();
        for _ in 0..16 {
            let (mut client, mut server, running) = stand(&tunnels).await;
            let flood = tokio::spawn(async move {
                server.write_all(&vec![7; BULK]).await.unwrap();
                reset(&server);
            });
            let mut got = 0;
            let mut buffer = vec![0; 64 * 1024];
            let error = loop {
                match client.read(&mut buffer).await {
                    Ok(0) => panic!("a reset was passed on as an end, after {got} bytes"),
                    Ok(count) => got += count,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(running.await.unwrap(), End::Reset);
            flood.await.unwrap();
        }
    }

    #[tokio::test]
    async fn urgent_data_holds_nothing_up() {
        let tunnels = tunnels();
        let (mut client, mut server, _running) = stand(&tunnels).await;
        for round in 0..16 {
            if round == 8 {
                // from here on it is spliced
                pass(&mut client, &mut server).await;
            }
            let half = if round < 8 { 1000 } else { 100_000 };
            client.write_all(&vec![1; half]).await.unwrap();
            // as RFC 6093 has it, one byte is out of band, and who does not ask for it does not see it
            SockRef::from(&client).send_out_of_band(b"!").unwrap();
            client.write_all(&vec![2; half]).await.unwrap();
            let mut got = vec![0; half * 2];
            tokio::time::timeout(PATIENCE, server.read_exact(&mut got)).await.expect("nothing is held up").unwrap();
            assert!(got[..half].iter().all(|b| *b == 1) && got[half..].iter().all(|b| *b == 2));
        }
    }
}
