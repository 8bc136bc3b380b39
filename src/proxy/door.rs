//! A door: one listener, with one file descriptor in reserve, so that a lack of them is told to who comes, and ends.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::proxy::life::Life;
use crate::serve;

/// The pause after a failed accept: a lack lasts until some descriptor is closed, and must not become a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener, and what it keeps for bad times.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    reserve: Option<File>,
    lacking: bool,
}

/// Who came in.
#[derive(Debug)]
pub enum Entry {
    /// Somebody to serve.
    Guest(TcpStream, SocketAddr),
    /// Somebody who has the reserve, the last descriptor of all: to be told so, and closed before the door is asked again.
    Last(TcpStream, SocketAddr),
}

impl Door {
    /// A door at this listener.
    pub fn new(listener: TcpListener) -> Door {
        Door { listener, reserve: reserve(), lacking: false }
    }

    /// Waits for the next one. No error ends it: what is wrong with one connection is over with the next, and a lack passes. Who
    /// has waited for [`PAUSE`] while there was none to be had comes in as [`Entry::Last`].
    pub async fn next(&mut self, life: &Life) -> Entry {
        loop {
            if self.reserve.is_none() {
                self.reserve = reserve();
            }
            let error = match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if std::mem::take(&mut self.lacking) {
                        tracing::info!("connections are accepted again");
                    }
                    return Entry::Guest(stream, peer);
                }
                Err(error) if serve::is_of_one_connection(&error) => continue,
                Err(error) => error,
            };
            life.lacks();
            if !std::mem::replace(&mut self.lacking, true) {
                tracing::warn!(%error, "connections cannot be accepted; health is red until they can; see mustnot_fd_used, ulimit -n and max_connections");
            } else if is_lack(&error) && self.reserve.take().is_some() {
                // polled once: who waits in the backlog comes in now
                if let Some(Ok((stream, peer))) = self.listener.accept().now_or_never() {
                    return Entry::Last(stream, peer);
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Somebody who is in the backlog already, if there is one.
    pub fn next_now(&mut self) -> Option<(TcpStream, SocketAddr)> {
        loop {
            match self.listener.accept().now_or_never()? {
                Ok(accepted) => return Some(accepted),
                Err(error) if serve::is_of_one_connection(&error) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Whether the error says that this process (EMFILE) or this host (ENFILE) has no file descriptor left.
pub fn is_lack(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
