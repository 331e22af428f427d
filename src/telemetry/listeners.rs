//! What listeners count: handshakes.

use std::sync::Arc;

use super::count::Labelled;

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HandshakeResult {
    /// It was completed.
    Ok,
    /// TLS refused it, or the peer did, or it broke off.
    Failed,
    /// It took too long.
    Timeout,
}

impl HandshakeResult {
    /// Its name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            HandshakeResult::Ok => "ok",
            HandshakeResult::Failed => "failed",
            HandshakeResult::Timeout => "timeout",
        }
    }
}

/// Handshakes, by result and by whether an earlier session was resumed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshakes(Arc<Labelled<(HandshakeResult, bool)>>);

impl Handshakes {
    pub(crate) fn ended(&self, result: HandshakeResult, resumed: bool) {
        self.0.add((result, resumed), 1);
    }

    pub(crate) fn all(&self) -> Vec<(HandshakeResult, bool, u64)> {
        let all = self.0.all().into_iter();
        all.map(|((result, resumed), n)| (result, resumed, n))
            .collect()
    }
}
