//! Health for a load balancer: `/healthz` over plain HTTP, on a port of its own. Green while clients may be sent here; red while the
//! proxy leaves, or has no file descriptor for one more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::proxy::door::{Door, Entry};
use crate::proxy::life::{Health, Life};
use crate::proxy::proxy_header;
use crate::serve::{self, Opening, Response};

/// Connections at a time; one more, and the oldest is closed. A load balancer says at once what it wants, so those who say nothing cannot
/// keep it out, and do not cost much.
const MOST: usize = 64;
/// How long a connection may take: it asks for one thing in one piece.
const LIMIT: Duration = Duration::from_secs(5);
/// The same for one that has the reserve: nobody else can be told as long as it lasts.
const HASTE: Duration = Duration::from_secs(1);

/// Answers at this listener until it is dropped.
pub async fn serve(listener: TcpListener, life: Arc<Life>) {
    let mut door = Door::new(listener);
    let mut guests: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match door.next(&life).await {
            Entry::Guest(stream, _) => {
                guests.retain(|guest| !guest.is_finished());
                if guests.len() >= MOST
                    && let Some(oldest) = guests.pop_front()
                {
                    oldest.abort();
                }
                let life = Arc::clone(&life);
                let answer = async move { timeout(LIMIT, answer(stream, &life)).await };
                guests.push_back(tokio::spawn(answer).abort_handle());
            }
            Entry::Last(stream, _) => {
                let _ = timeout(HASTE, answer(stream, &life)).await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, life: &Life) {
    // A balancer that speaks the PROXY protocol to its targets may speak it to their health port too, or not. Nothing in it is
    // believed here, so anybody may send one.
    let mut first = [0; 16];
    let Ok(count @ 1..) = stream.peek(&mut first).await else { return };
    let first = first.get(..count).unwrap_or_default();
    if proxy_header::may_begin(first) && proxy_header::read(&mut stream, LIMIT).await.is_err() {
        return;
    }
    let opening = serve::read_opening(&mut stream, LIMIT, |_| false).await;
    let Opening::Request(request) = opening else { return };
    let response = match (request.reads(), request.path(), life.health()) {
        (false, _, _) => Response::text("405 Method Not Allowed", "only GET and HEAD\n".into()),
        (true, "/healthz", Health::Well) => Response::text("200 OK", "ok\n".into()),
        (true, "/healthz", Health::Draining) => Response::text("503 Service Unavailable", "draining: the proxy is being stopped\n".into()),
        (true, "/healthz", Health::Lacking) => {
            Response::text("503 Service Unavailable", "lacking: there is no file descriptor for one more connection\n".into())
        }
        (true, _, _) => Response::text("404 Not Found", "ask for /healthz\n".into()),
    };
    serve::answer_and_close(stream, &response.bytes(request.head_alone())).await;
}
