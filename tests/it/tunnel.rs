//! Tunnels under strain: whole bytes whatever the chunks, the pauses and the ends; and nothing left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mustnot::proxy::LogFormat;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::proxy::{PATIENCE, World, ends, open_tunnel, read_exact, server, until};

/// Numbers that look random and are the same each time (Marsaglia's xorshift64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.throw() % bound as u64) as usize
    }

    /// Mostly small, now and then large.
    fn chunk(&mut self) -> usize {
        let bound = [1, 100, 5_000, 70_000, 300_000][self.below(5)];
        1 + self.below(bound)
    }
}

/// The byte at a place of a stream: any that is lost, doubled or moved shows.
fn byte(at: usize, key: u64) -> u8 {
    ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8 ^ key as u8
}

async fn write(to: &mut (impl AsyncWriteExt + Unpin), size: usize, mut dice: Dice, key: u64) {
    let mut at = 0;
    while at < size {
        let chunk = dice.chunk().min(size - at);
        let bytes: Vec<u8> = (at..at + chunk).map(|at| byte(at, key)).collect();
        to.write_all(&bytes).await.unwrap();
        at += chunk;
        if dice.below(16) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    to.shutdown().await.unwrap();
}

async fn read(from: &mut (impl AsyncReadExt + Unpin), size: usize, mut dice: Dice, key: u64) {
    let (mut buffer, mut at) = (vec![0; 300_000], 0);
    loop {
        let count = timeout(PATIENCE, from.read(&mut buffer[..dice.chunk()])).await.expect("bytes or an end in time").unwrap();
        if count == 0 {
            break;
        }
        let wrong = buffer[..count].iter().enumerate().find(|(i, b)| **b != byte(at + i, key));
        assert!(wrong.is_none(), "the byte at {} is another one", at + wrong.unwrap().0);
        at += count;
        if dice.below(64) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(at, size, "all came, and no more");
}

/// A tunnel of random ways: so much each way, in chunks and with pauses, each half closed when it is through.
async fn converse(client: TcpStream, server: TcpStream, sizes: [usize; 2], dice: &Dice) {
    let run = |stream: TcpStream, sends: usize, expects: usize, key: u64, dice: Dice| {
        tokio::spawn(async move {
            let (mut from, mut to) = stream.into_split();
            tokio::join!(write(&mut to, sends, dice.clone(), key), read(&mut from, expects, dice, 1 - key));
        })
    };
    let both = (run(client, sizes[0], sizes[1], 0, dice.clone()), run(server, sizes[1], sizes[0], 1, dice.clone()));
    both.0.await.unwrap();
    both.1.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_whole_and_counted_around_the_switch_to_splice() {
    let world = World::start(|s| s.access_log_format = LogFormat::Json).await;
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    const K: usize = 1024;
    let border = [0, 1, 64 * K, 256 * K - 1, 256 * K, 256 * K + 1, 320 * K, 1 << 20, 3 << 20];
    let mut expected: Vec<[u64; 2]> = Vec::new();
    for at in 0..24 {
        let sizes = [border[at % border.len()], border[dice.below(border.len())]];
        let (client, server, _) = ends(&world).await;
        converse(client, server, sizes, &dice).await;
        expected.push(sizes.map(|s| s as u64));
        dice.throw();
    }
    until("all tunnels are gone", || world.stats.tunnels.get() == 0).await;
    let source = "127.0.0.1/32".parse().unwrap();
    let totals = [world.stats.sent(source).get(), world.stats.received(source).get()];
    assert_eq!(totals, [0, 1].map(|way| expected.iter().map(|sizes| sizes[way]).sum::<u64>()));
    let lines: Vec<serde_json::Value> = world.end().await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let logged: Vec<[u64; 2]> = lines
        .iter()
        .filter(|line| line["event"] == "close")
        .inspect(|line| assert_eq!(line["reason"], "closed"))
        .map(|line| ["bytes_sent", "bytes_received"].map(|key| line[key].as_u64().unwrap()))
        .collect();
    assert_eq!(logged, expected);
}

#[tokio::test]
async fn early_bytes_come_first_and_once_before_what_is_spliced() {
    let world = World::start(|_| {}).await;
    let (listener, at) = server().await;
    const SIZE: usize = 2 << 20;
    let all: Vec<u8> = (0..SIZE).map(|at| byte(at, 0)).collect();
    let (client, accepted) = tokio::join!(open_tunnel(world.dial().await, at, &all[..3000]), listener.accept());
    let (mut client, (mut server, _)) = (client, accepted.unwrap());
    let writing = async {
        client.write_all(&all[3000..]).await.unwrap();
        client.shutdown().await.unwrap();
    };
    tokio::join!(writing, read(&mut server, SIZE, Dice(7), 0));
}

#[tokio::test]
async fn bytes_are_counted_while_the_tunnel_runs_spliced_or_not() {
    let world = World::start(|_| {}).await;
    let (mut client, mut server, _) = ends(&world).await;
    let source = "127.0.0.1/32".parse().unwrap();
    let mut total = 0;
    for size in [1, 1000, 500_000, 1, 2_000_000, 10] {
        let bytes = vec![1; size];
        let (sent, _) = tokio::join!(server.write_all(&bytes), read_exact(&mut client, size));
        sent.unwrap();
        total += size as u64;
        until("what has come is counted", || world.stats.received(source).get() == total).await;
    }
    assert_eq!(world.stats.sent(source).get(), 0);
}

/// Runs a test in a process of its own, since what it counts is the whole process's.
fn alone(name: &str) {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args([name, "--exact", "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Bytes of memory of this process (proc_pid_status(5)).
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn readers_that_read_nothing_cost_a_bounded_memory() {
    alone("tunnel::slow_readers");
}

#[tokio::test]
#[ignore = "measures the memory of its process; readers_that_read_nothing_cost_a_bounded_memory runs it in its own"]
async fn slow_readers() {
    const TUNNELS: usize = 100;
    let world = World::start(|_| {}).await;
    let chunk = vec![7; 256 * 1024];
    let mut held = Vec::new();
    let mut before = 0;
    // more than there are pipes, so that both ways of holding are in it
    for at in 0..TUNNELS {
        let (client, server, _) = ends(&world).await;
        let mut sent = 0;
        // until nothing is taken any more, by the proxy or by the buffers on the way
        while let Ok(Ok(())) = timeout(Duration::from_millis(100), server.writable()).await {
            sent += server.try_write(&chunk).unwrap_or(0);
        }
        assert!(sent > 256 * 1024, "{sent}");
        held.push((client, server));
        if at == 0 {
            before = memory();
        }
    }
    let each = memory().saturating_sub(before) / (TUNNELS - 1);
    assert!(each < 72 * 1024, "{each} bytes a tunnel whose reader reads nothing");
    println!("{each} bytes a tunnel whose reader reads nothing");
}

#[test]
fn nothing_is_left_behind_by_ends_of_all_kinds() {
    alone("tunnel::soak");
}

/// `MUSTNOT_SOAK_SECONDS=3600 cargo test --release --test it tunnel::soak -- --ignored --nocapture` soaks for an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "counts the descriptors of its process; nothing_is_left_behind_by_ends_of_all_kinds runs it in its own"]
async fn soak() {
    let seconds = std::env::var("MUSTNOT_SOAK_SECONDS").map_or(10, |s| s.parse().expect("MUSTNOT_SOAK_SECONDS is a number of seconds"));
    let world = Arc::new(World::start(|s| s.half_open_timeout = Duration::from_secs(2)).await);
    let (listener, at) = server().await;
    tokio::spawn(receive(listener));
    // once, so that what is made once is not taken for a leak
    tokio::time::timeout(PATIENCE, one(&world, at, Dice(1))).await.unwrap();
    until("the first tunnel is gone", || world.stats.tunnels.get() == 0 && world.stats.connections.get() == 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (descriptors_before, done) = (descriptors(), Arc::new(AtomicUsize::new(0)));
    let (mut memory_before, begun) = (0, Instant::now());
    let soaking: Vec<_> = (0..24)
        .map(|worker: u64| {
            let (world, done) = (world.clone(), done.clone());
            tokio::spawn(async move {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (worker << 17));
                while begun.elapsed() < Duration::from_secs(seconds) {
                    dice.throw();
                    one(&world, at, dice.clone()).await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // buffers of allocator and workers grow at first
    tokio::time::sleep(Duration::from_secs(seconds) / 2).await;
    memory_before += memory();
    for worker in soaking {
        worker.await.unwrap();
    }
    until("all tunnels are gone", || world.stats.tunnels.get() == 0 && world.stats.connections.get() == 0).await;
    // the pipes go, half of them a tick
    until("all descriptors are closed", || descriptors() <= descriptors_before).await;
    let (done, grown) = (done.load(Ordering::Relaxed), memory().saturating_sub(memory_before));
    println!("{done} tunnels in {seconds} s; memory grew by {grown} bytes in the second half");
    assert!(done > 50, "{done} tunnels");
    assert!(grown < 16 << 20, "memory grew by {grown} bytes in the second half of {done} tunnels");
}

/// A tunnel of some length that ends in some way.
async fn one(world: &World, at: std::net::SocketAddr, mut dice: Dice) {
    let mut client = world.tunnel(at).await;
    let (way, size) = (dice.below(6) as u8, [10, 10_000, 400_000, 3_000_000][dice.below(4)]);
    client.write_all(&[way]).await.unwrap();
    let _ = client.write_all(&vec![way; size]).await;
    match way {
        // gone without a word, with what comes unread
        0 => {}
        1 => socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap(),
        // half closed, and a slow reader to the end
        2 => {
            client.shutdown().await.unwrap();
            let mut buffer = vec![0; 20_000];
            while matches!(timeout(PATIENCE, client.read(&mut buffer)).await.expect("an end in time"), Ok(1..)) {
                tokio::task::yield_now().await;
            }
        }
        // half closed, and never told: the half-open limit ends it
        3 => {
            client.shutdown().await.unwrap();
            let mut buffer = vec![0; 20_000];
            let ended = async { while matches!(client.read(&mut buffer).await, Ok(1..)) {} };
            timeout(PATIENCE, ended).await.expect("the half-open limit");
        }
        // the server resets, or ends at once
        _ => {
            let mut buffer = vec![0; 20_000];
            let ended = async { while matches!(client.read(&mut buffer).await, Ok(1..)) {} };
            timeout(PATIENCE, ended).await.expect("an end in time");
        }
    }
}

/// The other side of [`one`]: echoes, keeps silent, resets or ends.
async fn receive(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let way = stream.read_u8().await?;
            let mut buffer = vec![0; 50_000];
            match way {
                3 => {
                    // reads to the end and holds on, until the proxy lets go
                    while stream.read(&mut buffer).await? > 0 {}
                    let mut spins = 0;
                    while stream.write_all(b".").await.is_ok() && spins < 3 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        spins += 1;
                    }
                    tokio::time::sleep(Duration::from_secs(3)).await;
                }
                4 => {
                    stream.read_u8().await?;
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                }
                5 => {
                    stream.read_u8().await?;
                }
                _ => loop {
                    let count = stream.read(&mut buffer).await?;
                    if count == 0 {
                        break;
                    }
                    stream.write_all(&buffer[..count]).await?;
                },
            }
            Ok::<(), std::io::Error>(())
        });
    }
}
