//! The gateway's sessions: who is connected, what they receive, and that a revoked one
//! receives nothing and does nothing any more.
//!
//! A [`Router`] opens a [`Session`] for each client that is connected, and brings it the events for
//! its user. A [`Feed`] brings the router what the backend publishes. The room does no I/O, needs no
//! runtime, and only looks at a clock: whoever has a stream tells the feed of it.
//!
//! ```
//! use galaxy_push::gateway::{Beginning, Router};
//!
//! let (router, mut feed) = Router::builder().build();
//! feed.begin(Beginning::Lost); // the first stream
//!
//! let ticket = router.begin_authentication();
//! // ... ask the backend whether the session is valid, and then:
//! let mut session = router.open(ticket, "u1", "s1")?;
//! let request = session.enter().unwrap();
//!
//! // PushEvent { client_event { user_id: "u1", kind: "k", payload: "hi" } }
//! let event = b"\x0a\x0b\x0a\x02u1\x1a\x01k\x22\x02hi";
//! feed.deliver(&[event[..].into()]).unwrap();
//! assert_eq!(session.try_recv().unwrap().payload(), "hi");
//!
//! // PushEvent { session_invalidation { user_id: "u1" }, cursor }
//! let ban = b"\x12\x04\x12\x02u1\x1a\x181A2B3C4D5E6F-00000000002";
//! feed.deliver(&[ban[..].into()]).unwrap();
//! assert!(request.check().is_err());
//! assert!(session.try_recv().is_err());
//! # Ok::<(), galaxy_push::gateway::OpenError>(())
//! ```
//!
//! # What is promised
//!
//! Once [`Feed::deliver`] has returned from an invalidation:
//!
//! - no event is received by a session that it names, and no [`Guard`] of it passes;
//! - no session that it names is opened with a [`Ticket`] that was taken before it;
//! - no other session is touched.
//!
//! And when the gateway cannot know what was revoked, it refuses with an error of its own:
//!
//! - [`Stale`](Refusal::Stale), all of it, before the first stream, when nothing was heard from the
//!   backend for too long, and until the invalidations that were missed then are processed;
//! - [`Suspect`](Refusal::Suspect), each session, after invalidations were lost, until it is
//!   [validated](Router::suspects).
//!
//! A guard is asked before each effect: [`Guard::check`]. What is under way when the session ends can be
//! given up ([`Guard::run`]), and what is done cannot be undone.
//!
//! # Why it is so
//!
//! A gateway of a million sessions looks up another one for each event, and each lookup is a wait
//! for memory. So events are routed many at a time ([`Feed::deliver`]): their places in the table are
//! fetched side by side, then their sessions, and only then does each go into its queue. A
//! session is one allocation, its ids and its queue for one event included.
//!
//! There is one lock for each sixteenth of the users, which is held for microseconds. It is what
//! makes the promises simple: a session is opened, and its user's sessions are revoked, under the same
//! one. Tasks are woken, and events dropped, when it is released.

#![forbid(unsafe_code)]

#[cfg(feature = "client")]
mod driver;
mod end;
mod entry;
mod event;
mod feed;
mod guard;
#[cfg(feature = "client")]
mod leases;
#[cfg(all(test, galaxy_loom))]
mod models;
mod recent;
#[cfg(feature = "client")]
mod reporter;
mod router;
mod session;
mod stats;
mod suspects;
mod sync;
mod table;
#[cfg(all(test, not(galaxy_loom)))]
mod tests;
mod ticket;
mod users;
mod wakers;

#[cfg(feature = "client")]
pub use driver::{Application, Driver, DriverError, Verdict};
pub use end::{End, OpenError, Refusal, Revocation};
pub use entry::Overflow;
pub use event::Event;
pub use feed::{Beginning, Feed, FeedError, Missed};
pub use guard::Guard;
pub use router::{Builder, Router};
pub use session::{RecvError, Session, TryRecvError};
pub use stats::Stats;
pub use suspects::{Suspect, Suspects};
pub use ticket::Ticket;
