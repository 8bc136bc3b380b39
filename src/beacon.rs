//! The beacon: our own endpoint, which answers with what it saw, signed. Raw and HTTP alike, on every port, with one log.
//!
//! It answers only to words that verify, so that it is neither reflector nor oracle.

mod log;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use self::log::Log;
use crate::clock::{Moment, Wall};
use crate::serve::{self, Opening, Request, Response};
use crate::token::{Answer, Key, LogAnswer, Nonce, Question, Sighting};

/// A beacon that listens, and does not answer before [`Beacon::run`].
pub struct Beacon {
    listeners: Vec<TcpListener>,
    witness: Arc<Witness>,
}

/// What all connections share.
struct Witness {
    key: Key,
    log: Mutex<Log>,
    request_limit: Duration,
}

/// Who came to where.
#[derive(Clone, Copy)]
struct Visit {
    peer: SocketAddr,
    port: u16,
}

impl Beacon {
    /// Listens on every address; port 0 takes a free one. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// No address, or one that cannot be had; the text names it and says what to do.
    pub fn bind(listen: Vec<SocketAddr>, key: Key) -> Result<Beacon, String> {
        if listen.is_empty() {
            return Err("the beacon has no address to listen on; write listen = [\"0.0.0.0:443\"]".into());
        }
        let listeners = serve::listen(&listen)?;
        let log = Mutex::new(Log::new(log::CAPACITY, Moment::now()));
        Ok(Beacon { listeners, witness: Arc::new(Witness { key, log, request_limit: serve::REQUEST_LIMIT }) })
    }

    /// The addresses it listens on, in the order given to [`Beacon::bind`], each with its real port.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        serve::addresses(&self.listeners)
    }

    /// Answers until `stop` says true or its sender is gone; then open connections have `grace` to end.
    pub async fn run(self, stop: watch::Receiver<bool>, grace: Duration) {
        let Beacon { listeners, witness } = self;
        serve::serve(listeners, stop, grace, |stream, peer, local| {
            let witness = Arc::clone(&witness);
            async move { witness.receive(stream, Visit { peer, port: local.port() }).await }
        })
        .await;
    }
}

impl Witness {
    async fn receive(&self, mut stream: TcpStream, visit: Visit) {
        let is_nonce = |line: &str| self.nonce(line).is_some();
        let answer = match serve::read_opening(&mut stream, self.request_limit, is_nonce).await {
            Opening::Word(line) => self.nonce(&line).map(|nonce| self.testify(nonce, visit).into_bytes()),
            Opening::Request(request) => Some(self.respond(&request, visit).bytes(request.head_alone())),
            Opening::Nothing => None,
        };
        serve::answer_and_close(stream, &answer.unwrap_or_default()).await;
    }

    /// A nonce by any method, since proxies relay any; the log by GET and HEAD alone; else a 404 that echoes nothing.
    fn respond(&self, request: &Request, visit: Visit) -> Response {
        let (rest, word) = request.path().rsplit_once('/').unwrap_or_default();
        if let Some(nonce) = self.nonce(word) {
            return Response::text("200 OK", self.testify(nonce, visit));
        }
        let is_log = request.reads() && rest.rsplit('/').next() == Some("log");
        match Question::verify(&self.key, word, Wall::now().unix_millis()) {
            Some(question) if is_log => Response::text("200 OK", self.look_up(&question, visit)),
            Some(_) | None => Response::text("404 Not Found", String::new()),
        }
    }

    fn nonce(&self, text: &str) -> Option<Nonce> {
        Nonce::verify(&self.key, text, Wall::now().unix_millis())
    }

    /// Notes the sighting, then gives the signed line: where the answer is lost on its way, the log still tells.
    fn testify(&self, nonce: Nonce, Visit { peer, port }: Visit) -> String {
        let at_unix_ms = Wall::now().unix_millis();
        self.with_log(|log| log.record(&nonce, Sighting { peer, port, at_unix_ms }, Moment::now()));
        tracing::debug!(?nonce, %peer, port, "a nonce was brought");
        Answer { nonce, peer, port, at_unix_ms }.sign(&self.key) + "\n"
    }

    fn look_up(&self, question: &Question, Visit { peer, .. }: Visit) -> String {
        let finding = self.with_log(|log| log.find(question, Moment::now()));
        LogAnswer { asker: peer, at_unix_ms: Wall::now().unix_millis(), finding }.sign(&self.key, question) + "\n"
    }

    fn with_log<T>(&self, with: impl FnOnce(&mut Log) -> T) -> T {
        // A panic in between leaves at worst one sighting out, and that connection without its answer.
        with(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_slow_client_is_cut() {
        let key = Key::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let mut beacon = Beacon::bind(vec!["127.0.0.1:0".parse().unwrap()], key).unwrap();
        Arc::get_mut(&mut beacon.witness).unwrap().request_limit = Duration::from_millis(100);
        let address = beacon.addresses()[0];
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(beacon.run(stopped, Duration::ZERO));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"");
        stop.send(true).unwrap();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn nowhere_to_listen_is_an_error() {
        let key = Key::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let error = Beacon::bind(Vec::new(), key).err();
        assert_eq!(error.as_deref(), Some("the beacon has no address to listen on; write listen = [\"0.0.0.0:443\"]"));
    }
}
