//! Pipes: through one, the kernel moves bytes from socket to socket without a copy (splice(2)). There are few; a direction of a tunnel has one
//! only while bytes are in it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// The most pipes of one proxy; who finds none copies. Their descriptors are part of those that no tunnel gets, see `limit`.
const MOST: usize = 64;
/// What a pipe is asked to hold. The kernel may refuse (`fs.pipe-user-pages-soft` is 64 MiB a user); it holds 64 KiB then.
const ROOM: i32 = 512 * 1024;

/// The pipes of one proxy.
#[derive(Debug, Default)]
pub struct Pipes {
    /// Empty ones that nobody uses.
    spare: Mutex<Vec<Arc<Ends>>>,
    /// All, in use or not.
    made: AtomicUsize,
    /// Whether the kernel has said that it does not splice here: a seccomp filter, gVisor, a very old one.
    refused: AtomicBool,
}

#[derive(Debug)]
struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

/// A pipe and how many bytes are in it. Dropped empty, it is used again; with bytes in it, it is closed, since they belong to a tunnel that is over.
#[derive(Debug)]
pub struct Pipe<'a> {
    pipes: &'a Pipes,
    ends: Arc<Ends>,
    held: usize,
}

impl Pipes {
    /// An empty pipe, unless all are taken or there is no splicing here.
    pub fn take(&self) -> Option<Pipe<'_>> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let spare = self.spare().pop();
        let ends = spare.or_else(|| {
            let one_more = |made| (made < MOST).then_some(made + 1);
            self.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
            let made = Ends::new();
            if made.is_none() {
                self.made.fetch_sub(1, Ordering::Relaxed);
            }
            made.map(Arc::new)
        })?;
        Some(Pipe { pipes: self, ends, held: 0 })
    }

    /// Closes half of those that nobody uses. Called once in a while, it lets go of them all when they are not needed any more.
    pub fn shrink(&self) {
        let mut spare = self.spare();
        let half = spare.len() / 2;
        let closed = spare.drain(half..).count();
        self.made.fetch_sub(closed, Ordering::Relaxed);
    }

    /// Nobody splices any more.
    pub fn refuse(&self, why: &io::Error) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::info!(%why, "the kernel does not splice here; the proxy copies");
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Arc<Ends>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ends {
    fn new() -> Option<Ends> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        // room for more is welcome, and nothing depends on it
        let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(ROOM));
        Some(Ends { out, into })
    }
}

impl Pipe<'_> {
    /// How many bytes are in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes what is there from a socket, and says how much. Nothing is no bytes, the end, or urgent data, which splice(2) does not pass:
    /// whoever reads will see. To be asked of an empty pipe only: then EAGAIN cannot mean that the pipe is full.
    ///
    /// # Errors
    /// Of the socket, or a refusal to splice ([`is_refusal`]).
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        match splice(from, None, &self.ends.into, None, ROOM as usize, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(0) | Err(Errno::EAGAIN) => Ok(0),
            Ok(count) => {
                self.held += count;
                Ok(count)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives to a socket what it takes of what is held. Where `more` follows at once, the last segment waits to be filled by it (`SPLICE_F_MORE`):
    /// it would be a small one, and each costs what a large one does.
    ///
    /// # Errors
    /// Of the socket, `WouldBlock` among them, or a refusal to splice ([`is_refusal`]).
    pub fn pour(&mut self, to: impl AsFd, more: bool) -> io::Result<usize> {
        let mut flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        flags.set(SpliceFFlags::SPLICE_F_MORE, more);
        let count = splice(&self.ends.out, None, to, None, self.held, flags)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }

    /// Reads what is held into memory, where the kernel splices in but not out.
    ///
    /// # Errors
    /// Of the pipe.
    pub fn empty(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.held];
        File::from(self.ends.out.try_clone()?).read_exact(&mut bytes)?;
        self.held = 0;
        Ok(bytes)
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        if self.held == 0 {
            self.pipes.spare().push(self.ends.clone());
        } else {
            self.pipes.made.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether an error of splice(2) says that it cannot be had here at all, by man page or by seccomp filter, and nothing of the socket.
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EOPNOTSUPP))
}

#[cfg(test)]
impl Pipes {
    /// Those in use, and those that are spare.
    pub(super) fn count(&self) -> (usize, usize) {
        let spare = self.spare().len();
        (self.made.load(Ordering::Relaxed) - spare, spare)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        one.set_nonblocking(true).unwrap();
        other.set_nonblocking(true).unwrap();
        (one, other)
    }

    #[test]
    fn there_are_so_many_and_no_more_and_they_are_used_again_until_nobody_needs_them() {
        let pipes = Pipes::default();
        let taken: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!((taken.len(), pipes.count()), (MOST, (MOST, 0)));
        drop(taken);
        assert_eq!(pipes.count(), (0, MOST));
        drop(pipes.take().unwrap());
        assert_eq!(pipes.count(), (0, MOST), "none was made anew");
        for _ in 0..8 {
            pipes.shrink();
        }
        assert_eq!(pipes.count(), (0, 0));
    }

    #[test]
    fn bytes_pass_and_a_pipe_with_bytes_in_it_is_never_used_again() {
        let pipes = Pipes::default();
        let ((mut client, near), (far, mut server)) = (pair(), pair());
        client.write_all(b"some bytes").unwrap();
        let mut pipe = pipes.take().unwrap();
        assert_eq!(pipe.fill(&near).unwrap(), 10);
        assert_eq!((pipe.pour(&far, false).unwrap(), pipe.held()), (10, 0));
        server.set_nonblocking(false).unwrap();
        let mut got = [0; 10];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"some bytes");
        assert_eq!(pipe.fill(&near).unwrap(), 0, "no more is there");
        client.write_all(b"others").unwrap();
        assert_eq!(pipe.fill(&near).unwrap(), 6);
        drop(pipe);
        assert_eq!(pipes.count(), (0, 0));
        client.write_all(b"to memory").unwrap();
        let mut pipe = pipes.take().unwrap();
        pipe.fill(&near).unwrap();
        assert_eq!((pipe.empty().unwrap(), pipe.held()), (b"to memory".to_vec(), 0));
    }

    #[test]
    fn a_refusal_is_told_from_a_failure_and_ends_all_splicing() {
        let pipes = Pipes::default();
        // no file of this kind can be spliced from: EINVAL
        let why =
            pipes.take().unwrap().fill(nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty()).unwrap().0).unwrap_err();
        assert!(is_refusal(&why), "{why}");
        assert!(!is_refusal(&io::ErrorKind::ConnectionReset.into()) && !is_refusal(&io::Error::from_raw_os_error(libc::EPIPE)));
        pipes.refuse(&why);
        assert!(pipes.take().is_none());
    }
}
