//! Limits: a seat for every connection that may become a tunnel, and little room for all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::net::descriptor_limit;

/// How many connections without a seat may be heard out at once, to be told why they are refused; more are closed at once.
/// One such room for clients, one for strangers, so that strangers cannot fill that of clients.
const STANDING: usize = 64;
/// How long a connection without a seat may take for its head.
pub const STANDING_TIMEOUT: Duration = Duration::from_secs(1);
/// The fewest connections that make a proxy of use.
const FEWEST: usize = 16;
/// File descriptors left for everything else in the process.
const RESERVED: u64 = 256;

/// Who is in.
#[derive(Debug)]
pub struct Seats {
    max: usize,
    max_per_client: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    seats: usize,
    by_client: HashMap<IpAddr, usize>,
    standing: usize,
    strangers: usize,
}

/// A place, held until it is dropped.
#[derive(Debug)]
pub struct Place {
    seats: Arc<Seats>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Seat(IpAddr),
    Unnamed,
    Standing,
    Stranger,
}

impl Seats {
    /// Takes the limits; `None` is (file-descriptor limit − 256) / 2, since a tunnel has two, and a quarter of all seats for one client.
    pub fn new(max: Option<usize>, max_per_client: Option<usize>) -> Seats {
        let max = max.unwrap_or_else(|| usize::try_from(descriptor_limit().saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX).max(FEWEST));
        Seats { max, max_per_client: max_per_client.unwrap_or(max.div_ceil(4)), taken: Mutex::default() }
    }

    /// The seats.
    pub fn max(&self) -> usize {
        self.max
    }

    /// A place for a connection, the best that is free; none, where it cannot even be heard.
    pub fn place(self: &Arc<Self>, client: IpAddr, stranger: bool) -> Option<Place> {
        let mut taken = self.taken();
        let of_client = taken.by_client.get(&client).copied().unwrap_or(0);
        let kind = if stranger {
            taken.strangers += take(taken.strangers)?;
            Kind::Stranger
        } else if taken.seats < self.max && of_client < self.max_per_client {
            taken.seats += 1;
            *taken.by_client.entry(client).or_insert(0) += 1;
            Kind::Seat(client)
        } else {
            taken.standing += take(taken.standing)?;
            Kind::Standing
        };
        Some(Place { seats: self.clone(), kind })
    }

    /// A seat for a connection whose client is not yet known: it counts among all and for no client.
    pub fn unnamed(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.taken();
        (taken.seats < self.max).then(|| {
            taken.seats += 1;
            Place { seats: self.clone(), kind: Kind::Unnamed }
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(standing: usize) -> Option<usize> {
    (standing < STANDING).then_some(1)
}

impl Place {
    /// Whether it is a seat, in which a tunnel may be had.
    pub fn is_seat(&self) -> bool {
        matches!(self.kind, Kind::Seat(_))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        match self.kind {
            Kind::Seat(client) => {
                taken.seats = taken.seats.saturating_sub(1);
                if let Some(count) = taken.by_client.get_mut(&client) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        taken.by_client.remove(&client);
                    }
                }
            }
            Kind::Unnamed => taken.seats = taken.seats.saturating_sub(1),
            Kind::Standing => taken.standing = taken.standing.saturating_sub(1),
            Kind::Stranger => taken.strangers = taken.strangers.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_given_up_to_both_limits_and_given_back() {
        let seats = Arc::new(Seats::new(Some(3), Some(2)));
        let [a, b]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let first = seats.place(a, false).unwrap();
        let second = seats.place(a, false).unwrap();
        assert!(first.is_seat() && second.is_seat());
        assert!(!seats.place(a, false).unwrap().is_seat(), "over its own limit");
        let third = seats.place(b, false).unwrap();
        assert!(third.is_seat());
        assert!(!seats.place(b, false).unwrap().is_seat(), "over the limit of all");
        drop(first);
        assert!(seats.place(b, false).unwrap().is_seat());
        let unnamed = seats.unnamed().unwrap();
        assert!(seats.unnamed().is_none(), "over the limit of all");
        assert!(!seats.place(b, false).unwrap().is_seat(), "it takes a seat");
        drop((second, third, unnamed));
        let taken = seats.taken();
        assert_eq!((taken.seats, taken.by_client.len(), taken.standing, taken.strangers), (0, 0, 0, 0));
    }

    #[test]
    fn standing_room_is_bounded_and_strangers_have_their_own() {
        let seats = Arc::new(Seats::new(Some(1), Some(1)));
        let a: IpAddr = [10, 0, 0, 1].into();
        let strangers: Vec<_> = (0..STANDING).map(|_| seats.place(a, true).unwrap()).collect();
        assert!(seats.place(a, true).is_none());
        let _seat = seats.place(a, false).unwrap();
        let _standing: Vec<_> = (0..STANDING).map(|_| seats.place(a, false).unwrap()).collect();
        assert!(seats.place(a, false).is_none());
        drop(strangers);
        assert!(!seats.place(a, true).unwrap().is_seat());
        assert!(seats.place(a, false).is_none());
    }

    #[test]
    fn defaults_come_from_the_descriptor_limit() {
        let seats = Seats::new(None, None);
        assert!(seats.max() >= FEWEST && seats.max_per_client >= seats.max / 4);
        assert_eq!(Seats::new(Some(10), None).max_per_client, 3);
    }
}
