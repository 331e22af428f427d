//! The engine: publishers put events into a ring of frames, subscribers read them
//! as batches of ready frames, and neither waits for the other.
//!
//! It is the whole product but for the network: it knows no sockets and no runtime, and
//! takes any clock.
//!
//! **An event's way.** A [`Publisher`] moves the *claim* word, and has a sequence and
//! some bytes of a *segment* for itself. It copies the *frame* there and writes the
//! event's *index* entry, which commits it. Then it moves the *head* over all that is
//! committed; from there on everybody may read it. If somebody is parked, one look at
//! the *waiters* tells, and the notifier is scheduled.
//!
//! **Two ways to feed it.** Any number of publishers, and the ring gives the sequences; or
//! one [`Appender`], and a log elsewhere gives them.
//!
//! **A read's way.** A [`Subscriber`] begins a turn of its *subscription*, loads the
//! head, and finds the frames after its position in the segment that it has a *lease*
//! on. It ends the turn: if nobody took over meanwhile, the [`Batch`] is its own.
//!
//! | file | noun |
//! |---|---|
//! | `frame` | an event as it goes over the wire |
//! | `segment`, `pool` | the memory that frames stand in, used again when nobody holds it |
//! | `account` | how much of it there is, and whose it is |
//! | `slots` | the segments that are in the ring |
//! | `index` | where each event ends, and whether it is committed |
//! | `claim` | the word that hands out sequences and space |
//! | `ring` | all of these together: publish, read, forget |
//! | `batch` | what a subscriber is given |
//! | `subscription` | a gateway's hold on its id, and taking over |
//! | `registry` | gateway id to subscription |
//! | `waiters`, `waker_cell` | parked subscribers, and who wakes them |
//! | `inbox`, `revocations` | invalidations on their way into the table of the newest |
//! | `replay` | what a gateway reads of that table |
//! | `shared` | what the public ends share |
//! | `error` | why an operation failed |
//! | `time` | the clock, held to go forward |
//! | `sync` | atomics and shared pointers: the real ones, or a model checker's |
//! | [`Builder`], [`Engine`], [`Publisher`], [`Appender`], [`Subscriber`] | the public ends; `handle` has the engine |
//!
//! `ARCHITECTURE.md` tells why it is built this way, and what is promised.
//!
//! # It must never
//!
//! - run code that is not its own between a claim and its commit;
//! - let a reference cover bytes that are not published;
//! - do work for each subscriber in a publish.
//!
//! ```
//! use galaxy_push::engine::{Engine, TryRecvError};
//! use galaxy_push::event::Event;
//!
//! let engine = Engine::builder().build()?;
//! let mut gateway = engine.subscribe("gateway-1", "")?;
//! assert_eq!(gateway.try_recv().unwrap_err(), TryRecvError::Empty);
//!
//! // PushEvent { client_event: { user_id: "u", kind: "k" } }
//! let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k")?;
//! let cursor = engine.publisher().publish(event)?;
//!
//! let batch = gateway.try_recv()?;
//! assert_eq!((batch.first(), batch.len()), (cursor, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod account;
mod appender;
mod batch;
mod builder;
mod claim;
mod error;
mod frame;
mod handle;
mod inbox;
mod index;
mod observer;
mod pool;
mod publisher;
mod registry;
mod replay;
mod revocations;
mod ring;
mod segment;
mod shared;
mod slots;
mod subscriber;
mod subscription;
mod sync;
mod time;
mod waiters;
mod waker_cell;

#[cfg(all(test, galaxy_loom))]
mod models;
#[cfg(all(test, not(galaxy_loom)))]
mod tests;

pub use self::appender::{Appended, Appender};
pub use self::batch::Batch;
pub use self::builder::{BuildError, Builder, Limits};
pub use self::error::{
    AppendError, PublishError, RecvError, ReplayError, SubscribeError, TryRecvError,
};
pub use self::frame::{Events, OVERHEAD_BYTES as FRAME_OVERHEAD_BYTES};
pub use self::handle::{Engine, RevocationStats, Stats};
pub use self::observer::Observer;
pub use self::publisher::{Published, Publisher};
pub use self::replay::Replay;
pub use self::subscriber::{DEFAULT_MAX_BATCH_BYTES, Deliveries, Ender, Resume, Start, Subscriber};
pub use self::waiters::Notifier;
