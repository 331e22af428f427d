//! The graceful end of a connection (RFC 9113, section 6.8).
//!
//! A first GOAWAY names the highest stream that there can be, so that requests which cross
//! with it are still served. The answer to a PING behind it says that the peer has read it,
//! and a second GOAWAY names the last stream that is served.

/// What our PING carries, to know its answer by.
pub(super) const PING: [u8; 8] = *b"shutdown";

/// How far a graceful shutdown has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum GracefulShutdown {
    #[default]
    No,
    /// The peer was told to open no more streams.
    Announced,
    /// The peer has acknowledged that.
    Acknowledged,
}

impl GracefulShutdown {
    /// Begins it. Says whether it is to be announced.
    #[must_use]
    pub(super) fn begin(&mut self) -> bool {
        let begins = *self == GracefulShutdown::No;
        if begins {
            *self = GracefulShutdown::Announced;
        }
        begins
    }

    /// The peer has answered a PING. Says whether that acknowledges the announcement.
    #[must_use]
    pub(super) fn ping_acknowledged(&mut self, payload: [u8; 8]) -> bool {
        let acknowledges = *self == GracefulShutdown::Announced && payload == PING;
        if acknowledges {
            *self = GracefulShutdown::Acknowledged;
        }
        acknowledges
    }

    /// Whether the peer knows that no further stream is served.
    pub(super) fn is_acknowledged(self) -> bool {
        self == GracefulShutdown::Acknowledged
    }
}
