//! gRPC from the client's side, for load: one connection, one call, no sockets.
//!
//! Over [`crate::http2::client`], and not h2 and tonic as the product's own client, because
//! a load generator shares the machine with what it measures. Here a delivery costs some
//! ten nanoseconds beyond the system call that receives it; there it would cost as much as
//! it costs the server. Whatever a server sends that is against the protocol, or that has
//! no use here, is an error that names it.

mod grpc;
mod publish;
mod subscribe;
#[cfg(test)]
mod tests;

pub use publish::Publish;
pub use subscribe::Subscribe;

/// What a client offers its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The largest DATA frame that it takes, in bytes: from 16 KiB, which HTTP/2
    /// starts with, to 16 MiB less one byte.
    pub frame_bytes: u32,
    /// How much may be under way, in bytes: on the stream, and on the connection.
    pub window_bytes: u32,
}

impl Offer {
    /// The smallest and the largest [`frame_bytes`](Self::frame_bytes).
    pub const FRAME_BYTES: (u32, u32) = (16 << 10, (1 << 24) - 1);
    /// The smallest and the largest [`window_bytes`](Self::window_bytes).
    pub const WINDOW_BYTES: (u32, u32) = ((64 << 10) - 1, (1 << 31) - 1);
}

impl Default for Offer {
    /// What the product's own client offers: 1 MiB frames, 8 MiB under way.
    fn default() -> Self {
        Offer {
            frame_bytes: 1 << 20,
            window_bytes: 8 << 20,
        }
    }
}
