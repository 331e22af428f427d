//! Failed credentials, rationed by the address that they come from.
//!
//! A token has 256 bits, so nobody guesses one. What is rationed is what failures cost: lines
//! of the log, and callers that try again at once. A good credential always passes, whatever
//! others do from the same address: it is looked at first, and only a failure is counted.
//!
//! The table has a fixed size. An address that is not in it takes the place of the one that
//! has failed longest ago among a few, so somebody with many addresses can make others
//! forgotten, and gains their ration and no more.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Peer;

/// How many failures may come at once.
const BURST: u32 = 10;

/// How often one more may come.
const EVERY: Duration = Duration::from_secs(1);

/// How many sets of places there are, each behind a lock of its own.
const SETS: usize = 512;

/// How many addresses a set has places for.
const PLACES: usize = 8;

/// Whose failures are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4([u8; 4]),
    /// The network of an IPv6 address, `/64`: its holder has all the addresses in it.
    V6([u8; 8]),
    Unix(Option<u32>),
    Unknown,
}

impl From<Peer> for Source {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(address) => match address.ip().to_canonical() {
                IpAddr::V4(ip) => Source::V4(ip.octets()),
                IpAddr::V6(ip) => {
                    let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                    Source::V6([a, b, c, d, e, f, g, h])
                }
            },
            Peer::Unix { uid } => Source::Unix(uid),
            Peer::Unknown => Source::Unknown,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    source: Source,
    /// When nothing will be left of its failures.
    forgiven_at: Instant,
}

/// Who has failed, and how much is left of each one's ration.
pub(super) struct Failures {
    hasher: RandomState,
    sets: Box<[Mutex<[Option<Place>; PLACES]>]>,
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failures").finish_non_exhaustive()
    }
}

impl Default for Failures {
    fn default() -> Self {
        Failures {
            hasher: RandomState::new(),
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Failures {
    /// Counts a failure.
    ///
    /// # Errors
    ///
    /// It is one too many: how long to wait. Failures that are too many do not count, so one
    /// more may come after that.
    pub(super) fn count(&self, peer: Peer, now: Instant) -> Result<(), Duration> {
        let source = Source::from(peer);
        let set = self.hasher.hash_one(source) % SETS as u64;
        let Some(set) = usize::try_from(set).ok().and_then(|set| self.sets.get(set)) else {
            return Ok(());
        };
        let mut places = set.lock().unwrap_or_else(PoisonError::into_inner);
        let found = places
            .iter()
            .position(|place| place.as_ref().is_some_and(|place| place.source == source));
        // The one that is forgiven first has failed the longest ago, or the least.
        let oldest = || {
            let forgiven = |place: &Option<Place>| place.map(|place| place.forgiven_at);
            let order = places.iter().enumerate();
            order
                .min_by_key(|(_, place)| forgiven(place))
                .map(|(at, _)| at)
        };
        let Some(place) = found.or_else(oldest).and_then(|at| places.get_mut(at)) else {
            return Ok(());
        };
        let kept = place.filter(|_| found.is_some());
        let forgiven_at = kept.map_or(now, |place| place.forgiven_at.max(now));
        let next = forgiven_at + EVERY;
        let most = now + EVERY * BURST;
        if next > most {
            return Err(next - most);
        }
        *place = Some(Place {
            source,
            forgiven_at: next,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn tcp(address: &str) -> Peer {
        let address: SocketAddr = address.parse().expect("an address");
        Peer::Tcp(address)
    }

    #[test]
    fn ten_failures_come_at_once_and_then_one_a_second() {
        let failures = Failures::default();
        let now = Instant::now();
        let peer = tcp("192.0.2.1:1");
        for _ in 0..BURST {
            assert_eq!(failures.count(peer, now), Ok(()));
        }
        for _ in 0..100 {
            assert_eq!(failures.count(peer, now), Err(EVERY));
        }
        assert_eq!(failures.count(peer, now + EVERY / 2), Err(EVERY / 2));
        assert_eq!(failures.count(peer, now + EVERY), Ok(()));
        assert_eq!(failures.count(peer, now + EVERY), Err(EVERY));
        let later = now + EVERY * (BURST + 1);
        for _ in 0..BURST {
            assert_eq!(failures.count(peer, later), Ok(()));
        }
        assert!(failures.count(peer, later).is_err());
    }

    #[test]
    fn an_address_is_counted_whatever_its_port_and_form() {
        let failures = Failures::default();
        let now = Instant::now();
        for (at, same) in [
            ["192.0.2.1:1", "192.0.2.1:2", "[::ffff:192.0.2.1]:3"],
            [
                "[2001:db8::1]:1",
                "[2001:db8::2]:1",
                "[2001:db8::ffff:0:0:1]:9",
            ],
        ]
        .iter()
        .enumerate()
        {
            for count in 0..BURST as usize {
                let peer = tcp(same[count % same.len()]);
                assert_eq!(failures.count(peer, now), Ok(()), "{at} {count}");
            }
            for one in same {
                assert!(failures.count(tcp(one), now).is_err(), "{one}");
            }
        }
        for other in ["192.0.2.2:1", "[2001:db8:0:1::1]:1"] {
            assert_eq!(failures.count(tcp(other), now), Ok(()));
        }
        for uid in [None, Some(0), Some(1)] {
            assert_eq!(failures.count(Peer::Unix { uid }, now), Ok(()));
        }
    }

    #[test]
    fn many_addresses_take_no_more_memory_and_the_newest_stay_counted() {
        let failures = Failures::default();
        let now = Instant::now();
        for number in 0..100_000u32 {
            let address = SocketAddr::from((number.to_be_bytes(), 1));
            let _ = failures.count(Peer::Tcp(address), now);
        }
        let peer = tcp("203.0.113.9:1");
        for _ in 0..BURST {
            assert_eq!(failures.count(peer, now), Ok(()));
        }
        assert!(failures.count(peer, now).is_err());
        assert_eq!(failures.sets.len(), SETS);
    }
}
