//! The engine against sockets of this host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mustnot::clock::Moment;
use mustnot::engine::{Course, Engine, Listener};
use mustnot::history::Board;
use mustnot::plan::{Keys, Plan, from_text};
use mustnot::record::Record;
use mustnot::state::State;
use mustnot::verdict::{Cause, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Counts the records.
#[derive(Default)]
struct Count(AtomicUsize);

impl Listener for Count {
    fn finished(&self, _: &Record) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn witness(&self, _: &str, _: &str, _: bool) {}
    fn looking(&self, _: i64) {}
    fn lag(&self, _: Duration) {}
}

fn plan(text: &str, folder: &std::path::Path) -> Arc<Plan> {
    Arc::new(from_text("test", text, folder, &|_| None, Keys::Read).unwrap_or_else(|problems| panic!("{problems}\n{text}")).plan)
}

/// What must be closed is open; its witness falls silent afterwards, so that the run cannot end before the program does.
#[tokio::test]
async fn a_run_that_the_end_cuts_short_is_recorded_with_what_it_saw() {
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "vantage = \"here\"\nstate_dir = \"state\"\n[defaults]\ntimeout = \"60s\"\ninterval = \"1h\"\n\
         [[check]]\nname = \"closed\"\nkind = \"tcp\"\ntarget = \"{}\"\nexpect = \"blocked\"\nwitness = [\"alive\"]\n\
         [[check]]\nname = \"alive\"\nkind = \"http\"\ntarget = \"http://{}/\"\nexpect = \"open\"\nattempts = 1\n",
        open.local_addr().unwrap(),
        alive.local_addr().unwrap()
    );
    let seen = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&seen);
    tokio::spawn(async move {
        let _visit = open.accept().await.unwrap();
        tell.store(true, Ordering::SeqCst);
        std::future::pending::<()>().await;
    });
    tokio::spawn(async move {
        let mut silent = Vec::new();
        loop {
            let (mut stream, _) = alive.accept().await.unwrap();
            if seen.load(Ordering::SeqCst) {
                silent.push(stream);
                continue;
            }
            assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
        }
    });

    let plan = plan(&text, folder.path());
    let board = Arc::new(Board::new(Engine::about(&plan)));
    let count = Arc::new(Count::default());
    let state = State::open(plan.state_dir.as_deref().unwrap()).unwrap();
    let engine = Engine::new(plan, Arc::clone(&board), count.clone(), Some(state));
    let (stop, stopped) = watch::channel(Course::Going);
    let running = tokio::spawn(async move { engine.run(stopped, Duration::from_millis(100)).await });
    let closed = || board.read(Moment::now()).remove(0);
    let announced = async {
        while closed().record.cause != Cause::Open {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), announced).await.expect("the open port was not announced");
    assert!(!closed().ran, "its witness is still out");

    stop.send(Course::Stopping).unwrap();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("the end takes longer than the grace").unwrap();
    let reading = closed();
    assert!(reading.ran);
    assert_eq!(reading.record.verdict, Verdict::Violated(Cause::Open));
    assert!(count.0.load(Ordering::SeqCst) >= 2, "one record a run, whatever became of it");
    let kept = std::fs::read_to_string(folder.path().join("state/state.json")).unwrap();
    assert!(kept.contains("\"violated\": true"), "{kept}");
}
