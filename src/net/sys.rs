//! The only `unsafe` of the program: `TCP_INFO` and `SO_MEMINFO`, the kernel's own word on a socket, `SO_RCVLOWAT`, and watching a socket.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A TCP state as the kernel numbers it (include/net/tcp_states.h).
pub const SYN_SENT: u8 = 2;
/// The kernel's number for "the handshake's second half".
pub const SYN_RECV: u8 = 3;
/// The kernel's number for "over".
pub const CLOSE: u8 = 7;

/// What `TCP_INFO` says of a handshake (tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// The connection's state.
    pub state: u8,
    /// Retransmission timers that went off for the segment in flight, whether or not the packet left the host.
    pub timers: u8,
    /// Segments that were really sent again.
    pub retransmits: u32,
}

/// Reads `TCP_INFO`.
///
/// # Errors
/// What getsockopt(2) says; EINVAL where the kernel gave less than the fields that are read.
#[expect(unsafe_code, reason = "no safe wrapper of TCP_INFO exists in nix, socket2 or rustix")]
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` is writable memory of `length` bytes for the whole call, and the kernel writes at most `length`
    // bytes into it and the written length into `length`. The descriptor is borrowed, hence open.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let needed = std::mem::offset_of!(libc::tcp_info, tcpi_total_retrans) + size_of::<u32>();
    if (length as usize) < needed {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: all bytes were zeroed, and tcp_info is integers and bit fields only, for which any bytes are valid.
    let info = unsafe { info.assume_init() };
    Ok(TcpInfo { state: info.tcpi_state, timers: info.tcpi_retransmits, retransmits: info.tcpi_total_retrans })
}

/// Bytes of packets that are sent and have not left this host (`SO_MEMINFO`, linux/sock_diag.h): they wait for a device, or
/// for a neighbour's hardware address.
///
/// # Errors
/// What getsockopt(2) says; EINVAL where the kernel gave less than the field that is read.
#[expect(unsafe_code, reason = "no safe wrapper of SO_MEMINFO exists in nix, socket2 or rustix")]
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// `SK_MEMINFO_VARS`, and the place of `SK_MEMINFO_WMEM_ALLOC` among them.
    const VARS: usize = 9;
    const WMEM_ALLOC: usize = 2;
    let mut info = [0_u32; VARS];
    let mut length = size_of::<[u32; VARS]>() as libc::socklen_t;
    // SAFETY: `info` is writable memory of `length` bytes for the whole call, and the kernel writes at most `length`
    // bytes into it and the written length into `length`; any bytes are valid integers. The descriptor is borrowed, hence open.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut length) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let given = (length as usize) / size_of::<u32>();
    info.get(WMEM_ALLOC).copied().filter(|_| given > WMEM_ALLOC).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// From how many unread bytes on a socket counts as readable for poll(2) and epoll(7): `SO_RCVLOWAT` (socket(7)). The kernel bounds it.
///
/// # Errors
/// What setsockopt(2) says.
#[expect(unsafe_code, reason = "no safe wrapper of SO_RCVLOWAT exists in nix, socket2 or rustix")]
pub fn tell_from(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `bytes` is readable memory of `length` bytes for the whole call. The descriptor is borrowed, hence open.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Registers a socket with the runtime for anything that may happen to it.
///
/// # Errors
/// What epoll_ctl(2) says.
#[expect(unsafe_code, reason = "tokio cannot see that a socket2::Socket owns its descriptor")]
pub fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    let interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::ERROR);
    // SAFETY: a `Socket` owns its descriptor: it is open, stays the same for the socket's whole life, and is closed only
    // by its drop, which the `AsyncFd` performs after it has deregistered it.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}
