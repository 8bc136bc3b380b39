//! Passwords: basic authentication (RFC 7617) against bcrypt hashes, so that whoever guesses costs little and learns nothing.
//!
//! As in Prometheus' own exporters a credential that was right is remembered, so that a scrape costs no bcrypt: as a keyed hash,
//! under a key of this process alone. All others stand in one short line, one at a time, with a pause behind each.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::seats::Seats;
use crate::secret::Secret;

/// Right credentials that are remembered; as many clients as a monitor has, and more.
const MAX_KNOWN: usize = 100;
/// Credentials that may wait to be checked; who comes then is told to come again.
const MAX_WAITING: usize = 8;
/// The same of one client: whoever guesses leaves room for a Prometheus that is not known yet, after a restart.
const MAX_OF_ONE: usize = MAX_WAITING / 2;
/// The pause behind a credential that was wrong, in times of what checking it took: guessing has a quarter of one processor at most.
const PAUSE: u32 = 3;

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No credential, or a wrong one.
    Stranger,
    /// Too many others are being checked.
    Busy,
}

/// Who is known.
#[derive(Debug)]
pub struct Passwords {
    key: hmac::Key,
    known: Mutex<VecDeque<Vec<u8>>>,
    line: Arc<Seats>,
    turn: Arc<Semaphore>,
}

impl Passwords {
    /// Nobody is known yet.
    ///
    /// # Errors
    /// That the system gives no randomness.
    pub fn new() -> Result<Passwords, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| "the system gives no randomness".to_string())?;
        Ok(Passwords { key, known: Mutex::default(), line: Seats::new(MAX_WAITING, MAX_OF_ONE), turn: Arc::new(Semaphore::new(1)) })
    }

    /// Whether this `Authorization`, which came from there, is that of one of these users, whose hashes these are.
    ///
    /// # Errors
    /// Why not, or not now.
    pub async fn admit(&self, from: IpAddr, users: &BTreeMap<String, Secret>, authorization: Option<&HeaderValue>) -> Result<(), Refusal> {
        let (user, password) = authorization.and_then(credential).ok_or(Refusal::Stranger)?;
        // An unknown user costs what a known one does: one of their hashes stands in, for one name always the same.
        let own = users.get(&user);
        let hash = own.or_else(|| self.stand_in(users, &user)).ok_or(Refusal::Stranger)?.clone();
        let mark = self.mark(&[user.as_bytes(), hash.expose().as_bytes(), password.expose().as_bytes()]);
        if own.is_some() && self.knows(&mark) {
            return Ok(());
        }
        let in_line = self.line.take(from).ok_or(Refusal::Busy)?;
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        // Somebody with the same credential may have stood before us.
        if own.is_some() && self.knows(&mark) {
            return Ok(());
        }
        let known = own.is_some();
        // A client that goes away gives its turn to nobody: the work goes on all the same.
        let checked = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let right = bcrypt::verify(password.expose(), hash.expose()).unwrap_or(false) && known;
            let pause = if right { Duration::ZERO } else { began.elapsed() * PAUSE };
            (right, pause, turn, in_line)
        });
        let Ok((right, pause, turn, in_line)) = checked.await else { return Err(Refusal::Busy) };
        drop(in_line);
        if right {
            self.remember(mark);
            return Ok(());
        }
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            drop(turn);
        });
        Err(Refusal::Stranger)
    }

    fn stand_in<'a>(&self, users: &'a BTreeMap<String, Secret>, name: &str) -> Option<&'a Secret> {
        let first = *self.mark(&[b"stand-in", name.as_bytes()]).first()?;
        users.values().nth(usize::from(first).checked_rem(users.len())?)
    }

    /// A keyed hash of all parts, each behind its length, so that no two lists of parts have one text.
    fn mark(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().to_vec()
    }

    fn knows(&self, mark: &[u8]) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == mark)
    }

    fn remember(&self, mark: Vec<u8>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back(mark);
        while known.len() > MAX_KNOWN {
            known.pop_front();
        }
    }
}

/// User and password of `Basic` (RFC 7617 section 2); the name of the scheme has no case.
fn credential(header: &HeaderValue) -> Option<(String, Secret)> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(token.trim()).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_string(), Secret::new(password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least cost, so that a test takes no time.
    const COST: u32 = 4;
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn users(all: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        all.iter().map(|(user, password)| ((*user).to_string(), Secret::new(bcrypt::hash(password, COST).unwrap()))).collect()
    }

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap()
    }

    #[tokio::test]
    async fn the_right_password_of_the_right_user_and_no_other() {
        let passwords = Passwords::new().unwrap();
        let users = users(&[("ann", "one"), ("bob", "two:three")]);
        for good in ["ann:one", "bob:two:three"] {
            for _ in 0..2 {
                assert_eq!(passwords.admit(HERE, &users, Some(&header(good))).await, Ok(()), "{good}");
            }
        }
        for bad in ["ann:two:three", "bob:one", "ann:", "ann", ":one", "eve:one", "ann:one ", "Ann:one", ""] {
            assert_eq!(passwords.admit(HERE, &users, Some(&header(bad))).await, Err(Refusal::Stranger), "{bad}");
        }
        assert_eq!(passwords.admit(HERE, &users, None).await, Err(Refusal::Stranger));
        for odd in ["Basic", "Basic !!!", "Bearer YW5uOm9uZQ==", "Basic /w==", "Basic YW5uOm9uZQ== x"] {
            assert_eq!(passwords.admit(HERE, &users, Some(&HeaderValue::from_static(odd))).await, Err(Refusal::Stranger), "{odd}");
        }
        let lower = HeaderValue::from_str(&format!("bASIC {}", STANDARD.encode("ann:one"))).unwrap();
        assert_eq!(passwords.admit(HERE, &users, Some(&lower)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_changed_password_is_forgotten_and_nothing_is_kept_that_says_it() {
        let passwords = Passwords::new().unwrap();
        let before = users(&[("ann", "hunter2hunter2")]);
        assert_eq!(passwords.admit(HERE, &before, Some(&header("ann:hunter2hunter2"))).await, Ok(()));
        assert!(!format!("{passwords:?}").contains("hunter2"));
        let after = users(&[("ann", "another")]);
        assert_eq!(passwords.admit(HERE, &after, Some(&header("ann:hunter2hunter2"))).await, Err(Refusal::Stranger));
        assert_eq!(passwords.admit(HERE, &BTreeMap::new(), Some(&header("ann:hunter2hunter2"))).await, Err(Refusal::Stranger));
    }

    /// Whoever stands in the line of guesses waits; whoever was let in before does not stand in it.
    #[tokio::test]
    async fn guesses_stand_in_a_short_line_and_hold_up_nobody_who_is_known() {
        let passwords = Arc::new(Passwords::new().unwrap());
        let users = Arc::new(users(&[("ann", "one")]));
        assert_eq!(passwords.admit(HERE, &users, Some(&header("ann:one"))).await, Ok(()));
        let held = Arc::clone(&passwords.turn).acquire_owned().await.unwrap();
        let guess_from = |from: [u8; 4], n: usize| {
            let (passwords, users) = (Arc::clone(&passwords), Arc::clone(&users));
            tokio::spawn(async move { passwords.admit(from.into(), &users, Some(&header(&format!("ann:guess {n}")))).await })
        };
        let stands = async |number: usize| {
            while passwords.line.taken() < number {
                tokio::task::yield_now().await;
            }
        };
        let mut waiting: Vec<_> = (0..MAX_OF_ONE).map(|n| guess_from([192, 0, 2, 1], n)).collect();
        stands(MAX_OF_ONE).await;
        assert_eq!(guess_from([192, 0, 2, 1], 99).await.unwrap(), Err(Refusal::Busy), "one client leaves room for others");
        waiting.extend((MAX_OF_ONE..MAX_WAITING).map(|n| guess_from([192, 0, 2, 2], n)));
        stands(MAX_WAITING).await;
        assert_eq!(guess_from([192, 0, 2, 3], 99).await.unwrap(), Err(Refusal::Busy));
        assert_eq!(passwords.admit(HERE, &users, Some(&header("ann:one"))).await, Ok(()), "the known one is let in meanwhile");
        drop(held);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Err(Refusal::Stranger));
        }
    }

    /// The same work for a name that nobody has as for one that somebody has; a cost of its own would tell which is which.
    #[test]
    fn an_unknown_user_is_checked_against_the_hash_of_a_known_one() {
        let passwords = Passwords::new().unwrap();
        let users = users(&[("ann", "one"), ("bob", "two"), ("cat", "three")]);
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..200 {
            let name = format!("eve{n}");
            let one = passwords.stand_in(&users, &name).unwrap().expose().to_string();
            assert_eq!(passwords.stand_in(&users, &name).unwrap().expose(), one, "for one name always the same");
            assert!(users.values().any(|hash| hash.expose() == one));
            seen.insert(one);
        }
        assert_eq!(seen.len(), 3);
        assert!(passwords.stand_in(&BTreeMap::new(), "eve").is_none());
    }
}
