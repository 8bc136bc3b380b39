//! Signals: what a running process is told from outside.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How a process is to stop. A later word is never milder than an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// Go on.
    GoOn,
    /// SIGTERM: finish what is under way; a load balancer has to be told first.
    Leave,
    /// SIGINT: somebody sits there; finish what is under way.
    Stop,
    /// A second one of either: end at once.
    AtOnce,
}

/// What was heard so far.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Whether and how to stop.
    pub word: watch::Receiver<Word>,
    /// True once it is to stop, however.
    pub stop: watch::Receiver<bool>,
    /// How often SIGHUP came.
    pub hangups: watch::Receiver<u64>,
}

impl Signals {
    /// Listens from now on, as long as the process lives.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen() -> Result<Signals, String> {
        let of = |kind| signal(kind).map_err(|e| format!("cannot listen for signals: {e}"));
        let all = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?, of(SignalKind::hangup())?);
        let (tell, word) = watch::channel(Word::GoOn);
        let (tell_stop, stop) = watch::channel(false);
        let (tell_hangup, hangups) = watch::channel(0);
        tokio::spawn(pass_on(all, tell, tell_stop, tell_hangup));
        Ok(Signals { word, stop, hangups })
    }

    /// Waits until it is to stop this way, or more quickly.
    pub async fn hear(&self, at_least: Word) {
        // an error would be the end of the task below, which has none
        let _ = self.word.clone().wait_for(|word| *word >= at_least).await;
    }
}

async fn pass_on(
    (mut term, mut int, mut hup): (Signal, Signal, Signal),
    word: watch::Sender<Word>,
    stop: watch::Sender<bool>,
    hangups: watch::Sender<u64>,
) {
    loop {
        let told = tokio::select! {
            _ = term.recv() => Word::Leave,
            _ = int.recv() => Word::Stop,
            _ = hup.recv() => {
                hangups.send_modify(|count| *count += 1);
                continue;
            }
        };
        let first = *word.borrow() == Word::GoOn;
        word.send_replace(if first { told } else { Word::AtOnce });
        if first {
            tracing::info!("told to stop: what is under way may end; a second signal ends it at once");
        }
        stop.send_replace(true);
    }
}
