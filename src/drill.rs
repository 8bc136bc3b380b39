//! Drills: proof that a breach would be seen. For a kind, the very code that judges the real targets looks at twins that are
//! started here: one that is open must be `violated`, one that is closed must hold, and where nothing vouches for the
//! way there it must be `unproven` (SPEC section 10).
//!
//! All of it stays on loopback: twins at 127.0.0.1, witnesses at 127.0.0.2.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Moment;
use crate::engine::{Engine, Listener};
use crate::history::Board;
use crate::plan::{Keys, Plan, from_text};
use crate::probe::Kind;
use crate::record::Record;
use crate::report::{Drilled, Finding};
use crate::token::Key;
use crate::verdict::{Cause, Verdict};

mod twins;

use twins::Twins;

/// The longest that a drill may take.
const LONGEST: Duration = Duration::from_secs(120);
/// How often the board is looked at for the first word of a violation.
const GLANCE: Duration = Duration::from_millis(10);

/// One twin, and the verdict that it must get.
struct Scene {
    name: &'static str,
    /// The lines of the check, save its name.
    check: String,
    expected: &'static str,
}

/// The kinds that the plan uses, in the order of the specification.
pub fn kinds(plan: &Plan) -> Vec<Kind> {
    sorted(plan.checks.iter().map(|check| check.probe.kind()))
}

/// The kinds of these checks of the plan, and of the witnesses without which they prove nothing.
pub fn kinds_of(plan: &Plan, numbers: &[usize]) -> Vec<Kind> {
    let checks = numbers.iter().filter_map(|number| plan.checks.get(*number));
    let witnesses = checks.clone().flat_map(|check| check.witness_numbers()).filter_map(|number| plan.checks.get(number));
    sorted(checks.clone().chain(witnesses).map(|check| check.probe.kind()))
}

fn sorted(kinds: impl Iterator<Item = Kind>) -> Vec<Kind> {
    let used: Vec<Kind> = kinds.collect();
    Kind::ALL.iter().copied().filter(|kind| used.contains(kind)).collect()
}

/// Drills every one of these kinds, all at once; takes about as long as one run of a check. What is not done by `deadline` is
/// not drilled.
pub async fn drill(kinds: &[Kind], deadline: Option<Instant>) -> Vec<Drilled> {
    let each = kinds.iter().map(|kind| async {
        let finished = one(*kind, deadline).await;
        finished.unwrap_or_else(|why| Drilled { kind: kind.token(), finding: Finding::NotDrilled, why: vec![why], detection: None })
    });
    futures_util::future::join_all(each).await
}

/// One kind's drill.
///
/// # Errors
/// Why its twins could not be started.
async fn one(kind: Kind, deadline: Option<Instant>) -> Result<Drilled, String> {
    let key = Key::ephemeral()?;
    let mut twins = Twins::start(&key)?;
    let scenes = twins.scenes(kind).await?;
    let text = configuration(&scenes, &twins);
    let plan = from_text("drill", &text, Path::new(""), &|_| None, Keys::Given(key)).map_err(|problems| problems.to_string())?.plan;
    let numbers: Vec<usize> = (0..scenes.len()).collect();
    let board = Arc::new(Board::new(Engine::about(&plan)));
    let engine = Engine::new(Arc::new(plan), Arc::clone(&board), Arc::new(Nobody), None);
    let began = Instant::now();
    let longest = began + LONGEST;
    let round = engine.round(&numbers, Some(deadline.map_or(longest, |deadline| deadline.min(longest))));
    let ((), detection) = futures_util::future::join(round, detected(&board, began)).await;
    let records: Vec<Arc<Record>> = board.read(Moment::now()).into_iter().map(|reading| reading.record).collect();
    Ok(weigh(kind, &scenes, &records, detection))
}

/// The scenes as the checks of a configuration.
fn configuration(scenes: &[Scene], twins: &Twins) -> String {
    let mut text = "vantage = \"drill\"\n[defaults]\ntimeout = \"3s\"\n".to_string();
    for scene in scenes {
        text.push_str(&format!("[[check]]\nname = \"{}\"\n{}\n", scene.name, scene.check));
    }
    for (name, address) in [("alive", twins.alive()), ("dead", twins.dead())] {
        text.push_str(&format!("[[check]]\nname = \"{name}\"\nkind = \"tcp\"\ntarget = \"{address}\"\nexpect = \"open\"\n"));
    }
    text
}

/// When the board first says that the open twin, which comes first, is violated; none where its run ends otherwise.
async fn detected(board: &Board, began: Instant) -> Option<Duration> {
    loop {
        let reading = board.read(Moment::now()).into_iter().next()?;
        if matches!(reading.record.verdict, Verdict::Violated(_)) {
            return Some(began.elapsed());
        }
        if reading.ran || began.elapsed() > LONGEST {
            return None;
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// What the verdicts of the scenes say of the detector.
fn weigh(kind: Kind, scenes: &[Scene], records: &[Arc<Record>], detection: Option<Duration>) -> Drilled {
    let mut drilled = Drilled { kind: kind.token(), finding: Finding::Saw, why: Vec::new(), detection };
    for (scene, record) in scenes.iter().zip(records) {
        let got = record.verdict.token();
        if got == scene.expected {
            continue;
        }
        let ours = matches!(record.cause, Cause::Local | Cause::Intercepted | Cause::Resolve | Cause::Coverage | Cause::WitnessFailed);
        let finding = if ours && got == "unproven" { Finding::NotDrilled } else { Finding::Blind };
        drilled.finding = drilled.finding.max(finding);
        drilled.why.push(format!("the {} twin must be {}, and was {got}: {}", scene.name, scene.expected, record.reason));
    }
    drilled
}

/// Nobody listens to a drill's engine: its runs are no runs of the checks.
struct Nobody;

impl Listener for Nobody {
    fn finished(&self, _: &Record) {}
    fn witness(&self, _: &str, _: &str, _: bool) {}
    fn looking(&self, _: i64) {}
    fn lag(&self, _: Duration) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_kind_sees() {
        for drilled in drill(Kind::ALL, None).await {
            assert_eq!((drilled.finding, drilled.why.as_slice()), (Finding::Saw, &[][..]), "{}", drilled.kind);
            assert!(drilled.detection.is_some_and(|took| took < LONGEST), "{}", drilled.kind);
        }
    }

    /// A detector to which the open twin looks closed, or that takes every twin for open, is blind.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_blind_detector_is_found_out() {
        let key = Key::ephemeral().unwrap();
        let mut twins = Twins::start(&key).unwrap();
        let mut scenes = twins.scenes(Kind::Tcp).await.unwrap();
        let text = configuration(&scenes, &twins);
        let plan = from_text("drill", &text, Path::new(""), &|_| None, Keys::Given(key)).unwrap().plan;
        let board = Arc::new(Board::new(Engine::about(&plan)));
        let engine = Engine::new(Arc::new(plan), Arc::clone(&board), Arc::new(Nobody), None);
        engine.round(&[0, 1, 2], None).await;
        let records: Vec<Arc<Record>> = board.read(Moment::now()).into_iter().map(|reading| reading.record).collect();
        assert_eq!(weigh(Kind::Tcp, &scenes, &records, None).finding, Finding::Saw);
        for [open, closed, dark] in [[1, 1, 2], [0, 0, 2], [0, 1, 1], [2, 1, 2]] {
            let seen = [&records[open], &records[closed], &records[dark]].map(Arc::clone);
            let drilled = weigh(Kind::Tcp, &scenes, &seen, None);
            // An unproven twin for want of a witness is this host's fault, save where it was to be seen.
            let expected = if open == 2 { Finding::NotDrilled } else { Finding::Blind };
            assert_eq!((drilled.finding, drilled.why.len()), (expected, 1), "{open} {closed} {dark}");
        }
        scenes.truncate(1);
    }
}
