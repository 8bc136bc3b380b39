//! Questions to our own beacon, directly and from our own source: has it seen a nonce, and whom does it see ask?

use std::net::SocketAddr;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};

use super::OpenProxy;
use crate::clock::Wall;
use crate::observation::{Evidence, Outcome};
use crate::probe::fetch::Fetch;
use crate::probe::{Aim, Approach, first_address};
use crate::target::{Url, fold_mapped};
use crate::token::{Finding, LogAnswer, NONCE_LIFE_MS, Nonce, Question, SKEW_MS};

/// How many questions are asked at once.
const AT_ONCE: usize = 32;
/// The most nonces of one run that are asked about again in the next.
const MAX_LATE: usize = 256;

/// A nonce that a proxy may still have been carrying when its attempt ended.
#[derive(Debug, Clone)]
pub(super) struct Late {
    nonce: Nonce,
    beacon: Url,
    what: String,
}

impl OpenProxy {
    /// Asks the beacon's log about the nonce.
    pub(super) async fn ask_log(&self, beacon: &Url, nonce: &Nonce, approach: &Approach) -> Result<LogAnswer, String> {
        let deadline = Instant::now() + approach.timeout;
        let question = Question::ask(&self.key, nonce, Wall::now().unix_millis())?;
        let to: SocketAddr = first_address(&beacon.authority, approach, deadline).await?;
        let approach = Approach { to, aim: Aim::AsWritten, ..approach.clone() };
        let url = Url { path: format!("{}/log/{question}", beacon.path.trim_end_matches('/')), ..beacon.clone() };
        let fetch = Fetch { url: &url, via: None, tls: None, method: "GET", headers: &[], body: true };
        let mut asked = Evidence::default();
        let fetched =
            timeout_at(deadline, fetch.run(&approach, deadline, &mut asked)).await.map_err(|_| "no answer in time".to_string())?;
        let (_, body) = fetched.map_err(|(outcome, stage)| asked.detail.unwrap_or_else(|| format!("{to} {outcome} at stage {stage}")))?;
        let text = String::from_utf8_lossy(&body);
        let answer = text.lines().find_map(|line| LogAnswer::verify(&self.key, line, &question).ok());
        answer.ok_or_else(|| format!("{to} gave no signed answer (another server, or another key)"))
    }

    /// Whether the log says that the nonce reached the beacon after all; what it says goes into the evidence.
    pub(super) async fn seen_blind(
        &self,
        beacon: &Url,
        nonce: &Nonce,
        approach: &Approach,
        evidence: &mut Evidence,
    ) -> Result<bool, String> {
        let answer = self.ask_log(beacon, nonce, approach).await?;
        evidence.beacon_saw_us = Some(answer.asker);
        match answer.finding {
            Finding::Known(seen) => {
                evidence.beacon_log = Some("known".into());
                evidence.beacon_saw = seen.first().map(|s| s.peer);
                Ok(true)
            }
            Finding::Unknown => {
                evidence.beacon_log = Some("unknown".into());
                Ok(false)
            }
            Finding::Forgotten => Err(format!("the log of {beacon} does not reach back to the nonce (a restart?)")),
        }
    }

    /// Why we are no stranger here, if so: the beacon sees us come from an address that `spoof` declares to be allowed.
    pub(super) async fn no_stranger(&self, approach: &Approach, evidence: &mut Evidence) -> Option<String> {
        if self.spoof.is_empty() {
            return None;
        }
        // A log that could not be asked a moment ago is not asked again.
        if evidence.beacon_saw_us.is_none() && evidence.beacon_log.is_none() {
            let beacon = self.main_beacon()?;
            let nonce = Nonce::mint(&self.key, Wall::now().unix_millis()).ok()?;
            evidence.beacon_saw_us = self.ask_log(beacon, &nonce, approach).await.ok().map(|answer| answer.asker);
        }
        let us = fold_mapped(evidence.beacon_saw_us?.ip());
        let allowed = self.spoof.iter().find(|net| net.contains(&us))?;
        Some(format!("the beacon sees this monitor come from {us}, which spoof declares to be allowed ({allowed}): it is no stranger here"))
    }

    /// Remembers a nonce whose attempt ended while the proxy may still have been trying.
    pub(super) fn remember(&self, nonce: Nonce, beacon: &Url, what: String) {
        let mut late = self.late.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if late.len() < MAX_LATE {
            late.push(Late { nonce, beacon: beacon.clone(), what });
        }
    }

    /// Asks again for what the last run sent: a proxy that kept trying may have dialled after the log was asked.
    pub(super) async fn came_late(&self, approach: &Approach, evidence: &mut Evidence) -> Option<Outcome> {
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let now = Wall::now().unix_millis();
        // The beacon takes no nonce that has expired, so after that nothing can come any more.
        let open = |one: &Late| now.saturating_sub(one.nonce.minted_unix_ms()) <= NONCE_LIFE_MS + SKEW_MS;
        let mut again = Vec::new();
        let mut found = None;
        for some in late.chunks(AT_ONCE) {
            let answers = join_all(some.iter().map(|one| async move {
                let mut asked = Evidence::default();
                (one, self.seen_blind(&one.beacon, &one.nonce, approach, &mut asked).await, asked)
            }));
            for (one, said, asked) in answers.await {
                match said {
                    Ok(true) => {
                        evidence.beacon_saw = asked.beacon_saw;
                        evidence.beacon_log = asked.beacon_log;
                        evidence.nonce = Some(one.nonce.to_string());
                        evidence.detail = Some(format!("it came late: the run before had sent it by {}", one.what));
                        found = Some(Outcome::RelayedBlind);
                    }
                    // A log that cannot be asked now is asked in the next run; neither holds without it.
                    Ok(false) | Err(_) if open(one) => again.push(one.clone()),
                    Ok(false) | Err(_) => {}
                }
            }
        }
        let mut late = self.late.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        again.append(&mut late);
        again.truncate(MAX_LATE);
        *late = again;
        found
    }
}
