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
const ROOM: i32 = 256 * 1024;

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

    /// Closes one pipe that nobody uses. Called once in a while, it lets go of them all when they are not needed any more.
    pub fn shrink(&self) {
        if self.spare().pop().is_some() {
            self.made.fetch_sub(1, Ordering::Relaxed);
        }
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

    /// Gives to a socket what it takes of what is held.
    ///
    /// # Errors
    /// Of the socket, `WouldBlock` among them, or a refusal to splice ([`is_refusal`]).
    pub fn pour(&mut self, to: impl AsFd) -> io::Result<usize> {
        let count = splice(&self.ends.out, None, to, None, self.held, SpliceFFlags::SPLICE_F_NONBLOCK)?;
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
