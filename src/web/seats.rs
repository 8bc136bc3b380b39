//! Seats: a bound on how many there are at one time, and a lower one on how many of them are one client's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Who has a seat.
#[derive(Debug)]
pub struct Seats {
    all: usize,
    of_one: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A seat, held until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    client: IpAddr,
}

impl Seats {
    /// So many in all, and so many of one client.
    pub fn new(all: usize, of_one: usize) -> Arc<Seats> {
        Arc::new(Seats { all, of_one, taken: Mutex::default() })
    }

    /// A seat for this client; none where all are taken, or its own.
    pub fn take(self: &Arc<Seats>, client: IpAddr) -> Option<Seat> {
        let client = one(client);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        if all >= self.all || taken.get(&client).is_some_and(|own| *own >= self.of_one) {
            return None;
        }
        *taken.entry(client).or_default() += 1;
        Some(Seat { seats: Arc::clone(self), client })
    }

    /// How many are taken.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap().values().sum()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

/// The addresses that one client can have: of IPv6 a whole /64, out of which a host takes as many as it wants (RFC 4291 section 2.5.4, RFC 8981).
fn one(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_others_and_all_together_have_a_bound() {
        let seats = Seats::new(8, 6);
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut taken: Vec<_> = std::iter::from_fn(|| seats.take(one)).collect();
        assert_eq!(taken.len(), 6);
        let more: Vec<_> = std::iter::from_fn(|| seats.take(other)).collect();
        assert_eq!(more.len(), 2);
        taken.pop();
        assert!(seats.take(other).is_some(), "a place that was left is free for anybody");
        drop((taken, more));
        assert!(seats.taken.lock().unwrap().is_empty(), "nobody is remembered who has left");
    }

    #[test]
    fn who_has_a_network_of_addresses_is_one_client() {
        let seats = Seats::new(8, 2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let taken: Vec<_> =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:db8:0:1::1"].map(|from| seats.take(ip(from))).into();
        assert_eq!(taken.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true]);
    }
}
