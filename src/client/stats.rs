//! [`Stats`]: what has happened to a gateway, in numbers.

/// What has happened to a [`Gateway`](super::Gateway) since it was made, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Attempts to subscribe.
    pub attempts: u64,
    /// Those that a server has accepted.
    pub subscriptions: u64,
    /// Of these, the ones that went on where the gateway had stopped.
    pub resumed: u64,
    /// And those that did not.
    pub fresh: u64,
    /// Times that it went on to another server.
    pub failovers: u64,
    /// Streams that were [renewed](super::Gateway::renew).
    pub renewals: u64,
    /// Renewals that failed, while the stream went on.
    pub failed_renewals: u64,
    /// Streams that ended, and attempts that failed.
    pub disconnects: u64,
    /// Of these, the ones that broke a promise of the contract.
    pub violations: u64,
    /// Events that were handed out, those of replays and those that came again included.
    pub events: u64,
    /// Gaps.
    pub gaps: u64,
    /// Events that were missed in those of which the count is known.
    pub missed_events: u64,
}
