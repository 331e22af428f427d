//! What the tests that go over sockets share: a server on ports of its own, and its peers.
//!
//! | module | what is in it |
//! |---|---|
//! | [`harness`] | a server inside the test's process |
//! | [`process`] | the binary as a child process |
//! | [`sessions`] | a gateway with sessions, run by the SDK |
//! | [`http`] | requests to the admin listener, over HTTP/1.1 and HTTP/2 |
//! | [`grpc`] | gRPC as its generated clients speak it, and the methods' paths |
//! | [`h2_client`] | calls over HTTP/2 without a gRPC library: bodies byte for byte |
//! | [`wire`] | a connection frame by frame, for peers that keep to no rule |
//! | [`frames`], [`header_block`] | the frames and header blocks that such a peer sends |
//! | [`goodbye`] | why a server ends a connection: one table of codes and texts |
//! | [`certificates`] | a CA, what it signs, and TLS clients |
//! | [`tls`] | a CA, certificates in files, and a server of TLS before any other |
//! | [`tokens`] | access by tokens that a test gives out and takes back |
//! | [`events`] | events that differ from one another |

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses its own part of this"
)]

pub mod certificates;
pub mod events;
pub mod frames;
pub mod goodbye;
pub mod grpc;
pub mod h2_client;
pub mod harness;
pub mod header_block;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "cli")]
pub mod process;
#[cfg(all(feature = "client", feature = "server"))]
pub mod sessions;
#[cfg(feature = "server")]
pub mod tls;
pub mod tokens;
pub mod wire;

use std::future::Future;
use std::time::Duration;

pub use events::{event, invalidation, large_event};
pub use grpc::{Subscription, connect, connect_narrow, missed, publish, reason, subscribe};
pub use harness::Harness;

/// Long enough that only a hang takes longer.
pub const HANG: Duration = Duration::from_secs(60);

/// Waits for `future`, but not forever.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(HANG, future).await {
            Ok(output) => output,
            Err(_) => panic!("hangs at {caller}"),
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn until(mut condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    soon(async move {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}
