//! The answer to a request that goes no further: one line, then whatever follows is drained unread, and the connection closes.

use std::net::Shutdown;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxy::reason::Reason;
use crate::serve;

/// How much is drained. Enough for what a client has under way when it is refused.
const DRAINED: usize = 256 * 1024;
/// How long answer and drain may take together.
const LINGER: Duration = Duration::from_secs(2);

/// Says no, and ends the connection so that the client reads why: closing over unread data would send a reset, which destroys
/// the answer on its way. What is drained is never looked at.
pub async fn refuse(stream: &mut TcpStream, reason: Reason) {
    let _ = timeout(LINGER, async {
        stream.write_all(response(reason).as_bytes()).await?;
        SockRef::from(&*stream).shutdown(Shutdown::Write)?;
        serve::drain(stream, DRAINED).await;
        Ok::<(), std::io::Error>(())
    })
    .await;
}

/// Lets the client read an answer that is written to its end: what it still sends is drained unread, within bounds.
pub async fn linger(stream: &mut TcpStream) {
    let _ = timeout(LINGER, serve::drain(stream, DRAINED)).await;
}

/// Says no, as far as it can be said without waiting.
pub fn refuse_at_once(stream: &TcpStream, reason: Reason) {
    let _ = SockRef::from(stream).send(response(reason).as_bytes());
}

/// The response header that names the reason.
pub const REASON: &str = "x-mustnot-reason";

/// The whole response. Nothing that the client sent stands in it.
fn response(reason: Reason) -> String {
    let body = sentence(reason);
    let phrase = match reason.status() {
        400 => "Bad Request",
        403 => "Forbidden",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "OK",
    };
    format!(
        "HTTP/1.1 {} {phrase}\r\nX-Mustnot-Reason: {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
        reason.status(),
        body.len() + 1,
    )
}

/// The one line of the body.
pub fn sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::ProxyHeader => "the connection must begin with a PROXY header",
        Reason::Source => "this address may not use this proxy",
        Reason::Parse => "the request was not understood",
        Reason::Method => "this method, or this form of a request, is not allowed",
        Reason::Port => "the port is not allowed",
        Reason::Name => "the destination's name is not allowed",
        Reason::Address => "the destination's address is not allowed",
        Reason::Limit => "too many connections",
        Reason::Resolve => "the destination's name gave no address",
        Reason::ResolveTimeout => "the destination's name was not resolved in time",
        Reason::Connect => "the destination could not be reached",
        Reason::ConnectTimeout => "the destination did not answer in time",
        Reason::Allow => "allowed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_a_whole_message_with_its_reason() {
        let mut written = 0;
        for reason in Reason::ALL {
            let text = response(reason);
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {} ", reason.status())), "{text}");
            assert!(head.contains(&format!("\r\nX-Mustnot-Reason: {reason}\r\n")), "{text}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
            assert!(body.ends_with('\n') && body.lines().count() == 1, "{text}");
            written += 1;
        }
        assert_eq!(written, 13);
    }
}
